//! When a negative decision may be taken (R13), and how often upstream is asked for what it needs.
//!
//! What was read when is the reference data's own to know: a decision and its evidence come from one snapshot.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::reference::Reference;
use crate::store::tasks::Need;

/// Pointed reads remembered at most; the oldest are forgotten first, which only costs another read.
const REMEMBERED_MAX: usize = 10_000;
/// A pointed read is not repeated within this time: strangers posting random ids cost little.
const REPEAT_AFTER_MS: i64 = 2_000;

/// When which need was last read.
pub struct Freshness {
    stand_alone: bool,
    reads: Mutex<HashMap<Need, i64>>,
}

impl Freshness {
    /// `stand_alone`: there is no upstream to ask, so that what is cached is all there is.
    #[must_use]
    pub fn new(stand_alone: bool) -> Self {
        Self {
            stand_alone,
            reads: Mutex::default(),
        }
    }

    /// Whether a "no" about `need` may be decided on `reference` for a webhook that arrived then.
    #[must_use]
    pub fn may_decide(&self, reference: &Reference, need: &Need, arrived_at_ms: i64) -> bool {
        self.stand_alone || reference.is_younger_than(arrived_at_ms, need)
    }

    /// Whether `need` may be read now, or was read a moment ago.
    #[must_use]
    pub fn may_read(&self, need: &Need, now_ms: i64) -> bool {
        self.lock()
            .get(need)
            .is_none_or(|at| now_ms - at >= REPEAT_AFTER_MS)
    }

    /// These were read; the reading began at `began_at_ms`.
    pub fn were_read(&self, needs: &[Need], began_at_ms: i64) {
        let mut reads = self.lock();
        if reads.len() + needs.len() > REMEMBERED_MAX {
            reads.retain(|_, at| began_at_ms - *at < REPEAT_AFTER_MS);
        }
        let room = REMEMBERED_MAX.saturating_sub(reads.len());
        reads.extend(
            needs
                .iter()
                .take(room)
                .map(|need| (need.clone(), began_at_ms)),
        );
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Need, i64>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
