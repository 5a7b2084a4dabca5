//! The workers that connect the store to MongoDB: push, pull, heartbeat and pointed reads.
//!
//! Everything MongoDB-specific is in `inlet-sync`; this is where the product tells it what to look for.

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, RawDocumentBuf, doc};
use inlet_sync::ports::ReplicaEvent;
use inlet_sync::{
    IndexSpec, Options, PassError, PullEngine, PullNow, PushEngine, Step as Pass, Upstream,
};

use crate::clock::Clock;
use crate::notify::claims::Claims;
use crate::pipeline::lookout::PointedRead;
use crate::schedule::Latest;
use crate::store::erasures::StoreErasures;
use crate::store::jobs::JobRun;
use crate::store::outbox::{ErasureUnderWay, StoreOutbox};
use crate::store::reference::{COLLECTIONS, StoreReplica};
use crate::store::tasks::Need;
use crate::store::{Store, StoreError};
use crate::worker::{Step, StepError, Worker};

/// How often a node shows a sign of life in `inlet.nodes`.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// How long a push sleeps when nothing tells it to wake.
const PUSH_POLL: Duration = Duration::from_secs(1);
/// The waiting time of a push that has just emptied the log: documents of leads that arrive close together share
/// commands, which costs MongoDB far less than one command for each.
const GATHER: Duration = Duration::from_millis(20);

const ACCOUNTS: usize = 0;
const CAMPAIGNS: usize = 1;
const FACEBOOK_KEYS: usize = 3;

/// The indexes that lookups upstream need (R35); plain ones, created where they are missing.
#[must_use]
pub fn indexes() -> Vec<IndexSpec> {
    let index = |collection, fields, ignore_case| IndexSpec {
        collection,
        fields,
        ignore_case,
        expires: false,
    };
    vec![
        index("crm.contacts", &["account_id", "type", "email"], true),
        index("crm.contacts", &["account_id", "type", "phone"], false),
        index(
            "inbound.leads",
            &["account_id", "campaign_id", "lead_id"],
            false,
        ),
        index(
            "support.conversations",
            &["account_id", "contact_id"],
            false,
        ),
        index("support.rooms", &["conversation_id"], false),
        index("campaigns", &["page_id", "lead_form_id"], false),
        index("inlet.erasures", &["pushed_at"], false),
        IndexSpec {
            expires: true,
            ..index("inlet.claims", &["until"], false)
        },
    ]
}

/// Connects to what the options name. No I/O yet.
#[must_use]
pub fn connect(mut options: Options) -> Arc<Upstream> {
    options.indexes = indexes();
    Upstream::new(options)
}

/// Pushes the change log.
pub struct Push {
    engine: PushEngine,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    resting: Resting,
    pause: Duration,
}

impl Push {
    /// A worker that pushes `outbox`'s store.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, outbox: StoreOutbox) -> Self {
        let (store, clock) = (Arc::clone(&outbox.store), Arc::clone(&outbox.clock));
        let erasures = StoreErasures(Arc::clone(&store));
        let engine = PushEngine::new(upstream, Arc::new(outbox)).with_erasures(Arc::new(erasures));
        Self {
            engine,
            store,
            clock,
            resting: Resting::default(),
            pause: GATHER,
        }
    }

    /// Held documents whose time has come are tried again (R36).
    async fn release(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        if !self.store.read()?.has_due_retry(now_ms)? {
            return Ok(());
        }
        self.store
            .write(move |tables| tables.release_due(now_ms))
            .await
            .map(drop)
    }
}

impl Worker for Push {
    fn name(&self) -> &'static str {
        "push"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        self.release().await?;
        let pass = self.engine.step().await;
        if matches!(&pass, Err(PassError::Store(error)) if error.0.is::<ErasureUnderWay>()) {
            // The pass has ended because an erasure began (R38): there is nothing the matter with MongoDB.
            self.pause = PUSH_POLL;
            return Ok(Step::Idle);
        }
        Ok(match self.resting.after(self.name(), pass) {
            Some(Pass::Progress { .. }) => Step::Busy,
            Some(Pass::Idle { wait }) => {
                self.pause = wait.min(PUSH_POLL);
                Step::Idle
            }
            None => Step::Idle,
        })
    }

    async fn wait(&mut self) {
        match &self.resting.0 {
            Some(error) => self.engine.rest(error).await,
            None => {
                let _ =
                    tokio::time::timeout(self.pause, self.store.signals().push.notified()).await;
                tokio::time::sleep(GATHER).await;
            }
        }
    }
}

/// Pulls reference data.
pub struct Pull {
    engine: PullEngine,
    resting: Resting,
    pause: Duration,
}

impl Pull {
    /// A worker that pulls into `replica`.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, replica: Arc<StoreReplica>) -> Self {
        Self {
            engine: PullEngine::new(upstream, replica),
            resting: Resting::default(),
            pause: Duration::ZERO,
        }
    }

    /// Asks for a complete reading.
    #[must_use]
    pub fn handle(&self) -> PullNow {
        self.engine.pull_now()
    }
}

impl Worker for Pull {
    fn name(&self) -> &'static str {
        "pull"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let pass = self.engine.step().await;
        Ok(match self.resting.after(self.name(), pass) {
            Some(Pass::Progress { .. }) => Step::Busy,
            Some(Pass::Idle { wait }) => {
                self.pause = wait;
                Step::Idle
            }
            None => Step::Idle,
        })
    }

    async fn wait(&mut self) {
        match &self.resting.0 {
            Some(error) => self.engine.rest(error).await,
            None => self.engine.idle(self.pause).await,
        }
    }
}

/// An outage is logged when it begins and when it ends, not at every try.
#[derive(Default)]
struct Resting(Option<PassError>);

impl Resting {
    fn after(&mut self, name: &'static str, pass: Result<Pass, PassError>) -> Option<Pass> {
        match pass {
            Ok(pass) => {
                if self.0.take().is_some() {
                    tracing::info!(worker = name, "MongoDB is reachable again");
                }
                Some(pass)
            }
            Err(error) => {
                if self.0.is_none() {
                    tracing::warn!(worker = name, %error, "MongoDB cannot be used; work waits");
                }
                self.0 = Some(error);
                None
            }
        }
    }
}

/// Shows a sign of life upstream.
pub struct Heartbeat {
    upstream: Arc<Upstream>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    latest: Arc<Latest>,
}

impl Heartbeat {
    /// A worker that reports on `store`, and leaves what came of it in `latest`.
    #[must_use]
    pub fn new(
        upstream: Arc<Upstream>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        latest: Arc<Latest>,
    ) -> Self {
        Self {
            upstream,
            store,
            clock,
            latest,
        }
    }

    fn facts(&self) -> Result<bson::Document, StoreError> {
        let snapshot = self.store.read()?;
        let waiting = snapshot.waiting()?;
        let number = |count: u64| Bson::Int64(i64::try_from(count).unwrap_or(i64::MAX));
        Ok(doc! {
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": i64::from(self.store.identity().epoch),
            "backlog": number(self.store.levels().unread() + waiting.timed + waiting.graph),
            "waiting": number(waiting.reference),
            "parked": number(waiting.parked),
            "dead_letters": number(snapshot.counted("dead_letter")?),
            "pending": number(snapshot.pending_count()?),
            "held": number(snapshot.held_count()?),
            "oldest_pending": snapshot.oldest_pending_ms()?.map(bson::DateTime::from_millis),
        })
    }
}

impl Worker for Heartbeat {
    fn name(&self) -> &'static str {
        "heartbeat"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let started_ms = self.clock.now_ms();
        let facts = self.facts()?;
        let shown = self.upstream.heartbeat(facts).await;
        if let Err(error) = &shown {
            tracing::debug!(%error, "no heartbeat this time");
        }
        self.latest.note(JobRun {
            started_ms,
            ended_ms: self.clock.now_ms(),
            is_ok: shown.is_ok(),
            result: match shown {
                Ok(_) => "shown upstream".to_owned(),
                Err(error) => error.to_string(),
            },
        });
        Ok(Step::Idle)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
}

/// Agrees with the other nodes of the database on who notifies (R26).
pub struct Agreement {
    /// The connection.
    pub upstream: Arc<Upstream>,
}

impl Claims for Agreement {
    fn is_reachable(&self) -> bool {
        !self.upstream.health().breaker_open
    }

    fn is_alone(&self) -> bool {
        false
    }

    /// In a task of its own: whoever stops waiting does not stop it, and a claim that comes late still keeps others
    /// from sending.
    async fn claim(&self, keys: Vec<String>, now_ms: i64) -> Option<Vec<bool>> {
        let upstream = Arc::clone(&self.upstream);
        let claim = async move { upstream.claim_once(&keys, now_ms).await };
        match tokio::spawn(claim).await {
            Ok(Ok(ours)) => Some(ours),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no agreement on who notifies");
                None
            }
            Err(_) => None,
        }
    }
}

/// Reads single campaigns and what belongs to them: their accounts, and for a form the accounts' Facebook keys (R13).
pub struct Pointed {
    /// The connection.
    pub upstream: Arc<Upstream>,
}

impl PointedRead for Pointed {
    async fn read(
        &self,
        need: &Need,
        cached: Vec<ObjectId>,
    ) -> Result<Vec<ReplicaEvent>, StepError> {
        let by_need = match need {
            Need::Campaign { campaign, .. } => doc! { "_id": ObjectId::from_bytes(*campaign) },
            Need::Form { page, form } => {
                doc! { "page_id": either(page), "lead_form_id": either(form) }
            }
        };
        let filter = doc! { "$or": [by_need, { "_id": { "$in": &cached } }] };
        let campaigns = self
            .upstream
            .find(COLLECTIONS[CAMPAIGNS], filter, 0)
            .await?;
        let mut accounts: Vec<ObjectId> = campaigns
            .iter()
            .filter_map(|campaign| campaign.get_object_id("account_id").ok())
            .collect();
        if let Need::Campaign { account, .. } = need {
            accounts.push(ObjectId::from_bytes(*account));
        }
        accounts.sort_unstable();
        accounts.dedup();
        let filter = doc! { "_id": { "$in": &accounts } };
        let found = self.upstream.find(COLLECTIONS[ACCOUNTS], filter, 0).await?;
        let mut events = changes(CAMPAIGNS, campaigns, &cached);
        events.extend(changes(ACCOUNTS, found, &accounts));
        if matches!(need, Need::Form { .. }) {
            // A campaign that is new here may be of an account whose key is new too: without it the lead would be
            // parked until the next pull.
            let filter = doc! { "account_id": { "$in": &accounts } };
            let keys = self
                .upstream
                .find(COLLECTIONS[FACEBOOK_KEYS], filter, 0)
                .await?;
            events.extend(changes(FACEBOOK_KEYS, keys, &[]));
        }
        Ok(events)
    }
}

/// Page and form ids are strings by agreement; numbers are met all the same.
fn either(id: &str) -> Bson {
    let text = Bson::String(id.to_owned());
    match id.parse::<i64>() {
        Ok(number) => bson::bson!({ "$in": [text, number] }),
        Err(_) => text,
    }
}

/// What was found is put; what was asked for by id and not found is gone.
fn changes(collection: usize, found: Vec<RawDocumentBuf>, asked: &[ObjectId]) -> Vec<ReplicaEvent> {
    let there: Vec<ObjectId> = found
        .iter()
        .filter_map(|document| document.get_object_id("_id").ok())
        .collect();
    let gone = asked.iter().filter(|id| !there.contains(id));
    let gone = gone.map(|id| ReplicaEvent::Delete {
        collection,
        id: Bson::ObjectId(*id),
    });
    let put = found.into_iter().map(|document| ReplicaEvent::Put {
        collection,
        document,
    });
    gone.chain(put).collect()
}
