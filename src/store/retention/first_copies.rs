//! Hashes of submissions without an id, which are of use only while a resend of theirs may still be worked through
//! (R10, R41).

use redb::ReadableTable;

use super::{Budget, Swept, intact};
use crate::model::Webhook;
use crate::store::{Snapshot, StoreError, Tables, codec};

/// Hashes looked at in one step: each is a few bytes.
const STEP_MAX: usize = 1_000;
/// Webhooks looked at in search of one that can be read.
const LOOKED_AT_MAX: usize = 1_000;

/// A place among the hashes.
pub(crate) type Place = [u8; 16];

impl Tables<'_> {
    /// Looks at hashes from `from` on and removes those whose first copy arrived before `before_ms`.
    pub(crate) fn purge_first_copies(
        &mut self,
        from: Place,
        before_ms: i64,
    ) -> Result<Swept<Place>, StoreError> {
        let budget = Budget::begin();
        let mut old = Vec::new();
        let mut next = None;
        for (looked_at, entry) in self.first_copies.range::<&Place>(&from..)?.enumerate() {
            let (hash, copy) = entry?;
            if looked_at == STEP_MAX || budget.is_used_up() {
                next = Some(*hash.value());
                break;
            }
            if copy.value().0 < before_ms {
                old.push(*hash.value());
            }
        }
        for hash in &old {
            self.first_copies.remove(hash)?;
        }
        Ok(Swept {
            purged: old.len() as u64,
            next,
        })
    }
}

impl Snapshot {
    /// Whether there are hashes from `from` on.
    pub(crate) fn has_first_copies(&self, from: &Place) -> Result<bool, StoreError> {
        Ok(self.first_copies.range::<&Place>(from..)?.next().is_some())
    }

    /// When the oldest webhook arrived that may still be worked through, be it by a replay; `now_ms` where there is
    /// none. A resend that had to wait is told by its arrival, however late it is worked through, so what it is
    /// compared with is kept as long as the webhook.
    pub(crate) fn oldest_arrival_ms(&self, now_ms: i64) -> Result<i64, StoreError> {
        for entry in self.inbox.range::<u64>(..)?.take(LOOKED_AT_MAX) {
            let webhook = codec::decode::<Webhook>("inbox", entry?.1.value());
            if let Some(webhook) = intact(webhook)? {
                return Ok(webhook.arrived_at_ms.min(now_ms));
            }
        }
        Ok(if self.inbox.range::<u64>(..)?.next().is_some() {
            i64::MIN
        } else {
            now_ms
        })
    }
}
