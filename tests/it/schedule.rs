//! What runs by the clock is seen from outside.

use std::time::Duration;

use serde_json::Value;

use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::scene::Scene;
use crate::support::wait;

const HEARTBEAT_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_each_job_with_its_next_run_and_the_last_heartbeat() {
    let mut scene = Scene::on(Mongod::shared_replica_set().await).await;
    let status = wait::until("a heartbeat", HEARTBEAT_WITHIN, async || {
        let status = scene.node.status().await;
        match status["jobs"]["heartbeat"]["ok"] {
            Value::Bool(true) => Ok(status),
            _ => Err(status["jobs"].to_string()),
        }
    })
    .await;
    let started_ms = status["started_at"].as_i64().unwrap();
    for job in ["retention", "self_check", "token_renewal"] {
        let next_ms = status["jobs"][job]["next_ms"].as_i64();
        let ahead_ms = next_ms.unwrap_or_default() - started_ms;
        assert!((0..=3_600_000).contains(&ahead_ms), "{}", status["jobs"]);
    }
    let said = scene.node.cli(&["status"]).await;
    for word in [
        "retention",
        "self_check",
        "token_renewal",
        "heartbeat",
        "NEXT RUN",
    ] {
        assert!(said.stdout.contains(word), "{}", said.stdout);
    }
    assert!(scene.node.terminate().await.success());
    let closed = scene.node.cli(&["status"]).await;
    assert!(closed.stdout.contains("self_check"), "{}", closed.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_alone_node_has_jobs_and_no_heartbeat() {
    let node = Node::build().start().await;
    let jobs = wait::until("the jobs", HEARTBEAT_WITHIN, async || {
        let jobs = node.status().await["jobs"].clone();
        match jobs["self_check"].is_object() {
            true => Ok(jobs),
            false => Err(jobs.to_string()),
        }
    })
    .await;
    assert!(jobs["heartbeat"].is_null(), "{jobs}");
}
