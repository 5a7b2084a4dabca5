//! The store: one redb file, one writer, readers that never block.
//!
//! Must not know: HTTP, web pages, what a lead means to anyone. It keeps webhooks, tasks, documents, the change log
//! and the replica of reference data, and answers the ports of `inlet-sync`.

mod activity;
pub mod changes;
mod codec;
pub mod compaction;
mod database;
pub mod deliveries;
pub mod documents;
pub mod erasures;
pub mod events;
pub mod inbox;
pub mod jobs;
mod lead_errors;
pub mod listing;
pub mod outbox;
pub mod reference;
pub mod retention;
pub mod sample;
pub mod tables;
pub mod tasks;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{ReadableTable, ReadableTableMetadata};
use tokio::sync::{Notify, oneshot};

use crate::model::Webhook;
use compaction::Compacted;
use database::Database;
pub use database::Opener;
use reference::ReferenceCell;
pub use tables::{Snapshot, Tables};
use writer::{Refused, Writer};

/// The local store of one node.
pub struct Store {
    writer: Writer,
    database: Arc<Database>,
    levels: Arc<Levels>,
    reference: Arc<ReferenceCell>,
    signals: Signals,
    identity: Identity,
    path: Option<PathBuf>,
    compacted: Option<Compacted>,
}

/// Who this node is (R40).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The configured id, or one generated once and kept.
    pub node: String,
    /// Rises with each restore.
    pub epoch: u32,
    /// What it was called before: ids of webhooks and deliveries that were told then are this store's, too.
    pub earlier_names: Vec<String>,
}

impl Identity {
    /// Whether this store's webhooks and deliveries are, or once were, named after `node`.
    #[must_use]
    pub fn has_been(&self, node: &str) -> bool {
        self.node == node || self.earlier_names.iter().any(|name| name == node)
    }
}

/// Hints that something was committed. Polling is the fallback; a missed hint costs time, never a webhook.
#[derive(Default)]
pub struct Signals {
    /// Webhooks or tasks for the pipeline.
    pub pipeline: Notify,
    /// Facebook leads to fetch.
    pub graph: Notify,
    /// Documents to push.
    pub push: Notify,
    /// Facebook tokens to renew.
    pub tokens: Notify,
    /// Live events to tell.
    pub events: Notify,
    /// Erasures to go on with.
    pub erasures: Notify,
    /// Notifications to send, by the channel's number.
    pub deliveries: [Notify; 3],
}

impl Signals {
    /// Something may be due on any channel.
    pub fn wake_deliveries(&self) {
        self.deliveries.iter().for_each(Notify::notify_one);
    }
}

/// Positions that are read far more often than written, kept beside the file.
#[derive(Debug, Default)]
pub struct Levels {
    last_seq: AtomicU64,
    cursor: AtomicU64,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// redb answered an error: disk full, I/O, corruption.
    #[error("the store cannot be read or written: {0}")]
    Redb(#[source] Box<redb::Error>),
    /// A record does not hold what was written into it.
    #[error("a record of {table} is damaged")]
    Corrupt {
        /// Where.
        table: &'static str,
    },
    /// Closed, or failed and not open again yet.
    #[error("the store is not available")]
    Unavailable,
    /// A piece of work met a fault of the program.
    #[error("a piece of work panicked")]
    Panicked,
    /// Written by a newer version of Inlet.
    #[error(
        "the store has schema version {found}, this binary knows {known}: install a newer version"
    )]
    Newer {
        /// The file's version.
        found: u64,
        /// This binary's.
        known: u64,
    },
}

macro_rules! from_redb {
    ($($error:ty),*) => { $(impl From<$error> for StoreError {
        fn from(error: $error) -> Self { Self::Redb(Box::new(error.into())) }
    })* };
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::CommitError,
    redb::TransactionError,
    redb::DatabaseError
);

/// A webhook that is on no disk: it must not be acknowledged (R2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// Too many bytes wait for the disk: try again soon.
    #[error("too much is waiting for the disk")]
    Busy,
    /// The commit failed, or the store is not available.
    #[error("the webhook could not be written")]
    Failed,
}

impl Store {
    /// Opens or creates the store at `path`. `node` is the configured id, if any.
    ///
    /// # Errors
    /// When the file cannot be opened, is in use by another process, or was written by a newer version.
    pub fn open(path: PathBuf, node: Option<&str>) -> Result<Self, StoreError> {
        compaction::forget_unfinished(&path);
        Self::open_at(database::file(path.clone()), Some(path), node)
    }

    /// Opens a store on any storage; tests pass a simulated disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(opener: Opener, node: Option<&str>) -> Result<Self, StoreError> {
        Self::open_at(opener, None, node)
    }

    fn open_at(
        opener: Opener,
        path: Option<PathBuf>,
        node: Option<&str>,
    ) -> Result<Self, StoreError> {
        let database = Arc::new(Database::open(opener)?);
        let (identity, compaction_planned) = prepare(&database, node)?;
        let compacted = match &path {
            Some(path) if compaction_planned => compact(&database, path)?,
            _ => None,
        };
        let snapshot = Snapshot::open(&database.begin_read()?)?;
        let levels = Arc::new(Levels::read(&snapshot)?);
        let reference = Arc::new(ReferenceCell::load(&snapshot)?);
        drop(snapshot);
        let writer = Writer::start(
            Arc::clone(&database),
            Arc::clone(&levels),
            Arc::clone(&reference),
        )
        .map_err(|error| StoreError::from(redb::StorageError::Io(error)))?;
        Ok(Self {
            writer,
            database,
            levels,
            reference,
            signals: Signals::default(),
            identity,
            path,
            compacted,
        })
    }

    /// Stores a webhook and returns its sequence number once it is durable (R1).
    ///
    /// # Errors
    /// [`NotStored`]: it must not be acknowledged.
    pub async fn receive(&self, webhook: &Webhook) -> Result<u64, NotStored> {
        let stored =
            self.writer
                .intake(codec::encode(webhook))
                .map_err(|refused| match refused {
                    Refused::Full => NotStored::Busy,
                    Refused::Unavailable => NotStored::Failed,
                })?;
        let seq = stored.await.map_err(|_| NotStored::Failed)?;
        self.signals.pipeline.notify_one();
        Ok(seq)
    }

    /// Runs `work` in the next write transaction; the answer comes after the commit.
    ///
    /// `work` runs on the writer's thread: it must be short and must not block. When it fails, everything in its
    /// transaction but intake is rolled back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it was not committed, for whatever reason; the writer has logged it.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(work).await.map_err(|_| StoreError::Unavailable)
    }

    /// As [`Store::write`], for callers on a blocking thread.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(work)
            .blocking_recv()
            .map_err(|_| StoreError::Unavailable)
    }

    fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let levels = Arc::clone(&self.levels);
        self.writer.work(Box::new(move |txn| {
            let mut tables = Tables::open(txn)?;
            let result = work(&mut tables)?;
            tables.write_tally()?;
            let cursor = cursor(&tables.meta)?;
            Ok(Box::new(move || {
                levels.processed_up_to(cursor);
                // A caller that stopped waiting does not undo what was committed.
                let _ = reply.send(result);
            }))
        }));
        answer
    }

    /// A consistent view of everything committed. Keep it short: it pins freed pages.
    ///
    /// # Errors
    /// When the store is not available.
    pub fn read(&self) -> Result<Snapshot, StoreError> {
        Snapshot::open(&self.database.begin_read()?)
    }

    /// The cached reference data.
    #[must_use]
    pub fn reference(&self) -> Arc<reference::Reference> {
        self.reference.get()
    }

    pub(crate) fn reference_cell(&self) -> &ReferenceCell {
        &self.reference
    }

    /// Hints for workers.
    #[must_use]
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// This node's identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The store's file, unless it is kept elsewhere.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What came of compacting the store when it was opened, if it was.
    #[must_use]
    pub fn compacted(&self) -> Option<Compacted> {
        self.compacted
    }

    /// Positions of intake and pipeline.
    #[must_use]
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Whether webhooks can be stored right now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.writer.is_available()
    }
}

impl Levels {
    fn read(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let levels = Self::default();
        levels.read_again(snapshot)?;
        Ok(levels)
    }

    /// Takes over what the disk says.
    fn read_again(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let cursor = cursor(&snapshot.meta)?;
        let last = snapshot.inbox.last()?.map_or(0, |(seq, _)| seq.value());
        self.last_seq.store(last.max(cursor), Ordering::Release);
        self.cursor.store(cursor, Ordering::Release);
        Ok(())
    }

    /// The newest stored webhook's sequence number; 0 before the first.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::Acquire)
    }

    /// Every webhook up to this one has been looked at by the pipeline.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    /// Webhooks that the pipeline has not looked at yet.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.last_seq().saturating_sub(self.cursor())
    }

    fn received_up_to(&self, seq: u64) {
        self.last_seq.store(seq, Ordering::Release);
    }

    fn processed_up_to(&self, seq: u64) {
        self.cursor.fetch_max(seq, Ordering::AcqRel);
    }
}

/// Every webhook up to this sequence number has been looked at by the pipeline.
fn cursor(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, StoreError> {
    number(meta, CURSOR)
}

const CURSOR: &str = "cursor";

/// A number of the meta table; 0 where it was never set.
pub(crate) fn number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<u64, StoreError> {
    let Some(value) = meta.get(name)? else {
        return Ok(0);
    };
    let bytes = value
        .value()
        .try_into()
        .map_err(|_| StoreError::Corrupt { table: "meta" })?;
    Ok(u64::from_be_bytes(bytes))
}

impl Snapshot {
    /// Every webhook up to this one has been looked at by the pipeline.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn cursor(&self) -> Result<u64, StoreError> {
        cursor(&self.meta)
    }
}

impl Tables<'_> {
    /// Every webhook up to this one has been looked at by the pipeline.
    pub(crate) fn cursor(&self) -> Result<u64, StoreError> {
        cursor(&self.meta)
    }

    /// Moves the cursor to a webhook that the pipeline has looked at.
    pub(crate) fn set_cursor(&mut self, seq: u64) -> Result<(), StoreError> {
        self.set_number(CURSOR, seq)
    }

    /// Sets a number of the meta table.
    pub(crate) fn set_number(&mut self, name: &'static str, value: u64) -> Result<(), StoreError> {
        self.meta.insert(name, value.to_be_bytes().as_slice())?;
        Ok(())
    }

    /// Takes the next of a rising series of numbers, starting at 1.
    pub(crate) fn next_number(&mut self, name: &'static str) -> Result<u64, StoreError> {
        let next = self.last_number(name)? + 1;
        self.tally.numbers.insert(name, next);
        Ok(next)
    }

    /// The last number taken of a rising series; 0 before the first.
    pub(crate) fn last_number(&self, name: &'static str) -> Result<u64, StoreError> {
        match self.tally.numbers.get(name) {
            Some(last) => Ok(*last),
            None => number(&self.meta, name),
        }
    }

    /// Adds to a counter.
    pub(crate) fn count(&mut self, name: &'static str, by: i64) {
        *self.tally.counts.entry(name).or_default() += by;
    }

    /// Writes numbers and counters; the last thing done in a transaction.
    fn write_tally(&mut self) -> Result<(), StoreError> {
        let tally = std::mem::take(&mut self.tally);
        let Tally {
            numbers,
            counts,
            heard,
            oldest_end,
        } = tally;
        for (name, value) in numbers {
            self.set_number(name, value)?;
        }
        for (name, by) in counts {
            let now = self.counts.get(name)?.map_or(0, |count| count.value());
            self.counts.insert(name, now.saturating_add_signed(by))?;
        }
        self.write_heard(heard)?;
        match oldest_end {
            Some(seq) => self.look_again_at(seq),
            None => Ok(()),
        }
    }
}

/// Numbers given out and things counted in one transaction: thousands of times in memory, once in the tables.
#[derive(Default)]
pub(crate) struct Tally {
    numbers: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, i64>,
    heard: activity::Heard,
    /// The oldest webhook of which a task or a delivery ended: retention looks at it again.
    oldest_end: Option<u64>,
}

/// Creates the tables of a new store, checks the version of an old one, and finds out who the node is, and whether the
/// store is to be compacted first.
fn prepare(database: &Database, node: Option<&str>) -> Result<(Identity, bool), StoreError> {
    let txn = database.begin_write()?;
    let mut tables = Tables::open(&txn)?;
    migrate(&mut tables)?;
    let identity = identify(&mut tables, node)?;
    let compaction_planned = tables.take_planned_compaction()?;
    drop(tables);
    txn.commit()?;
    Ok((identity, compaction_planned))
}

/// A store that cannot be compacted is used as it is, if it can be opened.
fn compact(database: &Database, path: &Path) -> Result<Option<Compacted>, StoreError> {
    match compaction::compact(database, path) {
        Ok(compacted) => Ok(Some(compacted)),
        Err(error) => {
            tracing::warn!(%error, "the store was not compacted");
            database.reopen()?;
            Ok(None)
        }
    }
}

fn migrate(tables: &mut Tables<'_>) -> Result<(), StoreError> {
    let known = tables::SCHEMA_VERSION;
    match number(&tables.meta, "schema")? {
        0 if tables.inbox.is_empty()? => tables.set_number("schema", known),
        found if found == known => Ok(()),
        found => Err(StoreError::Newer { found, known }),
    }
}

fn identify(tables: &mut Tables<'_>, configured: Option<&str>) -> Result<Identity, StoreError> {
    let kept = text(&tables.meta, "node")?;
    let node = configured
        .map(str::to_owned)
        .or(kept.clone())
        .unwrap_or_else(generated_node_id);
    let mut earlier_names = earlier_names(&tables.meta)?;
    if kept.as_deref() != Some(node.as_str()) {
        tables.meta.insert("node", node.as_bytes())?;
        earlier_names.extend(kept);
        earlier_names.sort_unstable();
        earlier_names.dedup();
        tables
            .meta
            .insert(EARLIER_NAMES, earlier_names.join(" ").as_bytes())?;
    }
    earlier_names.retain(|name| *name != node);
    let epoch = u32::try_from(number(&tables.meta, "epoch")?).unwrap_or(u32::MAX);
    Ok(Identity {
        node,
        epoch,
        earlier_names,
    })
}

/// Names this node has had, with blanks between them; a name has none in it.
const EARLIER_NAMES: &str = "earlier_names";

fn earlier_names(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Vec<String>, StoreError> {
    let names = text(meta, EARLIER_NAMES)?.unwrap_or_default();
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn text(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<String>, StoreError> {
    let value = meta.get(name)?;
    Ok(value.map(|text| String::from_utf8_lossy(text.value()).into_owned()))
}

/// Short enough to read aloud, random enough for a fleet.
fn generated_node_id() -> String {
    format!("edge-{:08x}", fastrand::u32(..))
}
