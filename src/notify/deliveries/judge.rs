//! What an answer means for its message, and for the channel (R26, R28). Pure but for the jitter.
//!
//! An outage is the channel's, not the message's: the whole channel waits behind one backoff, and one message finds out
//! when it is over: each time another one, since a provider may be unwilling towards one alone without saying so. What
//! it says it does not take yet, while it takes others, waits alone.

use std::time::Duration;

use super::{Answer, Limits};
use crate::health::Health;
use crate::model::Channel;
use crate::notify::{Failure, Handed};
use crate::store::deliveries::{Delivery, Verdict};
use crate::worker::jittered;

/// Backoff while a channel is away, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The same for one message that a provider defers: greylisting ends after some minutes.
const DEFERRAL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(900));
/// The longest that a provider may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// What is kept of an error's text.
const ERROR_CHARS_MAX: usize = 500;
/// How long a user that is not known is waited for.
pub(super) const USER_WAIT_MS: i64 = 10 * 60 * 1000;

pub(super) const STOPPED: &str = "the node stopped while it was being sent";
const PANICKED: &str = "a fault of this program";

/// Judges the answers of one channel, and remembers how the channel is doing.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    channel: Channel,
    limits: Limits,
    /// Batches in a row that got no answer.
    failures: u32,
    blocked_until_ms: i64,
}

impl Judge {
    pub(super) fn new(channel: Channel, limits: Limits) -> Self {
        Self {
            channel,
            limits,
            failures: 0,
            blocked_until_ms: 0,
        }
    }

    /// A wait that is longer than any was begun on a clock that was set back since: it is over.
    pub(super) fn is_blocked(&self, now_ms: i64) -> bool {
        now_ms < self.blocked_until_ms && self.blocked_until_ms <= later(now_ms, RETRY_AFTER_MAX)
    }

    /// How many messages may go out at once: one, while the channel seems to be away.
    pub(super) fn limit(&self, most: usize) -> usize {
        if self.failures > 0 { 1 } else { most }
    }

    /// Judges all answers of one batch.
    pub(super) fn all(
        &mut self,
        answers: &[Answer],
        now_ms: i64,
        health: &Health,
    ) -> Vec<(u64, Verdict)> {
        self.note(answers, now_ms, health);
        let verdict = |(number, delivery, handed): &Answer| {
            let verdict = match handed {
                Some(handed) => self.one(delivery, handed, now_ms),
                None => {
                    tracing::error!(channel = %self.channel, "a message could not be sent: a panic");
                    self.unknown(delivery, PANICKED, now_ms)
                }
            };
            (*number, verdict)
        };
        answers.iter().map(verdict).collect()
    }

    /// The verdict on one message, before the others of its batch have answered: how long the channel waits is not
    /// known yet, but what became of this one is. `None`: a fault of this node's.
    pub(super) fn decided(&self, (_, delivery, handed): &Answer, now_ms: i64) -> Option<Verdict> {
        let handed = handed.as_ref()?;
        Some(self.one(delivery, handed, now_ms))
    }

    /// A message that could not be made, by a fault of this node's, uses up an attempt.
    pub(super) fn fault(&self, delivery: &Delivery, now_ms: i64) -> Verdict {
        tracing::error!(channel = %self.channel, "a message could not be made: a panic");
        match self.again(delivery, PANICKED, now_ms) {
            Some(again) => again,
            None => Verdict::Failed {
                error: PANICKED.to_owned(),
            },
        }
    }

    /// The mark of a call whose outcome nobody knows. It uses up an attempt: the node may have died of this message,
    /// and one that dies of something else, again and again, is not to send it at each of its starts. It is due at
    /// once, because the start was the wait. `None`: its record is damaged.
    pub(super) fn lost(&self, delivery: Option<&Delivery>, now_ms: i64) -> Verdict {
        let has_attempts = delivery.is_some_and(|delivery| self.has_attempts_after_this(delivery));
        let error = STOPPED.to_owned();
        if has_attempts && self.channel.may_repeat() {
            return Verdict::Again {
                error,
                due_ms: now_ms,
            };
        }
        Verdict::Unknown { error }
    }

    /// The mark of a call that was never made.
    pub(super) fn unsent(now_ms: i64) -> Verdict {
        Verdict::Postponed {
            error: None,
            due_ms: now_ms,
        }
    }

    fn one(&self, delivery: &Delivery, handed: &Handed, now_ms: i64) -> Verdict {
        match &handed.outcome {
            Ok(receipt) => Verdict::Sent {
                receipt: receipt.id.as_deref().map(short),
            },
            Err(Failure::Refused { detail }) => Verdict::Failed {
                error: short(detail),
            },
            Err(Failure::Unavailable { detail, .. }) => {
                let wait = doubled(BACKOFF, delivery.refusals);
                Verdict::Unavailable {
                    error: short(detail),
                    due_ms: later(now_ms, wait).max(self.blocked_until_ms),
                }
            }
            Err(Failure::Deferred {
                detail,
                retry_after,
            }) => {
                let asked_for = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
                let wait = doubled(DEFERRAL, delivery.refusals).max(asked_for);
                Verdict::Unavailable {
                    error: short(detail),
                    due_ms: later(now_ms, wait),
                }
            }
            Err(Failure::Unknown { detail }) => self.unknown(delivery, detail, now_ms),
        }
    }

    /// The provider may have it, wherever it was that this node lost hold of it.
    fn unknown(&self, delivery: &Delivery, detail: &str, now_ms: i64) -> Verdict {
        let again = self.again(delivery, detail, now_ms);
        again
            .filter(|_| self.channel.may_repeat())
            .unwrap_or_else(|| Verdict::Unknown {
                error: short(detail),
            })
    }

    /// `None` where no attempt is left.
    fn again(&self, delivery: &Delivery, error: &str, now_ms: i64) -> Option<Verdict> {
        let wait = doubled(
            (self.limits.backoff, self.limits.backoff_max),
            delivery.attempts,
        );
        self.has_attempts_after_this(delivery)
            .then(|| Verdict::Again {
                error: short(error),
                due_ms: later(now_ms, wait),
            })
    }

    fn has_attempts_after_this(&self, delivery: &Delivery) -> bool {
        delivery.attempts + 1 < self.limits.max_attempts
    }

    /// The channel is away when nothing that went out was taken or refused, or when the provider asks to be left alone.
    /// One message that was deferred says nothing of it, several at once do.
    fn note(&mut self, answers: &[Answer], now_ms: i64, health: &Health) {
        let handed = answers.iter().filter_map(|(_, _, handed)| handed.as_ref());
        let is_decided =
            |handed: &Handed| matches!(handed.outcome, Ok(_) | Err(Failure::Refused { .. }));
        let any_decided = handed.clone().any(is_decided);
        let mut troubles: Vec<_> = handed.clone().filter_map(trouble).collect();
        let deferrals: Vec<_> = handed.filter_map(deferral).collect();
        if troubles.is_empty() && deferrals.len() > 1 && !any_decided {
            troubles = deferrals;
        }
        let asked_for = troubles.iter().filter_map(|(_, retry_after)| *retry_after);
        let asked_for = asked_for.max().map(|wait| wait.min(RETRY_AFTER_MAX));
        let is_away = !any_decided || asked_for.is_some();
        let Some((detail, _)) = troubles.first().filter(|_| is_away) else {
            if any_decided {
                health.well();
                self.failures = 0;
            }
            return;
        };
        let wait = asked_for.unwrap_or_else(|| doubled(BACKOFF, self.failures));
        self.failures = self.failures.saturating_add(1);
        self.blocked_until_ms = later(now_ms, wait);
        health.ill(short(detail), now_ms);
    }
}

/// What speaks against the channel rather than the message, and how long the provider asked to be left alone.
fn trouble(handed: &Handed) -> Option<(&str, Option<Duration>)> {
    match &handed.outcome {
        Err(Failure::Unavailable {
            detail,
            retry_after,
        }) => Some((detail, *retry_after)),
        Err(Failure::Unknown { detail }) => Some((detail, None)),
        Ok(_) | Err(Failure::Deferred { .. } | Failure::Refused { .. }) => None,
    }
}

/// What stood in the way of one message only, unless it stands in the way of all.
fn deferral(handed: &Handed) -> Option<(&str, Option<Duration>)> {
    match &handed.outcome {
        Err(Failure::Deferred { detail, .. }) => Some((detail, None)),
        _ => None,
    }
}

fn doubled((first, most): (Duration, Duration), times: u32) -> Duration {
    jittered(first.saturating_mul(1 << times.min(16)).min(most))
}

fn later(now_ms: i64, wait: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

fn short(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}
