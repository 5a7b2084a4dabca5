//! When each token was last tried to be renewed, so that a refusal is not asked for again and again.
//!
//! Kept in memory: after a restart every token that is due may be tried once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::oid::ObjectId;

use crate::graph::Failure;
use crate::model::FacebookKey;
use crate::model::facebook_key::{Fingerprint, fingerprint};
use crate::worker::jittered;

/// Between two tries with one token, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// A token that was just renewed is left alone for this long, should its new life be as short as the old one's rest.
const REST: Duration = Duration::from_secs(3600);
/// Keys remembered at most; those longest past their time are forgotten first.
const REMEMBERED_MAX: usize = 10_000;

/// The last try for each key.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<ObjectId, Attempt>>);

struct Attempt {
    token: Fingerprint,
    failures: u32,
    /// Milliseconds since the epoch.
    next_ms: i64,
    error: Option<String>,
}

impl Attempts {
    /// Whether a key's present token may be tried now.
    pub(super) fn may_try(&self, key: &FacebookKey, now_ms: i64) -> bool {
        self.lock()
            .get(&key.id)
            .is_none_or(|last| last.token != key.fingerprint() || last.next_ms <= now_ms)
    }

    /// Why a key's present token could not be renewed.
    pub(super) fn trouble(&self, key: &FacebookKey) -> Option<String> {
        let attempts = self.lock();
        let last = attempts.get(&key.id)?;
        last.error
            .clone()
            .filter(|_| last.token == key.fingerprint())
    }

    pub(super) fn succeeded(&self, key: &FacebookKey, new_token: &str, now_ms: i64) {
        let rested = Attempt {
            token: fingerprint(new_token),
            failures: 0,
            next_ms: now_ms.saturating_add(millis(REST)),
            error: None,
        };
        self.remember(key.id, rested, now_ms);
    }

    pub(super) fn failed(&self, key: &FacebookKey, failure: &Failure, now_ms: i64) {
        let token = key.fingerprint();
        let before = self.lock().get(&key.id).map_or(0, |last| {
            let is_same = last.token == token;
            if is_same { last.failures } else { 0 }
        });
        let doubled = BACKOFF.0.saturating_mul(1 << before.min(10));
        let asked = match failure {
            Failure::Unavailable { retry_after, .. } | Failure::Throttled { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        };
        let wait = asked.unwrap_or_else(|| jittered(doubled.min(BACKOFF.1)));
        let attempt = Attempt {
            token,
            failures: before.saturating_add(1),
            next_ms: now_ms.saturating_add(millis(wait)),
            error: Some(failure.to_string()),
        };
        self.remember(key.id, attempt, now_ms);
    }

    fn remember(&self, key: ObjectId, attempt: Attempt, now_ms: i64) {
        let mut attempts = self.lock();
        if attempts.len() >= REMEMBERED_MAX {
            attempts.retain(|_, last| last.next_ms > now_ms);
        }
        if attempts.len() < REMEMBERED_MAX || attempts.contains_key(&key) {
            attempts.insert(key, attempt);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;
    const MINUTE_MS: i64 = 60_000;

    fn key(token: &str) -> FacebookKey {
        FacebookKey {
            id: ObjectId::from_bytes([1; 12]),
            account_id: ObjectId::from_bytes([2; 12]),
            page_id: None,
            access_token: token.to_owned(),
            expires_at_ms: None,
            updated_at_ms: None,
        }
    }

    fn refused() -> Failure {
        Failure::Refused {
            detail: "no".to_owned(),
        }
    }

    #[test]
    fn a_refused_token_is_tried_again_ever_later_and_a_new_one_at_once() {
        let attempts = Attempts::default();
        let old = key("old");
        assert!(attempts.may_try(&old, NOW_MS));
        attempts.failed(&old, &refused(), NOW_MS);
        assert!(!attempts.may_try(&old, NOW_MS + MINUTE_MS / 2 - 1));
        assert!(attempts.may_try(&old, NOW_MS + MINUTE_MS));
        for _ in 0..40 {
            attempts.failed(&old, &refused(), NOW_MS);
        }
        assert!(!attempts.may_try(&old, NOW_MS + 30 * MINUTE_MS - 1));
        assert!(attempts.may_try(&old, NOW_MS + 60 * MINUTE_MS));
        assert_eq!(attempts.trouble(&old).as_deref(), Some("Graph refused: no"));
        let new = key("new");
        assert!(attempts.may_try(&new, NOW_MS));
        assert_eq!(attempts.trouble(&new), None);
    }

    #[test]
    fn graph_is_left_alone_for_as_long_as_it_asks() {
        let attempts = Attempts::default();
        let throttled = Failure::Unavailable {
            detail: "busy".to_owned(),
            retry_after: Some(Duration::from_secs(600)),
        };
        attempts.failed(&key("old"), &throttled, NOW_MS);
        assert!(!attempts.may_try(&key("old"), NOW_MS + 10 * MINUTE_MS - 1));
        assert!(attempts.may_try(&key("old"), NOW_MS + 10 * MINUTE_MS));
    }

    #[test]
    fn a_short_lived_new_token_is_not_renewed_in_a_loop() {
        let attempts = Attempts::default();
        attempts.succeeded(&key("old"), "new", NOW_MS);
        assert!(!attempts.may_try(&key("new"), NOW_MS + 59 * MINUTE_MS));
        assert!(attempts.may_try(&key("new"), NOW_MS + 60 * MINUTE_MS));
    }
}
