//! Push: the same message to each of the representative's devices. One that took it is enough.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::model::Channel;
use crate::notify::facts::Facts;
use crate::notify::push::{Failure as NotPushed, Message, PushSender};
use crate::notify::{Device, Failure, Handed, Receipt, SEND_MAX, Way, content, http};

/// Devices of one user asked at once.
const CONCURRENT_MAX: usize = 8;
/// After this no further device is begun with. Those that were have time for an access token and a message, each at the
/// end of the sender's patience, or for a message refused, another token, and the message again, if nobody is slow.
const BEGIN_MAX: Duration = Duration::from_secs(5);
/// After this no device is waited for: a little earlier than the deliveries would give up, so that it is known which of
/// the devices have answered.
const ANSWER_MAX: Duration = SEND_MAX.saturating_sub(Duration::from_secs(1));

/// Notifies by push messages.
#[derive(Debug, Clone)]
pub struct ByPush {
    sender: Arc<PushSender>,
}

impl ByPush {
    /// By this sender.
    #[must_use]
    pub fn new(sender: PushSender) -> Self {
        let sender = Arc::new(sender);
        Self { sender }
    }

    /// Why nothing can be sent for now, if that is known without sending.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.sender.trouble()
    }
}

impl Way for ByPush {
    type Message = content::Push;

    fn channel(&self) -> Channel {
        Channel::Push
    }

    fn project(&self) -> Option<String> {
        self.sender.project_id()
    }

    fn render(&self, facts: &Facts) -> Result<content::Push, String> {
        content::push(facts)
    }

    async fn send(&self, push: content::Push) -> Handed {
        let begun = Instant::now();
        let mut tally = Tally::of(push.project.clone(), push.is_trusted_project);
        for tokens in push.tokens.chunks(CONCURRENT_MAX) {
            // Who is away for these is away for the others.
            if tally.is_away() || begun.elapsed() >= BEGIN_MAX {
                tally.unasked = true;
                break;
            }
            let asked = tokens
                .iter()
                .map(|token| self.push_to(token, &push, begun + ANSWER_MAX));
            for (token, outcome) in tokens.iter().zip(join_all(asked).await) {
                tally.add(token, outcome);
            }
        }
        tally.total()
    }
}

impl ByPush {
    async fn push_to(
        &self,
        token: &str,
        push: &content::Push,
        until: Instant,
    ) -> Result<Receipt, NotPushed> {
        let message = Message {
            token: token.to_owned(),
            title: push.title.clone(),
            body: push.body.clone(),
            project: push.project.clone(),
            data: push.data.clone(),
        };
        let answered = timeout_at(until, self.sender.send(&message)).await;
        answered.unwrap_or_else(|_| {
            let detail = format!("FCM: no answer within {ANSWER_MAX:?}");
            Err(Failure::Unknown { detail }.into())
        })
    }
}

/// What the devices come to, all together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    taken: Option<Receipt>,
    trouble: Option<Failure>,
    gone: Vec<Device>,
    /// Devices that belong to another project, if this is the right one, and what was said of the last of them.
    foreign: (Vec<Device>, String),
    /// The project, and whether it is known to be the right one.
    project: Option<String>,
    is_trusted: bool,
    last_words: String,
    /// Whether devices are left that nobody asked.
    unasked: bool,
}

impl Tally {
    /// A tally of nobody yet. A project is trusted that a device took a push of before.
    pub(super) fn of(project: Option<String>, is_trusted: bool) -> Self {
        Self {
            project,
            is_trusted,
            ..Self::default()
        }
    }

    /// One device more.
    pub(super) fn add(&mut self, token: &str, outcome: Result<Receipt, NotPushed>) {
        match outcome {
            Ok(receipt) => drop(self.taken.get_or_insert(receipt)),
            Err(NotPushed::DeviceGone { project, detail }) => {
                let token = token.to_owned();
                self.gone.push(Device { project, token });
                self.last_words = detail;
            }
            Err(NotPushed::OtherProject { project, detail }) => {
                let token = token.to_owned();
                self.foreign.0.push(Device { project, token });
                self.foreign.1 = detail;
            }
            Err(NotPushed::NotTaken(failure)) => {
                self.trouble = Some(match self.trouble.take() {
                    Some(trouble) => worse(trouble, failure),
                    None => failure,
                });
            }
        }
    }

    fn is_away(&self) -> bool {
        matches!(self.trouble, Some(Failure::Unavailable { .. }))
    }

    /// Taken by one is taken. Else whatever leads to another try comes first: a device that is away keeps no other from
    /// being asked again, but one that says no for good does not end it for those that are away.
    ///
    /// A device of another project is gone where this project reaches, or has reached, others. Where it does not, for
    /// all that is known its key is a wrong one: that can be mended, and the device is asked again.
    pub(super) fn total(mut self) -> Handed {
        let is_taken = self.taken.is_some();
        let (mut foreign, words) = self.foreign;
        if self.is_trusted || is_taken {
            self.last_words = if foreign.is_empty() {
                self.last_words
            } else {
                words
            };
            self.gone.append(&mut foreign);
        } else if !foreign.is_empty() {
            let misled = http::unavailable(words);
            self.trouble = Some(match self.trouble.take() {
                Some(trouble) => worse(misled, trouble),
                None => misled,
            });
        }
        let outcome = match (self.taken, self.trouble) {
            (Some(receipt), _) => Ok(receipt),
            (None, Some(trouble)) => Err(trouble),
            (None, None) if self.unasked => Err(Failure::Unavailable {
                detail: "not every device could be asked in time".to_owned(),
                retry_after: None,
            }),
            (None, None) => Err(Failure::Refused {
                detail: format!("the user has no device any more: {}", self.last_words),
            }),
        };
        Handed {
            outcome,
            dead: self.gone,
            works: self.project.filter(|_| is_taken && !self.is_trusted),
        }
    }
}

/// Of two reasons the one that leaves more to hope for; the longer wait of two.
fn worse(one: Failure, other: Failure) -> Failure {
    match (one, other) {
        (
            Failure::Unavailable {
                detail,
                retry_after: first,
            },
            Failure::Unavailable {
                retry_after: second,
                ..
            },
        ) => Failure::Unavailable {
            detail,
            retry_after: first.max(second),
        },
        (away @ Failure::Unavailable { .. }, _) | (_, away @ Failure::Unavailable { .. }) => away,
        (later @ Failure::Deferred { .. }, _) | (_, later @ Failure::Deferred { .. }) => later,
        (unknown @ Failure::Unknown { .. }, _) | (_, unknown @ Failure::Unknown { .. }) => unknown,
        (refused, _) => refused,
    }
}
