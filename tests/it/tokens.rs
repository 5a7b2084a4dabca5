//! Facebook's tokens end: they are renewed while they work, written back where nobody was faster, and where one is
//! broken its account's leads wait, and no one else's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use mongodb::Database;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::support::graph::{Answer, Graph, TOKEN_LIFE_SECONDS};
use crate::support::http::Ask;
use crate::support::load::Shot;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::{Build, Node};
use crate::support::outcomes::{last_ends, until_waiting_for};
use crate::support::reference::{FORM, PAGE, Reference, TOKEN};
use crate::support::truth::World;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(30);
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// What clocks and a slow machine may add to a time that is known but for the moment it was written.
const SLACK_MS: i64 = 120_000;

fn notification(lead: &str) -> Value {
    let value = json!({ "leadgen_id": lead, "page_id": PAGE, "form_id": FORM });
    json!({ "object": "page", "entry": [{ "id": PAGE, "changes": [{ "field": "leadgen", "value": value }] }] })
}

fn put_lead(graph: &Graph, id: &str) {
    let email = format!("{id}@example.com");
    graph.lead(
        PAGE,
        id,
        &[("full_name", "Grace Okafor"), ("email", &email)],
    );
}

/// A lead that Graph has and the node is told of.
pub(crate) async fn post(node: &Node, graph: &Graph, lead: &str) {
    put_lead(graph, lead);
    let reply = node.post_facebook(&notification(lead)).await;
    assert!(reply.is_acknowledged(), "{reply:?}");
}

/// A Graph that knows the app.
pub(crate) async fn graph() -> Graph {
    let graph = Graph::start().await;
    graph.demand_proof("1234567", "app secret");
    graph
}

/// A node that knows it too, and for which a single failed attempt would be the last.
pub(crate) fn node(graph: &Graph) -> Build {
    without_app_id(graph).config("facebook.app_id = \"1234567\"")
}

fn without_app_id(graph: &Graph) -> Build {
    Node::build()
        .graph_url(&graph.url())
        .config("facebook.app_secret = \"app secret\"")
        .config("pipeline.max_attempts = 1")
}

pub(crate) fn in_days(days: i64) -> DateTime {
    DateTime::from_millis(DateTime::now().timestamp_millis() + days * DAY_MS)
}

/// The sample, its key's token being this one with this end.
pub(crate) fn with_token(token: &str, expires_in: impl Into<Bson>) -> Reference {
    let mut reference = Reference::sample();
    let token = doc! { "access_token": token, "expires_in": expires_in.into() };
    reference.change(
        reference.facebook_key(),
        doc! { "token": token, "updated_at": DateTime::now() },
    );
    reference
}

async fn key_upstream(database: &Database, reference: &Reference) -> Document {
    let keys = database.collection::<Document>("facebook.keys");
    let key = keys.find_one(doc! { "_id": reference.facebook_key() });
    key.await.unwrap().expect("a Facebook key")
}

async fn token_upstream(database: &Database, reference: &Reference) -> Document {
    let key = key_upstream(database, reference).await;
    key.get_document("token").unwrap().clone()
}

fn access_token(token: &Document) -> &str {
    token.get_str("access_token").unwrap()
}

/// Somebody writes another end of the token.
async fn ends_sooner_upstream(database: &Database, reference: &Reference, end: DateTime) {
    let keys = database.collection::<Document>("facebook.keys");
    let change = doc! { "$set": { "token.expires_in": end, "updated_at": DateTime::now() } };
    let key = doc! { "_id": reference.facebook_key() };
    let changed = keys.update_one(key, change).await.unwrap();
    assert_eq!(changed.modified_count, 1);
}

/// Waits until the token upstream is another one than `old`.
async fn until_renewed_upstream(database: &Database, reference: &Reference, old: &str) -> Document {
    wait::until("the new token upstream", SOON, async || {
        let token = token_upstream(database, reference).await;
        match access_token(&token) {
            same if same == old => Err(same.to_owned()),
            _ => Ok(token),
        }
    })
    .await
}

/// Waits until the node has this many tokens that are not upstream.
async fn until_unwritten(node: &Node, count: u64) {
    wait::until("the tokens to write", SOON, async || {
        let facebook = &node.status().await["facebook"];
        let is_so = facebook["unwritten"] == count && facebook["renewed_total"] != 0;
        is_so.then_some(()).ok_or_else(|| facebook.to_string())
    })
    .await;
}

async fn until_exchanged(graph: &Graph, count: usize) {
    wait::until("the exchange", SOON, async || match graph.exchanged() {
        enough if enough >= count => Ok(()),
        exchanged => Err(exchanged.to_string()),
    })
    .await;
}

async fn until_last_is_a_lead(node: &Node) {
    wait::until("the lead", SOON, async || {
        let ends = last_ends(node).await;
        let is_so = ends == ["lead"];
        is_so.then_some(()).ok_or_else(|| format!("{ends:?}"))
    })
    .await;
}

/// When a token of the sample ends, by the value that its document has now and when it was updated.
fn end_ms(written: &Bson, updated_at: DateTime) -> i64 {
    match written {
        Bson::DateTime(at) => at.timestamp_millis(),
        Bson::String(text) => DateTime::parse_rfc3339_str(text)
            .unwrap()
            .timestamp_millis(),
        Bson::Int32(lifetime) if *lifetime < 1_000_000_000 => {
            updated_at.timestamp_millis() + i64::from(*lifetime) * 1000
        }
        Bson::Int32(seconds) => i64::from(*seconds) * 1000,
        Bson::Int64(ms) => *ms,
        other => panic!("no end: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_before_it_ends_and_written_back_in_the_form_it_had() {
    let graph = graph().await;
    let soon = in_days(3);
    let seconds = i32::try_from(soon.timestamp_millis() / 1000).unwrap();
    let forms: [Bson; 5] = [
        soon.into(),
        soon.try_to_rfc3339_string().unwrap().into(),
        seconds.into(),
        soon.timestamp_millis().into(),
        (3 * 24 * 60 * 60).into(),
    ];
    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("tokens")).await;
    let mut accounts = Vec::new();
    for (number, form) in forms.iter().enumerate() {
        let token = format!("token {number}");
        graph.grant(&token, PAGE);
        let reference = with_token(&token, form.clone());
        reference.insert_into(&database).await;
        accounts.push((token, reference));
    }
    let node = node(&graph).mongodb(mongod, database.name()).start().await;
    for ((old, reference), form) in accounts.iter().zip(&forms) {
        let token = until_renewed_upstream(&database, reference, old).await;
        assert!(access_token(&token).starts_with(&format!("{old}-renewed-")));
        let written = token.get("expires_in").unwrap();
        assert_eq!(written.element_type(), form.element_type(), "{written}");
        let key = key_upstream(&database, reference).await;
        let end_ms = end_ms(written, *key.get_datetime("updated_at").unwrap());
        let expected_ms = DateTime::now().timestamp_millis() + TOKEN_LIFE_SECONDS as i64 * 1000;
        assert!(
            (expected_ms - SLACK_MS..=expected_ms).contains(&end_ms),
            "{form} {written}"
        );
    }
    until_unwritten(&node, 0).await;
    assert_eq!(graph.exchanged(), forms.len());
    // Every account's campaign gets the lead, with its new token.
    post(&node, &graph, "l1").await;
    node.settled().await;
    assert_eq!(last_ends(&node).await, ["lead"; 5]);
    let used = graph.tokens_used();
    assert!(
        used.iter().all(|token| token.contains("-renewed-")),
        "{used:?}"
    );
    let facebook = &node.status().await["facebook"];
    assert_eq!(facebook["expiring"], json!([]), "{facebook}");
    assert_eq!(facebook["renewed_total"], 5, "{facebook}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_need_not_or_cannot_be_renewed_is_left_alone_and_an_expired_token_is_reported() {
    let graph = graph().await;
    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("tokens")).await;
    let accounts = [
        with_token("never", Bson::Null),
        with_token("later", in_days(11)),
        with_token("over", in_days(-1)),
        // The one that tells when the others have been looked at.
        with_token("soon", in_days(3)),
    ];
    for reference in &accounts {
        reference.insert_into(&database).await;
    }
    graph.grant("soon", PAGE);
    let node = node(&graph).mongodb(mongod, database.name()).start().await;
    until_renewed_upstream(&database, &accounts[3], "soon").await;
    for (reference, token) in accounts.iter().zip(["never", "later", "over"]) {
        let there = token_upstream(&database, reference).await;
        assert_eq!(access_token(&there), token);
    }
    assert_eq!(graph.exchanged(), 1);
    let broken = &node.status().await["facebook"]["broken"];
    assert_eq!(broken.as_array().unwrap().len(), 1, "{broken}");
    assert_eq!(broken[0]["account"], accounts[2].account.to_hex());
    assert_eq!(broken[0]["reason"], "the token has expired");
    assert!(
        broken[0]["remedy"].as_str().unwrap().contains("reconnect"),
        "{broken}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_app_id_nothing_is_exchanged_and_the_status_says_what_to_set() {
    let graph = graph().await;
    graph.grant(TOKEN, PAGE);
    let reference = with_token(TOKEN, in_days(3));
    let node = without_app_id(&graph)
        .reference(reference.to_import())
        .start()
        .await;
    post(&node, &graph, "l1").await;
    node.settled().await;
    assert_eq!(last_ends(&node).await, ["lead"]);
    assert_eq!(graph.exchanged(), 0);
    let said = node.cli(&["status"]).await.stdout;
    assert!(said.contains("FACEBOOK TOKEN ENDS"), "{said}");
    assert!(said.contains("set facebook.app_id"), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_renewed_meanwhile_is_not_overwritten() {
    let graph = graph().await;
    graph.grant(TOKEN, PAGE);
    graph.grant("theirs", PAGE);
    graph.script_exchange([Answer::Late(Duration::from_secs(2))]);
    let reference = with_token(TOKEN, in_days(3));
    // Polled and not for an hour: the node learns of the other token only when it wants to write its own.
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("tokens")).await;
    reference.insert_into(&database).await;
    let build = node(&graph).mongodb(mongod, database.name());
    let node = build.config("mongodb.pull_interval = \"1h\"").start().await;
    wait::until("the exchange to begin", SOON, async || {
        let begun = graph.calls("access_token").len();
        (begun == 1).then_some(()).ok_or_else(|| begun.to_string())
    })
    .await;
    let keys = database.collection::<Document>("facebook.keys");
    let theirs =
        doc! { "$set": { "token.access_token": "theirs", "token.expires_in": in_days(60) } };
    let by_id = doc! { "_id": reference.facebook_key() };
    keys.update_one(by_id, theirs).await.unwrap();
    until_exchanged(&graph, 1).await;
    until_unwritten(&node, 0).await;
    let there = token_upstream(&database, &reference).await;
    assert_eq!(access_token(&there), "theirs");
    post(&node, &graph, "l1").await;
    node.settled().await;
    assert_eq!(graph.tokens_used(), ["theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_survives_a_kill_and_is_written_when_mongodb_is_back() {
    let graph = graph().await;
    graph.void_exchanged_tokens();
    graph.grant(TOKEN, PAGE);
    let reference = with_token(TOKEN, in_days(3));
    let mut mongod = Mongod::replica_set().await;
    let database = mongod.database("tokens").await;
    reference.insert_into(&database).await;
    let mut node = without_app_id(&graph)
        .mongodb(&mongod, "tokens")
        .start()
        .await;
    wait::until("the key to be pulled", SOON, async || {
        let pulled = &node.status().await["reference"]["facebook.keys"];
        (*pulled == 1)
            .then_some(())
            .ok_or_else(|| pulled.to_string())
    })
    .await;
    assert!(node.terminate().await.success());
    mongod.stop().await;
    node.add_config("facebook.app_id = \"1234567\"");
    node.start().await;
    until_unwritten(&node, 1).await;
    node.kill9();
    node.start().await;
    until_unwritten(&node, 1).await;
    // The old one is void, so this lead is read with the new one.
    post(&node, &graph, "l1").await;
    until_last_is_a_lead(&node).await;
    assert_eq!(graph.exchanged(), 1);
    mongod.start().await;
    let database = mongod.database("tokens").await;
    let there = until_renewed_upstream(&database, &reference, TOKEN).await;
    assert_eq!(access_token(&there), format!("{TOKEN}-renewed-1"));
    until_unwritten(&node, 0).await;
    node.settled().await;
    assert_eq!(graph.exchanged(), 1);
    assert_eq!(graph.tokens_used(), [format!("{TOKEN}-renewed-1")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_alone_node_keeps_its_new_token_even_if_the_old_file_is_imported_again() {
    let graph = graph().await;
    graph.void_exchanged_tokens();
    graph.grant(TOKEN, PAGE);
    let reference = with_token(TOKEN, in_days(3)).to_import();
    let mut node = node(&graph).reference(reference.clone()).start().await;
    until_unwritten(&node, 1).await;
    node.import(&reference).await;
    node.restart().await;
    post(&node, &graph, "l1").await;
    node.settled().await;
    assert_eq!(last_ends(&node).await, ["lead"]);
    assert_eq!(graph.tokens_used(), [format!("{TOKEN}-renewed-1")]);
}

/// 100 connections post leads while the token is exchanged; the old one works on, or is void at once.
async fn renewed_under_load(voids_old: bool) {
    const LEADS: usize = 1_000;
    const SLOW: &str = "l300";
    let graph = graph().await;
    graph.grant(TOKEN, PAGE);
    if voids_old {
        graph.void_exchanged_tokens();
    }
    let reference = with_token(TOKEN, in_days(30));
    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("tokens")).await;
    reference.insert_into(&database).await;
    let node = node(&graph).mongodb(mongod, database.name()).start().await;
    let leads: Vec<_> = (0..LEADS).map(|number| format!("l{number}")).collect();
    let shots: Vec<_> = leads
        .iter()
        .map(|lead| {
            put_lead(&graph, lead);
            let ask = Ask::post_json(
                "/v1/inbound/webhooks/facebook".to_owned(),
                notification(lead),
            );
            let key = lead.clone();
            Shot { key, ask }
        })
        .collect();
    // Asked with the old token, judged when there is a new one.
    graph.script(SLOW, [Answer::Late(Duration::from_secs(5))]);
    let ends_soon = async {
        wait::until("the slow lead to be asked for", SOON, async || {
            let asked = graph.calls(SLOW).len();
            (asked == 1).then_some(()).ok_or_else(|| asked.to_string())
        })
        .await;
        let keys = database.collection::<Document>("facebook.keys");
        let soon = doc! { "$set": { "token.expires_in": in_days(3) } };
        let by_id = doc! { "_id": reference.facebook_key() };
        keys.update_one(by_id, soon).await.unwrap();
    };
    let (report, ()) = tokio::join!(node.fire(100, shots), ends_soon);
    assert_eq!(report.acknowledged().len(), LEADS);
    until_renewed_upstream(&database, &reference, TOKEN).await;
    post(&node, &graph, "last").await;
    wait::until("the parked leads to be woken", SOON, async || {
        let parked = &node.status().await["backlog"]["parked"];
        (*parked == 0)
            .then_some(())
            .ok_or_else(|| parked.to_string())
    })
    .await;
    node.settled().await;
    let status = node.status().await;
    assert_eq!(status["backlog"]["parked"], 0, "{status:#}");
    assert_eq!(status["outcomes"]["lead"], LEADS as u64 + 1, "{status:#}");
    assert_eq!(status["outcomes"]["dead_letter"], 0, "{status:#}");
    assert_eq!(status["facebook"]["broken"], json!([]), "{status:#}");
    assert_eq!(graph.exchanged(), 1);
    let campaign = reference.campaign("facebook");
    let whole = |lead: String| (reference.account, campaign, lead);
    let expected: BTreeSet<_> = leads
        .into_iter()
        .chain(["last".to_owned()])
        .map(whole)
        .collect();
    World::upstream(&database).await.assert_leads(&expected);
    let slow: Vec<_> = graph
        .calls(SLOW)
        .iter()
        .map(|call| call.parameter("access_token").to_owned())
        .collect();
    let new = format!("{TOKEN}-renewed-1");
    if voids_old {
        assert_eq!(slow, [TOKEN, &new]);
    } else {
        assert_eq!(slow, [TOKEN]);
    }
    assert_eq!(graph.tokens_used().last(), Some(&new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_renewed_under_load_costs_no_lead() {
    renewed_under_load(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_old_one_is_void_at_once_costs_no_lead_under_load() {
    renewed_under_load(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_renew_the_same_token_agree_on_one() {
    let graph = graph().await;
    graph.grant(TOKEN, PAGE);
    let reference = with_token(TOKEN, in_days(40));
    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("tokens")).await;
    reference.insert_into(&database).await;
    let start = || node(&graph).mongodb(mongod, database.name()).start();
    let (one, two) = tokio::join!(start(), start());
    let nodes = [&one, &two];
    for node in nodes {
        node.has_read_reference_data().await;
    }
    // Both have asked before either has an answer.
    let both = Answer::Together(Arc::new(Barrier::new(nodes.len())));
    graph.script_exchange([both.clone(), both]);
    ends_sooner_upstream(&database, &reference, in_days(3)).await;
    until_exchanged(&graph, nodes.len()).await;
    for node in nodes {
        until_unwritten(node, 0).await;
    }
    let there = token_upstream(&database, &reference).await;
    for (node, lead) in nodes.into_iter().zip(["l1", "l2"]) {
        post(node, &graph, lead).await;
        node.settled().await;
        assert_eq!(last_ends(node).await, ["lead"]);
    }
    assert_eq!(
        graph.tokens_used(),
        [access_token(&there), access_token(&there)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_token_is_shown_with_its_remedy_and_its_leads_go_on_when_a_new_key_is_imported() {
    let graph = graph().await;
    let mut reference = Reference::sample();
    let mut node = node(&graph).reference(reference.to_import()).start().await;
    post(&node, &graph, "l1").await;
    until_waiting_for(&node, "token").await;
    // It is remembered: a restarted node does not ask again.
    node.restart().await;
    post(&node, &graph, "l2").await;
    until_waiting_for(&node, "token").await;
    assert_eq!((graph.calls("l1").len(), graph.calls("l2").len()), (1, 0));
    let status = node.status().await;
    let broken = &status["facebook"]["broken"];
    assert_eq!(broken.as_array().unwrap().len(), 1, "{broken}");
    assert_eq!(broken[0]["account"], reference.account.to_hex());
    assert_eq!(broken[0]["page"], PAGE);
    assert!(broken[0]["since_ms"].as_i64().unwrap() > 0, "{broken}");
    assert!(
        broken[0]["reason"].as_str().unwrap().contains("code 190"),
        "{broken}"
    );
    assert_eq!(status["facebook"]["broken_total"], 1);
    let said = node.cli(&["status"]).await.stdout;
    assert!(said.contains("FACEBOOK TOKEN BROKEN"), "{said}");
    assert!(
        said.contains("reconnect Facebook for this account"),
        "{said}"
    );
    // Somebody reconnects: that makes a key of its own, and leaves the old one where it was.
    graph.grant("reconnected", PAGE);
    reference.add(
        "facebook.keys",
        doc! {
            "_id": bson::oid::ObjectId::new(), "account_id": reference.account, "page_id": PAGE,
            "token": { "access_token": "reconnected" }, "updated_at": DateTime::now(),
        },
    );
    node.import(&reference.to_import()).await;
    node.settled().await;
    assert_eq!(node.status().await["outcomes"]["lead"], 2);
    assert_eq!(node.status().await["backlog"]["parked"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_a_key_lacks_on_one_page_holds_up_no_other_page() {
    let graph = graph().await;
    let mut reference = Reference::sample();
    let on_page_7 = doc! { "page_id": "7", "lead_form_id": "8" };
    reference.another_campaign("facebook", on_page_7);
    reference.change(reference.facebook_key(), doc! { "page_id": null });
    graph.grant(TOKEN, PAGE);
    graph.grant(TOKEN, "7");
    graph.script("l1", [Answer::error(200)]);
    graph.lead("7", "l2", &[("email", "l2@example.com")]);
    let mut node = node(&graph).reference(reference.to_import()).start().await;
    post(&node, &graph, "l1").await;
    until_waiting_for(&node, "token").await;
    let value = json!({ "leadgen_id": "l2", "page_id": "7", "form_id": "8" });
    let other = json!({ "entry": [{ "changes": [{ "field": "leadgen", "value": value }] }] });
    assert!(node.post_facebook(&other).await.is_acknowledged());
    until_last_is_a_lead(&node).await;
    let broken = &node.status().await["facebook"]["broken"];
    assert_eq!(broken.as_array().unwrap().len(), 1, "{broken}");
    assert_eq!(broken[0]["page"], PAGE);
    assert!(
        broken[0]["remedy"].as_str().unwrap().contains("this page"),
        "{broken}"
    );
    node.leave_unfinished();
    node.terminate().await;
}
