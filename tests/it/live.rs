//! Live events, as browsers get them: with the official JavaScript client, and with clients that misbehave.
//!
//! What needs Node is ignored here and run by `.ci/run`: `cargo test -p inlet --test it -- --ignored live::`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Document, doc};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::clock;
use crate::support::http::{Ask, Connection};
use crate::support::listener::Listener;
use crate::support::load::{self, Shot};
use crate::support::node::{Build, Node, route};
use crate::support::reference::Reference;
use crate::support::truth::World;
use crate::support::wire::{PING, PONG, Wire};
use crate::support::{token, wait};

const SECRET: &str = "a secret that clients' tokens are signed with";
const HOUR: i64 = 3_600;

/// A node with two owners, each with a campaign of a platform of its own.
struct Stage {
    node: Node,
    reference: Reference,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(Node::build()).await
    }

    async fn set_with(build: Build) -> Self {
        let mut reference = Reference::sample();
        let (theirs, owner) = (reference.campaign("unbounce"), reference.users[1]);
        reference.change(theirs, doc! { "owner": owner });
        let build = build.config(&format!("events.secret = {SECRET:?}"));
        let node = build.reference(reference.to_import()).start().await;
        Self { node, reference }
    }

    fn url(&self) -> String {
        format!("http://{}", self.node.intake())
    }

    fn owner(&self) -> String {
        self.reference.users[0].to_hex()
    }

    fn other_owner(&self) -> String {
        self.reference.users[1].to_hex()
    }

    /// A client of an owner, connected.
    async fn listener(&self, owner: &str, transports: &[&str]) -> Listener {
        let token = token::of(owner, HOUR, SECRET);
        let options = json!({ "auth": { "token": token }, "transports": transports });
        let listener = Listener::start(&self.url(), &options);
        listener.hears_one("connect").await;
        listener
    }

    /// A lead of the first owner.
    async fn lead(&self, id: &str, email: &str) {
        let body = json!({ "id": id, "Name": "Ada Lindqvist", "Email": email });
        self.post("instapage", &body).await;
    }

    /// A lead of the other owner.
    async fn other_lead(&self, email: &str) {
        self.post("unbounce", &json!({ "name": ["Bo"], "email": [email] }))
            .await;
    }

    async fn post(&self, platform: &str, body: &Value) {
        let campaign = self.reference.campaign(platform);
        let account = self.reference.account;
        let reply = self.node.post(platform, account, campaign, body).await;
        assert!(reply.is_acknowledged(), "{}", reply.status);
    }

    async fn events(&self) -> Value {
        self.node.status().await["events"].clone()
    }

    async fn has_clients(&self, count: u64, within: Duration) {
        wait::until(&format!("{count} clients"), within, async || {
            let events = self.events().await;
            if events["clients"] == count {
                Ok(())
            } else {
                Err(events.to_string())
            }
        })
        .await;
    }
}

fn hex(document: &Document, field: &str) -> String {
    let id = document.get_object_id(field);
    id.map(ObjectId::to_hex)
        .unwrap_or_else(|error| panic!("{error} in {document}"))
}

fn only<'a>(world: &'a World, collection: &str) -> &'a Document {
    let documents = world.documents(collection);
    assert_eq!(documents.len(), 1, "{collection}");
    &documents[0]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn a_lead_is_heard_by_its_owner_over_every_transport_and_by_nobody_else() {
    let stage = Stage::set().await;
    let ours = [
        stage.listener(&stage.owner(), &["websocket"]).await,
        stage.listener(&stage.owner(), &["polling"]).await,
        stage
            .listener(&stage.owner(), &["polling", "websocket"])
            .await,
    ];
    ours[2].hears_one("upgrade").await;
    let theirs = stage.listener(&stage.other_owner(), &["websocket"]).await;
    assert_eq!(stage.events().await["clients"], 4);
    stage.lead("l-1", "ada@example.se").await;
    stage.node.settled().await;

    let world = World::local(&stage.node).await;
    let (lead, room) = (only(&world, "inbound.leads"), only(&world, "support.rooms"));
    let contact = hex(only(&world, "crm.contacts"), "_id");
    let created_at = lead.get_datetime("created_at").unwrap();
    for listener in &ours {
        let added = listener.hears_one("leadadded").await;
        let expected = json!({
            "lead_id": hex(lead, "_id"),
            "account_id": stage.reference.account.to_hex(),
            "campaign_id": stage.reference.campaign("instapage").to_hex(),
            "contact_id": contact,
            "user_id": hex(lead, "user_id"),
            "integration": "instapage",
            "created_at": created_at.try_to_rfc3339_string().unwrap(),
        });
        assert_eq!(added, expected);
        let joined = listener.hears_one("joinRoom").await;
        let expected = json!({
            "conversation_id": hex(room, "conversation_id"),
            "room_id": hex(room, "_id"),
            "contact_id": contact,
        });
        assert_eq!(joined, expected);
    }

    stage.other_lead("bo@example.com").await;
    theirs.hears_one("leadadded").await;
    stage.node.settled().await;
    assert_eq!(theirs.all("leadadded").len(), 1, "{:?}", theirs.heard());
    for listener in &ours {
        assert_eq!(listener.all("leadadded").len(), 1, "{:?}", listener.heard());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn a_second_lead_of_a_person_is_a_message_and_a_resend_is_nothing() {
    let stage = Stage::set().await;
    let listener = stage.listener(&stage.owner(), &["websocket"]).await;
    stage.lead("l-1", "ada@example.se").await;
    listener.hears("leadadded", 1).await;
    stage.lead("l-2", "ada@example.se").await;
    listener.hears("leadadded", 2).await;
    stage.lead("l-2", "ada@example.se").await;
    stage.lead("l-3", "bo@example.se").await;
    listener.hears("leadadded", 3).await;
    // The id names the person here: a repetition with news is no lead, but a message.
    let person = |email: &str| json!({ "id": "p-1", "first_name": "Cy", "email": email });
    stage.post("manychat", &person("cy@example.se")).await;
    listener.hears("leadadded", 4).await;
    stage.post("manychat", &person("cyrus@example.se")).await;
    listener.hears("message", 2).await;
    stage.node.settled().await;

    let heard: Vec<_> = listener
        .heard()
        .into_iter()
        .map(|heard| heard.event)
        .collect();
    let expected = [
        "connect",
        "joinRoom",
        "leadadded",
        "message",
        "leadadded",
        "joinRoom",
        "leadadded",
        "joinRoom",
        "leadadded",
        "message",
    ];
    assert_eq!(heard, expected);
    let rooms: Vec<_> = listener.all("joinRoom").into_iter().collect();
    let messages = listener.all("message");
    assert_eq!(messages[0]["room_id"], rooms[0]["room_id"]);
    assert_eq!(messages[1]["room_id"], rooms[2]["room_id"]);
    let world = World::local(&stage.node).await;
    let known: BTreeSet<_> = world
        .documents("support.messages")
        .iter()
        .map(|message| hex(message, "_id"))
        .collect();
    for message in &messages {
        assert!(
            known.contains(message["message_id"].as_str().unwrap()),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn nobody_gets_in_without_a_valid_token() {
    let stage = Stage::set().await;
    let owner = stage.owner();
    let exp = clock::now_ms() / 1_000 + HOUR;
    let claims = json!({ "sub": owner, "exp": exp });
    let refused = [
        (json!({}), "no token: it is expected in auth.token"),
        (
            json!({ "token": "" }),
            "no token: it is expected in auth.token",
        ),
        (
            json!({ "token": 7 }),
            "no token: it is expected in auth.token",
        ),
        (json!({ "token": "not.a.token" }), "this is no token"),
        (
            json!({ "token": token::of(&owner, -1, SECRET) }),
            "the token has expired",
        ),
        (
            json!({ "token": token::of(&owner, HOUR, "another secret") }),
            "the token's signature is wrong",
        ),
        (json!({ "token": token::of_none(&claims) }), ""),
        (
            json!({ "token": token::signed(&json!({ "sub": owner }), SECRET) }),
            "the token has no end: exp is missing",
        ),
        (
            json!({ "token": token::signed(&json!({ "exp": exp }), SECRET) }),
            "the token lacks a claim, or has one of another type",
        ),
        (
            json!({ "token": token::of("", HOUR, SECRET) }),
            "the token names no owner: sub is empty",
        ),
    ];
    let listeners = refused.map(|(auth, why)| {
        let options = json!({ "auth": auth, "transports": ["websocket"] });
        (Listener::start(&stage.url(), &options), why)
    });
    for (listener, why) in &listeners {
        let error = listener.hears_one("connect_error").await;
        let message = error["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && message.contains(why),
            "{message} is not {why}"
        );
    }
    let admitted = stage.listener(&owner, &["websocket"]).await;
    stage.lead("l-1", "ada@example.se").await;
    admitted.hears_one("leadadded").await;
    for (listener, why) in &listeners {
        let heard = listener.heard();
        assert!(
            heard.iter().all(|heard| heard.event != "connect"),
            "{why}: {heard:?}"
        );
        assert!(
            heard.iter().all(|heard| heard.event != "leadadded"),
            "{why}: {heard:?}"
        );
    }
    stage.node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn a_token_may_also_come_in_a_header_or_in_the_query() {
    let stage = Stage::set().await;
    let token = token::of(&stage.owner(), HOUR, SECRET);
    let ways = [
        json!({ "extraHeaders": { "Authorization": format!("Bearer {token}") } }),
        json!({ "query": { "token": token } }),
    ];
    let listeners = ways.map(|options| Listener::start(&stage.url(), &options));
    for listener in &listeners {
        listener.hears_one("connect").await;
    }
    stage.lead("l-1", "ada@example.se").await;
    for listener in &listeners {
        listener.hears_one("leadadded").await;
    }
    stage.node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn a_client_is_shown_out_when_its_token_ends_and_what_it_says_is_ignored() {
    let stage = Stage::set().await;
    // The first client may take a while to be fetched; the token's time begins after that.
    drop(stage.listener(&stage.owner(), &["websocket"]).await);
    let token = token::of(&stage.owner(), 15, SECRET);
    let options = json!({ "auth": { "token": token } });
    let listener = Listener::talkative(&stage.url(), &options, "leadadded");
    listener.hears_one("connect").await;
    stage.lead("l-1", "ada@example.se").await;
    listener.hears_one("leadadded").await;
    let gone = listener.hears_one("disconnect").await;
    assert_eq!(gone["reason"], "io server disconnect");
    stage.has_clients(0, Duration::from_secs(60)).await;
    stage.lead("l-2", "bo@example.se").await;
    stage.node.settled().await;
    assert_eq!(listener.all("leadadded").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn clients_connect_over_tls_too() {
    let file = |path: &str| {
        format!(
            "{:?}",
            format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"))
        )
    };
    // The key has signed the certificate itself: openssl req -x509 -key rsa.pem -days 36500 -subj /CN=localhost
    let build = Node::build()
        .config(&format!(
            "tls.cert = {}",
            file("it/live/localhost.cert.pem")
        ))
        .config(&format!("tls.key = {}", file("keys/rsa.pem")));
    let stage = Stage::set_with(build).await;
    let url = stage.url().replace("http://", "https://");
    let token = token::of(&stage.owner(), HOUR, SECRET);
    for transports in [["websocket", "polling"], ["polling", "websocket"]] {
        let options = json!({
            "auth": { "token": token },
            "transports": transports,
            "rejectUnauthorized": false,
        });
        let listener = Listener::start(&url, &options);
        listener.hears_one("connect").await;
        if transports[0] == "polling" {
            listener.hears_one("upgrade").await;
        }
    }
}

/// The time of a lead's commit is known to nobody outside the node; but it is after the webhook's answer, so that the
/// time from answer to event is no shorter than what is measured for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn a_thousand_leads_are_heard_within_100_ms_in_the_median() {
    const LEADS: usize = 1_000;
    let stage = Stage::set().await;
    let listener = stage.listener(&stage.owner(), &["websocket"]).await;
    let target = route(
        "instapage",
        stage.reference.account,
        stage.reference.campaign("instapage"),
    );
    let mut connection = Connection::open(stage.node.intake()).await.unwrap();
    let mut answered = BTreeMap::new();
    for number in 0..LEADS {
        let id = format!("l-{number}");
        let body = json!({ "id": id, "Email": format!("{id}@example.com") });
        let reply = connection
            .ask(Ask::post_json(&target, &body))
            .await
            .unwrap();
        assert!(reply.is_acknowledged());
        answered.insert(id, clock::now_ms() as f64);
    }
    listener.hears("leadadded", LEADS).await;
    stage.node.settled().await;
    let world = World::local(&stage.node).await;
    let leads = world.documents("inbound.leads").iter();
    let ids: BTreeMap<_, _> = leads
        .map(|lead| {
            (
                hex(lead, "_id"),
                lead.get_str("lead_id").unwrap().to_owned(),
            )
        })
        .collect();
    let added = listener.heard().into_iter();
    let added = added.filter(|heard| heard.event == "leadadded");
    let mut latencies: Vec<_> = added
        .map(|heard| heard.at_ms - answered[&ids[heard.data["lead_id"].as_str().unwrap()]])
        .collect();
    latencies.sort_by(f64::total_cmp);
    assert_eq!(latencies.len(), LEADS, "each is told once");
    let (median, p99) = (latencies[LEADS / 2], latencies[LEADS * 99 / 100]);
    println!("answer to event: median {median:.1} ms, p99 {p99:.1} ms");
    assert!(median < 100.0, "median {median:.1} ms, p99 {p99:.1} ms");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn after_a_crash_in_mid_load_listeners_that_come_back_have_heard_of_every_lead() {
    const SHOTS: usize = 1_000;
    const ENOUGH: usize = 100;
    let mut stage = Stage::set().await;
    let options = json!({
        "auth": { "token": token::of(&stage.owner(), HOUR, SECRET) },
        "transports": ["websocket"],
        "reconnectionDelay": 100,
        "reconnectionDelayMax": 200,
    });
    let listener = Listener::start(&stage.url(), &options);
    listener.hears_one("connect").await;
    let target = route(
        "instapage",
        stage.reference.account,
        stage.reference.campaign("instapage"),
    );
    let shots: Vec<_> = (0..SHOTS).map(|number| shot(&target, number)).collect();
    let firing = tokio::spawn(load::fire(stage.node.intake(), 16, shots));
    listener.hears("leadadded", ENOUGH).await;
    stage.node.kill9();
    let report = firing.await.expect("the shots are fired");
    listener.hears_one("disconnect").await;
    let before = listener.all("leadadded").len();
    stage.node.start().await;
    stage.node.settled().await;
    let world = World::local(&stage.node).await;
    let leads = world.documents("inbound.leads").iter();
    let made: BTreeSet<_> = leads.map(|lead| hex(lead, "_id")).collect();
    assert!(made.len() >= report.acknowledged().len());
    wait::until("every lead", Duration::from_secs(10), async || {
        let added = listener.all("leadadded");
        let heard: BTreeSet<_> = added
            .iter()
            .map(|added| added["lead_id"].as_str().unwrap().to_owned())
            .collect();
        match made.difference(&heard).count() {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} are missing", made.len())),
        }
    })
    .await;
    println!("{before} told before the crash, {} made", made.len());
}

fn shot(target: &str, number: usize) -> Shot {
    let key = format!("l-{number}");
    let body = json!({ "id": key, "Email": format!("{key}@example.com") });
    Shot {
        ask: Ask::post_json(target, &body),
        key,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node: .ci/run runs it"]
async fn a_drain_ends_connections_and_does_not_wait_for_clients() {
    let mut stage = Stage::set().await;
    let listeners = [
        stage.listener(&stage.owner(), &["websocket"]).await,
        stage.listener(&stage.owner(), &["polling"]).await,
    ];
    stage.node.settled().await;
    let begun = Instant::now();
    assert!(stage.node.terminate().await.success());
    let took = begun.elapsed();
    // Whoever waited for clients would wait for their next ping, or to the end of a drain's time.
    assert!(took < Duration::from_secs(15), "the drain took {took:?}");
    assert!(!stage.node.log_tail().contains("the drain took too long"));
    for listener in &listeners {
        listener.hears_one("disconnect").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_cut_and_slows_nobody() {
    const LEADS: usize = 2_000;
    let stage = Stage::set().await;
    let token = token::of(&stage.owner(), HOUR, SECRET);
    let (_stalled, answer) = Wire::connect(stage.node.intake(), &token).await;
    assert!(answer.starts_with("40"), "{answer}");
    let (mut healthy, answer) = Wire::connect(stage.node.intake(), &token).await;
    assert!(answer.starts_with("40"), "{answer}");
    let (hears, mut heard) = watch::channel(0);
    let listening = tokio::spawn(async move {
        while let Some(text) = healthy.read().await {
            if text == PING {
                healthy.say(PONG).await;
            }
            if text.starts_with("42[\"leadadded\"") {
                hears.send_modify(|heard| *heard += 1);
            }
        }
    });
    let target = route(
        "instapage",
        stage.reference.account,
        stage.reference.campaign("instapage"),
    );
    let shots: Vec<_> = (0..LEADS).map(|number| shot(&target, number)).collect();
    let report = stage.node.fire(64, shots).await;
    assert_eq!(report.acknowledged().len(), LEADS);
    let heard_all = heard.wait_for(|heard| *heard == LEADS).await;
    drop(heard_all.expect("the healthy client hears every lead"));
    stage.has_clients(1, Duration::from_secs(90)).await;
    assert!(!listening.is_finished(), "the healthy client was cut");
    stage.node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_shows_no_token_is_not_kept() {
    let stage = Stage::set().await;
    let mut wire = Wire::open(stage.node.intake()).await;
    let begun = Instant::now();
    while wire.read().await.is_some() {}
    let took = begun.elapsed();
    // Nothing is said meanwhile: without a bound of its own it would be kept until a ping goes unanswered, 45 s.
    assert!(took < Duration::from_secs(30), "it was kept for {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_come_from_anywhere() {
    let stage = Stage::set().await;
    let preflight = Ask::new("OPTIONS", "/socket.io/?EIO=4&transport=polling")
        .header("Origin", "https://app.example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization");
    let reply = stage.node.ask(preflight).await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.headers["access-control-allow-origin"], "*");
    let allowed = reply.headers["access-control-allow-headers"].to_str();
    assert!(allowed.unwrap().contains("authorization"));
    let opening =
        Ask::get("/socket.io/?EIO=4&transport=polling").header("Origin", "https://app.example.com");
    let reply = stage.node.ask(opening).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["access-control-allow-origin"], "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_there_is_no_socket_io() {
    let node = Node::build().start().await;
    let reply = node
        .ask(Ask::get("/socket.io/?EIO=4&transport=polling"))
        .await;
    assert_eq!(reply.status, 404);
    assert_eq!(node.status().await["events"], Value::Null);
}
