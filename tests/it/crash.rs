//! The node may die at any moment: what it answered with success is there afterwards, and there once (R29).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as BlockingMutex, MutexGuard};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::support::graph::Graph;
use crate::support::http::{Ask, Connection, ask as ask_once};
use crate::support::load::Shot;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::{Node, route};
use crate::support::pace::Pace;
use crate::support::reference::{PAGE, Reference, TOKEN};
use crate::support::submission::{Submission, mark_of};
use crate::support::truth::World;
use crate::support::wait;

const KILLS: usize = 50;
const SENDERS: usize = 6;
/// The node answers again within this time of its start, whatever it was doing when it died; what the machine takes
/// comes on top.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// The body of each webhook of a large store; as large as a body may be, nearly.
const LARGE: usize = 1_000_000;
const STORE_BYTES: usize = 512 * 1024 * 1024;
/// One submission in this many is for a campaign that nobody knows.
const STRAY: usize = 20;
/// A sender rests so long after each answer: load, but not so much that the machine measures itself.
const REST: Duration = Duration::from_millis(3);

/// Held by what measures time, so that it does not measure its neighbours.
static STOPWATCH: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_load_lose_no_acknowledged_webhook_and_double_none() {
    let _alone = STOPWATCH.lock().await;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("crash")).await;
    let graph = Arc::new(Graph::start().await);
    graph.grant(TOKEN, PAGE);
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let mut node = Node::build()
        .mongodb(mongod, database.name())
        .graph_url(&graph.url())
        .prepare();

    let barrage = Barrage::begin(node.intake(), reference, Arc::clone(&graph));
    let pace = Pace::measure();
    let mut first_answers = Vec::new();
    for _ in 0..KILLS {
        first_answers.push(barrage.first_answer_of(&mut node, &pace).await);
        wait::pause(Duration::from_millis(chance.u64(20..400))).await;
        node.kill9();
    }
    first_answers.push(barrage.first_answer_of(&mut node, &pace).await);
    let ledger = barrage.end().await;
    tell(&mut first_answers, &ledger);
    node.settled_within(Duration::from_secs(120)).await;
    assert_one_outcome_each(&node, &ledger).await;
    for world in [World::local(&node).await, World::upstream(&database).await] {
        world.assert_whole();
        ledger.assert_kept_in(&world);
    }
    let status = node.terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_node_answers_every_request_under_way_and_ends_well() {
    let reference = Reference::sample();
    let mut node = Node::build().reference(reference.to_import()).start().await;
    let target = route("generic", reference.account, reference.campaign("generic"));
    let mut under_way = Vec::new();
    for number in 0..20 {
        under_way.push(HalfSent::begin(&node, &target, number).await);
    }
    let ((), status) = tokio::join!(finish(under_way, node.intake()), node.terminate());
    assert!(status.success(), "{status}");

    node.start().await;
    node.settled().await;
    let leads = World::local(&node).await.leads();
    assert_eq!(leads.len(), 20, "{leads:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_half_a_gibibyte_in_store_answers_within_a_second_of_a_kill() {
    let _alone = STOPWATCH.lock().await;
    let reference = Reference::sample();
    let mut node = Node::build().reference(reference.to_import()).start().await;
    // For a campaign that is not there: as much as a sender can fill a disk with.
    let target = route("generic", reference.account, ObjectId::new());
    let body = Bytes::from(format!(r#"{{"note": "{}"}}"#, "x".repeat(LARGE)));
    let ask = Ask::new("POST", &target).body(body);
    let shots = (0..STORE_BYTES / LARGE).map(move |number| Shot {
        key: number.to_string(),
        ask: ask.clone(),
    });
    let report = node.fire(4, shots).await;
    assert_eq!(report.acknowledged().len(), STORE_BYTES / LARGE);
    assert!(std::fs::metadata(node.store()).unwrap().len() >= STORE_BYTES as u64);
    node.kill9();

    let small = Ask::post_json(&target, "{}");
    let pace = Pace::measure();
    let spawned = Instant::now();
    let intake = node.intake();
    let answered = async {
        wait::until("the first answer", Duration::from_secs(30), async || {
            let reply = ask_once(intake, small.clone()).await;
            let reply = reply.map_err(|error| error.to_string())?;
            assert!(reply.is_acknowledged(), "{reply:?}");
            Ok(spawned.elapsed())
        })
        .await
    };
    let ((), took) = tokio::join!(node.start(), answered);
    let allowance = pace.allowance(spawned);
    eprintln!("first answer after {took:?}; the machine's allowance {allowance:?}");
    assert!(took < FIRST_ANSWER + allowance, "{took:?}");
    node.settled().await;
}

/// Senders that do not care whether the node lives.
struct Barrage {
    range: Arc<Range>,
    senders: JoinSet<()>,
    /// When the connection of the latest success was opened.
    success: watch::Receiver<Instant>,
}

struct Range {
    node: SocketAddr,
    reference: Reference,
    graph: Arc<Graph>,
    next: AtomicUsize,
    over: AtomicBool,
    ledger: BlockingMutex<Ledger>,
    success: watch::Sender<Instant>,
}

/// What was sent and what was promised, by mark; strays are for a campaign that nobody knows.
#[derive(Debug, Default)]
struct Ledger {
    sent: BTreeSet<String>,
    promised: BTreeSet<String>,
    strays_sent: usize,
    strays_promised: usize,
    promises: usize,
}

impl Barrage {
    fn begin(node: SocketAddr, reference: Reference, graph: Arc<Graph>) -> Self {
        let (success, successes) = watch::channel(Instant::now());
        let range = Arc::new(Range {
            node,
            reference,
            graph,
            next: AtomicUsize::default(),
            over: AtomicBool::default(),
            ledger: BlockingMutex::default(),
            success,
        });
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            senders.spawn(Arc::clone(&range).send());
        }
        Self {
            range,
            senders,
            success: successes,
        }
    }

    /// Starts the node; how long after its process was spawned the first webhook was acknowledged, which is to be soon.
    async fn first_answer_of(&self, node: &mut Node, pace: &Pace) -> Duration {
        let spawned = Instant::now();
        let mut success = self.success.clone();
        let answered = async {
            // An answer that a dead process left on the wire came over an older connection.
            let answer = success.wait_for(|opened| *opened > spawned).await;
            drop(answer.expect("the senders are at work"));
            spawned.elapsed()
        };
        let took = tokio::join!(node.start(), answered).1;
        let allowance = pace.allowance(spawned);
        assert!(took < FIRST_ANSWER + allowance, "{took:?}, {allowance:?}");
        took
    }

    async fn end(mut self) -> Ledger {
        self.range.over.store(true, Ordering::Relaxed);
        while let Some(sender) = self.senders.join_next().await {
            sender.expect("a sender ends");
        }
        std::mem::take(&mut *self.range.ledger())
    }
}

impl Range {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no sender panicked")
    }

    async fn send(self: Arc<Self>) {
        let mut connection = None;
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let submission = Submission::numbered(number);
            let is_stray = number.is_multiple_of(STRAY) && submission.platform != "facebook";
            submission.put_on(&self.graph);
            let campaign = if is_stray {
                ObjectId::new()
            } else {
                self.reference.campaign(submission.platform)
            };
            let ask = submission.ask_for(&self.reference, campaign);
            self.ledger().sending(&submission.mark, is_stray);
            // Platforms send again what was not answered; some of them.
            let tries = if number.is_multiple_of(2) {
                usize::MAX
            } else {
                1
            };
            for _ in 0..tries {
                if self.try_once(&mut connection, &ask).await {
                    self.ledger().promised(&submission.mark, is_stray);
                    break;
                }
            }
            wait::pause(REST).await;
        }
    }

    /// Whether it was acknowledged. A node that is not there is waited for: nothing was tried.
    async fn try_once(&self, open: &mut Option<(Connection, Instant)>, ask: &Ask) -> bool {
        while open.is_none() {
            match Connection::open(self.node).await {
                Ok(connection) => *open = Some((connection, Instant::now())),
                Err(_) => wait::pause(REST).await,
            }
        }
        let (connection, opened) = open.as_mut().expect("it was opened");
        match connection.ask(ask.clone()).await {
            Ok(reply) => {
                assert!(reply.is_acknowledged(), "{reply:?}");
                self.success.send_replace(*opened);
                true
            }
            Err(_) => {
                *open = None;
                false
            }
        }
    }
}

impl Ledger {
    fn sending(&mut self, mark: &str, is_stray: bool) {
        if is_stray {
            self.strays_sent += 1;
        } else {
            self.sent.insert(mark.to_owned());
        }
    }

    fn promised(&mut self, mark: &str, is_stray: bool) {
        self.promises += 1;
        if is_stray {
            self.strays_promised += 1;
        } else {
            self.promised.insert(mark.to_owned());
        }
    }

    fn assert_kept_in(&self, world: &World) {
        let mut leads: BTreeMap<String, usize> = BTreeMap::new();
        for lead in world.documents("inbound.leads") {
            *leads.entry(mark_of(lead)).or_default() += 1;
        }
        let lost: Vec<_> = self
            .promised
            .iter()
            .filter(|mark| !leads.contains_key(*mark))
            .collect();
        let doubled: Vec<_> = leads.iter().filter(|(_, times)| **times > 1).collect();
        let invented: Vec<_> = leads
            .keys()
            .filter(|mark| !self.sent.contains(*mark))
            .collect();
        assert!(
            lost.is_empty() && doubled.is_empty() && invented.is_empty(),
            "lost: {lost:?}\ndoubled: {doubled:?}\ninvented: {invented:?}"
        );
    }
}

/// Every stored webhook has ended, once, and at least as many are stored as were promised.
async fn assert_one_outcome_each(node: &Node, ledger: &Ledger) {
    let webhooks = all_webhooks(node).await;
    assert!(
        webhooks.len() >= ledger.promises,
        "{} of {} webhooks",
        webhooks.len(),
        ledger.promises
    );
    let mut strays = 0;
    for webhook in &webhooks {
        let outcomes = webhook["outcomes"].as_array().unwrap();
        assert_eq!(
            (&webhook["state"], outcomes.len()),
            (&Value::from("done"), 1),
            "{webhook:#}"
        );
        let outcome = &outcomes[0]["outcome"];
        match outcome.as_str().unwrap() {
            "lead" | "duplicate" => {}
            "ignored" if outcomes[0]["reason"] == "campaign_not_found" => strays += 1,
            _ => panic!("{webhook:#}"),
        }
    }
    assert!(
        strays >= ledger.strays_promised,
        "{strays} strays, {ledger:?}"
    );
}

async fn all_webhooks(node: &Node) -> Vec<Value> {
    let mut webhooks = Vec::new();
    let mut before = String::new();
    loop {
        let page = node
            .ask_admin(Ask::get(format!("/api/v1/webhooks?limit=1000{before}")))
            .await
            .json();
        webhooks.extend(page["webhooks"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return webhooks,
        }
    }
}

fn tell(first_answers: &mut [Duration], ledger: &Ledger) {
    first_answers.sort_unstable();
    eprintln!(
        "{} kills, {} webhooks promised; first answer p50 {:?}, max {:?}",
        KILLS,
        ledger.promises,
        first_answers[first_answers.len() / 2],
        first_answers[first_answers.len() - 1]
    );
}

/// A request whose body is not complete yet, and which the node has begun to read.
struct HalfSent {
    stream: TcpStream,
    rest: String,
}

impl HalfSent {
    async fn begin(node: &Node, target: &str, number: usize) -> Self {
        let body = format!(r#"{{"id": "w-{number}", "email": "w{number}@example.com"}}"#);
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: inlet\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(node.intake()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // Said when the body is asked for: the request is under way.
        let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        stream.read_exact(&mut go_on).await.unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100"));
        Self { stream, rest: body }
    }

    async fn finish(mut self) {
        self.stream.write_all(self.rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"success": true}"#),
            "{answer:?}"
        );
    }
}

/// Sends the rest once the node takes no more connections: it has begun to drain.
async fn finish(under_way: Vec<HalfSent>, intake: SocketAddr) {
    wait::until(
        "the node to drain",
        Duration::from_secs(10),
        async || match TcpStream::connect(intake).await {
            Ok(_) => Err("it still takes connections".to_owned()),
            Err(_) => Ok(()),
        },
    )
    .await;
    for request in under_way {
        request.finish().await;
    }
}
