//! Campaigns that have fallen silent (R37), under the names that people know them by.

use std::sync::Arc;

use bson::oid::ObjectId;
use serde_json::{Value, json};

use crate::model::{Campaign, Silence};
use crate::store::{Snapshot, Store, StoreError};

/// A campaign that is silent.
pub(super) struct Silent {
    pub(super) campaign: Arc<Campaign>,
    pub(super) silence: Silence,
}

/// Silent campaigns, those silent longest first. One that is unknown by now, or not active, is silent by intention.
pub(super) fn campaigns(
    store: &Store,
    snapshot: &Snapshot,
    now_ms: i64,
) -> Result<Vec<Silent>, StoreError> {
    let reference = store.reference();
    let mut silent = Vec::new();
    for (id, activity) in snapshot.activities()? {
        let campaign = reference.campaign_by_id(ObjectId::from_bytes(id));
        let Some(campaign) = campaign.filter(|campaign| campaign.active) else {
            continue;
        };
        if let Some(silence) = activity.silence(now_ms) {
            let campaign = Arc::clone(campaign);
            silent.push(Silent { campaign, silence });
        }
    }
    silent.sort_by_key(|one| (one.silence.since_ms, one.campaign.id));
    Ok(silent)
}

/// As `status` shows them.
pub(super) fn shown(silent: &[Silent]) -> Value {
    let shown = silent.iter().map(|Silent { campaign, silence }| {
        json!({
            "account": campaign.account_id.to_hex(),
            "campaign": campaign.id.to_hex(),
            "name": campaign.name,
            "since_ms": silence.since_ms,
            "usual_ms": silence.usual_ms,
            "webhooks": silence.webhooks,
        })
    });
    shown.collect()
}
