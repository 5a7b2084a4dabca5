//! What an operator sees of Facebook tokens: those that are broken, those that end soon, and what to do about it (R33).
//!
//! Must not know: how tokens are renewed. No token is ever shown.

use bson::oid::ObjectId;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Console, Live};
use crate::model::FacebookKey;
use crate::store::reference::Reference;
use crate::store::tokens::{BROKEN_COUNT, Broken, Place, RENEWED_COUNT};
use crate::store::{Snapshot, StoreError};

const RECONNECT: &str = "reconnect Facebook for this account; its leads then go on by themselves";
const CONNECT: &str =
    "connect Facebook for this account and page; its leads then go on by themselves";
const GRANT: &str =
    "give the app access to this page's leads, then reconnect Facebook for this account";
const CONFIGURE: &str =
    "set facebook.app_id and facebook.app_secret, or reconnect Facebook in time";
const RECONNECT_IN_TIME: &str = "reconnect Facebook for this account in time";

/// Rows of each kind at most.
const ROWS_MAX: usize = 1_000;

/// A token that Graph refuses or whose time is over, or one that leads wait for and that is not there.
#[derive(Serialize)]
pub(super) struct Trouble {
    pub(super) account: String,
    page: Option<String>,
    /// `None`: there is none.
    pub(super) key: Option<String>,
    since_ms: Option<i64>,
    reason: String,
    remedy: &'static str,
}

impl Console {
    /// The tokens' part of [`Console::status`].
    pub(super) fn tokens(&self, snapshot: &Snapshot) -> Result<Value, StoreError> {
        let reference = self.store.reference();
        let mut broken = self.broken_tokens(snapshot, &reference)?;
        broken.truncate(ROWS_MAX);
        Ok(json!({
            "broken": broken,
            "expiring": self.expiring(&reference),
            "unwritten": snapshot.tokens_to_write()?.len(),
            "renewed_total": snapshot.counted(RENEWED_COUNT)?,
            "broken_total": snapshot.counted(BROKEN_COUNT)?,
        }))
    }

    /// Refused tokens, missing keys that leads wait for, and tokens whose time is over.
    pub(super) fn broken_tokens(
        &self,
        snapshot: &Snapshot,
        reference: &Reference,
    ) -> Result<Vec<Trouble>, StoreError> {
        let mut troubles = Vec::new();
        let mut refused = Vec::new();
        for (place, broken) in snapshot.broken_tokens()? {
            if is_present(snapshot, reference, &place, &broken)? {
                refused.extend(place.key);
                troubles.push(trouble(reference, place, broken));
            }
        }
        let now_ms = self.clock.now_ms();
        let mut expired: Vec<_> = reference
            .all_keys()
            .filter(|key| key.is_expired(now_ms) && !refused.contains(&key.id))
            .collect();
        expired.sort_by_key(|key| (key.expires_at_ms, key.id));
        troubles.extend(expired.into_iter().map(|key| Trouble {
            account: key.account_id.to_hex(),
            page: key.page_id.clone(),
            key: Some(key.id.to_hex()),
            since_ms: key.expires_at_ms,
            reason: "the token has expired".to_owned(),
            remedy: RECONNECT,
        }));
        Ok(troubles)
    }

    fn expiring(&self, reference: &Reference) -> Vec<Value> {
        let now_ms = self.clock.now_ms();
        let mut soon: Vec<_> = reference
            .all_keys()
            .filter(|key| key.is_to_be_renewed(now_ms))
            .collect();
        soon.sort_by_key(|key| (key.expires_at_ms, key.id));
        soon.truncate(ROWS_MAX);
        let row = |key: &FacebookKey| {
            let (error, remedy) = outlook(self.live.as_ref(), key);
            json!({
                "account": key.account_id.to_hex(), "page": key.page_id, "key": key.id.to_hex(),
                "expires_at_ms": key.expires_at_ms, "last_error": error, "remedy": remedy,
            })
        };
        soon.into_iter().map(row).collect()
    }
}

/// Whether this still stands in the way: the token is the same, or leads wait for a key that is not there.
fn is_present(
    snapshot: &Snapshot,
    reference: &Reference,
    place: &Place,
    broken: &Broken,
) -> Result<bool, StoreError> {
    match place.key {
        Some(id) => {
            Ok(find(reference, id).is_some_and(|key| Some(key.fingerprint()) == broken.token))
        }
        None => snapshot.has_parked(place.account),
    }
}

fn trouble(reference: &Reference, place: Place, broken: Broken) -> Trouble {
    let of_key = place.key.and_then(|id| find(reference, id));
    // A key for all pages that is of no use on one of them lacks that page's permission.
    let remedy = match of_key {
        None => CONNECT,
        Some(key) if key.page_id != place.page => GRANT,
        Some(_) => RECONNECT,
    };
    Trouble {
        account: place.account.to_hex(),
        page: place.page,
        key: place.key.map(|key| key.to_hex()),
        since_ms: Some(broken.since_ms),
        reason: broken.reason,
        remedy,
    }
}

/// What has gone wrong with the renewal, and what to do if it is not to be waited for.
fn outlook(live: Option<&Live>, key: &FacebookKey) -> (Option<String>, Option<&'static str>) {
    let Some(live) = live else {
        return (None, None);
    };
    match live.tokens.trouble(key) {
        _ if !live.tokens.can_renew() => (None, Some(CONFIGURE)),
        Some(error) => (Some(error), Some(RECONNECT_IN_TIME)),
        None => (None, None),
    }
}

fn find(reference: &Reference, id: ObjectId) -> Option<&FacebookKey> {
    reference.all_keys().find(|key| key.id == id)
}
