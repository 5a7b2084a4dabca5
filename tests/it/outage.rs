//! MongoDB goes away: stopped, killed in the middle of a drain, frozen. Nothing is lost, nothing is doubled, and the
//! senders of webhooks notice nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use tokio::net::TcpStream;

use crate::support::graph::Graph;
use crate::support::load::{Report, trickle};
use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::pace::Pace;
use crate::support::scene::Scene;
use crate::support::traffic::Traffic;
use crate::support::truth::World;
use crate::support::wait;

const CONNECTIONS: usize = 8;
const PROCESSING: Duration = Duration::from_secs(120);
const DRAINING: Duration = Duration::from_secs(180);
/// Promised are 2 s; the rest is for finding out by looking again and again, from a client that has to connect first.
const FIRST_PUSH_MAX: Duration = Duration::from_secs(4);

struct Outage {
    mongod: Mongod,
    graph: Graph,
    scene: Scene,
    traffic: Traffic,
}

impl Outage {
    /// A node that has reference data, and traffic of some `size` to come.
    async fn ahead(mongod: Mongod, size: usize) -> Self {
        let graph = Graph::start().await;
        let build = Node::build().graph_url(&graph.url());
        let scene = Scene::with(&mongod, build).await;
        let traffic = Traffic::new(&scene.reference, &graph, size);
        Self {
            mongod,
            graph,
            scene,
            traffic,
        }
    }

    /// Sends `count` webhooks; all of them must be acknowledged.
    async fn receive(&mut self, count: usize) -> Report {
        let shots = self.traffic.next(&self.graph, count);
        let report = self.scene.node.fire(CONNECTIONS, shots).await;
        assert_eq!(report.acknowledged().len(), count);
        report
    }

    /// Waits until every lead is made, MongoDB or not.
    async fn processed(&self) {
        let expected = self.traffic.lead_count() as u64;
        wait::until("the leads to be made", PROCESSING, async || {
            let status = self.scene.node.status().await;
            let is_done = status["outcomes"]["lead"] == expected && status["backlog"]["ready"] == 0;
            is_done.then_some(()).ok_or_else(|| format!("{status:#}"))
        })
        .await;
    }

    /// Waits until at least `count` leads are upstream.
    async fn drained_to(&self, count: u64) {
        wait::until("the drain to begin", DRAINING, async || {
            match self.leads_upstream().await {
                Ok(there) if there >= count => Ok(()),
                there => Err(format!("{there:?}")),
            }
        })
        .await;
    }

    /// Through a client of its own: one that knew MongoDB before the outage would first have to notice its end.
    async fn leads_upstream(&self) -> mongodb::error::Result<u64> {
        let database = self.mongod.database(self.scene.database.name()).await;
        let leads = database.collection::<Document>("inbound.leads");
        leads.count_documents(doc! {}).await
    }

    /// Waits for the end of the drain and looks at everything that is upstream.
    async fn assert_complete(&self) {
        self.scene.node.settled_within(DRAINING).await;
        let database = self.mongod.database(self.scene.database.name()).await;
        let upstream = World::upstream(&database).await;
        self.traffic.assert_arrived(&upstream);
        upstream.assert_same_documents(&World::local(&self.scene.node).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_webhooks_of_an_outage_stand_upstream_exactly_once_soon_after_its_end() {
    let mut outage = Outage::ahead(Mongod::standalone().await, 5_000).await;
    outage.mongod.stop().await;
    let report = outage.receive(5_000).await;
    outage.processed().await;
    let address = outage.mongod.address();
    let pace = Pace::measure();
    let (returned, ()) = tokio::join!(accepts(address), outage.mongod.start());
    outage.drained_to(1).await;
    let (first_push, allowance) = (returned.elapsed(), pace.allowance(returned));
    eprintln!(
        "intake during the outage: {:.0}/s; first push after MongoDB's return: {first_push:?}; \
         the machine's allowance {allowance:?}",
        report.rate()
    );
    assert!(first_push < FIRST_PUSH_MAX + allowance, "{first_push:?}");
    outage.assert_complete().await;
}

/// When a server begins to take connections.
async fn accepts(address: SocketAddr) -> Instant {
    let deadline = Duration::from_secs(60);
    wait::until("connections to be taken", deadline, async || {
        let connected = TcpStream::connect(address).await;
        connected
            .map(|_| Instant::now())
            .map_err(|error| error.to_string())
    })
    .await
}

/// An outage with work for several commands of leads, which is over but for MongoDB's start.
async fn with_a_drain_ahead(mongod: Mongod) -> Outage {
    const SIZE: usize = 2_400;
    let mut outage = Outage::ahead(mongod, SIZE).await;
    outage.mongod.stop().await;
    outage.receive(SIZE).await;
    outage.processed().await;
    outage
}

impl Outage {
    /// Starts a MongoDB that writes a command of leads and keeps the answer to itself, and kills it there.
    async fn killed_before_an_answer(&mut self) {
        let leads = format!("{}.inbound.leads", self.scene.database.name());
        let hang = doc! { "ns": leads, "commands": ["insert", "update"] };
        let setting = doc! { "mode": "alwaysOn", "data": hang };
        self.mongod
            .start_with("waitAfterCommandFinishesExecution", setting)
            .await;
        self.drained_to(1).await;
        self.killed_amid().await;
    }

    /// Starts a MongoDB that writes one command of leads, answers, and does not begin with the next, and kills it
    /// there.
    async fn killed_before_a_command(&mut self) {
        const FOR_GOOD_MS: i32 = 3_600_000;
        let leads = format!("{}.inbound.leads", self.scene.database.name());
        let hang = doc! {
            "failCommands": ["insert", "update"],
            "namespace": leads,
            "blockConnection": true,
            "blockTimeMS": FOR_GOOD_MS,
        };
        let setting = doc! { "mode": { "skip": 1 }, "data": hang };
        self.mongod.start_with("failCommand", setting).await;
        self.mongod.has_hung().await;
        self.killed_amid().await;
    }

    async fn killed_amid(&mut self) {
        let upstream = self.leads_upstream().await.expect("reading goes on");
        assert!(0 < upstream && upstream < self.traffic.lead_count() as u64);
        let pending = &self.scene.node.status().await["sync"]["pending"];
        assert!(pending.as_u64() > Some(0), "{pending}");
        self.mongod.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_on_after_mongodb_was_killed_in_the_middle_of_it() {
    let mut outage = with_a_drain_ahead(Mongod::replica_set().await).await;
    outage.killed_before_an_answer().await;
    outage.mongod.start().await;
    outage.assert_complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_on_after_mongodb_was_killed_twice_in_the_middle_of_it() {
    let mut outage = with_a_drain_ahead(Mongod::standalone().await).await;
    outage.killed_before_an_answer().await;
    outage.killed_before_a_command().await;
    outage.mongod.start().await;
    outage.assert_complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_that_hangs_for_a_minute_does_not_disturb_intake() {
    const EVERY: Duration = Duration::from_millis(50);
    let mut outage = Outage::ahead(Mongod::replica_set().await, 1_400).await;
    let shots = outage.traffic.next(&outage.graph, 200);
    let before = trickle(outage.scene.node.intake(), EVERY, shots).await;
    outage.mongod.freeze();
    let shots = outage.traffic.next(&outage.graph, 1_200);
    let (begun, pace) = (Instant::now(), Pace::measure());
    let frozen = trickle(outage.scene.node.intake(), EVERY, shots).await;
    assert!(begun.elapsed() >= Duration::from_secs(60));
    outage.mongod.thaw();
    assert_eq!(before.acknowledged().len(), 200);
    assert_eq!(frozen.acknowledged().len(), 1_200);
    let (usual, meanwhile) = (before.latency(0.99), frozen.latency(0.99));
    let allowance = pace.allowance(begun);
    eprintln!(
        "intake's p99 before: {usual:?}, while MongoDB hung: {meanwhile:?}; the machine's allowance {allowance:?}"
    );
    assert!(meanwhile < (usual * 4).max(Duration::from_millis(250)).max(allowance));
    outage.assert_complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_or_is_killed_during_an_outage_loses_nothing() {
    let mut outage = Outage::ahead(Mongod::standalone().await, 900).await;
    outage.mongod.stop().await;
    outage.receive(300).await;
    outage.scene.node.restart().await;
    outage.receive(300).await;
    outage.scene.node.kill9();
    outage.scene.node.start().await;
    outage.receive(300).await;
    outage.mongod.start().await;
    outage.assert_complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_upstream_during_a_drain_finds_what_every_document_refers_to() {
    const SIZE: usize = 3_000;
    let mut outage = Outage::ahead(Mongod::standalone().await, SIZE).await;
    outage.mongod.stop().await;
    outage.receive(SIZE).await;
    outage.processed().await;
    // Each write takes its time, so that there is one to read in.
    let slow = doc! {
        "failCommands": ["insert", "update"],
        "blockConnection": true,
        "blockTimeMS": 500,
    };
    let setting = doc! { "mode": "alwaysOn", "data": slow };
    outage.mongod.start_with("failCommand", setting).await;
    let database = outage.mongod.database(outage.scene.database.name()).await;
    let mut readings_amid = 0;
    while outage.scene.node.status().await["sync"]["pending"] != 0 {
        let world = World::upstream(&database).await;
        world.assert_whole();
        let (contacts, deals) = (
            world.documents("crm.contacts").len(),
            world.documents("crm.deals").len(),
        );
        if contacts > 0 && deals < outage.traffic.lead_count() {
            readings_amid += 1;
        }
    }
    assert!(readings_amid > 0, "nobody read during the drain");
    outage.assert_complete().await;
}
