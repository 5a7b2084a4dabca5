//! When each campaign was heard of (R37).
//!
//! Arrivals are gathered in a transaction's tally and written once per campaign: a batch of the pipeline mostly brings
//! many webhooks of few campaigns.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::{Snapshot, StoreError, Tables, codec};
use crate::model::Activity;

const TABLE: &str = "activity";

/// Arrivals by campaign, milliseconds since the epoch.
pub(super) type Heard = BTreeMap<[u8; 12], Vec<i64>>;

impl Tables<'_> {
    /// Takes note that a webhook for this campaign arrived.
    pub(crate) fn heard(&mut self, campaign: [u8; 12], arrived_at_ms: i64) {
        let arrivals = self.tally.heard.entry(campaign).or_default();
        arrivals.push(arrived_at_ms);
    }

    /// Writes what was heard in this transaction. A damaged record begins anew: it is worth no lead.
    pub(super) fn write_heard(&mut self, heard: Heard) -> Result<(), StoreError> {
        for (campaign, arrivals) in heard {
            let known = self.activity.get(&campaign)?;
            let known = known.and_then(|record| codec::decode(TABLE, record.value()).ok());
            let mut activity: Activity = known.unwrap_or_default();
            arrivals.into_iter().for_each(|at_ms| activity.hear(at_ms));
            let record = codec::encode(&activity);
            self.activity.insert(&campaign, record.as_slice())?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Every campaign that was ever heard of. Damaged records are left out: they begin anew with the next webhook.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn activities(&self) -> Result<Vec<([u8; 12], Activity)>, StoreError> {
        let mut all = Vec::new();
        for entry in self.activity.range::<&[u8; 12]>(..)? {
            let (campaign, record) = entry?;
            if let Ok(activity) = codec::decode(TABLE, record.value()) {
                all.push((*campaign.value(), activity));
            }
        }
        Ok(all)
    }
}
