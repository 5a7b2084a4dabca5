//! What was removed here is still upstream, and what comes later finds its place there (R41).
//!
//! The node's own parts over a store and a clock of the test's, and a real MongoDB: two months pass in a moment.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId};
use inlet::clock::{Clock, ManualClock};
use inlet::model::{Method, Webhook};
use inlet::pipeline::freshness::Freshness;
use inlet::pipeline::{Limits, Pipeline, Shared};
use inlet::schedule::{Policy, Retention, Stop};
use inlet::store::Store;
use inlet::store::outbox::StoreOutbox;
use inlet::upstream::{self, Push};
use inlet::worker::run_until_idle;
use inlet_sync::Options;
use mongodb::Database;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::mongod::{Mongod, fresh_name};
use crate::support::wait;

const DAY: Duration = Duration::from_secs(86_400);
const NOW_MS: i64 = 1_700_000_000_000;
const PUSHED_WITHIN: Duration = Duration::from_secs(60);
const DOCUMENTS: [&str; 5] = [
    "crm.contacts",
    "inbound.leads",
    "support.conversations",
    "support.rooms",
    "support.messages",
];

/// A node without sockets, connected.
struct Bench {
    shared: Arc<Shared>,
    clock: Arc<ManualClock>,
    push: Push,
    database: Database,
    account: ObjectId,
    campaign: ObjectId,
    _folder: TempDir,
}

impl Bench {
    async fn new(add_to_crm: bool) -> Self {
        let mongod = Mongod::shared_replica_set().await;
        let database = mongod.database(&fresh_name("retention")).await;
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("inlet.redb");
        let store = Arc::new(Store::open(path, Some("edge-1")).unwrap());
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let time = Arc::clone(&clock) as Arc<dyn Clock>;
        let (account, campaign) = (ObjectId::new(), ObjectId::new());
        let reference = [
            vec![doc! { "_id": account, "status": "active" }],
            vec![doc! { "_id": campaign, "account_id": account, "add_to_crm": add_to_crm }],
        ];
        let raw = |list: Vec<Document>| {
            let raw = list.iter().map(RawDocumentBuf::try_from);
            raw.collect::<Result<_, _>>().unwrap()
        };
        store.import(reference.map(raw).into()).await.unwrap();
        let options = Options::new(mongod.uri(), database.name(), "edge-1");
        let outbox = StoreOutbox::new(Arc::clone(&store), 600_000, Arc::clone(&time));
        Self {
            push: Push::new(upstream::connect(options), outbox),
            shared: Arc::new(Shared {
                store,
                clock: time,
                freshness: Freshness::new(true),
                limits: limits(),
                live_events: false,
            }),
            clock,
            database,
            account,
            campaign,
            _folder: folder,
        }
    }

    /// A ManyChat subscriber says something; all that comes of it is upstream.
    async fn says(&mut self, text: &str) {
        let body = bson::bson!({ "id": "77", "name": "Eva", "email": "eva@example.com", "last_input_text": text });
        let webhook = Webhook {
            platform: "manychat".to_owned(),
            account: Some(self.account.to_hex()),
            campaign: Some(self.campaign.to_hex()),
            method: Method::Post,
            query: String::new(),
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: self.clock.now_ms(),
            body: body.into_relaxed_extjson().to_string().into_bytes(),
        };
        self.shared.store.receive(&webhook).await.unwrap();
        let mut pipeline = Pipeline::new(Arc::clone(&self.shared));
        run_until_idle(&mut pipeline).await.unwrap();
        wait::until("the push", PUSHED_WITHIN, async || {
            run_until_idle(&mut self.push).await.unwrap();
            match self.shared.store.read().unwrap().pending_count().unwrap() {
                0 => Ok(()),
                left => Err(format!("{left} changes are left")),
            }
        })
        .await;
    }

    async fn two_months_pass(&self) {
        self.clock.advance(60 * DAY);
        let policy = Policy {
            webhooks: 30 * DAY,
            documents: Some(30 * DAY),
            dedupe_window: Duration::from_secs(600),
        };
        let (_running, stop) = watch::channel(false);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let retention = Retention::new(Arc::clone(&self.shared.store), clock, policy);
        let done = retention
            .without_rests()
            .run(Stop::when(stop))
            .await
            .unwrap();
        assert!(done.is_ok && done.is_whole, "{done:?}");
        let held = self.shared.store.read().unwrap().held_count().unwrap();
        assert_eq!(held, 0);
    }

    async fn upstream(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        for name in DOCUMENTS {
            let documents = self.database.collection::<Document>(name);
            counts.push(documents.count_documents(doc! {}).await.unwrap());
        }
        counts
    }

    async fn distinct(&self, collection: &str, field: &str) -> Vec<Bson> {
        let documents = self.database.collection::<Document>(collection);
        documents.distinct(field, doc! {}).await.unwrap()
    }
}

fn limits() -> Limits {
    Limits {
        max_attempts: 3,
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        dedupe_window: Duration::from_secs(600),
        max_waiting_per_account: 100,
        max_waiting_unknown: 10,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_comes_back_after_two_months_is_the_same_contact_in_the_same_room() {
    let mut bench = Bench::new(true).await;
    bench.says("hello").await;
    assert_eq!(bench.upstream().await, [1, 1, 1, 1, 2]);
    for visit in 1..=2 {
        bench.two_months_pass().await;
        bench.says(&format!("I am back, {visit}")).await;
        assert_eq!(bench.upstream().await, [1, 1, 1, 1, 2 + visit]);
    }
    assert_eq!(bench.distinct("support.messages", "room_id").await.len(), 1);
    let contacts = bench
        .distinct("support.messages", "metadata.contact_id")
        .await;
    assert_eq!(contacts, bench.distinct("crm.contacts", "_id").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_somebody_of_whom_the_campaign_makes_no_contact() {
    let mut bench = Bench::new(false).await;
    bench.says("hello").await;
    assert_eq!(bench.upstream().await, [0, 1, 1, 1, 2]);
    bench.two_months_pass().await;
    bench.says("I am back").await;
    assert_eq!(bench.upstream().await, [0, 1, 1, 1, 3]);
    assert_eq!(bench.distinct("support.messages", "room_id").await.len(), 1);
}
