//! A minute by the clock in which nobody can be reached: relay, Twilio, FCM, its token endpoint and Graph. Webhooks are
//! answered and leads are made all the while, work waits at every one of them, and then all of it goes out once (R28).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CHANNELS, WITHIN, lead_ids, listed, submit, until};
use crate::support::graph::Graph;
use crate::support::node::Node;
use crate::support::providers::{Counts, Providers, notifying, notifying_reference};
use crate::support::reference::{FORM, PAGE, Reference, TOKEN};
use crate::support::{outcomes, wait};

const MINUTE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// After a minute the next try may be another one away, and what waits then goes out in turns.
const AFTERWARDS: Duration = Duration::from_secs(240);

/// Two nodes that share everybody they depend on: FCM's token endpoint is felt by the one that has no access token yet,
/// FCM itself by the one that has.
struct World {
    providers: Providers,
    graph: Graph,
    reference: Reference,
    nodes: [Node; 2],
    /// What was answered with success at each, by the platform's id.
    posted: [BTreeSet<String>; 2],
}

impl World {
    async fn begin() -> Self {
        let (providers, graph) = (Providers::start().await, Graph::start().await);
        graph.grant(TOKEN, PAGE);
        let mut reference = notifying_reference();
        reference.change(reference.campaign("facebook"), notifying());
        let build = || {
            let build = providers.build().graph_url(&graph.url());
            build.reference(reference.to_import()).start()
        };
        let nodes = [build().await, build().await];
        Self {
            providers,
            graph,
            reference,
            nodes,
            posted: Default::default(),
        }
    }

    fn all_go_away(&mut self) {
        self.providers.smtp.go_away();
        self.providers.twilio.go_away();
        self.providers.fcm.go_away();
        self.providers.fcm.go_away_tokens();
        self.graph.go_away();
    }

    async fn all_come_back(&mut self) {
        self.providers.smtp.resume().await;
        self.providers.twilio.resume().await;
        self.providers.fcm.resume().await;
        self.providers.fcm.resume_tokens().await;
        self.graph.resume().await;
    }

    /// A lead that says all by itself, and one that Graph has to tell, at each node.
    async fn post(&mut self, number: usize) {
        for (place, node) in self.nodes.iter().enumerate() {
            let id = format!("g{place}-{number}");
            submit(node, &self.reference, &id).await;
            self.posted[place].insert(id);
            let id = format!("f{place}-{number}");
            let email = format!("{id}@example.se");
            let fields = [("full_name", "Grace Okafor"), ("email", email.as_str())];
            self.graph.lead(PAGE, &id, &fields);
            let reply = node.post_facebook(&notification(&id)).await;
            assert!(reply.is_acknowledged(), "{reply:?}");
            self.posted[place].insert(id);
        }
    }

    /// What of it says all by itself.
    fn generic(&self, place: usize) -> u64 {
        let posted = &self.posted[place];
        posted.iter().filter(|id| id.starts_with('g')).count() as u64
    }

    async fn everything_waits(&self) {
        for (place, node) in self.nodes.iter().enumerate() {
            for channel in CHANNELS {
                until(node, channel, "waiting", self.generic(place)).await;
            }
        }
    }
}

fn notification(id: &str) -> Value {
    let value = json!({ "leadgen_id": id, "page_id": PAGE, "form_id": FORM });
    let change = json!({ "field": "leadgen", "value": value });
    json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1_767_950_402, "changes": [change] }] })
}

/// How everybody whom this node depends on is doing: state, since when, and what was said last.
async fn health(node: &Node) -> Vec<(String, String, i64, String)> {
    let status = node.status().await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = CHANNELS
        .iter()
        .map(|channel| {
            let one = &status["deliveries"][channel];
            let since_ms = one["since_ms"].as_i64().unwrap_or_default();
            let (state, told) = (text(&one["channel"]), text(&one["last_error"]));
            ((*channel).to_owned(), state, since_ms, told)
        })
        .collect();
    let graph = &status["dependencies"]["graph"];
    let since_ms = graph["since_ms"].as_i64().unwrap_or_default();
    let (state, told) = (text(&graph["state"]), text(&graph["last_error"]));
    all.push(("graph".to_owned(), state, since_ms, told));
    all
}

/// Since when each is away, once all are.
async fn until_all_are_away(node: &Node) -> Vec<i64> {
    wait::until("all to be found away", WITHIN, async || {
        let health = health(node).await;
        let away = health.iter().all(|(_, state, ..)| state == "waiting");
        let since_ms = health.iter().map(|(_, _, since_ms, _)| *since_ms).collect();
        away.then_some(since_ms)
            .ok_or_else(|| format!("{health:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_anybody_costs_a_minute_and_no_message_comes_twice() {
    let mut world = World::begin().await;
    // The first node gets an access token.
    submit(&world.nodes[0], &world.reference, "g0-first").await;
    world.posted[0].insert("g0-first".to_owned());
    world.nodes[0].settled().await;
    let before = (world.providers.mails(), world.providers.fcm.taken().len());
    assert_eq!((before.0.len(), before.1), (1, 1));

    world.all_go_away();
    world.posted[0].clear();
    world.post(0).await;
    let mut since_ms = Vec::new();
    for node in &world.nodes {
        since_ms.push(until_all_are_away(node).await);
    }
    let begun = Instant::now();
    let mut number = 1;
    while begun.elapsed() < MINUTE {
        world.post(number).await;
        number += 1;
        wait::pause(PAUSE).await;
    }

    // Nobody was reached in between, and everything is there.
    world.everything_waits().await;
    for (place, node) in world.nodes.iter().enumerate() {
        assert_eq!(until_all_are_away(node).await, since_ms[place]);
        let push = health(node).await.swap_remove(2).3;
        assert_eq!(push.contains("no access token"), place == 1, "{push}");
        let made = lead_ids(node).await.into_values();
        let made: BTreeSet<_> = made.filter(|id| id != "g0-first").collect();
        let generic = world.posted[place].iter().filter(|id| id.starts_with('g'));
        assert_eq!(made, generic.cloned().collect());
        let backlog = node.status().await["backlog"].clone();
        let for_graph = world.posted[place].len() - made.len();
        assert_eq!(backlog["ready"], for_graph, "{backlog}");
    }
    let now = (world.providers.mails(), world.providers.fcm.taken().len());
    assert_eq!(now, before);

    world.all_come_back().await;
    for node in &world.nodes {
        node.settled_within(AFTERWARDS).await;
    }
    world.posted[0].insert("g0-first".to_owned());
    assert_all_went_out_once(&world).await;
}

async fn assert_all_went_out_once(world: &World) {
    let wanted: Counts = world
        .posted
        .iter()
        .flatten()
        .map(|id| (format!("Lead {id}"), 1))
        .collect();
    assert_eq!(world.providers.mails(), wanted);
    assert_eq!(world.providers.texts(), wanted);
    let mut leads = Counts::new();
    for (place, node) in world.nodes.iter().enumerate() {
        let made = lead_ids(node).await;
        assert_eq!(
            made.values().cloned().collect::<BTreeSet<_>>(),
            world.posted[place]
        );
        assert_eq!(made.len(), world.posted[place].len());
        leads.extend(made.into_keys().map(|lead| (lead, 1)));
        for one in listed(node, &[]).await {
            let ended = (&one["state"], &one["attempts"]);
            assert_eq!(ended, (&"sent".into(), &0.into()), "{one}");
        }
        for webhook in outcomes::webhooks(node).await {
            assert_eq!(outcomes::ends_of(&webhook), ["lead"]);
        }
        let leads = node.cli(&["export", "inbound.leads"]).await.json_lines();
        let blamed = |lead: &Value| lead["errors"].as_array().is_some_and(|all| !all.is_empty());
        assert!(!leads.iter().any(blamed));
        for (name, state, ..) in health(node).await {
            assert_eq!(state, "ok", "{name}");
        }
    }
    assert_eq!(world.providers.pushes(), leads);
}
