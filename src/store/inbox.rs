//! The inbox: every acknowledged webhook, raw.

pub(super) use super::tables::SEQ_TO_WEBHOOK;
use super::{Snapshot, StoreError, codec};
use crate::model::Webhook;

const TABLE: &str = "inbox";
/// Bytes read at once, give or take a webhook: bodies may be large, and many.
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

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

    /// Whether a webhook is kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_webhook(&self, seq: u64) -> Result<bool, StoreError> {
        Ok(self.inbox.get(seq)?.is_some())
    }

    /// Webhooks after `seq` in order of arrival, at most `limit` and about 8 MiB of them. A damaged one is given
    /// as its error.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn webhooks_after(&self, seq: u64, limit: usize) -> Result<Vec<Numbered>, StoreError> {
        let mut webhooks = Vec::new();
        let mut bytes = 0;
        for entry in self.inbox.range(seq + 1..)?.take(limit) {
            let (seq, record) = entry?;
            bytes += record.value().len();
            webhooks.push((seq.value(), codec::decode(TABLE, record.value())));
            if bytes > READ_BYTES_MAX {
                break;
            }
        }
        Ok(webhooks)
    }
}
