//! Notifications end to end: the real binary, a relay, a Twilio and an FCM on real sockets, and counts at the receiving
//! end (R26, R28).

mod crashes;
mod drains;
mod failures;
mod minute;
mod nodes;
mod outages;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use bson::oid::ObjectId;
use serde_json::{Value, json};

use crate::support::aiosmtpd::Aiosmtpd;
use crate::support::node::{Build, Node};
use crate::support::providers::Counts;
use crate::support::reference::Reference;
use crate::support::wait;

const WITHIN: Duration = Duration::from_secs(60);
const CHANNELS: [&str; 3] = ["email", "sms", "push"];

fn somebody(id: impl ToString) -> Value {
    let id = id.to_string();
    json!({ "id": id, "name": format!("Ada {id}"), "email": format!("ada{id}@example.se") })
}

/// A server that others wrote, and what a node needs to send its mails there.
async fn real_relay() -> (Aiosmtpd, Build) {
    let server = Aiosmtpd::start("inlet", "hunter22").await;
    let url = format!("smtp://inlet:hunter22@{}", server.address());
    let build = Node::build()
        .config(&format!("smtp.url = {url:?}"))
        .config("smtp.from = \"Leads <leads@inlet.example>\"");
    (server, build)
}

/// Posts a lead to the generic campaign.
async fn submit(node: &Node, reference: &Reference, id: impl ToString) {
    submit_to(node, reference, reference.campaign("generic"), id).await;
}

/// Posts a lead to another campaign of the generic platform.
async fn submit_to(node: &Node, reference: &Reference, campaign: ObjectId, id: impl ToString) {
    let body = somebody(id);
    let reply = node.post("generic", reference.account, campaign, &body);
    assert!(reply.await.is_acknowledged());
}

/// Waits until this many deliveries of a channel are in this state.
async fn until(node: &Node, channel: &str, state: &str, count: u64) {
    let what = format!("{count} {channel} to be {state}");
    wait::until(&what, WITHIN, async || {
        let status = node.status().await;
        let seen = &status["deliveries"][channel];
        (seen[state] == count)
            .then_some(())
            .ok_or_else(|| seen.to_string())
    })
    .await;
}

/// `inlet deliveries list`, running or not.
async fn listed(node: &Node, filters: &[&str]) -> Vec<Value> {
    let command = [
        &["deliveries", "list", "--json", "--limit", "10000"],
        filters,
    ]
    .concat();
    let said = node.cli(&command).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.json()["deliveries"].as_array().unwrap().clone()
}

/// `inlet deliveries resend` of all that are listed so.
async fn resend(node: &Node, filters: &[&str]) {
    for one in listed(node, filters).await {
        let id = one["id"].as_str().unwrap();
        let said = node.cli(&["deliveries", "resend", id]).await;
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
}

/// The platform's id of each lead, by its `_id`.
async fn lead_ids(node: &Node) -> BTreeMap<String, String> {
    let exported = node.cli(&["export", "inbound.leads"]).await;
    assert_eq!(exported.code, 0, "{}", exported.stderr);
    let lead = |lead: Value| {
        let id = lead["_id"]["$oid"].as_str().unwrap().to_owned();
        (id, lead["lead_id"].as_str().unwrap().to_owned())
    };
    exported.json_lines().into_iter().map(lead).collect()
}

/// `Lead 1` to `Lead n`, each this often.
fn each(ids: impl IntoIterator<Item = usize>, times: usize) -> Counts {
    ids.into_iter()
        .map(|id| (format!("Lead {id}"), times))
        .collect()
}
