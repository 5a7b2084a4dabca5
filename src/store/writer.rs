//! The one writer: everything that waits goes into one transaction, one fsync pays for all of it.
//!
//! Intake goes first in each group, so that its latency does not wait behind a pipeline batch. A caller whose job is
//! dropped without an answer knows that nothing of it was committed, or that the outcome of the commit is unknown:
//! both mean "not stored" to a platform, and repeating is harmless.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::WriteTransaction;
use tokio::sync::oneshot;

use super::database::Database;
use super::inbox::SEQ_TO_WEBHOOK;
use super::reference::ReferenceCell;
use super::{Levels, Snapshot, StoreError};

/// Webhooks in one commit at most: a group of 400 connections fits with room to spare.
const GROUP_WEBHOOKS_MAX: usize = 1024;
/// Bytes of webhooks in one commit at most, so that big bodies do not make a commit long.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Time for other work in one commit, in times of what the last commit took: the larger the file, the more a commit
/// costs, and the more has to share it.
const GROUP_WORK_COMMITS: u32 = 3;
/// The bounds of that time: intake that arrives meanwhile waits about this long more.
const GROUP_WORK_TIME: (Duration, Duration) =
    (Duration::from_millis(15), Duration::from_millis(60));
/// Senders at once from which on they are taken in two halves: the processor is scarcer than the disk then.
const CROWD: usize = 200;
/// How long a group waits for those whom the last one answered.
const LINGER: Duration = Duration::from_millis(1);
/// Bytes of webhooks waiting for the writer at most; past it intake is told to refuse.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Backoff between attempts to reopen a failed store.
const REOPEN_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Runs in the transaction; what it returns is called after a successful commit.
pub(super) type Work = Box<dyn FnOnce(&WriteTransaction) -> Result<Finish, StoreError> + Send>;
pub(super) type Finish = Box<dyn FnOnce() + Send>;

/// One webhook, encoded, and who waits for its sequence number.
struct Intake {
    record: Vec<u8>,
    reply: oneshot::Sender<u64>,
}

/// The handle to the writer's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    intake: VecDeque<Intake>,
    intake_bytes: usize,
    /// How many webhooks the writer waits for; it is woken when that many are there.
    wanted: usize,
    work: VecDeque<Work>,
    closed: bool,
    failed: bool,
}

/// Why a webhook was not even queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too much waits already.
    Full,
    /// The store has failed and is not open again yet, or is closed.
    Unavailable,
}

impl Writer {
    pub(super) fn start(
        database: Arc<Database>,
        levels: Arc<Levels>,
        reference: Arc<ReferenceCell>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        let run = Run {
            shared: Arc::clone(&shared),
            database,
            levels,
            reference,
            work_time: GROUP_WORK_TIME.0,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run_or_abort(run))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Queues a webhook; the receiver gets its sequence number once it is durable.
    pub(super) fn intake(&self, record: Vec<u8>) -> Result<oneshot::Receiver<u64>, Refused> {
        let (reply, stored) = oneshot::channel();
        let mut queue = self.shared.lock();
        if queue.closed || queue.failed {
            return Err(Refused::Unavailable);
        }
        if queue.intake_bytes + record.len() > WAITING_BYTES_MAX {
            return Err(Refused::Full);
        }
        queue.intake_bytes += record.len();
        queue.intake.push_back(Intake { record, reply });
        let enough = queue.intake.len() >= queue.wanted;
        drop(queue);
        if enough {
            self.shared.wake.notify_one();
        }
        Ok(stored)
    }

    /// Queues work; dropped unrun when the store has failed or is closed.
    pub(super) fn work(&self, work: Work) {
        let mut queue = self.shared.lock();
        if queue.closed || queue.failed {
            return;
        }
        queue.work.push_back(work);
        drop(queue);
        self.shared.wake.notify_one();
    }

    pub(super) fn is_available(&self) -> bool {
        let queue = self.shared.lock();
        !queue.closed && !queue.failed
    }
}

impl Drop for Writer {
    /// Commits what is queued, then ends the thread.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node whose writer is gone could only refuse webhooks. It stops instead: what is acknowledged is on disk, and the
/// service manager starts it again.
fn run_or_abort(run: Run) {
    if catch_unwind(AssertUnwindSafe(|| run.run())).is_err() {
        // Whatever becomes of the line, the process stops.
        let _ = catch_unwind(|| tracing::error!("the store's writer panicked; the process stops"));
        std::process::abort();
    }
}

struct Run {
    shared: Arc<Shared>,
    database: Arc<Database>,
    levels: Arc<Levels>,
    reference: Arc<ReferenceCell>,
    /// Time for other work in the next commit.
    work_time: Duration,
}

struct Group {
    intake: Vec<Intake>,
    work: VecDeque<Work>,
}

impl Run {
    fn run(mut self) {
        let mut last_intake = 0;
        while let Some(group) = self.next_group(last_intake) {
            last_intake = group.intake.len();
            if let Err(error) = self.commit(group) {
                tracing::error!(%error, "the store failed; reopening it");
                self.recover();
            }
        }
    }

    /// Waits for work; `None` once closed and empty.
    fn next_group(&self, last_intake: usize) -> Option<Group> {
        let mut queue = self.shared.lock();
        queue.wanted = 1;
        while queue.intake.is_empty() && queue.work.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self
                .shared
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut queue = self.linger(queue, last_intake);
        let intake = take_intake(&mut queue);
        let work = std::mem::take(&mut queue.work);
        Some(Group { intake, work })
    }

    /// A commit costs nearly the same for one webhook as for many. Those who were answered by the last one send again
    /// while it lasts, so a moment's wait brings the group back to its size. Who is here and who was just answered are
    /// about all senders there are; of a crowd, one half is committed while the other half's requests are being read. A
    /// lone sender never waits.
    fn linger<'q>(
        &self,
        mut queue: MutexGuard<'q, Queue>,
        last_intake: usize,
    ) -> MutexGuard<'q, Queue> {
        let here = queue.intake.len();
        let everybody = here + last_intake;
        let wanted = if everybody < CROWD {
            last_intake
        } else {
            (everybody / 2).min(GROUP_WEBHOOKS_MAX)
        };
        if here >= wanted || here == 0 || !queue.work.is_empty() {
            return queue;
        }
        queue.wanted = wanted;
        let incomplete = |queue: &mut Queue| {
            queue.intake.len() < wanted && queue.work.is_empty() && !queue.closed
        };
        let waited = self
            .shared
            .wake
            .wait_timeout_while(queue, LINGER, incomplete);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// One transaction. Work that fails takes the transaction down with it, never the intake beside it.
    fn commit(&mut self, mut group: Group) -> Result<(), StoreError> {
        let txn = self.database.begin_write()?;
        let last = self.append(&txn, &group.intake)?;
        match run_work(&txn, &mut group.work, self.work_time) {
            Ok(finishes) => self.finish(txn, group.intake, last, finishes)?,
            Err(error) => {
                tracing::error!(%error, "work was rolled back");
                txn.abort()?;
                let txn = self.database.begin_write()?;
                let last = self.append(&txn, &group.intake)?;
                self.finish(txn, group.intake, last, Vec::new())?;
            }
        }
        self.put_back(group.work);
        Ok(())
    }

    /// Appends webhooks; returns the sequence number of the last.
    fn append(&self, txn: &WriteTransaction, intake: &[Intake]) -> Result<u64, StoreError> {
        let mut seq = self.levels.last_seq();
        if intake.is_empty() {
            return Ok(seq);
        }
        let mut inbox = txn.open_table(SEQ_TO_WEBHOOK)?;
        for webhook in intake {
            seq += 1;
            let taken = inbox.insert(seq, webhook.record.as_slice())?.is_some();
            assert!(!taken, "sequence number {seq} was given out twice");
        }
        Ok(seq)
    }

    fn finish(
        &mut self,
        txn: WriteTransaction,
        intake: Vec<Intake>,
        last: u64,
        finishes: Vec<Finish>,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        txn.commit()?;
        let (least, most) = GROUP_WORK_TIME;
        self.work_time = (begun.elapsed() * GROUP_WORK_COMMITS).clamp(least, most);
        let first = last + 1 - intake.len() as u64;
        self.levels.received_up_to(last);
        for (seq, webhook) in (first..).zip(intake) {
            // A platform that hung up meanwhile will send again; the lead is deduplicated then.
            let _ = webhook.reply.send(seq);
        }
        for finish in finishes {
            finish();
        }
        Ok(())
    }

    /// Work that did not fit into this group goes first in the next.
    fn put_back(&self, rest: VecDeque<Work>) {
        let mut queue = self.shared.lock();
        for work in rest.into_iter().rev() {
            queue.work.push_front(work);
        }
    }

    /// Refuses everything until the store is open again: redb accepts nothing after an I/O error.
    fn recover(&self) {
        let mut backoff = REOPEN_BACKOFF.0;
        loop {
            let mut queue = self.shared.lock();
            queue.failed = true;
            queue.intake.clear();
            queue.intake_bytes = 0;
            queue.work.clear();
            if queue.closed {
                return;
            }
            drop(queue);
            match self.reopen() {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "the store cannot be reopened yet"),
            }
            self.rest(backoff);
            backoff = (backoff * 2).min(REOPEN_BACKOFF.1);
        }
        tracing::info!("the store is open again");
        self.shared.lock().failed = false;
    }

    /// Waits, but not on when the store is closed meanwhile.
    fn rest(&self, backoff: Duration) {
        let queue = self.shared.lock();
        let rested = self
            .shared
            .wake
            .wait_timeout_while(queue, backoff, |queue| !queue.closed);
        drop(rested);
    }

    /// The commit that failed may be on disk after all: what is kept in memory beside the file is read anew.
    fn reopen(&self) -> Result<(), StoreError> {
        self.database.reopen()?;
        let snapshot = Snapshot::open(&self.database.begin_read()?)?;
        self.levels.read_again(&snapshot)?;
        self.reference
            .reload(|| Snapshot::open(&self.database.begin_read()?))
    }
}

fn take_intake(queue: &mut Queue) -> Vec<Intake> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    while let Some(next) = queue.intake.front() {
        let full = taken.len() == GROUP_WEBHOOKS_MAX || bytes + next.record.len() > GROUP_BYTES_MAX;
        if full && !taken.is_empty() {
            break;
        }
        bytes += next.record.len();
        taken.extend(queue.intake.pop_front());
    }
    queue.intake_bytes -= bytes;
    taken
}

/// Runs work from the front until time is up; at least one piece.
fn run_work(
    txn: &WriteTransaction,
    work: &mut VecDeque<Work>,
    time: Duration,
) -> Result<Vec<Finish>, StoreError> {
    let begun = Instant::now();
    let mut finishes = Vec::new();
    while let Some(next) = work.pop_front() {
        // A fault in one piece of work must not end the only thread that stores webhooks.
        let done = catch_unwind(AssertUnwindSafe(|| next(txn)));
        finishes.push(done.unwrap_or(Err(StoreError::Panicked))?);
        if begun.elapsed() > time {
            break;
        }
    }
    Ok(finishes)
}
