//! Two nodes on one MongoDB, in this process, with senders that count: who sends is settled between them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc, oid::ObjectId};
use inlet::clock::SystemClock;
use inlet::model::{Channel, Method, Webhook};
use inlet::notify::claims::{Alone, Claims};
use inlet::notify::deliveries::{Deliveries, Limits};
use inlet::notify::facts::Facts;
use inlet::notify::{Failure, Handed, Receipt, Way};
use inlet::pipeline::freshness::Freshness;
use inlet::pipeline::{self, Pipeline, Shared};
use inlet::store::Store;
use inlet::store::outbox::StoreOutbox;
use inlet::upstream::{self, Agreement, Push};
use inlet::worker::run_until_idle;
use inlet_sync::{Options, Upstream};
use tempfile::TempDir;

use crate::support::mongod::{Mongod, fresh_name};
use crate::support::wait;

const WITHIN: Duration = Duration::from_secs(30);
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
const CAMPAIGN: ObjectId = ObjectId::from_bytes([0xc1; 12]);
const USERS: [ObjectId; 2] = [
    ObjectId::from_bytes([0xd1; 12]),
    ObjectId::from_bytes([0xd2; 12]),
];

/// Counts what it is given, and takes it or does not.
struct Counting {
    count: Arc<AtomicUsize>,
    takes: bool,
}

impl Way for Counting {
    type Message = ();

    fn channel(&self) -> Channel {
        Channel::Sms
    }

    fn render(&self, _: &Facts) -> Result<(), String> {
        Ok(())
    }

    async fn send(&self, (): ()) -> Handed {
        self.count.fetch_add(1, Ordering::SeqCst);
        let detail = "no such number".to_owned();
        let refused = Failure::Refused { detail };
        self.takes.then(Receipt::default).ok_or(refused).into()
    }
}

struct Edge {
    shared: Arc<Shared>,
    upstream: Arc<Upstream>,
    sent: Arc<AtomicUsize>,
    _folder: TempDir,
}

impl Edge {
    async fn new(mongod: &Mongod, database: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("inlet.redb"), Some(name)).unwrap();
        store.import(reference()).await.unwrap();
        let shared = Shared {
            store: Arc::new(store),
            clock: Arc::new(SystemClock::new()),
            live_events: false,
            freshness: Freshness::new(true),
            limits: pipeline::Limits {
                max_attempts: 3,
                backoff: Duration::from_secs(1),
                backoff_max: Duration::from_secs(300),
                dedupe_window: Duration::from_secs(600),
                max_waiting_per_account: 100,
                max_waiting_unknown: 10,
            },
        };
        Self {
            shared: Arc::new(shared),
            upstream: upstream::connect(Options::new(mongod.uri(), database, name)),
            sent: Arc::default(),
            _folder: folder,
        }
    }

    async fn receive(&self, body: &str) {
        let webhook = Webhook {
            platform: "instapage".to_owned(),
            account: Some(ACCOUNT.to_hex()),
            campaign: Some(CAMPAIGN.to_hex()),
            method: Method::Post,
            query: String::new(),
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: self.shared.clock.now_ms(),
            body: body.as_bytes().to_vec(),
        };
        self.shared.store.receive(&webhook).await.unwrap();
        let mut pipeline = Pipeline::new(Arc::clone(&self.shared));
        run_until_idle(&mut pipeline).await.unwrap();
    }

    /// Pushes everything.
    async fn push(&self) {
        let (store, clock) = (
            Arc::clone(&self.shared.store),
            Arc::clone(&self.shared.clock),
        );
        let outbox = StoreOutbox::new(store, 600_000, clock);
        let mut push = Push::new(Arc::clone(&self.upstream), outbox);
        wait::until("the push to be through", WITHIN, async || {
            run_until_idle(&mut push).await.unwrap();
            match self.shared.store.read().unwrap().pending_count().unwrap() {
                0 => Ok(()),
                left => Err(format!("{left} left: {:?}", self.upstream.health())),
            }
        })
        .await;
    }

    async fn notify(&self) {
        let upstream = Arc::clone(&self.upstream);
        self.notify_with(Agreement { upstream }, true).await;
    }

    async fn notify_with(&self, claims: impl Claims, takes: bool) {
        let mut deliveries = Deliveries::new(
            Arc::clone(&self.shared.store),
            Arc::clone(&self.shared.clock),
            Counting {
                count: Arc::clone(&self.sent),
                takes,
            },
            Arc::new(claims),
            Arc::default(),
            Limits {
                max_attempts: 3,
                backoff: Duration::from_secs(1),
                backoff_max: Duration::from_secs(1),
            },
        );
        run_until_idle(&mut deliveries).await.unwrap();
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// How many deliveries are in each state.
    fn counts(&self) -> [u64; 6] {
        let snapshot = self.shared.store.read().unwrap();
        snapshot.delivery_counts(Channel::Sms).unwrap()
    }
}

fn reference() -> Vec<Vec<RawDocumentBuf>> {
    let raw = |documents: Vec<Document>| -> Vec<RawDocumentBuf> {
        let raw = documents.iter().map(RawDocumentBuf::try_from);
        raw.collect::<Result<_, _>>().unwrap()
    };
    let selected: Vec<_> = USERS.iter().map(|id| doc! { "id": id }).collect();
    let campaign = doc! {
        "_id": CAMPAIGN, "account_id": ACCOUNT, "add_to_crm": true, "selected_user": selected,
        "notification_type": "only_send_sms",
    };
    let users = USERS.iter().map(|id| doc! { "_id": id }).collect();
    let account = doc! { "_id": ACCOUNT, "status": "active" };
    vec![
        raw(vec![account]),
        raw(vec![campaign]),
        raw(users),
        Vec::new(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_webhooks_at_two_nodes_notify_once_whomever_each_has_chosen() {
    let mongod = Mongod::shared_standalone().await;
    let database = fresh_name("agreement");
    let (one, other) = tokio::join!(
        Edge::new(mongod, &database, "one"),
        Edge::new(mongod, &database, "other")
    );
    // In opposite orders, so that the nodes do not choose the same representatives.
    for id in 1..=30 {
        let body = |id: u32| format!(r#"{{"id": {id}, "Email": "p{id}@example.com"}}"#);
        one.receive(&body(id)).await;
        other.receive(&body(31 - id)).await;
    }
    tokio::join!(one.notify(), other.notify());
    assert_eq!(one.sent() + other.sent(), 30);
    let [_, _, sent, _, _, elsewhere] = one.counts();
    assert_eq!((sent + elsewhere, sent), (30, one.sent() as u64));
    // A node that comes back to what it has claimed goes on with it; nothing else is left to do.
    tokio::join!(one.notify(), other.notify());
    assert_eq!(one.sent() + other.sent(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_without_an_id_at_two_nodes_notifies_once() {
    let mongod = Mongod::shared_standalone().await;
    let database = fresh_name("agreement");
    let (one, other) = tokio::join!(
        Edge::new(mongod, &database, "one"),
        Edge::new(mongod, &database, "other")
    );
    let body = r#"{"Email": "ada@example.com", "Name": "Ada Byron"}"#;
    one.receive(body).await;
    other.receive(body).await;
    one.notify().await;
    assert_eq!(one.sent(), 0, "whose the lead is has not been said yet");
    one.push().await;
    other.push().await;
    tokio::join!(one.notify(), other.notify());
    assert_eq!((one.sent(), other.sent()), (1, 0));
    assert_eq!(
        other.counts()[5],
        1,
        "the other knows that it is told elsewhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mongodb_that_answers_each_node_notifies() {
    let mut mongod = Mongod::standalone().await;
    let edge = Edge::new(&mongod, &fresh_name("agreement"), "one").await;
    mongod.stop().await;
    edge.receive(r#"{"id": 1, "Email": "a@example.com"}"#).await;
    edge.notify().await;
    assert_eq!(edge.sent(), 1);
}

/// A lead that is upstream already counts as pushed: what it was told before its first push must not be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_reaches_a_lead_that_another_node_has_pushed() {
    let mongod = Mongod::shared_standalone().await;
    let database = fresh_name("agreement");
    let (one, other) = tokio::join!(
        Edge::new(mongod, &database, "one"),
        Edge::new(mongod, &database, "other")
    );
    for edge in [&one, &other] {
        edge.receive(r#"{"id": 1, "Email": "a@example.com"}"#).await;
    }
    other.push().await;
    one.notify_with(Alone, false).await;
    // So that the first lead's tickets are not the newest: those would be met again in any case.
    one.receive(r#"{"id": 2, "Email": "b@example.com"}"#).await;
    one.push().await;
    let leads = mongod.database(&database).await;
    let leads = leads.collection::<Document>("inbound.leads");
    let lead = leads
        .find_one(doc! { "lead_id": "1" })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lead.get_str("node").unwrap(), "other");
    let errors = lead.get_array("errors").unwrap();
    let error = errors[0].as_document().unwrap();
    assert_eq!(
        (errors.len(), error.get_str("type").unwrap()),
        (1, "SmsSendError")
    );
}
