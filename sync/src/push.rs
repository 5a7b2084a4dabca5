//! Pushes what the outbox holds: take a batch, and stage by stage settle, render, write, conclude.
//!
//! A pass goes through the outbox once, batch by batch; what got no verdict is met again in the next pass. A pass ends
//! at the first document whose outcome is unknown, so that nothing that refers to it gets ahead of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::bootstrap::SchemaGate;
use crate::client::Upstream;
use crate::erasures::ErasureGate;
use crate::error::PassError;
use crate::ports::{Erasures, Outbox, Pending, PortError, Rendered, Row, Settlement, Verdict};
use crate::settle::settle;
use crate::write::{COMMAND_DOCUMENTS_MAX, Outcome, UnknownCodes, Writer};

/// How long an idle engine may be left alone when nothing wakes it.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// How long to wait for the host to apply erasures: nothing is pushed meanwhile.
const ERASING_WAIT: Duration = Duration::from_millis(100);

/// Batches on their way in one step, each a stage behind the one before it. More than MongoDB and this side can work on
/// at the same time only cost memory.
const BATCHES_MAX: usize = 4;

/// How often a stage is settled anew at once because documents turned out to be gone.
const SETTLE_ROUNDS: usize = 3;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do at once.
    Progress {
        /// Documents that reached MongoDB, or events that came from it.
        documents: usize,
    },
    /// Nothing to do.
    Idle {
        /// How long to wait at most.
        wait: Duration,
    },
}

/// Pushes documents, a few batches a step.
pub struct PushEngine {
    upstream: Arc<Upstream>,
    outbox: Arc<dyn Outbox>,
    /// Where the pass has got to.
    after: u64,
    /// Whether the pass has changed anything.
    moved: AtomicBool,
    /// Documents in one command: halved when MongoDB falls behind, grown by a tenth when it keeps up.
    per_command: usize,
    schema: SchemaGate,
    erasures: Option<ErasureGate>,
    unknown: UnknownCodes,
}

impl PushEngine {
    /// An engine that pushes from `outbox`.
    pub fn new(upstream: Arc<Upstream>, outbox: Arc<dyn Outbox>) -> Self {
        Self {
            upstream,
            outbox,
            after: 0,
            moved: AtomicBool::new(false),
            per_command: COMMAND_DOCUMENTS_MAX,
            schema: SchemaGate::default(),
            erasures: None,
            unknown: UnknownCodes::default(),
        }
    }

    /// The same, which pushes nothing before `erasures` are read and applied (R38).
    #[must_use]
    pub fn with_erasures(mut self, erasures: Arc<dyn Erasures>) -> Self {
        self.erasures = Some(ErasureGate::new(erasures));
        self
    }

    /// Pushes a few batches. Bounded by the deadlines of its operations. Not to be cancelled half-way: nothing would be
    /// lost, but work would be done again.
    ///
    /// # Errors
    /// Where MongoDB or the store fails; the next step begins a new pass. See [`PushEngine::rest`].
    pub async fn step(&mut self) -> Result<Step, PassError> {
        let outcome = self.try_step().await;
        match &outcome {
            Ok(_) => {
                self.per_command =
                    (self.per_command + self.per_command / 10 + 1).min(COMMAND_DOCUMENTS_MAX)
            }
            Err(error) => {
                self.after = 0;
                self.moved.store(false, Ordering::Relaxed);
                if let Some(gate) = &mut self.erasures {
                    gate.close();
                }
                if matches!(error, PassError::Upstream(error) if error.asks_for_less()) {
                    self.per_command = (self.per_command / 2).max(1);
                }
            }
        }
        outcome
    }

    /// Waits until a step is worth trying again after `error`. May be cancelled.
    pub async fn rest(&self, error: &PassError) {
        tokio::time::sleep(error.pause()).await;
        self.upstream.ready().await;
    }

    async fn try_step(&mut self) -> Result<Step, PassError> {
        if let Some(gate) = &mut self.erasures
            && !gate.pass(&self.upstream).await?
        {
            return Ok(Step::Idle { wait: ERASING_WAIT });
        }
        let batches = self.take().await?;
        let Some(last) = batches.iter().flat_map(|batch| newest_place(batch)).max() else {
            return Ok(self.end_of_pass());
        };
        self.schema.pass(&self.upstream).await?;
        let documents = self.push_all(batches).await?;
        self.after = last.max(self.after + 1);
        Ok(Step::Progress { documents })
    }

    /// The next batches, at most [`BATCHES_MAX`].
    async fn take(&self) -> Result<Vec<Vec<Pending>>, PassError> {
        let limit = self.per_command * self.outbox.collections().len();
        let mut after = self.after;
        let mut batches = Vec::new();
        while batches.len() < BATCHES_MAX {
            let batch = self.ask(move |outbox| outbox.take(after, limit)).await?;
            let Some(last) = newest_place(&batch) else {
                break;
            };
            after = last.max(after + 1);
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Pushes batches one behind the other: each enters a stage when the one before it has left it. So while MongoDB
    /// writes one batch the next is looked up and rendered, and parents are still pushed before their children.
    async fn push_all(&mut self, batches: Vec<Vec<Pending>>) -> Result<usize, PassError> {
        let mut ahead = None;
        let mut pushes = Vec::with_capacity(batches.len());
        for batch in batches {
            let (left, follow) = watch::channel(0);
            pushes.push(self.push(
                batch,
                Gate {
                    ahead: ahead.replace(follow),
                    left,
                },
            ));
        }
        let outcomes = join_all(pushes).await;
        let mut documents = 0;
        for outcome in outcomes {
            documents += outcome?;
        }
        Ok(documents)
    }

    fn end_of_pass(&mut self) -> Step {
        self.after = 0;
        if self.moved.swap(false, Ordering::Relaxed) {
            Step::Progress { documents: 0 }
        } else {
            Step::Idle { wait: IDLE_WAIT }
        }
    }

    async fn push(&self, mut pending: Vec<Pending>, mut gate: Gate) -> Result<usize, PassError> {
        let mut done = Vec::new();
        let mut failure = None;
        for (number, stage) in self.outbox.stages().iter().enumerate() {
            if !gate.may_enter(number).await {
                // The batch ahead has failed, and tells why.
                break;
            }
            let rows: Vec<_> = pending
                .extract_if(.., |pending| stage.contains(&pending.row.collection))
                .collect();
            if !rows.is_empty()
                && let Err(error) = self.push_stage(rows, &mut done).await
            {
                failure = Some(error);
                break;
            }
            gate.leave(number);
        }
        let documents = done.len();
        self.conclude(done).await?;
        failure.map_or(Ok(documents), Err)
    }

    /// Pushes one stage. What is done goes to `done`; other verdicts are concluded at once, for the stages after.
    async fn push_stage(
        &self,
        rows: Vec<Pending>,
        done: &mut Vec<(Pending, Verdict)>,
    ) -> Result<(), PassError> {
        let rows = self.settle(rows).await?;
        let shared = Arc::clone(&rows);
        let rendered = self.ask(move |outbox| outbox.render(&shared)).await?;
        let Outcome { verdicts, error } = self.write(&rows, rendered).await;
        let verdicts = verdicts
            .into_iter()
            .map(|(at, verdict)| (rows[at].clone(), verdict));
        let (mut finished, others): (Vec<_>, Vec<_>) =
            verdicts.partition(|(_, verdict)| *verdict == Verdict::Done);
        done.append(&mut finished);
        self.conclude(others).await?;
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Settles the rows of a stage; those that could not be are left out of the pass.
    async fn settle(&self, rows: Vec<Pending>) -> Result<Arc<Vec<Pending>>, PassError> {
        let rows = Arc::new(rows);
        let mut gone = HashSet::new();
        for _ in 0..SETTLE_ROUNDS {
            let shared = Arc::clone(&rows);
            let unsettled = self.ask(move |outbox| outbox.unsettled(&shared)).await?;
            if unsettled.is_empty() {
                return Ok(rows);
            }
            let settled = settle(&self.upstream, self.outbox.collections(), unsettled).await?;
            gone = gone_among(&settled);
            self.ask(move |outbox| outbox.settle(settled)).await?;
            if gone.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Arc::new(
            rows.iter()
                .filter(|pending| !gone.contains(&pending.row))
                .cloned()
                .collect(),
        ))
    }

    /// Writes to all collections of a stage at the same time.
    async fn write(&self, rows: &[Pending], rendered: Vec<Rendered>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut writers: Vec<Writer<'_>> = Vec::new();
        for (at, (pending, rendered)) in rows.iter().zip(rendered).enumerate() {
            match rendered {
                Rendered::Nothing => outcome.verdicts.push((at, Verdict::Done)),
                Rendered::Blocked { by } => outcome.verdicts.push((at, Verdict::Blocked { by })),
                Rendered::Damaged { message } => {
                    outcome.verdicts.push((at, Verdict::Damaged { message }));
                }
                write => self
                    .writer(&mut writers, pending.row.collection)
                    .add(at, write),
            }
        }
        for part in join_all(writers.into_iter().map(Writer::run)).await {
            outcome.merge(part);
        }
        outcome
    }

    fn writer<'a, 'w>(
        &'a self,
        writers: &'w mut Vec<Writer<'a>>,
        collection: u8,
    ) -> &'w mut Writer<'a> {
        let name = self.outbox.collections()[usize::from(collection)];
        let at = writers
            .iter()
            .position(|writer| writer.collection == name)
            .unwrap_or_else(|| {
                writers.push(Writer::new(
                    &self.upstream,
                    name,
                    self.per_command,
                    &self.unknown,
                ));
                writers.len() - 1
            });
        &mut writers[at]
    }

    async fn conclude(&self, verdicts: Vec<(Pending, Verdict)>) -> Result<(), PassError> {
        if verdicts.is_empty() {
            return Ok(());
        }
        // A document that is blocked again is no progress: passes over blocked documents alone must come to rest.
        let moved = verdicts
            .iter()
            .any(|(_, verdict)| !matches!(verdict, Verdict::Blocked { .. }));
        self.moved.fetch_or(moved, Ordering::Relaxed);
        Ok(self.ask(move |outbox| outbox.conclude(verdicts)).await?)
    }

    /// Asks the outbox something on a blocking thread.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Outbox) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let outbox = Arc::clone(&self.outbox);
        blocking(move || question(outbox.as_ref())).await
    }
}

/// Keeps a batch behind the one ahead of it.
struct Gate {
    /// How many stages the batch ahead has left; `None` for the first.
    ahead: Option<watch::Receiver<usize>>,
    left: watch::Sender<usize>,
}

impl Gate {
    /// Waits until the batch ahead has left the stage; false where it never will.
    async fn may_enter(&mut self, stage: usize) -> bool {
        match &mut self.ahead {
            None => true,
            Some(ahead) => ahead.wait_for(|left| *left > stage).await.is_ok(),
        }
    }

    fn leave(&self, stage: usize) {
        self.left.send_replace(stage + 1);
    }
}

/// Where the next batch begins: after the newest of the documents' first tickets.
fn newest_place(batch: &[Pending]) -> Option<u64> {
    batch
        .iter()
        .filter_map(|pending| pending.tickets.first())
        .max()
        .copied()
}

/// Runs a port's method on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(PortError(Box::new(error))),
    }
}

fn gone_among(settled: &[(Row, Settlement)]) -> HashSet<Row> {
    settled
        .iter()
        .filter(|(_, settlement)| *settlement == Settlement::Gone)
        .map(|(row, _)| *row)
        .collect()
}
