//! A Facebook key: the token that may read an account's leads (documents.md `facebook.keys`, R12, R33).
//!
//! Must not know: where keys are kept, how tokens are renewed.

use std::cmp::Reverse;

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};

use super::expiry::{Expiry, moment_ms};
use super::identity::derived_hash;
use super::reference::text;

/// A token with less life left than this is renewed, as long as it lives: an expired one cannot be (R33).
pub const RENEW_BEFORE_MS: i64 = 10 * 24 * 60 * 60 * 1000;

/// A Facebook key.
#[derive(Clone, PartialEq)]
pub struct FacebookKey {
    /// `_id`.
    pub id: ObjectId,
    /// `account_id`.
    pub account_id: ObjectId,
    /// `page_id`; a key without one serves all pages of its account.
    pub page_id: Option<String>,
    /// `token.access_token`.
    pub access_token: String,
    /// `token.expires_in` as an absolute time, milliseconds since the epoch; `None`: never.
    pub expires_at_ms: Option<i64>,
    /// `updated_at`, milliseconds since the epoch.
    pub updated_at_ms: Option<i64>,
}

/// Stands for a token where the token itself is not needed: a hash of it.
pub type Fingerprint = [u8; 32];

impl FacebookKey {
    /// Reads a `facebook.keys` document; `None` without ids or an access token.
    #[must_use]
    pub fn read(document: &Document) -> Option<Self> {
        let token = document.get_document("token").ok()?;
        Some(Self {
            id: document.get_object_id("_id").ok()?,
            account_id: document.get_object_id("account_id").ok()?,
            page_id: text(document, "page_id"),
            access_token: text(token, "access_token")?,
            expires_at_ms: expiry(document).map(|expiry| expiry.at_ms),
            updated_at_ms: document.get("updated_at").and_then(moment_ms),
        })
    }

    /// Those of an account's keys that may read a page's leads, in the order in which they are to be tried: the page's
    /// own first, then those for all pages (R12); the newest first, as a key made by reconnecting is.
    #[must_use]
    pub fn for_page<'a>(keys: &'a [Self], page: &str) -> Vec<&'a Self> {
        let serves = |key: &&Self| key.page_id.as_deref().is_none_or(|own| own == page);
        let mut serving: Vec<_> = keys.iter().filter(serves).collect();
        serving.sort_by_key(|key| {
            let newest_first = (Reverse(key.updated_at_ms), Reverse(key.id));
            (key.page_id.is_none(), newest_first)
        });
        serving
    }

    /// Which token this is, without telling it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.access_token)
    }

    /// Whether the token is still good and to be renewed now.
    #[must_use]
    pub fn is_to_be_renewed(&self, now_ms: i64) -> bool {
        self.expires_at_ms
            .is_some_and(|at_ms| at_ms > now_ms && at_ms - now_ms < RENEW_BEFORE_MS)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

impl std::fmt::Debug for FacebookKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FacebookKey")
            .field("id", &self.id)
            .field("page_id", &self.page_id)
            .finish_non_exhaustive()
    }
}

/// Stands for `access_token`.
#[must_use]
pub fn fingerprint(access_token: &str) -> Fingerprint {
    derived_hash("facebook token", &[access_token.as_bytes()])
}

/// Filter and update that put a new token in the place of the one that `document` has, and of no other (R33). The end
/// is written in the form that the old one has; a document without one gets a date.
///
/// `None` where the document has no token.
#[must_use]
pub fn replacement(
    document: &Document,
    access_token: &str,
    expires_at_ms: Option<i64>,
    now_ms: i64,
) -> Option<(Document, Document)> {
    let id = document.get("_id")?;
    let old = document.get_document("token").ok()?.get("access_token")?;
    let mut set = doc! {
        "token.access_token": access_token,
        "updated_at": DateTime::from_millis(now_ms),
    };
    if let Some(at_ms) = expires_at_ms {
        let written = match expiry(document) {
            Some(expiry) => expiry.write(at_ms, now_ms),
            None => Bson::DateTime(DateTime::from_millis(at_ms)),
        };
        set.insert("token.expires_in", written);
    }
    Some((
        doc! { "_id": id, "token.access_token": old },
        doc! { "$set": set },
    ))
}

fn expiry(document: &Document) -> Option<Expiry> {
    let updated_at_ms = document.get("updated_at").and_then(moment_ms);
    let token = document.get_document("token").ok()?;
    Expiry::read(token.get("expires_in")?, updated_at_ms)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
    const NOW_MS: i64 = 1_767_950_401_000;

    fn key(number: u8, page: Option<&str>, updated_at_ms: i64) -> FacebookKey {
        FacebookKey {
            id: ObjectId::from_bytes([number; 12]),
            account_id: ACCOUNT,
            page_id: page.map(str::to_owned),
            access_token: format!("token {number}"),
            expires_at_ms: None,
            updated_at_ms: Some(updated_at_ms),
        }
    }

    #[test]
    fn a_page_s_own_key_comes_first_and_the_newest_of_several() {
        let keys = [
            key(1, None, 9),
            key(2, Some("7"), 1),
            key(3, Some("8"), 9),
            key(4, Some("7"), 5),
            key(5, None, 3),
        ];
        let order: Vec<_> = FacebookKey::for_page(&keys, "7")
            .iter()
            .map(|key| key.id.bytes()[0])
            .collect();
        assert_eq!(order, [4, 2, 1, 5]);
    }

    #[test]
    fn a_token_is_renewed_in_its_last_ten_days_and_not_after() {
        let day_ms = 24 * 60 * 60 * 1000;
        let table = [
            (None, false, false),
            (Some(11 * day_ms), false, false),
            (Some(9 * day_ms), true, false),
            (Some(1), true, false),
            (Some(0), false, true),
            (Some(-day_ms), false, true),
        ];
        for (left_ms, is_to_be_renewed, is_expired) in table {
            let mut key = key(1, None, 0);
            key.expires_at_ms = left_ms.map(|left_ms| NOW_MS + left_ms);
            assert_eq!(
                key.is_to_be_renewed(NOW_MS),
                is_to_be_renewed,
                "{left_ms:?}"
            );
            assert_eq!(key.is_expired(NOW_MS), is_expired, "{left_ms:?}");
        }
    }

    #[test]
    fn a_token_is_replaced_only_where_the_old_one_still_is() {
        let id = ObjectId::from_bytes([1; 12]);
        let document = doc! {
            "_id": id, "account_id": ACCOUNT, "updated_at": DateTime::from_millis(NOW_MS - 1),
            "token": { "access_token": " old ", "expires_in": 1_767_950_402, "scope": "leads" },
        };
        assert_eq!(FacebookKey::read(&document).unwrap().access_token, "old");
        let (filter, update) =
            replacement(&document, "new", Some(NOW_MS + 60_000), NOW_MS).unwrap();
        // As it stands there, blanks and all.
        assert_eq!(filter, doc! { "_id": id, "token.access_token": " old " });
        let set = doc! {
            "token.access_token": "new", "updated_at": DateTime::from_millis(NOW_MS),
            "token.expires_in": 1_767_950_461,
        };
        assert_eq!(update, doc! { "$set": set });
    }

    #[test]
    fn a_debug_print_tells_no_token() {
        let told = format!("{:?}", key(1, None, 0));
        assert!(!told.contains("token 1"), "{told}");
    }
}
