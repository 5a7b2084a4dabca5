//! Fetches Facebook leads from the Graph API and turns them into leads, one task per (change, campaign).
//!
//! Graph is asked before the lead's transaction, never inside it. An outage or throttling uses up no attempts: work
//! waits behind a backoff, and one request at a time finds out when it is over (R28).

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures_util::future::join_all;

use super::prepare::{Desk, Draft, Prepared};
use super::settle::Settling;
use super::{Shared, due_webhook};
use crate::graph::{Failure, Graph};
use crate::health::Health;
use crate::model::{
    Campaign, FacebookKey, LeadChange, LeadId, Outcome, Reading, TaskKey, Webhook, derived_id,
};
use crate::platforms::{self, Adapter};
use crate::store::tasks::{Need, Task, WaitsFor};
use crate::store::{Snapshot, StoreError, Tables};
use crate::worker::{Step, StepError, Worker, jittered};

/// Requests under way at once.
const CONCURRENT_MAX: usize = 16;
/// Backoff while Graph is away.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A lead that Graph does not show is asked for again over this time (R28).
const MISSING_FOR_MS: i64 = 24 * 60 * 60 * 1000;
/// Between two such questions, at first and at most.
const MISSING_BACKOFF_MS: (i64, i64) = (60_000, 3_600_000);
/// The longest wait that a lead's own failing leads to.
const LATER_MAX_MS: i64 = 60_000;
const POLL: Duration = Duration::from_millis(500);

/// The worker.
pub struct FacebookLeads {
    shared: Arc<Shared>,
    graph: Arc<Graph>,
    health: Arc<Health>,
    failures: u32,
    blocked_until_ms: i64,
    /// Accounts that Graph throttles, and until when (milliseconds since the epoch).
    throttled: HashMap<ObjectId, i64>,
    /// Tokens that Graph has refused: not tried again until they change.
    broken: HashSet<(ObjectId, String)>,
}

/// A task that needs an answer from Graph.
struct Fetch {
    webhook: Webhook,
    adapter: &'static Adapter,
    campaign: Arc<Campaign>,
    leadgen_id: LeadId,
    page: String,
    key: FacebookKey,
}

/// What a task has come to.
enum Found {
    Settled(Prepared),
    /// Its account has no key, or a broken one.
    Park {
        account: ObjectId,
        page: String,
        token: Option<String>,
        error: String,
    },
    /// Not visible to this token, or not there yet.
    Missing {
        error: String,
    },
    /// Not its fault: Graph is away, or throttles what is asked for this account.
    Later {
        error: String,
        wait: Duration,
        of: Option<ObjectId>,
    },
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
            failures: 0,
            blocked_until_ms: 0,
            throttled: HashMap::new(),
            broken: HashSet::new(),
        }
    }

    fn gather(&self) -> Result<Vec<(TaskKey, Work)>, StoreError> {
        let limit = if self.failures > 0 { 1 } else { CONCURRENT_MAX };
        let snapshot = self.shared.store.read()?;
        let desk = Desk::new(&self.shared);
        let keys = snapshot.due_for_graph(self.shared.clock.now_ms(), limit)?;
        keys.into_iter()
            .map(|key| Ok((key, self.look(&snapshot, &desk, key)?)))
            .collect()
    }

    fn look(&self, snapshot: &Snapshot, desk: &Desk<'_>, key: TaskKey) -> Result<Work, StoreError> {
        let webhook = match due_webhook(snapshot, key)? {
            Ok(webhook) => webhook,
            Err(dead) => return Ok(Work::Found(Found::Settled(dead))),
        };
        let Some((adapter, leadgen_id, page, form)) = leadgen(&webhook, key.change) else {
            return Ok(Work::Found(Found::Settled(Prepared::dead(
                &"the change is no longer in the webhook",
            ))));
        };
        let need = Need::Form {
            page: page.clone(),
            form,
        };
        let campaign =
            match desk.campaign_of_change(&webhook, ObjectId::from_bytes(key.campaign), need) {
                Ok(campaign) => campaign,
                Err(prepared) => return Ok(Work::Found(Found::Settled(prepared))),
            };
        if let Some(of) = existing(snapshot, &campaign, &leadgen_id)? {
            return Ok(Work::Found(Found::Settled(Prepared::End(
                Outcome::Duplicate { of },
            ))));
        }
        let account = campaign.account_id;
        if let Some(wait) = self.throttled_for(account) {
            let error = "Graph throttles this account".to_owned();
            return Ok(Work::Found(Found::Later {
                error,
                wait,
                of: Some(account),
            }));
        }
        Ok(match desk.reference().key(account, &page) {
            Some(key) if !self.broken.contains(&(key.id, key.access_token.clone())) => {
                let key = key.clone();
                Work::Fetch(Box::new(Fetch {
                    webhook,
                    adapter,
                    campaign,
                    leadgen_id,
                    page,
                    key,
                }))
            }
            Some(key) => {
                let token = Some(key.access_token.clone());
                let error = "the account's Facebook token is broken: reconnect the page".to_owned();
                Work::Found(Found::Park {
                    account,
                    page,
                    token,
                    error,
                })
            }
            None => {
                let error = "the account has no Facebook key for this page".to_owned();
                Work::Found(Found::Park {
                    account,
                    page,
                    token: None,
                    error,
                })
            }
        })
    }

    async fn fetch(&self, fetch: Fetch) -> (Found, Option<(ObjectId, String)>) {
        match self.graph.lead(&fetch.leadgen_id, &fetch.key).await {
            Ok(answer) => (Found::Settled(draft(fetch, &answer)), None),
            Err(Failure::Unavailable {
                detail,
                retry_after,
            }) => {
                let wait = retry_after.unwrap_or_else(|| self.backoff());
                (
                    Found::Later {
                        error: detail,
                        wait,
                        of: None,
                    },
                    None,
                )
            }
            Err(Failure::Throttled {
                detail,
                retry_after,
            }) => {
                let wait = retry_after.unwrap_or_else(|| self.backoff());
                let of = Some(fetch.campaign.account_id);
                (
                    Found::Later {
                        error: detail,
                        wait,
                        of,
                    },
                    None,
                )
            }
            Err(Failure::TokenBroken { detail }) => {
                let broken = (fetch.key.id, fetch.key.access_token.clone());
                let account = fetch.campaign.account_id;
                let token = Some(fetch.key.access_token);
                (
                    Found::Park {
                        account,
                        page: fetch.page,
                        token,
                        error: detail,
                    },
                    Some(broken),
                )
            }
            Err(Failure::Missing { detail }) => (Found::Missing { error: detail }, None),
            Err(Failure::Refused { detail }) => (Found::Settled(Prepared::dead(&detail)), None),
        }
    }

    fn backoff(&self) -> Duration {
        jittered(
            BACKOFF
                .0
                .saturating_mul(1 << self.failures.min(10))
                .min(BACKOFF.1),
        )
    }

    /// Remembers how Graph is doing. When nothing of what was asked got an answer, one request at a time finds out when
    /// it is back; a throttled account waits by itself.
    fn note(&mut self, found: &[(TaskKey, Found)], asked: usize) {
        let now_ms = self.shared.clock.now_ms();
        let mut away = Vec::new();
        let mut throttled = None;
        for (_, found) in found {
            match found {
                Found::Later {
                    error,
                    wait,
                    of: Some(account),
                } => {
                    throttled = Some(error);
                    self.throttled.insert(*account, now_ms + millis(*wait));
                }
                Found::Later {
                    error,
                    wait,
                    of: None,
                } => away.push((error, *wait)),
                _ => {}
            }
        }
        self.throttled.retain(|_, until_ms| *until_ms > now_ms);
        match (away.iter().max_by_key(|(_, wait)| *wait), throttled) {
            (Some((error, wait)), _) if away.len() == asked => {
                self.health.ill((*error).clone(), now_ms);
                self.failures = self.failures.saturating_add(1);
                self.blocked_until_ms = now_ms + millis(*wait);
            }
            (_, Some(error)) => self.health.ill(error.clone(), now_ms),
            _ if asked > 0 => {
                self.health.well();
                self.failures = 0;
            }
            _ => {}
        }
    }

    /// The rest of the time that an account is throttled for.
    fn throttled_for(&self, account: ObjectId) -> Option<Duration> {
        let rest_ms = self.throttled.get(&account)? - self.shared.clock.now_ms();
        u64::try_from(rest_ms)
            .ok()
            .filter(|rest_ms| *rest_ms > 0)
            .map(Duration::from_millis)
    }
}

impl Worker for FacebookLeads {
    fn name(&self) -> &'static str {
        "facebook"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        if self.shared.clock.now_ms() < self.blocked_until_ms {
            return Ok(Step::Idle);
        }
        let mut found = Vec::new();
        let mut fetches = Vec::new();
        for (key, work) in self.gather()? {
            match work {
                Work::Found(one) => found.push((key, one)),
                Work::Fetch(fetch) => fetches.push((key, fetch)),
            }
        }
        let asked = fetches.len();
        let this = &*self;
        let answers = fetches
            .into_iter()
            .map(|(key, fetch)| async move { (key, this.fetch(*fetch).await) });
        for (key, (one, broken)) in join_all(answers).await {
            self.broken.extend(broken);
            found.push((key, one));
        }
        if found.is_empty() {
            return Ok(Step::Idle);
        }
        self.note(&found, asked);
        let settling = Settling::new(&self.shared);
        let write = move |tables: &mut Tables<'_>| {
            found
                .into_iter()
                .try_for_each(|(key, found)| settling.found(tables, key, found))
        };
        self.shared.store.write(write).await?;
        self.shared.store.signals().push.notify_one();
        Ok(Step::Busy)
    }

    async fn wait(&mut self) {
        let woken = self.shared.store.signals().graph.notified();
        let blocked_ms = self.blocked_until_ms - self.shared.clock.now_ms();
        match u64::try_from(blocked_ms) {
            Ok(blocked_ms) if blocked_ms > 0 => {
                tokio::time::sleep(Duration::from_millis(blocked_ms)).await
            }
            _ => drop(tokio::time::timeout(POLL, woken).await),
        }
    }
}

impl Settling {
    fn found(&self, tables: &mut Tables<'_>, key: TaskKey, found: Found) -> Result<(), StoreError> {
        if tables.task(key)?.is_none() {
            // A commit whose outcome was unknown has settled it already.
            return Ok(());
        }
        match found {
            Found::Settled(prepared) => self.settle(tables, key, prepared),
            Found::Park {
                account,
                page,
                token,
                error,
            } => self.park(tables, key, account, &page, token, error),
            Found::Missing { error } => self.missing(tables, key, error),
            Found::Later { error, wait, .. } => self.later(tables, key, error, wait),
        }
    }

    /// Waits without using up an attempt (R28), the longer the longer this very lead has been failing: it may be Graph's
    /// trouble with one object, which must not be asked for every second for ever.
    fn later(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        error: String,
        wait: Duration,
    ) -> Result<(), StoreError> {
        let mut task = tables.task(key)?.unwrap_or_default();
        let failing_ms = self.now_ms - *task.failing_since_ms.get_or_insert(self.now_ms);
        task.last_error = Some(error);
        task.waits_for = WaitsFor::Graph;
        let wait_ms = millis(wait).max((failing_ms / 4).min(LATER_MAX_MS));
        tables.enqueue(key, &task, self.now_ms + wait_ms)
    }

    /// Parks a task until its account's key changes; if it changed meanwhile, the task goes on at once.
    fn park(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        account: ObjectId,
        page: &str,
        token: Option<String>,
        error: String,
    ) -> Result<(), StoreError> {
        let current = tables.facebook_token(account, page)?;
        let mut task = tables.task(key)?.unwrap_or_default();
        task.last_error = Some(error);
        let parked = WaitsFor::Token {
            account: account.bytes(),
        };
        task.waits_for = if current == token {
            parked
        } else {
            WaitsFor::Graph
        };
        tables.enqueue(key, &task, self.now_ms)
    }

    fn missing(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        error: String,
    ) -> Result<(), StoreError> {
        let mut task: Task = tables.task(key)?.unwrap_or_default();
        let since_ms = *task.failing_since_ms.get_or_insert(self.now_ms);
        let failing_ms = self.now_ms - since_ms;
        if failing_ms >= MISSING_FOR_MS {
            return self.end(tables, key, Outcome::DeadLetter { error });
        }
        task.last_error = Some(error);
        task.waits_for = WaitsFor::Graph;
        let wait_ms = failing_ms.clamp(MISSING_BACKOFF_MS.0, MISSING_BACKOFF_MS.1);
        tables.enqueue(key, &task, self.now_ms + wait_ms)
    }
}

impl Tables<'_> {
    /// The token that reads a page's leads for an account, as stored (the transaction's view).
    fn facebook_token(&self, account: ObjectId, page: &str) -> Result<Option<String>, StoreError> {
        let keys = self.facebook_keys(account)?;
        let of_page = keys.iter().find(|key| key.page_id.as_deref() == Some(page));
        let key = of_page.or_else(|| keys.iter().find(|key| key.page_id.is_none()));
        Ok(key.map(|key| key.access_token.clone()))
    }
}

/// Foreign text is read here: should that panic, the lead fails and the others go on.
fn draft(fetch: Fetch, answer: &serde_json::Value) -> Prepared {
    let drafted = catch_unwind(AssertUnwindSafe(|| {
        let mut submission = platforms::facebook::submission(answer);
        submission.lead_id = Some(fetch.leadgen_id);
        Draft::new(&fetch.webhook, fetch.adapter, fetch.campaign, &submission)
    }));
    match drafted {
        Ok(draft) => Prepared::Lead(Box::new(draft)),
        Err(_) => Prepared::Fail("Graph's answer made the adapter panic".to_owned()),
    }
}

fn leadgen(webhook: &Webhook, change: u32) -> Option<(&'static Adapter, LeadId, String, String)> {
    let adapter = platforms::by_slug(&webhook.platform)?;
    let Reading::Changes(changes) = (adapter.read)(webhook) else {
        return None;
    };
    match changes.into_iter().nth(change as usize)? {
        LeadChange::Leadgen {
            leadgen_id,
            page_id,
            form_id,
        } => Some((adapter, leadgen_id, page_id, form_id)),
        LeadChange::Ignored(_) => None,
    }
}

/// The lead, if it is there already: Graph need not be asked.
fn existing(
    snapshot: &Snapshot,
    campaign: &Campaign,
    id: &LeadId,
) -> Result<Option<[u8; 12]>, StoreError> {
    let (account, campaign) = (campaign.account_id.bytes(), campaign.id.bytes());
    let id = derived_id("lead", &[&account, &campaign, id.as_str().as_bytes()]).bytes();
    match snapshot.lead_made(id) {
        // That it was made is certain, whatever has become of its record.
        Err(StoreError::Corrupt { .. }) => Ok(Some(id)),
        made => made,
    }
}

fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}
