//! How fast Graph may be asked: for whom it is to be left alone, and how long (R28).
//!
//! Must not know: leads, tokens, the store. A limit of the app's holds up everything, a page's only that page, and a
//! refused proof only the key it goes with.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bson::oid::ObjectId;

use crate::graph::Waits;
use crate::health::Health;
use crate::model::TaskKey;
use crate::worker::jittered;

/// Requests under way at once.
const CONCURRENT_MAX: usize = 16;
/// Backoff while Graph is away.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long a key is left alone whose proof Graph does not accept.
const KEY_RESTS: Duration = Duration::from_secs(120);
/// When nobody but so few leads fails, and the same ones again and again, it may be Graph's trouble with them alone.
const SUSPECTS_MAX: usize = 8;

/// What Graph has asked for so far. Times are in milliseconds since the epoch.
#[derive(Default)]
pub(super) struct Pace {
    /// Passes in a row in which nobody got an answer.
    failures: u32,
    blocked_until_ms: i64,
    /// Pages that are throttled, and until when.
    pages: HashMap<String, i64>,
    /// Keys with which the app's proof was refused.
    keys: HashMap<ObjectId, Held>,
    /// Leads that Graph has failed with since it last gave an answer; one more than [`SUSPECTS_MAX`] at most.
    failed: HashSet<TaskKey>,
}

struct Held {
    until_ms: i64,
    error: String,
}

/// How Graph was when it was asked about a page, for a task and with a key.
pub(super) struct Heard {
    pub(super) task: TaskKey,
    pub(super) key: ObjectId,
    pub(super) page: String,
    pub(super) waits: Waits,
    pub(super) hindrance: Option<Hindrance>,
}

/// Why a lead has to wait, through no fault of its own.
#[derive(Debug, Clone)]
pub(super) struct Hindrance {
    pub(super) of: Hindered,
    pub(super) error: String,
    pub(super) wait: Duration,
}

/// Who has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hindered {
    /// This lead; all of them, if no other got an answer either.
    Lead,
    /// Everybody.
    Everybody,
    /// Whoever asks about this page.
    Page,
    /// Whoever asks with this key.
    Key,
}

impl Pace {
    /// The rest of the time in which nothing is asked.
    pub(super) fn rest(&self, now_ms: i64) -> Option<Duration> {
        left(self.blocked_until_ms, now_ms)
    }

    /// The rest of the time in which nothing is asked about this page.
    pub(super) fn rest_of_page(&self, page: &str, now_ms: i64) -> Option<Duration> {
        left(*self.pages.get(page)?, now_ms)
    }

    /// Why nothing is asked with this key, if nothing is.
    pub(super) fn hindrance_of_key(&self, key: ObjectId, now_ms: i64) -> Option<Hindrance> {
        let held = self.keys.get(&key)?;
        Some(Hindrance {
            of: Hindered::Key,
            error: held.error.clone(),
            wait: left(held.until_ms, now_ms)?,
        })
    }

    /// How much may be asked at once: one request at a time finds out when an outage is over.
    pub(super) fn requests_max(&self) -> usize {
        if self.failures > 0 { 1 } else { CONCURRENT_MAX }
    }

    /// How long to wait where Graph does not say.
    pub(super) fn backoff(&self) -> Duration {
        let doubled = BACKOFF.0.saturating_mul(1 << self.failures.min(10));
        jittered(doubled.min(BACKOFF.1))
    }

    /// Takes note of how Graph is doing.
    pub(super) fn note(&mut self, heard: &[Heard], health: &Health, now_ms: i64) {
        self.pages.retain(|_, until_ms| *until_ms > now_ms);
        self.keys.retain(|_, held| held.until_ms > now_ms);
        for one in heard {
            self.note_page(one, now_ms);
            self.note_key(one, now_ms);
        }
        let by_app = throttled(heard);
        let are_suspects = by_app.is_none() && self.are_suspects(heard);
        if let Some((error, wait)) = by_app.or_else(|| unanswered(heard)) {
            self.failures = self.failures.saturating_add(1);
            if !are_suspects {
                self.blocked_until_ms = now_ms.saturating_add(millis(wait));
            }
            health.ill(error, now_ms);
        } else if !heard.is_empty() {
            self.failures = 0;
            self.failed.clear();
            match self.trouble(heard) {
                Some(error) => health.ill(error, now_ms),
                None => health.well(),
            }
        }
    }

    /// Whether Graph failed with nobody but leads, few of them, that it had failed with before: others need not wait
    /// for those. The first new one that fails as well shows that it is an outage.
    fn are_suspects(&mut self, heard: &[Heard]) -> bool {
        let known = self.failed.len();
        for one in heard {
            if self.failed.len() <= SUSPECTS_MAX {
                self.failed.insert(one.task);
            }
        }
        self.failed.len() == known && known <= SUSPECTS_MAX
    }

    /// What people should know of while Graph answers.
    fn trouble(&self, heard: &[Heard]) -> Option<String> {
        let first = heard.iter().find_map(|one| one.hindrance.as_ref());
        let page = first.filter(|it| it.of == Hindered::Page);
        let key = self.keys.values().next();
        page.map(|it| it.error.clone())
            .or_else(|| key.map(|held| held.error.clone()))
    }

    fn note_key(&mut self, heard: &Heard, now_ms: i64) {
        if let Some(hindrance) = &heard.hindrance
            && hindrance.of == Hindered::Key
        {
            let held = Held {
                until_ms: now_ms.saturating_add(millis(KEY_RESTS)),
                error: hindrance.error.clone(),
            };
            self.keys.insert(heard.key, held);
        }
    }

    fn note_page(&mut self, heard: &Heard, now_ms: i64) {
        let throttled = heard
            .hindrance
            .as_ref()
            .filter(|hindrance| hindrance.of == Hindered::Page)
            .map(|hindrance| hindrance.wait);
        if let Some(wait) = throttled.max(heard.waits.page) {
            let until_ms = now_ms.saturating_add(millis(wait));
            self.pages.insert(heard.page.clone(), until_ms);
        }
    }
}

/// Why nobody is to ask for a while, and how long: the app is throttled.
fn throttled(heard: &[Heard]) -> Option<(String, Duration)> {
    let hindrances = || heard.iter().filter_map(|one| one.hindrance.as_ref());
    let of_all = hindrances().filter(|it| it.of == Hindered::Everybody);
    let by_usage = heard.iter().filter_map(|one| one.waits.app);
    of_all
        .map(|it| (it.error.clone(), it.wait))
        .chain(by_usage.map(|wait| ("the app has used up what Graph allows it".to_owned(), wait)))
        .max_by_key(|(_, wait)| *wait)
}

/// The same, because nothing that was asked got an answer.
fn unanswered(heard: &[Heard]) -> Option<(String, Duration)> {
    let hindrances = heard.iter().filter_map(|one| one.hindrance.as_ref());
    let away: Vec<_> = hindrances.filter(|it| it.of == Hindered::Lead).collect();
    let longest = away.iter().max_by_key(|it| it.wait)?;
    (away.len() == heard.len()).then(|| (longest.error.clone(), longest.wait))
}

fn left(until_ms: i64, now_ms: i64) -> Option<Duration> {
    let left_ms = u64::try_from(until_ms.saturating_sub(now_ms)).ok()?;
    (left_ms > 0).then(|| Duration::from_millis(left_ms))
}

/// Milliseconds of a wait.
pub(super) fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;
    const MINUTE: Duration = Duration::from_secs(60);

    fn heard(page: &str, hindrance: Option<(Hindered, Duration)>) -> Heard {
        Heard {
            task: TaskKey::change(fastrand::u64(..), 0),
            key: ObjectId::from_bytes([1; 12]),
            page: page.to_owned(),
            waits: Waits::default(),
            hindrance: hindrance.map(|(of, wait)| Hindrance {
                of,
                wait,
                error: "scripted".to_owned(),
            }),
        }
    }

    /// What is left to wait for everybody, for page 7 and for page 8, after this was heard.
    fn after(heard: &[Heard]) -> [Option<Duration>; 3] {
        let (mut pace, health) = (Pace::default(), Health::default());
        pace.note(heard, &health, NOW_MS);
        [
            pace.rest(NOW_MS),
            pace.rest_of_page("7", NOW_MS),
            pace.rest_of_page("8", NOW_MS),
        ]
    }

    #[test]
    fn a_page_s_limit_holds_up_that_page_only() {
        let throttled = heard("7", Some((Hindered::Page, MINUTE)));
        assert_eq!(after(&[throttled]), [None, Some(MINUTE), None]);
        let mut nearly = heard("8", None);
        nearly.waits.page = Some(MINUTE);
        assert_eq!(after(&[nearly]), [None, None, Some(MINUTE)]);
    }

    #[test]
    fn the_app_s_limit_holds_up_everybody_even_beside_an_answer() {
        let throttled = heard("7", Some((Hindered::Everybody, MINUTE)));
        let answered = heard("8", None);
        assert_eq!(after(&[throttled, answered]), [Some(MINUTE), None, None]);
        let mut nearly = heard("7", None);
        nearly.waits.app = Some(MINUTE);
        assert_eq!(after(&[nearly]), [Some(MINUTE), None, None]);
    }

    #[test]
    fn graph_is_away_when_nobody_got_an_answer_and_one_finds_out_when_it_is_back() {
        let away = || heard("7", Some((Hindered::Lead, MINUTE)));
        assert_eq!(after(&[away(), heard("8", None)]), [None, None, None]);
        let (mut pace, health) = (Pace::default(), Health::default());
        pace.note(&[away(), away()], &health, NOW_MS);
        assert_eq!(pace.rest(NOW_MS), Some(MINUTE));
        assert_eq!(pace.requests_max(), 1);
        assert!(health.trouble().is_some());
        pace.note(&[heard("7", None)], &health, NOW_MS + 60_000);
        assert_eq!(pace.requests_max(), CONCURRENT_MAX);
        assert_eq!((pace.rest(NOW_MS + 60_000), health.trouble()), (None, None));
    }

    /// One lead that Graph kept failing with held up everybody for a minute, again and again, for ever.
    #[test]
    fn a_lead_that_graph_fails_with_again_and_again_holds_up_others_once() {
        let away = |task| Heard {
            task: TaskKey::change(task, 0),
            ..heard("7", Some((Hindered::Lead, MINUTE)))
        };
        let (mut pace, health) = (Pace::default(), Health::default());
        let mut rest_after = |tasks: &[u64], at_ms| {
            let heard: Vec<_> = tasks.iter().map(|task| away(*task)).collect();
            pace.note(&heard, &health, at_ms);
            pace.rest(at_ms)
        };
        assert_eq!(rest_after(&[1], NOW_MS), Some(MINUTE));
        assert_eq!(rest_after(&[1], NOW_MS + 60_000), None, "it is this one");
        assert_eq!(rest_after(&[2], NOW_MS + 60_000), Some(MINUTE), "another");
        let many: Vec<_> = (1..16).collect();
        assert_eq!(rest_after(&many, NOW_MS + 120_000), Some(MINUTE));
        assert_eq!(
            rest_after(&many, NOW_MS + 180_000),
            Some(MINUTE),
            "too many"
        );
        assert_eq!(pace.requests_max(), 1, "one finds out all the same");
    }

    #[test]
    fn a_wait_ends_when_its_time_is_over() {
        let (mut pace, health) = (Pace::default(), Health::default());
        let throttled = heard("7", Some((Hindered::Page, MINUTE)));
        pace.note(&[throttled], &health, NOW_MS);
        assert_eq!(
            pace.rest_of_page("7", NOW_MS + 59_999),
            Some(Duration::from_millis(1))
        );
        assert_eq!(pace.rest_of_page("7", NOW_MS + 60_000), None);
        pace.note(&[], &health, NOW_MS + 60_000);
        assert!(pace.pages.is_empty());
    }
}
