//! Facts about fetching Facebook leads, over a real store and a Graph on a real socket, with time that moves when told
//! to.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use axum::{Json, Router};
use bson::{RawDocumentBuf, doc};
use inlet_sync::ports::{Replica, ReplicaEvent};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::graph::Options;
use crate::model::{Method, TaskKey, Webhook};
use crate::pipeline::freshness::Freshness;
use crate::pipeline::readings::Readings;
use crate::pipeline::tests::damage::damage_task;
use crate::pipeline::{Limits, Pipeline};
use crate::store::Store;
use crate::store::reference::StoreReplica;
use crate::worker::run_until_idle;

const NOW_MS: i64 = 1_700_000_000_000;
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);

mod waiting;

/// A Graph that shows any lead to those tokens it knows, but for those that it complains of.
#[derive(Default)]
struct FakeGraph {
    allowed: Mutex<BTreeSet<String>>,
    /// By lead or token: the status, and what the error has besides its type.
    complaints: Mutex<BTreeMap<String, (StatusCode, Value)>>,
    asked: Mutex<usize>,
}

#[derive(Deserialize)]
struct Asked {
    access_token: String,
}

impl FakeGraph {
    async fn start() -> (Arc<Self>, String) {
        let graph = Arc::new(Self::default());
        let state = Arc::clone(&graph);
        let app = Router::new().fallback(move |uri: Uri, Query(asked): Query<Asked>| {
            let answer = state.answer(uri.path(), &asked);
            async move { answer }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, app).into_future());
        (graph, url)
    }

    fn allow(&self, token: &str) {
        self.allowed.lock().unwrap().insert(token.to_owned());
    }

    /// From now on a lead or token gets this error.
    fn complain(&self, of: &str, status: u16, error: Value) {
        let status = StatusCode::from_u16(status).unwrap();
        let mut complaints = self.complaints.lock().unwrap();
        complaints.insert(of.to_owned(), (status, error));
    }

    fn complain_no_more(&self, of: &str) {
        self.complaints.lock().unwrap().remove(of);
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    fn answer(&self, path: &str, asked: &Asked) -> (StatusCode, Json<Value>) {
        *self.asked.lock().unwrap() += 1;
        let lead = path.rsplit('/').next().unwrap();
        let complaints = self.complaints.lock().unwrap();
        let of = [lead, asked.access_token.as_str()];
        if let Some((status, error)) = of.iter().find_map(|of| complaints.get(*of)) {
            return (*status, Json(json!({ "error": error })));
        }
        if self.allowed.lock().unwrap().contains(&asked.access_token) {
            return (StatusCode::OK, Json(json!({ "id": "1", "field_data": [] })));
        }
        let error = json!({ "error": { "message": "no permission", "code": 200 } });
        (StatusCode::BAD_REQUEST, Json(error))
    }
}

/// A lead's part of a webhook.
fn change(lead: &usize) -> Value {
    let value = json!({ "leadgen_id": lead.to_string(), "page_id": "7", "form_id": "8" });
    json!({ "value": value })
}

/// A node without sockets, with one account, one campaign and one key.
struct Bench {
    shared: Arc<Shared>,
    clock: Arc<ManualClock>,
    leads: FacebookLeads,
    health: Arc<Health>,
    graph: Arc<FakeGraph>,
    _folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let store = Store::open(folder.path().join("inlet.redb"), Some("bench")).unwrap();
        let shared = Arc::new(Shared {
            store: Arc::new(store),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            live_events: false,
            freshness: Freshness::new(true),
            limits: Limits {
                max_attempts: 1,
                backoff: Duration::from_secs(1),
                backoff_max: Duration::from_secs(1),
                dedupe_window: Duration::from_secs(600),
                max_waiting_per_account: 100,
                max_waiting_unknown: 100,
            },
        });
        let (graph, graph_url) = FakeGraph::start().await;
        let client = Graph::new(Options {
            graph_url,
            ..Options::default()
        });
        let health = Arc::new(Health::default());
        let leads = FacebookLeads::new(
            Arc::clone(&shared),
            Arc::new(client.unwrap()),
            Arc::clone(&health),
        );
        let bench = Self {
            shared,
            clock,
            leads,
            health,
            graph,
            _folder: folder,
        };
        bench.import_reference().await;
        bench
    }

    async fn import_reference(&self) {
        let campaign = doc! {
            "_id": ObjectId::new(), "account_id": ACCOUNT, "integration": "facebook_ads",
            "page_id": "7", "lead_form_id": "8",
        };
        let key = doc! { "_id": ObjectId::new(), "account_id": ACCOUNT, "token": { "access_token": "old" } };
        let documents = [(0, doc! { "_id": ACCOUNT }), (1, campaign), (3, key)];
        let events = documents.map(|(collection, document)| ReplicaEvent::Put {
            collection,
            document: RawDocumentBuf::try_from(&document).unwrap(),
        });
        let replica = StoreReplica {
            store: Arc::clone(&self.shared.store),
            clock: Arc::clone(&self.shared.clock),
        };
        let apply = move || replica.apply(events.into(), None, None);
        tokio::task::spawn_blocking(apply).await.unwrap().unwrap();
    }

    /// A webhook with this many changes, each a lead.
    async fn receive(&self, leads: &[usize]) {
        let changes: Vec<_> = leads.iter().map(change).collect();
        let webhook = Webhook {
            platform: "facebook".to_owned(),
            account: None,
            campaign: None,
            method: Method::Post,
            query: String::new(),
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: self.clock.now_ms(),
            body: json!({ "entry": [{ "changes": changes }] })
                .to_string()
                .into_bytes(),
        };
        self.shared.store.receive(&webhook).await.unwrap();
    }

    async fn work(&mut self) {
        let mut pipeline = Pipeline::new(Arc::clone(&self.shared));
        run_until_idle(&mut pipeline).await.unwrap();
        run_until_idle(&mut self.leads).await.unwrap();
    }

    fn parked(&self) -> u64 {
        self.shared.store.read().unwrap().waiting().unwrap().parked
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.shared.store.read().unwrap().counted(outcome).unwrap()
    }

    fn leads(&self) -> u64 {
        self.counted("lead")
    }
}

#[tokio::test]
async fn a_refused_token_is_probed_by_one_lead_after_hours_and_not_before() {
    let mut bench = Bench::new().await;
    bench.receive(&[11]).await;
    bench.work().await;
    bench.receive(&[12, 13, 14]).await;
    bench.work().await;
    assert_eq!((bench.graph.asked(), bench.parked()), (1, 4));
    bench.clock.advance(Duration::from_secs(2 * 60 * 60));
    bench.work().await;
    assert_eq!((bench.graph.asked(), bench.parked()), (1, 4));
    bench.clock.advance(Duration::from_secs(60 * 60));
    bench.work().await;
    assert_eq!((bench.graph.asked(), bench.parked()), (2, 4));
}

#[tokio::test]
async fn a_permission_that_comes_back_without_a_new_token_lets_all_parked_leads_go_on() {
    let mut bench = Bench::new().await;
    bench.receive(&[11]).await;
    bench.work().await;
    let more: Vec<_> = (12..62).collect();
    bench.receive(&more).await;
    bench.work().await;
    assert_eq!((bench.parked(), bench.leads()), (51, 0));
    bench.graph.allow("old");
    bench.clock.advance(Duration::from_secs(3 * 60 * 60));
    bench.work().await;
    assert_eq!((bench.parked(), bench.leads()), (0, 51));
    assert_eq!(bench.graph.asked(), 52);
    assert!(
        bench
            .shared
            .store
            .read()
            .unwrap()
            .broken_tokens()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_batch_is_read_once_in_a_pass_and_not_for_each_of_its_changes() {
    let bench = Bench::new().await;
    bench.receive(&[11, 12, 13]).await;
    bench.receive(&[21]).await;
    let snapshot = bench.shared.store.read().unwrap();
    let mut readings = Readings::default();
    let mut open = |seq, change| match readings.of(&snapshot, TaskKey::change(seq, change)) {
        Ok(Ok(opened)) => opened,
        _ => panic!("the webhook is there"),
    };
    let first = open(1, 0);
    assert!(Arc::ptr_eq(&first, &open(1, 2)));
    let other = open(2, 0);
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(Arc::ptr_eq(&other, &open(2, 0)));
}

/// A damaged record kept all others of its account parked, and what was due for Graph waiting.
#[tokio::test]
async fn damaged_tasks_are_woken_and_fetched_like_the_others() {
    let mut bench = Bench::new().await;
    bench.receive(&[11, 12, 13]).await;
    bench.work().await;
    assert_eq!(bench.parked(), 3);
    let store = Arc::clone(&bench.shared.store);
    let (tasks, _) = store.read().unwrap().fate(1).unwrap();
    damage_task(&store, tasks[0].0).await;
    let unpark = |tables: &mut Tables<'_>| {
        tables.unpark(&ACCOUNT.bytes())?;
        tables.wake_parked(WAKE_MAX, NOW_MS)
    };
    assert_eq!(store.write(unpark).await.unwrap(), 3);
    damage_task(&store, tasks[1].0).await;
    bench.graph.allow("old");
    bench.clock.advance(Duration::from_secs(3 * 60 * 60));
    bench.work().await;
    assert_eq!((bench.parked(), bench.leads()), (0, 3));
}
