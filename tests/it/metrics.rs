//! What Prometheus reads of a node.

use std::collections::BTreeSet;

use bson::doc;
use serde_json::json;

use crate::support::http::Ask;
use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::openmetrics::Scrape;
use crate::support::outcomes::until_waiting_for;
use crate::support::reference::{PAGE, Reference};
use crate::support::scene::Scene;
use crate::tokens;

async fn scrape(node: &Node) -> Scrape {
    let reply = node.ask_admin(Ask::get("/metrics")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.headers["content-type"], format);
    Scrape::read(reply.text()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_what_the_status_shows() {
    let scene = Scene::on(Mongod::shared_replica_set().await).await;
    let (node, reference) = (&scene.node, &scene.reference);
    let campaign = reference.campaign("generic");
    let odd = "Ada \"the\nfirst\" \\ Byron";
    for body in [
        json!({ "id": "l1", "name": odd, "email": "ada@example.com" }),
        json!({ "id": "l1", "name": odd, "email": "ada@example.com" }),
    ] {
        let reply = node
            .post("generic", reference.account, campaign, &body)
            .await;
        assert!(reply.is_acknowledged());
    }
    node.settled().await;
    let (status, scrape) = (node.status().await, scrape(node).await);
    let value = |name: &str, labels: &[(&str, &str)]| {
        let value = scrape.value(name, labels);
        value.unwrap_or_else(|| panic!("no {name}{labels:?} in {scrape:#?}"))
    };
    assert_eq!(value("inlet_webhooks_total", &[]), 2.0);
    assert_eq!(
        value("inlet_webhooks_refused_total", &[("reason", "backlog")]),
        0.0
    );
    for outcome in ["lead", "duplicate", "ignored", "dead_letter"] {
        let count = value("inlet_outcomes", &[("outcome", outcome)]);
        assert_eq!(
            json!(count as u64),
            status["outcomes"][outcome],
            "{outcome}"
        );
    }
    assert_eq!(value("inlet_outcomes", &[("outcome", "lead")]), 1.0);
    assert_eq!(value("inlet_backlog_tasks", &[("state", "ready")]), 0.0);
    assert_eq!(value("inlet_sync_unpushed_changes", &[]), 0.0);
    assert_eq!(value("inlet_sync_lag_seconds", &[]), 0.0);
    assert_eq!(value("inlet_mongodb_up", &[]), 1.0);
    assert!(value("inlet_mongodb_last_success_timestamp_seconds", &[]) > 1.7e9);
    let started = status["started_at"].as_f64().unwrap() / 1000.0;
    assert_eq!(value("process_start_time_seconds", &[]), started);
    for channel in ["email", "sms", "push"] {
        let labels = [("channel", channel), ("state", "waiting")];
        assert_eq!(value("inlet_deliveries", &labels), 0.0);
    }
    let due = value(
        "inlet_job_next_run_timestamp_seconds",
        &[("job_name", "retention")],
    );
    assert!((0.0..=3_600.0).contains(&(due - started)), "{due}");
    for state in ["waiting", "under_way"] {
        assert_eq!(value("inlet_erasures_unfinished", &[("state", state)]), 0.0);
    }
    assert!(value("inlet_store_file_bytes", &[]) > 0.0);
    let build = scrape
        .families()
        .iter()
        .find(|one| one.name == "inlet_build");
    let labels = &build.expect("what runs").series[0].labels;
    assert_eq!(labels["version"], status["version"].as_str().unwrap());

    let labels: BTreeSet<_> = scrape
        .families()
        .iter()
        .flat_map(|family| &family.series)
        .flat_map(|series| series.labels.keys().map(String::as_str))
        .collect();
    let known = [
        "channel",
        "collection",
        "job_name",
        "node",
        "outcome",
        "reason",
        "state",
        "version",
    ];
    assert_eq!(labels, BTreeSet::from(known));
    for family in scrape.families() {
        let is_ours = family.name.starts_with("inlet_");
        assert!(
            is_ours || family.name == "process_start_time_seconds",
            "{}",
            family.name
        );
        assert!(
            family.help.ends_with('.'),
            "{}: {}",
            family.name,
            family.help
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_token_is_told_by_its_account_until_a_good_one_is_there() {
    let graph = tokens::graph().await;
    let mut reference = Reference::sample();
    let node = tokens::node(&graph)
        .reference(reference.to_import())
        .start()
        .await;
    let account = reference.account.to_hex();
    let told = async || {
        let scrape = scrape(&node).await;
        let series = "inlet_facebook_account_broken_tokens";
        let parked = scrape.value("inlet_backlog_tasks", &[("state", "parked")]);
        let broken = scrape.value("inlet_facebook_tokens", &[("state", "broken")]);
        (
            scrape.value(series, &[("account", &account)]),
            broken,
            parked,
        )
    };
    assert_eq!(told().await, (None, Some(0.0), Some(0.0)));
    tokens::post(&node, &graph, "l1").await;
    until_waiting_for(&node, "token").await;
    assert_eq!(told().await, (Some(1.0), Some(1.0), Some(1.0)));
    graph.grant("another", PAGE);
    let token = doc! { "access_token": "another" };
    reference.change(reference.facebook_key(), doc! { "token": token });
    node.import(&reference.to_import()).await;
    node.settled().await;
    assert_eq!(told().await, (None, Some(0.0), Some(0.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_ask_for_no_token_and_are_not_for_other_peoples_web_pages() {
    let node = Node::build()
        .config("admin.token = \"letmein\"")
        .start()
        .await;
    let asked = async |ask: Ask| node.ask_admin(ask).await.status.as_u16();
    assert_eq!(asked(Ask::get("/api/v1/status")).await, 401);
    assert_eq!(asked(Ask::get("/metrics")).await, 200);
    let foreign = Ask::get("/metrics").header("Origin", "https://evil.example");
    assert_eq!(asked(foreign).await, 403);
    let mut node = node;
    node.leave_unfinished();
}
