//! The inbox: every acknowledged webhook, raw.

pub(super) use super::tables::SEQ_TO_WEBHOOK;
use super::{Snapshot, StoreError, codec};
use crate::model::Webhook;

const TABLE: &str = "inbox";

/// A webhook with its sequence number, or the error that reading it was.
pub type Numbered = (u64, Result<Webhook, StoreError>);

impl Snapshot {
    /// One webhook; `None` where it was purged or never was.
    ///
    /// # Errors
    /// When the store cannot be read or the record is damaged.
    pub fn webhook(&self, seq: u64) -> Result<Option<Webhook>, StoreError> {
        let Some(record) = self.inbox.get(seq)? else {
            return Ok(None);
        };
        codec::decode(TABLE, record.value()).map(Some)
    }

    /// Webhooks after `seq` in order of arrival, at most `limit`. A damaged one is given as its error.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn webhooks_after(&self, seq: u64, limit: usize) -> Result<Vec<Numbered>, StoreError> {
        let mut webhooks = Vec::new();
        for entry in self.inbox.range(seq + 1..)?.take(limit) {
            let (seq, record) = entry?;
            webhooks.push((seq.value(), codec::decode(TABLE, record.value())));
        }
        Ok(webhooks)
    }
}
