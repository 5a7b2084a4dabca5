//! Tasks and outcomes whose records a failing disk has damaged: none holds up the others, and none is forgotten.
//!
//! A task's webhook is a record of its own. So a damaged task begins anew, at its first attempt, when its turn comes. A
//! damaged outcome counts as a dead letter: it is seen, is never purged, and may be replayed, which finds the lead if
//! there was one (R9).

use super::{OUTCOMES, TASKS, Task};
use crate::model::{Ended, Outcome, TaskKey};
use crate::store::{StoreError, Tables, codec};

/// A task, and its place in its queue, as its record says; a damaged one as it would begin.
pub(super) fn task(record: &[u8]) -> (Task, u64) {
    codec::decode(TASKS, record).unwrap_or_else(|error| {
        let task = Task {
            last_error: Some(error.to_string()),
            ..Task::default()
        };
        (task, 0)
    })
}

/// An outcome as its record says.
pub(super) fn ended(record: &[u8]) -> Ended {
    codec::decode(OUTCOMES, record).unwrap_or_else(|error: StoreError| Ended {
        outcome: Outcome::DeadLetter {
            error: error.to_string(),
        },
        attempts: 0,
        at_ms: 0,
    })
}

impl Tables<'_> {
    /// Takes a task out of whichever queue it is in: its record would have said where to look.
    pub(super) fn take_out_of_any_queue(&mut self, key: TaskKey) -> Result<(), StoreError> {
        tracing::error!(?key, "a task's record is damaged: it begins anew");
        let is_it = |seq, change, campaign: &[u8; 12]| {
            (seq, change) == (key.seq, key.change) && *campaign == key.campaign
        };
        self.timed
            .retain(|(_, seq, change, campaign), ()| !is_it(seq, change, campaign))?;
        self.graph
            .retain(|(_, seq, change, campaign), ()| !is_it(seq, change, campaign))?;
        self.parked
            .retain(|(_, seq, change, campaign), ()| !is_it(seq, change, campaign))?;
        let mut accounts = Vec::new();
        self.awaiting
            .retain(|(account, _, seq, change, campaign), ()| {
                let is_it = is_it(seq, change, campaign);
                accounts.extend(is_it.then_some(*account));
                !is_it
            })?;
        accounts
            .iter()
            .try_for_each(|account| self.count_awaiting(account, -1))
    }
}
