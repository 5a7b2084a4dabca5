//! Facts about the pipeline over a real store, with time that moves when told to.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

mod ahead;
pub(crate) mod damage;
mod erasure;
mod events;
mod long_work;
mod retention;
mod silence;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf, doc};
use inlet_sync::ports::{Replica, ReplicaEvent};
use tempfile::TempDir;

use super::freshness::Freshness;
use super::lookout::{Lookout, PointedRead};
use super::prepare::{Desk, Prepared};
use super::{Limits, Pipeline, Shared};
use crate::clock::{Clock, ManualClock};
use crate::console::Console;
use crate::model::{Method, Outcome, Reason, TaskKey, Webhook};
use crate::store::Store;
use crate::store::reference::{Pointed, Reference, StoreReplica};
use crate::store::tasks::Need;
use crate::worker::{StepError, run_until_idle};

const NOW_MS: i64 = 1_700_000_000_000;
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
const CAMPAIGN: ObjectId = ObjectId::from_bytes([0xc1; 12]);

/// A node without sockets.
struct Bench {
    shared: Arc<Shared>,
    clock: Arc<ManualClock>,
    upstream: Vec<ReplicaEvent>,
    _folder: TempDir,
}

/// A MongoDB that answers every pointed read with the same events.
struct Answers(Vec<ReplicaEvent>);

impl PointedRead for Answers {
    async fn read(&self, _: &Need, _: Vec<ObjectId>) -> Result<Vec<ReplicaEvent>, StepError> {
        Ok(self.0.clone())
    }
}

impl Bench {
    fn new(stand_alone: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let shared = Self::open(folder.path(), &clock, stand_alone);
        Self {
            shared,
            clock,
            upstream: Vec::new(),
            _folder: folder,
        }
    }

    fn open(folder: &Path, clock: &Arc<ManualClock>, stand_alone: bool) -> Arc<Shared> {
        let store = Store::open(folder.join("inlet.redb"), Some("bench")).unwrap();
        Arc::new(Shared {
            store: Arc::new(store),
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            freshness: Freshness::new(stand_alone),
            limits: Limits {
                max_attempts: 3,
                backoff: Duration::from_secs(1),
                backoff_max: Duration::from_secs(300),
                dedupe_window: Duration::from_secs(600),
                max_waiting_per_account: 100,
                max_waiting_unknown: 2,
            },
            live_events: true,
        })
    }

    /// With an active account and campaign in the cache.
    async fn with_campaign() -> Self {
        let bench = Self::new(true);
        bench.import(reference()).await;
        bench
    }

    async fn import(&self, events: Vec<ReplicaEvent>) {
        let replica = self.replica();
        tokio::task::spawn_blocking(move || replica.apply(events, None, None))
            .await
            .unwrap()
            .unwrap();
    }

    fn replica(&self) -> Arc<StoreReplica> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Arc::new(StoreReplica {
            store: Arc::clone(&self.shared.store),
            clock,
        })
    }

    async fn receive(&self, body: &str) -> u64 {
        self.receive_at("instapage", CAMPAIGN, body).await
    }

    async fn receive_from(&self, platform: &str, body: &str) -> u64 {
        self.receive_at(platform, CAMPAIGN, body).await
    }

    async fn receive_for(&self, campaign: ObjectId, body: &str) -> u64 {
        self.receive_at("instapage", campaign, body).await
    }

    async fn receive_at(&self, platform: &str, campaign: ObjectId, body: &str) -> u64 {
        self.receive_whole(platform, (ACCOUNT, campaign), body)
            .await
    }

    async fn receive_in(&self, account: ObjectId, campaign: ObjectId, body: &str) -> u64 {
        self.receive_whole("instapage", (account, campaign), body)
            .await
    }

    async fn receive_whole(
        &self,
        platform: &str,
        (account, campaign): (ObjectId, ObjectId),
        body: &str,
    ) -> u64 {
        let webhook = Webhook {
            platform: platform.to_owned(),
            account: Some(account.to_hex()),
            campaign: Some(campaign.to_hex()),
            method: Method::Post,
            query: String::new(),
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: self.clock.now_ms(),
            body: body.as_bytes().to_vec(),
        };
        self.shared.store.receive(&webhook).await.unwrap()
    }

    fn counted(&self, name: &str) -> u64 {
        self.shared.store.read().unwrap().counted(name).unwrap()
    }

    async fn work(&self) {
        run_until_idle(&mut Pipeline::new(Arc::clone(&self.shared)))
            .await
            .unwrap();
    }

    /// Reads what waits for reference data from upstream, then works.
    async fn look_and_work(&self) {
        let answers = Answers(self.upstream.clone());
        let mut lookout = Lookout::new(Arc::clone(&self.shared), self.replica(), answers);
        run_until_idle(&mut lookout).await.unwrap();
        self.work().await;
    }

    fn outcome(&self, seq: u64) -> Option<Outcome> {
        let (_, ends) = self.shared.store.read().unwrap().fate(seq).unwrap();
        assert!(ends.len() <= 1, "one webhook has one outcome: {ends:?}");
        ends.into_iter().next().map(|(_, ended)| ended.outcome)
    }

    fn console(&self) -> Console {
        Console {
            store: Arc::clone(&self.shared.store),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            live: None,
        }
    }

    fn count(&self, collection: &str) -> u64 {
        self.console().count(collection).unwrap()
    }
}

/// An active account, and its campaign.
fn documents() -> [Document; 2] {
    let campaign = doc! { "_id": CAMPAIGN, "account_id": ACCOUNT, "add_to_crm": true, "campaign_name": "Bench" };
    [doc! { "_id": ACCOUNT, "status": "active" }, campaign]
}

fn put(collection: usize, document: &Document) -> ReplicaEvent {
    ReplicaEvent::Put {
        collection,
        document: RawDocumentBuf::try_from(document).unwrap(),
    }
}

fn reference() -> Vec<ReplicaEvent> {
    (0..)
        .zip(documents())
        .map(|(collection, document)| put(collection, &document))
        .collect()
}

fn is_lead(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Lead { .. }))
}

fn is_duplicate(outcome: Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Duplicate { .. }))
}

fn ignored(reason: Reason) -> Option<Outcome> {
    Some(Outcome::Ignored { reason })
}

const ADA: &str = r#"{"Name": "Ada Byron", "Email": "ada@example.com"}"#;

#[tokio::test]
async fn the_same_fields_within_the_window_are_a_resend_and_later_a_new_lead() {
    let bench = Bench::with_campaign().await;
    let first = bench.receive(ADA).await;
    bench.clock.advance(Duration::from_secs(600));
    let resent = bench.receive(ADA).await;
    bench.clock.advance(Duration::from_millis(1));
    let again = bench.receive(ADA).await;
    bench.work().await;
    assert!(is_lead(bench.outcome(first)));
    assert!(
        is_duplicate(bench.outcome(resent)),
        "the window is measured from the first copy"
    );
    assert!(is_lead(bench.outcome(again)));
    assert_eq!(
        (bench.count("inbound.leads"), bench.count("crm.contacts")),
        (2, 1)
    );
}

#[tokio::test]
async fn one_person_has_one_conversation_with_a_message_for_every_lead() {
    let bench = Bench::with_campaign().await;
    for id in 1..=3 {
        bench
            .receive(&format!(r#"{{"id": {id}, "Email": "ADA@example.com"}}"#))
            .await;
    }
    bench.work().await;
    assert_eq!(
        (
            bench.count("support.conversations"),
            bench.count("support.rooms")
        ),
        (1, 1)
    );
    assert_eq!(
        bench.count("support.messages"),
        4,
        "one system message, three lead messages"
    );
}

#[tokio::test]
async fn an_unknown_campaign_is_not_decided_on_a_cache_older_than_the_webhook() {
    let mut bench = Bench::new(false);
    let seq = bench.receive(ADA).await;
    bench.work().await;
    assert_eq!(bench.outcome(seq), None, "it waits");
    bench.clock.advance(Duration::from_secs(5));
    bench.upstream = reference();
    bench.look_and_work().await;
    assert!(is_lead(bench.outcome(seq)));
}

#[tokio::test]
async fn a_campaign_that_upstream_does_not_know_either_is_not_found() {
    let bench = Bench::new(false);
    let seq = bench.receive(ADA).await;
    bench.work().await;
    bench.clock.advance(Duration::from_secs(5));
    bench.look_and_work().await;
    assert_eq!(bench.outcome(seq), ignored(Reason::CampaignNotFound));
}

/// A MongoDB that answers for one campaign and fails for all others.
struct AnswersFor(ObjectId, Vec<ReplicaEvent>);

impl PointedRead for AnswersFor {
    async fn read(&self, need: &Need, _: Vec<ObjectId>) -> Result<Vec<ReplicaEvent>, StepError> {
        match need {
            Need::Campaign { campaign, .. } if *campaign == self.0.bytes() => Ok(self.1.clone()),
            _ => Err("too large an answer".into()),
        }
    }
}

#[tokio::test]
async fn a_pointed_read_that_fails_takes_none_of_those_beside_it_along() {
    let bench = Bench::new(false);
    let seq = bench.receive(ADA).await;
    let stranger = bench.receive_for(ObjectId::from_bytes([7; 12]), ADA).await;
    bench.work().await;
    bench.clock.advance(Duration::from_secs(5));
    for _ in 0..2 {
        let upstream = AnswersFor(CAMPAIGN, reference());
        let mut lookout = Lookout::new(Arc::clone(&bench.shared), bench.replica(), upstream);
        run_until_idle(&mut lookout).await.unwrap();
        bench.work().await;
    }
    assert!(is_lead(bench.outcome(seq)));
    assert_eq!(bench.outcome(stranger), None, "nobody has answered for it");
}

fn pointed(bench: &Bench, as_of: Arc<Reference>, events: Vec<ReplicaEvent>) -> Pointed {
    Pointed {
        needs: vec![Need::campaign(ACCOUNT, CAMPAIGN)],
        events,
        began_at_ms: bench.clock.now_ms(),
        as_of,
    }
}

/// A complete reading looked at the campaigns before this one was made, and was committed after the pointed read that
/// found it: the campaign was gone again, and the pointed read still counted as evidence that there was none.
#[tokio::test]
async fn a_complete_reading_that_began_before_a_pointed_read_makes_no_campaign_unknown() {
    let mut bench = Bench::new(false);
    let (replica, began_at_ms) = (bench.replica(), bench.clock.now_ms());
    bench.clock.advance(Duration::from_secs(1));
    let seq = bench.receive(ADA).await;
    bench.clock.advance(Duration::from_secs(1));
    let pointed = pointed(&bench, bench.shared.store.reference(), reference());
    let landed = tokio::task::spawn_blocking(move || {
        let landed = replica.apply_pointed(pointed).unwrap();
        replica
            .replace(vec![Vec::new(); 4], None, began_at_ms)
            .unwrap();
        landed
    });
    assert!(landed.await.unwrap());
    bench.work().await;
    assert_eq!(bench.outcome(seq), None, "nobody knows: it waits");
    bench.clock.advance(Duration::from_secs(5));
    bench.upstream = reference();
    bench.look_and_work().await;
    assert!(is_lead(bench.outcome(seq)));
}

/// The other way round: the pointed read looked before the campaign was made, the complete reading afterwards.
#[tokio::test]
async fn a_pointed_read_that_something_else_has_overtaken_changes_nothing() {
    let bench = Bench::new(false);
    let (replica, as_of) = (bench.replica(), bench.shared.store.reference());
    let gone = ReplicaEvent::Delete {
        collection: 1,
        id: CAMPAIGN.into(),
    };
    let pointed = pointed(&bench, as_of, vec![gone]);
    let seq = bench.receive(ADA).await;
    bench.clock.advance(Duration::from_secs(1));
    let began_at_ms = bench.clock.now_ms();
    let landed = tokio::task::spawn_blocking(move || {
        let [account, campaign] =
            documents().map(|document| RawDocumentBuf::try_from(&document).unwrap());
        let read = vec![vec![account], vec![campaign], Vec::new(), Vec::new()];
        replica.replace(read, None, began_at_ms).unwrap();
        replica.apply_pointed(pointed).unwrap()
    });
    assert!(!landed.await.unwrap());
    bench.work().await;
    assert!(is_lead(bench.outcome(seq)));
}

/// The pipeline prepares with the reference data of one moment. A pointed read that lands while it does is no evidence
/// about that moment.
#[tokio::test]
async fn a_pointed_read_is_evidence_only_for_data_that_has_it() {
    let bench = Bench::new(false);
    let seq = bench.receive(ADA).await;
    bench.clock.advance(Duration::from_secs(1));
    let desk = Desk::new(&bench.shared);
    let (replica, as_of) = (bench.replica(), bench.shared.store.reference());
    let pointed = pointed(&bench, as_of, reference());
    tokio::task::spawn_blocking(move || replica.apply_pointed(pointed).unwrap())
        .await
        .unwrap();
    let webhook = bench.shared.store.read().unwrap().webhook(seq).unwrap();
    let webhook = webhook.unwrap();
    let at_that_moment = desk.webhook(seq, webhook.clone());
    assert!(matches!(at_that_moment.first, Prepared::Await(_)));
    let now = Desk::new(&bench.shared).webhook(seq, webhook);
    assert!(matches!(now.first, Prepared::Lead(_)));
}

#[tokio::test]
async fn strangers_fill_only_a_small_room_and_the_one_who_waited_longest_leaves() {
    let bench = Bench::new(false);
    let mut seqs = Vec::new();
    for id in 1..=3 {
        bench.clock.advance(Duration::from_millis(1));
        seqs.push(
            bench
                .receive(&format!(r#"{{"id": {id}, "Email": "a@example.com"}}"#))
                .await,
        );
        bench.work().await;
    }
    assert_eq!(bench.outcome(seqs[0]), ignored(Reason::CampaignNotFound));
    assert_eq!(
        (bench.outcome(seqs[1]), bench.outcome(seqs[2])),
        (None, None)
    );
}

#[tokio::test]
async fn a_replay_after_the_campaign_was_repaired_makes_the_lead_and_only_once() {
    let bench = Bench::new(true);
    let seq = bench.receive(ADA).await;
    bench.work().await;
    assert_eq!(bench.outcome(seq), ignored(Reason::CampaignNotFound));
    bench.import(reference()).await;
    let replay = || {
        bench
            .shared
            .store
            .replay(vec![TaskKey::webhook(seq)], bench.clock.now_ms())
    };
    assert_eq!(replay().await.unwrap(), 1);
    bench.work().await;
    assert!(is_lead(bench.outcome(seq)));
    assert_eq!(replay().await.unwrap(), 0, "a lead is not replayed");
}

#[tokio::test]
async fn an_outcome_taken_back_is_taken_from_the_counters_too() {
    let bench = Bench::new(true);
    let seq = bench.receive(ADA).await;
    bench.work().await;
    let counted = |name| bench.shared.store.read().unwrap().counted(name).unwrap();
    assert_eq!((counted("ignored"), counted("campaign_not_found")), (1, 1));
    bench.import(reference()).await;
    bench
        .shared
        .store
        .replay(vec![TaskKey::webhook(seq)], bench.clock.now_ms())
        .await
        .unwrap();
    bench.work().await;
    assert_eq!(
        (
            counted("ignored"),
            counted("campaign_not_found"),
            counted("lead")
        ),
        (0, 0, 1)
    );
}

#[tokio::test]
async fn a_store_opened_again_goes_on_where_it_stopped() {
    let bench = Bench::with_campaign().await;
    let before = bench.receive(ADA).await;
    bench.work().await;
    let after = bench
        .receive(r#"{"id": 7, "Email": "b@example.com"}"#)
        .await;
    let Bench {
        shared,
        clock,
        _folder,
        ..
    } = bench;
    drop(shared);
    let shared = Bench::open(_folder.path(), &clock, true);
    let bench = Bench {
        shared,
        clock,
        upstream: Vec::new(),
        _folder,
    };
    bench.work().await;
    assert!(is_lead(bench.outcome(before)) && is_lead(bench.outcome(after)));
    assert_eq!(bench.receive(ADA).await, after + 1);
}
