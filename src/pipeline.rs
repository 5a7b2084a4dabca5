//! The lead pipeline: from stored webhooks to leads, contacts, conversations, deals and outcomes.
//!
//! Must not know: HTTP, MongoDB. What a webhook means is worked out beforehand ([`prepare`]), outside any transaction;
//! what becomes of it is decided purely (`plan`) over what the transaction reads, and written by one place
//! (`apply`) together with the outcome (R25).

mod apply;
mod assignee;
mod contact;
mod conversation;
mod deal;
pub mod facebook;
pub mod freshness;
mod lead;
pub mod lookout;
mod plan;
pub mod prepare;
pub mod replay;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{TaskKey, Webhook};
use crate::store::{Snapshot, Store, StoreError, Tables};
use crate::worker::{Step, StepError, Worker};
use freshness::Freshness;
use prepare::{Desk, Heard, Prepared};
pub use settle::{Limits, Settling};

/// Tasks in one transaction: enough to share its fsyncs, few enough to keep it short.
const BATCH_MAX: usize = 256;
/// How long the pipeline sleeps when nothing tells it to wake.
const POLL: Duration = Duration::from_millis(500);

/// What every part of the pipeline works with.
pub struct Shared {
    /// The store.
    pub store: Arc<Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Which reference data was read when.
    pub freshness: Freshness,
    /// Bounds and retries.
    pub limits: Limits,
}

/// Works through webhooks in order of arrival, and through tasks that are due.
pub struct Pipeline {
    shared: Arc<Shared>,
}

impl Pipeline {
    /// A pipeline over a store.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Worker for Pipeline {
    fn name(&self) -> &'static str {
        "pipeline"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let shared = Arc::clone(&self.shared);
        let batch = tokio::task::spawn_blocking(move || Batch::gather(&shared)).await??;
        if batch.is_empty() {
            return Ok(Step::Idle);
        }
        let settling = Settling::new(&self.shared);
        self.shared
            .store
            .write(move |tables| batch.settle(tables, &settling))
            .await?;
        self.shared.store.signals().push.notify_one();
        self.shared.store.signals().graph.notify_one();
        Ok(Step::Busy)
    }

    async fn wait(&mut self) {
        let woken = self.shared.store.signals().pipeline.notified();
        let _ = tokio::time::timeout(POLL, woken).await;
    }
}

/// Tasks prepared for one transaction.
struct Batch {
    due: Vec<Looked>,
    /// Webhooks at first sight, those right after `cursor`.
    fresh: Vec<Looked>,
    cursor: u64,
}

/// What looking at a task has come to.
struct Looked {
    key: TaskKey,
    prepared: Prepared,
    heard: Option<Heard>,
}

impl Batch {
    fn gather(shared: &Shared) -> Result<Self, StoreError> {
        let snapshot = shared.store.read()?;
        let desk = Desk::new(shared);
        let mut due = Vec::new();
        for key in snapshot.due(shared.clock.now_ms(), BATCH_MAX / 2)? {
            due.push(due_task(&snapshot, &desk, key)?);
        }
        let cursor = snapshot.cursor()?;
        let webhooks = snapshot.webhooks_after(cursor, BATCH_MAX - due.len())?;
        let fresh = webhooks
            .into_iter()
            .map(|(seq, webhook)| first_look(&desk, seq, webhook));
        Ok(Self {
            due,
            fresh: fresh.collect(),
            cursor,
        })
    }

    fn is_empty(&self) -> bool {
        self.due.is_empty() && self.fresh.is_empty()
    }

    /// A commit whose outcome was unknown may have settled all this already: a task is settled only while it waits, and
    /// webhooks only while the cursor stands before them.
    fn settle(self, tables: &mut Tables<'_>, settling: &Settling) -> Result<(), StoreError> {
        for looked in self.due {
            if tables.task(looked.key)?.is_some() {
                looked.settle(tables, settling)?;
            }
        }
        let Some(last) = self.fresh.last().map(|looked| looked.key.seq) else {
            return Ok(());
        };
        if tables.cursor()? != self.cursor {
            return Ok(());
        }
        for looked in self.fresh {
            looked.settle(tables, settling)?;
        }
        tables.set_cursor(last)
    }
}

impl Looked {
    fn at(desk: &Desk<'_>, key: TaskKey, webhook: &Webhook, prepared: Prepared) -> Self {
        Self {
            key,
            heard: desk.heard(webhook, &prepared),
            prepared,
        }
    }

    fn unread(key: TaskKey, dead: Prepared) -> Self {
        Self {
            key,
            prepared: dead,
            heard: None,
        }
    }

    fn settle(self, tables: &mut Tables<'_>, settling: &Settling) -> Result<(), StoreError> {
        if let Some(heard) = self.heard {
            tables.heard(heard.campaign, heard.arrived_at_ms);
        }
        settling.settle(tables, self.key, self.prepared)
    }
}

fn first_look(desk: &Desk<'_>, seq: u64, webhook: Result<Webhook, StoreError>) -> Looked {
    let key = TaskKey::webhook(seq);
    match webhook {
        Ok(webhook) => Looked::at(desk, key, &webhook, desk.webhook(seq, &webhook)),
        Err(error) => Looked::unread(key, Prepared::dead(&error)),
    }
}

/// A task that was begun before: its webhook is read again.
fn due_task(snapshot: &Snapshot, desk: &Desk<'_>, key: TaskKey) -> Result<Looked, StoreError> {
    Ok(match due_webhook(snapshot, key)? {
        Ok(webhook) => Looked::at(desk, key, &webhook, desk.task(key, &webhook)),
        Err(dead) => Looked::unread(key, dead),
    })
}

/// The webhook of a task begun before, or the task's end where the webhook cannot be read any more.
fn due_webhook(snapshot: &Snapshot, key: TaskKey) -> Result<Result<Webhook, Prepared>, StoreError> {
    match snapshot.webhook(key.seq) {
        Ok(Some(webhook)) => Ok(Ok(webhook)),
        Ok(None) => Ok(Err(Prepared::dead(&"the webhook is no longer stored"))),
        Err(error @ StoreError::Corrupt { .. }) => Ok(Err(Prepared::dead(&error))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
