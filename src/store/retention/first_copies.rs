//! Hashes of submissions without an id, which are of use only while a resend of theirs may still be worked through
//! (R10, R41).

use super::hashes::{self, Place};
use super::{Swept, intact};
use crate::model::Webhook;
use crate::store::{Snapshot, StoreError, Tables, codec};

/// Webhooks looked at in search of one that can be read.
const LOOKED_AT_MAX: usize = 1_000;

impl Tables<'_> {
    /// Looks at hashes from `from` on and removes those whose first copy arrived before `before_ms`.
    pub(crate) fn purge_first_copies(
        &mut self,
        from: Place,
        before_ms: i64,
    ) -> Result<Swept<Place>, StoreError> {
        hashes::sweep(&mut self.first_copies, &from, |(arrived_at_ms, _)| {
            arrived_at_ms < before_ms
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
