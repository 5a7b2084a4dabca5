//! Which reference data was read when: a negative decision needs data read after the webhook arrived (R13).

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

    /// Whether a "no" about `need` may be decided for a webhook that arrived then.
    #[must_use]
    pub fn may_decide(&self, reference: &Reference, need: &Need, arrived_at_ms: i64) -> bool {
        let pulled = reference
            .complete_at_ms()
            .is_some_and(|at| at > arrived_at_ms);
        self.stand_alone || pulled || self.lock().get(need).is_some_and(|at| *at > arrived_at_ms)
    }

    /// Whether `need` may be read now, or was read a moment ago.
    #[must_use]
    pub fn may_read(&self, need: &Need, now_ms: i64) -> bool {
        self.lock()
            .get(need)
            .is_none_or(|at| now_ms - at >= REPEAT_AFTER_MS)
    }

    /// `need` was read; the reading began at `began_at_ms`.
    pub fn was_read(&self, need: Need, began_at_ms: i64) {
        let mut reads = self.lock();
        if reads.len() >= REMEMBERED_MAX {
            reads.retain(|_, at| began_at_ms - *at < REPEAT_AFTER_MS);
        }
        if reads.len() < REMEMBERED_MAX {
            reads.insert(need, began_at_ms);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Need, i64>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
