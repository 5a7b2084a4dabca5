//! Renews Facebook tokens while they still work, and writes the new ones back upstream (R33).
//!
//! Must not know: leads, who uses a token, the store's tables. A new token is committed here first and used at once;
//! then it is written upstream in the place of the old one, and of no other: whoever was faster there wins. Should the
//! process die between Facebook's answer and the commit, the new token is gone; the old one is still in its document.

mod attempts;
mod write_back;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use inlet_sync::Upstream;

use self::attempts::Attempts;
use crate::clock::Clock;
use crate::graph::{Exchanged, Failure, Graph};
use crate::model::FacebookKey;
use crate::model::facebook_key::Fingerprint;
use crate::store::Store;
use crate::worker::{Step, StepError, Worker, jittered};

/// Tokens renewed at once; the others are due in the next round.
const AT_ONCE_MAX: usize = 8;
/// A new token's life where Graph does not say: what it usually is. Should it live longer, it is only asked about too
/// early.
const LIFE_ASSUMED: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// Nobody's token lives longer; a number gone mad must not overflow.
const LIFE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How often due tokens are looked for when nobody hints at one.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon a write that did not reach MongoDB is tried again.
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Every lead hints at a token that is due: one look serves them all.
const GATHER: Duration = Duration::from_secs(1);

/// Renews tokens, a round at a time.
pub struct Renewer {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    graph: Arc<Graph>,
    upstream: Option<Arc<Upstream>>,
    /// Rounds never overlap, whoever asks for one.
    round: tokio::sync::Mutex<()>,
    attempts: Attempts,
    /// New tokens that the store would not take yet. The old ones may be void.
    in_hand: Mutex<HashMap<Fingerprint, Exchanged>>,
}

/// What a round has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Tokens exchanged for new ones.
    pub renewed: usize,
    /// Tokens that could not be; each is tried again while it lives.
    pub failed: usize,
    /// New tokens written upstream.
    pub written: usize,
    /// New tokens that could not be, MongoDB being away: each is tried again soon.
    pub unwritten: usize,
    /// New tokens that MongoDB refuses, or whose document has no place for one: tried again later.
    pub refused: usize,
    /// Whether there is more to do at once.
    pub more: bool,
}

impl Round {
    /// The two as one. What is still to be done is as the later one found it.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            renewed: self.renewed + later.renewed,
            failed: self.failed + later.failed,
            written: self.written + later.written,
            ..later
        }
    }
}

impl Renewer {
    /// A renewer of `store`'s tokens; `upstream` is absent on a stand-alone node, where new tokens stay.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        graph: Arc<Graph>,
        upstream: Option<Arc<Upstream>>,
    ) -> Self {
        Self {
            store,
            clock,
            graph,
            upstream,
            round: tokio::sync::Mutex::default(),
            attempts: Attempts::default(),
            in_hand: Mutex::default(),
        }
    }

    /// Whether tokens can be renewed at all: an app's id and secret are configured.
    #[must_use]
    pub fn can_renew(&self) -> bool {
        self.graph.can_exchange()
    }

    /// Why a key's token could not be renewed when it was last tried.
    #[must_use]
    pub fn trouble(&self, key: &FacebookKey) -> Option<String> {
        self.attempts.trouble(key)
    }

    /// Renews what is due, some at a time, and writes upstream what is not there yet. Waits for a round under way.
    ///
    /// # Errors
    /// When the store cannot be read or written. What Facebook or MongoDB refuse is counted and tried again later.
    pub async fn round(&self) -> Result<Round, StepError> {
        let _alone = self.round.lock().await;
        let mut round = Round::default();
        if self.can_renew() {
            self.renew_due(&mut round).await?;
        }
        if let Some(upstream) = &self.upstream {
            self.write_back(upstream, &mut round).await?;
        }
        Ok(round)
    }

    async fn renew_due(&self, round: &mut Round) -> Result<(), StepError> {
        let mut due = self.due();
        round.more = due.len() > AT_ONCE_MAX;
        due.truncate(AT_ONCE_MAX);
        for renewed in join_all(due.into_iter().map(|key| self.renew(key))).await {
            match renewed? {
                Some(true) => round.renewed += 1,
                Some(false) => round.failed += 1,
                None => {}
            }
        }
        Ok(())
    }

    /// Tokens to be renewed now, those that end first at the front.
    fn due(&self) -> Vec<FacebookKey> {
        let now_ms = self.clock.now_ms();
        let reference = self.store.reference();
        let is_due =
            |key: &&FacebookKey| key.is_to_be_renewed(now_ms) && self.attempts.may_try(key, now_ms);
        let mut due: Vec<_> = reference.all_keys().filter(is_due).cloned().collect();
        due.sort_by_key(|key| (key.expires_at_ms, key.id));
        due
    }

    /// Whether a token was renewed; `None` where that was not needed any more.
    async fn renew(&self, key: FacebookKey) -> Result<Option<bool>, StepError> {
        if self.is_replaced_upstream(&key).await {
            return Ok(None);
        }
        let exchanged = match self.exchange(&key).await {
            Ok(exchanged) => exchanged,
            Err(failure) => {
                self.attempts.failed(&key, &failure, self.clock.now_ms());
                tracing::warn!(
                    key = %key.id, account = %key.account_id, error = %failure,
                    "a Facebook token could not be renewed; it is tried again while it works"
                );
                return Ok(Some(false));
            }
        };
        self.commit(key, exchanged).await.map(Some)
    }

    /// Somebody may have renewed it already: a look upstream costs less than a token. What is found there is here
    /// afterwards. An outage does not matter: who was faster is found out when the new token is written.
    async fn is_replaced_upstream(&self, key: &FacebookKey) -> bool {
        let Some(upstream) = &self.upstream else {
            return false;
        };
        if let Err(error) = self.read_again(upstream, key.id).await {
            tracing::debug!(%error, "the Facebook key cannot be read upstream now");
        }
        let reference = self.store.reference();
        let now = reference.all_keys().find(|now| now.id == key.id);
        now.is_none_or(|now| now.access_token != key.access_token)
    }

    async fn exchange(&self, key: &FacebookKey) -> Result<Exchanged, Failure> {
        let kept = self.in_hand().get(&key.fingerprint()).cloned();
        match kept {
            Some(exchanged) => Ok(exchanged),
            None => {
                let exchanged = self.graph.exchange(&key.access_token).await?;
                self.in_hand().insert(key.fingerprint(), exchanged.clone());
                Ok(exchanged)
            }
        }
    }

    /// Makes a new token the one that is used.
    async fn commit(&self, key: FacebookKey, exchanged: Exchanged) -> Result<bool, StepError> {
        let now_ms = self.clock.now_ms();
        let expires_at_ms = now_ms.saturating_add(life_ms(exchanged.expires_in));
        let (used, token) = (key.clone(), exchanged.access_token.clone());
        let taken = self
            .store
            .write(move |tables| tables.renew_token(&used, token, Some(expires_at_ms), now_ms))
            .await?;
        self.in_hand().remove(&key.fingerprint());
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.reload_reference()).await??;
        self.attempts
            .succeeded(&key, &exchanged.access_token, now_ms);
        if taken {
            tracing::info!(key = %key.id, account = %key.account_id, "a Facebook token was renewed");
        }
        Ok(taken)
    }

    fn in_hand(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, Exchanged>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs rounds: when a lead hints at a token that is due, and from time to time.
pub struct Tokens {
    renewer: Arc<Renewer>,
    pause: Duration,
}

impl Tokens {
    /// A worker that runs `renewer`'s rounds.
    #[must_use]
    pub fn new(renewer: Arc<Renewer>) -> Self {
        Self {
            renewer,
            pause: LOOK_EVERY,
        }
    }
}

impl Worker for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let round = self.renewer.round().await?;
        self.pause = match round.unwritten {
            0 => jittered(LOOK_EVERY),
            _ => jittered(WRITE_AGAIN_AFTER),
        };
        Ok(if round.more { Step::Busy } else { Step::Idle })
    }

    async fn wait(&mut self) {
        tokio::time::sleep(GATHER).await;
        let hint = self.renewer.store.signals().tokens.notified();
        let _ = tokio::time::timeout(self.pause, hint).await;
    }
}

fn life_ms(seconds: Option<u64>) -> i64 {
    let life = seconds.map_or(LIFE_ASSUMED, Duration::from_secs);
    i64::try_from(life.min(LIFE_MAX).as_millis()).unwrap_or(i64::MAX)
}
