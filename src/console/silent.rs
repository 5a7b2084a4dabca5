//! Campaigns that have fallen silent (R37), under the names that people know them by.

use bson::oid::ObjectId;
use serde_json::{Value, json};

use crate::store::{Snapshot, Store, StoreError};

/// Silent campaigns, those silent longest first. One that is unknown by now, or not active, is silent by intention.
pub(super) fn campaigns(
    store: &Store,
    snapshot: &Snapshot,
    now_ms: i64,
) -> Result<Vec<Value>, StoreError> {
    let reference = store.reference();
    let mut silent = Vec::new();
    for (id, activity) in snapshot.activities()? {
        let id = ObjectId::from_bytes(id);
        let campaign = reference.campaign_by_id(id);
        let Some(campaign) = campaign.filter(|campaign| campaign.active) else {
            continue;
        };
        if let Some(silence) = activity.silence(now_ms) {
            silent.push((id, campaign.name.clone(), silence));
        }
    }
    silent.sort_by_key(|(_, _, silence)| silence.since_ms);
    let shown = silent.into_iter().map(|(id, name, silence)| {
        json!({
            "campaign": id.to_hex(),
            "name": name,
            "since_ms": silence.since_ms,
            "usual_ms": silence.usual_ms,
            "webhooks": silence.webhooks,
        })
    });
    Ok(shown.collect())
}
