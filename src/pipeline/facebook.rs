//! Fetches Facebook leads from the Graph API and turns them into leads, one task per (change, campaign).
//!
//! Graph is asked before the lead's transaction, never inside it. An outage or throttling uses up no attempts: work
//! waits behind a backoff, and one request at a time finds out when it is over (R28).

mod look;
mod pace;
mod settle;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures_util::future::join_all;

use self::look::Look;
use self::pace::{Heard, Hindered, Hindrance, Pace};
use super::Shared;
use super::prepare::{Draft, Prepared};
use super::readings::Opened;
use super::settle::Settling;
use crate::graph::{Extent, Failure, Graph, Throttled};
use crate::health::Health;
use crate::model::{Campaign, FacebookKey, LeadId, TaskKey};
use crate::platforms;
use crate::store::tokens::Place;
use crate::store::{StoreError, Tables};
use crate::worker::{Step, StepError, Worker, jittered};

const POLL: Duration = Duration::from_millis(500);
/// Parked leads woken in one transaction: intake that arrives meanwhile waits for no more of them.
const WAKE_MAX: usize = 1_000;
/// How soon a lead that is not read for want of a good proof is tried again: before its key is, for its account may
/// have another one.
const PROOF_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How often parked leads are looked at for one that may find out whether a refused token works again.
const PROBE_EVERY_MS: i64 = 3 * 60 * 60 * 1000;

/// The worker.
pub struct FacebookLeads {
    shared: Arc<Shared>,
    graph: Arc<Graph>,
    health: Arc<Health>,
    pace: Pace,
    next_probe_ms: i64,
}

/// What came of asking Graph for a task's lead.
struct Fetched {
    found: Found,
    heard: Heard,
    /// The key and the page, where the key was broken and has served.
    healed: Option<(FacebookKey, String)>,
}

/// A task that needs an answer from Graph.
struct Fetch {
    opened: Arc<Opened>,
    campaign: Arc<Campaign>,
    leadgen_id: LeadId,
    page: String,
    key: FacebookKey,
    /// The key was refused when it was last used.
    is_probe: bool,
}

/// What a task has come to.
enum Found {
    Settled(Prepared),
    /// Its account has no key for the page, or only broken ones.
    Park {
        account: ObjectId,
        page: String,
        /// The key that Graph has just refused, and where it is of no use.
        refused: Option<Box<(Place, FacebookKey)>>,
        error: String,
    },
    /// Not visible to this token, or not there yet.
    Missing {
        error: String,
    },
    /// Not its fault: Graph is away, throttles what is asked about this page or by this app, or does not accept the
    /// app's proof.
    Later(Hindrance),
}

enum Work {
    Found(Found),
    Fetch(Box<Fetch>),
}

impl FacebookLeads {
    /// A worker that asks `graph`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, graph: Arc<Graph>, health: Arc<Health>) -> Self {
        Self {
            shared,
            graph,
            health,
            pace: Pace::default(),
            next_probe_ms: 0,
        }
    }

    async fn fetch(&self, task: TaskKey, fetch: Fetch) -> Fetched {
        let reply = self.graph.lead(&fetch.leadgen_id, &fetch.key).await;
        let (page, key) = (fetch.page.clone(), fetch.key.id);
        let served = reply.lead.is_ok() && fetch.is_probe;
        let healed = served.then(|| (fetch.key.clone(), page.clone()));
        let found = match reply.lead {
            Ok(answer) => Found::Settled(draft(fetch, &answer)),
            Err(failure) => self.failed(fetch, failure),
        };
        let hindrance = match &found {
            Found::Later(hindrance) => Some(hindrance.clone()),
            _ => None,
        };
        let waits = reply.waits;
        let heard = Heard {
            task,
            key,
            page,
            waits,
            hindrance,
        };
        Fetched {
            found,
            heard,
            healed,
        }
    }

    /// Wakes what waits for a token that may be probed; one lead of each key asks, and the others are parked again.
    async fn wake_for_probes(&mut self, now_ms: i64) -> Result<(), StoreError> {
        if now_ms < self.next_probe_ms {
            return Ok(());
        }
        self.next_probe_ms = now_ms.saturating_add(PROBE_EVERY_MS);
        let broken = self.shared.store.read()?.broken_tokens()?;
        let mut accounts: Vec<_> = broken
            .into_iter()
            .filter(|(_, broken)| broken.may_be_probed(now_ms))
            .map(|(place, _)| place.account.bytes())
            .collect();
        accounts.dedup();
        if accounts.is_empty() {
            return Ok(());
        }
        let wake = move |tables: &mut Tables<'_>| {
            accounts
                .iter()
                .try_for_each(|account| tables.unpark(account))
        };
        self.shared.store.write(wake).await
    }

    /// Wakes some of what was parked for want of a token that may serve now; whether there was any.
    async fn wake_parked(&self, now_ms: i64) -> Result<bool, StoreError> {
        if !self.shared.store.read()?.is_waking()? {
            return Ok(false);
        }
        let wake = move |tables: &mut Tables<'_>| tables.wake_parked(WAKE_MAX, now_ms);
        self.shared.store.write(wake).await?;
        Ok(true)
    }

    fn failed(&self, fetch: Fetch, failure: Failure) -> Found {
        let later = |error, wait: Option<Duration>, of| {
            let wait = wait.unwrap_or_else(|| self.pace.backoff());
            Found::Later(Hindrance { of, error, wait })
        };
        match failure {
            Failure::Unavailable {
                detail,
                retry_after,
            } => later(detail, retry_after, Hindered::Lead),
            Failure::Throttled {
                detail,
                retry_after,
                who: Throttled::App,
            } => later(detail, retry_after, Hindered::Everybody),
            Failure::Throttled {
                detail,
                retry_after,
                who: Throttled::Page,
            } => later(detail, retry_after, Hindered::Page),
            Failure::TokenBroken { detail, extent } => fetch.park(extent, detail),
            Failure::Missing { detail } => Found::Missing { error: detail },
            Failure::ProofRefused { detail } => {
                let error = format!(
                    "set facebook.app_secret to the secret of the app that made the token of Facebook key {}: {detail}",
                    fetch.key.id
                );
                later(error, Some(jittered(PROOF_AGAIN_AFTER)), Hindered::Key)
            }
            Failure::Refused { detail } => Found::Settled(Prepared::dead(&detail)),
        }
    }
}

impl Fetch {
    fn park(self, extent: Extent, error: String) -> Found {
        let place = match extent {
            Extent::Everywhere => Place::of_key(&self.key),
            Extent::ThisPage => Place::on_page(&self.key, &self.page),
        };
        Found::Park {
            account: self.campaign.account_id,
            page: self.page,
            refused: Some(Box::new((place, self.key))),
            error,
        }
    }
}

impl Worker for FacebookLeads {
    fn name(&self) -> &'static str {
        "facebook"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let now_ms = self.shared.clock.now_ms();
        if self.pace.rest(now_ms).is_some() || self.shared.store.read()?.is_erasing()? {
            return Ok(Step::Idle);
        }
        self.wake_for_probes(now_ms).await?;
        if self.wake_parked(now_ms).await? {
            return Ok(Step::Busy);
        }
        let (mut found, mut fetches) = (Vec::new(), Vec::new());
        for (key, work) in Look::new(&self.shared, &self.pace)?.gather()? {
            match work {
                Work::Found(one) => found.push((key, one)),
                Work::Fetch(fetch) => fetches.push((key, fetch)),
            }
        }
        let this = &*self;
        let answers = fetches
            .into_iter()
            .map(|(key, fetch)| async move { (key, this.fetch(key, *fetch).await) });
        let (mut heard, mut healed) = (Vec::new(), Vec::new());
        for (key, fetched) in join_all(answers).await {
            heard.push(fetched.heard);
            healed.extend(fetched.healed);
            found.push((key, fetched.found));
        }
        if found.is_empty() {
            return Ok(Step::Idle);
        }
        let now_ms = self.shared.clock.now_ms();
        self.pace.note(&heard, &self.health, now_ms);
        let settling = Settling::new(&self.shared);
        let write = move |tables: &mut Tables<'_>| settling.all_found(tables, found, &healed);
        self.shared.store.write(write).await?;
        self.shared.store.signals().push.notify_one();
        self.shared.store.signals().events.notify_one();
        self.shared.store.signals().wake_deliveries();
        Ok(Step::Busy)
    }

    async fn wait(&mut self) {
        let woken = self.shared.store.signals().graph.notified();
        match self.pace.rest(self.shared.clock.now_ms()) {
            Some(rest) => tokio::time::sleep(rest).await,
            None => drop(tokio::time::timeout(POLL, woken).await),
        }
    }
}

/// Foreign text is read here: should that panic, the lead fails and the others go on.
fn draft(fetch: Fetch, answer: &serde_json::Value) -> Prepared {
    let drafted = catch_unwind(AssertUnwindSafe(|| {
        let mut submission = platforms::facebook::submission(answer);
        submission.lead_id = Some(fetch.leadgen_id);
        let Opened {
            webhook, adapter, ..
        } = &*fetch.opened;
        Draft::new(webhook, adapter, fetch.campaign, &submission)
    }));
    match drafted {
        Ok(draft) => Prepared::Lead(Box::new(draft)),
        Err(_) => Prepared::Fail("Graph's answer made the adapter panic".to_owned()),
    }
}
