//! The lead pipeline: from stored webhooks to leads, contacts, conversations, deals and outcomes.
//!
//! Must not know: HTTP, MongoDB. What a webhook means is worked out beforehand ([`prepare`]), outside any transaction;
//! what becomes of it is decided purely (`plan`) over what the transaction reads, and written by one place
//! (`apply`) together with the outcome (R25).

mod apply;
mod assignee;
mod batch;
mod contact;
mod conversation;
mod deal;
mod erased;
pub mod facebook;
pub mod freshness;
mod lead;
mod link;
pub mod lookout;
mod plan;
pub mod prepare;
pub mod readings;
pub mod replay;
mod settle;
pub mod taken;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::store::{Store, Tables};
use crate::worker::{Step, StepError, Worker};
use batch::{Batch, Part, Underway};
use freshness::Freshness;
pub use settle::{Limits, Settling};

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
    /// Whether anybody can listen to live events; if not, none are written.
    pub live_events: bool,
}

/// Works through webhooks in order of arrival, and through tasks that are due.
pub struct Pipeline {
    shared: Arc<Shared>,
    /// Prepared, for the next transactions.
    rest: Batch,
}

impl Pipeline {
    /// A pipeline over a store.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            rest: Batch::default(),
        }
    }

    /// Prepares the next batch, while the last one may still be being committed.
    async fn gather(&self, underway: Underway) -> Result<Batch, StepError> {
        let shared = Arc::clone(&self.shared);
        Ok(tokio::task::spawn_blocking(move || Batch::gather(&shared, &underway)).await??)
    }

    /// One transaction; whether it settled anything: it does not while somebody is being erased.
    async fn settle(&self, part: Part) -> Result<bool, StepError> {
        let store = &self.shared.store;
        let settling = Settling::new(&self.shared);
        let settle = move |tables: &mut Tables<'_>| match tables.is_erasing()? {
            true => Ok(false),
            false => part.settle(tables, &settling).map(|()| true),
        };
        if !store.write(settle).await? {
            return Ok(false);
        }
        store.signals().push.notify_one();
        store.signals().wake_deliveries();
        store.signals().graph.notify_one();
        store.signals().events.notify_one();
        Ok(true)
    }
}

impl Worker for Pipeline {
    fn name(&self) -> &'static str {
        "pipeline"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        // What is left after a failed commit is not tried as it is: it is gathered anew.
        let mut batch = std::mem::take(&mut self.rest);
        if self.shared.store.read()?.is_erasing()? {
            return Ok(Step::Idle);
        }
        if batch.is_empty() {
            batch = self.gather(Underway::default()).await?;
        }
        let Some(part) = batch.next_part() else {
            return Ok(Step::Idle);
        };
        let settled = if batch.is_empty() {
            let underway = part.underway();
            let (settled, ahead) = tokio::join!(self.settle(part), self.gather(underway));
            let settled = settled?;
            batch = ahead?;
            settled
        } else {
            self.settle(part).await?
        };
        if !settled {
            // An erasure has begun since: what was prepared may be of what goes (R38).
            return Ok(Step::Idle);
        }
        self.rest = batch;
        Ok(Step::Busy)
    }

    async fn wait(&mut self) {
        let woken = self.shared.store.signals().pipeline.notified();
        let _ = tokio::time::timeout(POLL, woken).await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
