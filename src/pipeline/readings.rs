//! What an adapter reads out of stored webhooks, the last one remembered.
//!
//! The tasks of one Facebook batch come one after the other; reading the whole batch for each of them would make a
//! thousand changes cost a million.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::prepare::{Prepared, panicked};
use crate::model::{Reading, Reason, TaskKey, Webhook};
use crate::platforms::{self, Adapter};
use crate::store::{Snapshot, StoreError};

/// A webhook and what its adapter makes of it.
pub struct Opened {
    /// As it came.
    pub webhook: Webhook,
    /// Whose it is.
    pub adapter: &'static Adapter,
    /// What it says.
    pub reading: Reading,
}

/// Opens webhooks during one pass.
#[derive(Default)]
pub(super) struct Readings {
    last: Option<(u64, Arc<Opened>)>,
}

impl Opened {
    /// Reads a webhook, or says how its task ends where nobody can.
    ///
    /// Adapters are fuzzed and must not panic; if one does, its webhook fails and the node goes on.
    pub fn read(seq: u64, webhook: Webhook) -> Result<Self, Prepared> {
        if webhook.is_erased() {
            return Err(Prepared::ignored(Reason::Erased));
        }
        let Some(adapter) = platforms::by_slug(&webhook.platform) else {
            return Err(Prepared::dead(&"no adapter reads this platform any more"));
        };
        let read = catch_unwind(AssertUnwindSafe(|| (adapter.read)(&webhook)));
        match read {
            Ok(reading) => Ok(Self {
                webhook,
                adapter,
                reading,
            }),
            Err(_) => Err(panicked(seq)),
        }
    }
}

impl Readings {
    /// The webhook of a task begun before, or the task's end where it cannot be read any more.
    pub(super) fn of(
        &mut self,
        snapshot: &Snapshot,
        key: TaskKey,
    ) -> Result<Result<Arc<Opened>, Prepared>, StoreError> {
        if let Some((seq, opened)) = &self.last
            && *seq == key.seq
        {
            return Ok(Ok(Arc::clone(opened)));
        }
        let webhook = match snapshot.webhook(key.seq) {
            Ok(Some(webhook)) => webhook,
            Ok(None) => return Ok(Err(Prepared::dead(&"the webhook is no longer stored"))),
            Err(error @ StoreError::Corrupt { .. }) => return Ok(Err(Prepared::dead(&error))),
            Err(error) => return Err(error),
        };
        Ok(Opened::read(key.seq, webhook).map(|opened| {
            let opened = Arc::new(opened);
            self.last = Some((key.seq, Arc::clone(&opened)));
            opened
        }))
    }
}
