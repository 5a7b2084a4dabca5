//! When the next round of erasures may begin.
//!
//! A round holds the node still. Between two of them it has as long as the last one took, up to a minute, so that many
//! short rounds in a row leave it half of its time; and after one that failed, longer from time to time.
//!
//! Must not know: what a round does.

use std::time::Duration;

/// The shortest rest: in less than it the push, which asks MongoDB several times for one batch, might get nowhere.
const REST_MIN_MS: i64 = 1_000;
/// The longest rest after a round that went well: whoever asked waits for it.
const REST_MAX_MS: i64 = 60_000;
/// The rest after the first round that failed; it doubles with each.
const BACKOFF_MS: i64 = 30_000;
/// The longest rest after a round that failed.
const BACKOFF_MAX_MS: i64 = 3_600_000;

/// How the last rounds went. Times are milliseconds since the epoch, by a clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
    until_ms: i64,
}

impl Pace {
    /// How long the node still has for itself; `None`: a round may begin.
    pub(super) fn rest(&self, now_ms: i64) -> Option<Duration> {
        let rest_ms = u64::try_from(self.until_ms - now_ms).unwrap_or(0);
        (rest_ms > 0).then(|| Duration::from_millis(rest_ms))
    }

    /// A round has ended that began then.
    pub(super) fn went_well(&mut self, began_ms: i64, now_ms: i64) {
        self.failures = 0;
        self.until_ms = now_ms + rest_after(now_ms - began_ms);
    }

    /// A round has failed that began then.
    pub(super) fn failed(&mut self, began_ms: i64, now_ms: i64) {
        let doubled = BACKOFF_MS << self.failures.min(16);
        let backoff_ms = doubled.min(BACKOFF_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.until_ms = now_ms + backoff_ms.max(rest_after(now_ms - began_ms));
    }

    /// What failed was given up: there is nothing left to wait for.
    pub(super) fn forget_failures(&mut self) {
        if self.failures > 0 {
            *self = Self::default();
        }
    }
}

fn rest_after(round_ms: i64) -> i64 {
    round_ms.clamp(REST_MIN_MS, REST_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN_MS: i64 = 1_700_000_000_000;

    fn seconds(seconds: i64) -> Option<Duration> {
        Some(Duration::from_secs(seconds.unsigned_abs()))
    }

    #[test]
    fn between_two_rounds_the_node_has_as_long_as_the_last_one_took() {
        let mut pace = Pace::default();
        assert_eq!(pace.rest(BEGAN_MS), None, "the first one begins at once");
        for (took, rest) in [(20, 20), (0, 1), (600, 60)] {
            let ended_ms = BEGAN_MS + took * 1_000;
            pace.went_well(BEGAN_MS, ended_ms);
            assert_eq!(pace.rest(ended_ms), seconds(rest));
            assert_eq!(pace.rest(ended_ms + rest * 1_000), None);
        }
    }

    #[test]
    fn failures_are_further_and_further_apart_until_one_round_goes_well_or_is_given_up() {
        let mut pace = Pace::default();
        for rest in [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            pace.failed(BEGAN_MS, BEGAN_MS);
            assert_eq!(pace.rest(BEGAN_MS), seconds(rest));
        }
        pace.went_well(BEGAN_MS, BEGAN_MS);
        pace.forget_failures();
        assert_eq!(pace.rest(BEGAN_MS), seconds(1), "that one did not fail");
        let ended_ms = BEGAN_MS + 50_000;
        pace.failed(BEGAN_MS, ended_ms);
        assert_eq!(pace.rest(ended_ms), seconds(50), "it took longer");
        pace.forget_failures();
        assert_eq!(pace.rest(ended_ms), None);
    }
}
