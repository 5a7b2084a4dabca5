//! Facebook's leads: ids arrive, and the leads are read from a Graph API that can say anything.

use std::collections::BTreeSet;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{DateTime, Document, doc};
use mongodb::Database;
use serde_json::{Value, json};

use crate::support::graph::{Answer, Graph};
use crate::support::http::Ask;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::{Build, Node};
use crate::support::outcomes::{self, ends, ends_of, last_ends, until_waiting_for};
use crate::support::reference::{FORM, PAGE, Reference, TOKEN};
use crate::support::truth::{World, lead_key};
use crate::support::wait;

const ROUTE: &str = "/v1/inbound/webhooks/facebook";
const SOON: Duration = Duration::from_secs(30);

fn change(lead: &str, page: &str, form: &str) -> Value {
    json!({ "field": "leadgen", "value": { "leadgen_id": lead, "page_id": page, "form_id": form } })
}

fn batch(changes: &[Value]) -> Value {
    json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1_767_950_402, "changes": changes }] })
}

fn notification(lead: &str) -> Value {
    batch(&[change(lead, PAGE, FORM)])
}

async fn post(node: &Node, body: &Value) {
    let reply = node.post_facebook(body).await;
    assert!(reply.is_acknowledged(), "{reply:?}");
}

/// A Graph that shows the leads of [`PAGE`] to [`TOKEN`].
async fn graph() -> Graph {
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    graph
}

fn put_lead(graph: &Graph, id: &str) {
    let email = format!("{id}@example.com");
    graph.lead(
        PAGE,
        id,
        &[("full_name", "Grace Okafor"), ("email", &email)],
    );
}

/// A node for which a single failed attempt would be the last.
fn strict(graph: &Graph) -> Build {
    Node::build()
        .graph_url(&graph.url())
        .config("pipeline.max_attempts = 1")
}

/// Stand-alone, with the sample's campaign.
async fn stand_alone(graph: &Graph) -> Node {
    let reference = Reference::sample().to_import();
    strict(graph).reference(reference).start().await
}

fn attempts(webhook: &Value) -> Vec<u64> {
    let outcomes = outcomes::list(webhook, "outcomes");
    let attempts = outcomes.iter().map(|it| it["attempts"].as_u64().unwrap());
    attempts.collect()
}

async fn until_graph_is(node: &Node, state: &str) {
    wait::until("Graph's state to change", SOON, async || {
        let status = node.status().await;
        let graph = &status["dependencies"]["graph"];
        if graph["state"] == state {
            return Ok(());
        }
        Err(graph.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_subscription_is_confirmed_to_whoever_knows_the_verify_token() {
    let mut node = Node::build()
        .config("facebook.verify_token = \"open sesame\"")
        .start()
        .await;
    let right =
        format!("{ROUTE}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=open+sesame");
    let reply = node.ask(Ask::get(right)).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "1158201444"));
    assert!(
        reply.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    for wrong in [
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=sesame",
        "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=open+sesame",
        "hub.mode=subscribe&hub.challenge=1",
        "hub.mode=subscribe&hub.verify_token=open+sesame",
        "",
    ] {
        let reply = node.ask(Ask::get(format!("{ROUTE}?{wrong}"))).await;
        assert_eq!(reply.text(), r#"{"success": true}"#, "{wrong}");
        assert!(reply.is_acknowledged(), "{wrong}");
    }
    assert!(outcomes::webhooks(&node).await.is_empty());
    node.terminate().await;
}

#[tokio::test]
async fn nobody_subscribes_where_no_verify_token_is_configured() {
    let mut node = Node::build().start().await;
    for token in ["", "&hub.verify_token="] {
        let target = format!("{ROUTE}?hub.mode=subscribe&hub.challenge=1158201444{token}");
        let reply = node.ask(Ask::get(target)).await;
        assert_eq!(reply.text(), r#"{"success": true}"#);
    }
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_is_read_with_the_page_s_token_and_the_proof_of_the_app_s_secret() {
    let graph = graph().await;
    graph.demand_proof("1234567", "app secret");
    put_lead(&graph, "l1");
    let node = strict(&graph)
        .config("facebook.app_id = \"1234567\"")
        .config("facebook.app_secret = \"app secret\"")
        .config("facebook.api_version = \"v21.0\"")
        .reference(Reference::sample().to_import())
        .start()
        .await;
    post(&node, &notification("l1")).await;
    node.settled().await;
    assert_eq!(last_ends(&node).await, ["lead"]);
    let calls = graph.calls("l1");
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].path, "/v21.0/l1");
    assert_eq!(calls[0].parameter("access_token"), TOKEN);
    for field in ["id", "created_time", "field_data", "platform", "vehicle"] {
        let mut fields = calls[0].parameter("fields").split(',');
        assert!(fields.any(|it| it == field), "{field} in {calls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_app_secret_makes_leads_wait_and_the_status_says_what_to_set() {
    let graph = graph().await;
    graph.demand_proof("1234567", "new secret");
    put_lead(&graph, "l1");
    let mut node = strict(&graph)
        .config("facebook.app_secret = \"old secret\"")
        .reference(Reference::sample().to_import())
        .start()
        .await;
    post(&node, &notification("l1")).await;
    until_graph_is(&node, "waiting").await;
    let status = node.status().await;
    let trouble = status["dependencies"]["graph"]["last_error"].to_string();
    assert!(trouble.contains("set facebook.app_secret"), "{trouble}");
    assert!(!trouble.contains("old secret"), "{trouble}");
    until_waiting_for(&node, "graph").await;
    node.leave_unfinished();
}

/// Two accounts whose campaigns share the form, each with a token of its own.
fn two_accounts() -> [Reference; 2] {
    ["token of one", "token of two"].map(|token| {
        let mut reference = Reference::sample();
        let token = doc! { "token": { "access_token": token } };
        reference.change(reference.facebook_key(), token);
        reference
    })
}

async fn node_of(graph: &Graph, accounts: &[Reference]) -> (Database, Node) {
    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("facebook")).await;
    for account in accounts {
        account.insert_into(&database).await;
    }
    let node = strict(graph).mongodb(mongod, database.name());
    (database, node.start().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_of_two_accounts_on_one_form_get_the_lead_each_by_its_own_key() {
    let graph = Graph::start().await;
    graph.grant("token of one", PAGE);
    graph.grant("token of two", PAGE);
    put_lead(&graph, "l1");
    let accounts = two_accounts();
    let (database, node) = node_of(&graph, &accounts).await;
    post(&node, &notification("l1")).await;
    node.settled().await;
    assert_eq!(last_ends(&node).await, ["lead", "lead"]);
    let expected = accounts
        .each_ref()
        .map(|it| (it.account, it.campaign("facebook"), "l1".to_owned()));
    let world = World::upstream(&database).await;
    world.assert_leads(&expected.into());
    assert_eq!(world.documents("crm.contacts").len(), 2);
    let calls = graph.calls("l1");
    let mut tokens: Vec<_> = calls
        .iter()
        .map(|it| it.parameter("access_token"))
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, ["token of one", "token of two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_token_parks_its_own_account_until_the_key_changes_upstream() {
    let graph = Graph::start().await;
    graph.grant("token of one", PAGE);
    put_lead(&graph, "l1");
    put_lead(&graph, "l2");
    let accounts = two_accounts();
    let (database, node) = node_of(&graph, &accounts).await;
    post(&node, &notification("l1")).await;
    let parked = until_waiting_for(&node, "token").await;
    let [campaign, broken] = accounts.each_ref().map(|it| it.campaign("facebook"));
    assert_eq!(parked["campaign"], broken.to_hex());
    assert!(
        parked["last_error"].as_str().unwrap().contains("code 190"),
        "{parked}"
    );
    assert_eq!(parked["attempts"], 0);
    // A second webhook finds the token known for broken, and does not ask.
    post(&node, &notification("l2")).await;
    until_waiting_for(&node, "token").await;
    let by_two = |lead: &str| {
        let calls = graph.calls(lead).into_iter();
        calls
            .filter(|it| it.parameter("access_token") != "token of one")
            .count()
    };
    assert_eq!((by_two("l1"), by_two("l2")), (1, 0));
    assert_eq!(node.status().await["backlog"]["parked"], 2);
    let whole = |id: &str| [(accounts[0].account, campaign, id.to_owned())];
    node.settled().await;
    let mut expected: BTreeSet<_> = ["l1", "l2"].into_iter().flat_map(whole).collect();
    World::upstream(&database).await.assert_leads(&expected);

    graph.grant("token renewed", PAGE);
    let keys = database.collection::<Document>("facebook.keys");
    let renewed = doc! { "$set": { "token.access_token": "token renewed" } };
    keys.update_one(doc! { "_id": accounts[1].facebook_key() }, renewed)
        .await
        .unwrap();
    wait::until("the parked webhooks to become leads", SOON, async || {
        let ends = ends(&node).await;
        if ends == [["lead", "lead"], ["lead", "lead"]] {
            return Ok(());
        }
        Err(format!("{ends:?}"))
    })
    .await;
    node.settled().await;
    expected.extend(["l1", "l2"].map(|id| (accounts[1].account, broken, id.to_owned())));
    World::upstream(&database).await.assert_leads(&expected);
    for webhook in outcomes::webhooks(&node).await {
        assert_eq!(attempts(&webhook), [1, 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_waited_for_and_uses_no_attempts() {
    for hindrance in [
        Answer::error(1),
        Answer::error(2),
        Answer::error(613),
        Answer::Garbage(502),
        Answer::Reset,
    ] {
        let graph = graph().await;
        put_lead(&graph, "l1");
        graph.script("l1", [hindrance.clone()]);
        let node = stand_alone(&graph).await;
        post(&node, &notification("l1")).await;
        node.settled().await;
        let webhooks = outcomes::webhooks(&node).await;
        assert_eq!(ends_of(&webhooks[0]), ["lead"], "{hindrance:?}");
        assert_eq!(attempts(&webhooks[0]), [1], "{hindrance:?}");
        assert_eq!(graph.calls("l1").len(), 2, "{hindrance:?}");
        assert_eq!(node.status().await["dependencies"]["graph"]["state"], "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_graph_is_left_alone_for_as_long_as_it_asks() {
    let graph = graph().await;
    put_lead(&graph, "l1");
    put_lead(&graph, "l2");
    graph.script("l1", [Answer::Throttled { minutes: 19 }]);
    let mut node = stand_alone(&graph).await;
    post(&node, &notification("l1")).await;
    until_graph_is(&node, "waiting").await;
    post(&node, &notification("l2")).await;
    // The pipeline hands it to Graph's worker, which would ask at once.
    wait::until("the second lead to wait for Graph", SOON, async || {
        let webhook = outcomes::webhooks(&node).await.pop().unwrap();
        match outcomes::list(&webhook, "tasks").as_slice() {
            [task] if task["waits_for"] == "graph" => Ok(()),
            _ => Err(webhook.to_string()),
        }
    })
    .await;
    wait::pause(Duration::from_secs(2)).await;
    assert_eq!((graph.calls("l1").len(), graph.calls("l2").len()), (1, 0));
    assert_eq!(node.status().await["backlog"]["ready"], 2);
    node.leave_unfinished();
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_graph_throttles_holds_up_no_other_page_of_its_account() {
    let graph = Graph::start().await;
    let mut reference = Reference::sample();
    reference.another_campaign("facebook", doc! { "page_id": "7", "lead_form_id": "8" });
    reference.change(
        reference.facebook_key(),
        doc! { "page_id": null, "updated_at": DateTime::now() },
    );
    graph.grant(TOKEN, PAGE);
    graph.grant(TOKEN, "7");
    put_lead(&graph, "l1");
    put_lead(&graph, "l2");
    graph.lead("7", "l3", &[("email", "l3@example.com")]);
    graph.script("l1", [Answer::PageThrottled { minutes: 19 }]);
    let mut node = strict(&graph)
        .reference(reference.to_import())
        .start()
        .await;
    post(&node, &notification("l1")).await;
    until_graph_is(&node, "waiting").await;
    post(&node, &notification("l2")).await;
    post(&node, &batch(&[change("l3", "7", "8")])).await;
    wait::until("the other page's lead", SOON, async || {
        match last_ends(&node).await.as_slice() {
            [end] if end == "lead" => Ok(()),
            ends => Err(format!("{ends:?}")),
        }
    })
    .await;
    wait::pause(Duration::from_secs(1)).await;
    assert_eq!((graph.calls("l1").len(), graph.calls("l2").len()), (1, 0));
    node.leave_unfinished();
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_graph_does_not_show_is_waited_for() {
    let graph = graph().await;
    let mut node = stand_alone(&graph).await;
    post(&node, &notification("l1")).await;
    let task = until_waiting_for(&node, "graph").await;
    assert!(
        task["last_error"]
            .as_str()
            .unwrap()
            .contains("code 100 subcode 33"),
        "{task}"
    );
    assert_eq!(task["attempts"], 0);
    assert_eq!(last_ends(&node).await, [""; 0]);
    // It holds up nobody else.
    put_lead(&graph, "l2");
    post(&node, &notification("l2")).await;
    wait::until("the other lead", SOON, async || {
        let ends = last_ends(&node).await;
        if ends == ["lead"] {
            Ok(())
        } else {
            Err(format!("{ends:?}"))
        }
    })
    .await;
    node.leave_unfinished();
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_dead_letter_with_graph_s_words_and_can_be_replayed() {
    let graph = graph().await;
    for (id, answer, words) in [
        (
            "l1",
            Answer::error(100),
            "code 100, OAuthException: scripted",
        ),
        (
            "l2",
            Answer::error(368),
            "code 368, OAuthException: scripted",
        ),
        ("l3", Answer::error_with(100, 7), "code 100 subcode 7"),
    ] {
        put_lead(&graph, id);
        graph.script(id, [answer]);
        let mut node = stand_alone(&graph).await;
        post(&node, &notification(id)).await;
        node.settled().await;
        let webhook = outcomes::webhooks(&node).await.pop().unwrap();
        let ends = ends_of(&webhook);
        assert!(ends[0].starts_with("dead_letter: "), "{ends:?}");
        assert!(ends[0].contains(words), "{ends:?}");
        assert_eq!(graph.calls(id).len(), 1);
        let target = format!(
            "/api/v1/webhooks/{}/replay",
            webhook["id"].as_str().unwrap()
        );
        let replayed = node.ask_admin(Ask::new("POST", target)).await.json();
        assert_eq!(replayed["replayed"], 1);
        node.settled().await;
        assert_eq!(last_ends(&node).await, ["lead"]);
        node.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_wait_while_graph_is_away_and_go_on_when_it_is_back() {
    let mut graph = graph().await;
    let node = stand_alone(&graph).await;
    let leads: Vec<_> = (1..=20).map(|number| format!("l{number}")).collect();
    graph.go_away();
    for lead in &leads {
        put_lead(&graph, lead);
        post(&node, &notification(lead)).await;
    }
    until_graph_is(&node, "waiting").await;
    assert_eq!(node.status().await["backlog"]["ready"], 20);
    graph.resume().await;
    node.settled().await;
    for webhook in outcomes::webhooks(&node).await {
        assert_eq!(ends_of(&webhook), ["lead"]);
        assert_eq!(attempts(&webhook), [1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_thousand_changes_loses_nothing_to_the_broken_one() {
    let graph = graph().await;
    let broken = 617;
    let mut changes = Vec::new();
    for number in 0..1_000 {
        let lead = format!("l{number}");
        put_lead(&graph, &lead);
        changes.push(change(&lead, PAGE, FORM));
    }
    changes[broken] = json!({ "field": "leadgen", "value": { "leadgen_id": {}, "page_id": [], "form_id": null } });
    let accounts = [Reference::sample()];
    let (database, node) = node_of(&graph, &accounts).await;
    post(&node, &batch(&changes)).await;
    node.settled().await;
    let webhook = outcomes::webhooks(&node).await.pop().unwrap();
    for outcome in outcomes::list(&webhook, "outcomes") {
        let is_broken = outcome["change"] == broken;
        let expected = if is_broken { "ignored" } else { "lead" };
        assert_eq!(outcome["outcome"], expected, "{outcome}");
        assert_eq!(
            outcome["reason"] == "invalid_payload",
            is_broken,
            "{outcome}"
        );
    }
    assert_eq!(ends_of(&webhook).len(), 1_000);
    let of = |number| {
        let lead = format!("l{number}");
        (accounts[0].account, accounts[0].campaign("facebook"), lead)
    };
    let expected = (0..1_000).filter(|number| *number != broken).map(of);
    World::upstream(&database)
        .await
        .assert_leads(&expected.collect());
}

/// The campaigns that have this lead upstream, in order.
fn campaigns_of(world: &World, lead_id: &str) -> Vec<ObjectId> {
    let leads = world.documents("inbound.leads").iter().map(lead_key);
    let mut campaigns: Vec<_> = leads
        .filter(|(_, _, id)| id == lead_id)
        .map(|(_, campaign, _)| campaign)
        .collect();
    campaigns.sort_unstable();
    campaigns
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_made_upstream_after_the_webhook_came_gets_the_lead_and_no_form_is_unknown_before_a_fresh_read()
 {
    let mut mongod = Mongod::standalone().await;
    let database = mongod.database("late").await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let graph = graph().await;
    let mut node = strict(&graph).mongodb(&mongod, "late").start().await;
    let early = reference.campaign("facebook");
    wait::until("the campaigns to be pulled", SOON, async || {
        let status = node.status().await;
        match status["reference"]["complete_at_ms"].as_i64() {
            Some(_) => Ok(()),
            None => Err(status["reference"].to_string()),
        }
    })
    .await;
    mongod.stop().await;
    for lead in ["known", "new", "nowhere"] {
        put_lead(&graph, lead);
    }
    post(&node, &notification("known")).await;
    post(&node, &batch(&[change("new", PAGE, "form made later")])).await;
    post(&node, &batch(&[change("nowhere", PAGE, "form of nobody")])).await;
    let undecided: [&[&str]; 3] = [&["lead"], &[], &[]];
    wait::until("what can be decided", SOON, async || {
        let (ends, status) = (ends(&node).await, node.status().await);
        if ends == undecided && status["backlog"]["waiting"] == 3 {
            return Ok(());
        }
        Err(format!("{ends:?} {status:#}"))
    })
    .await;

    node.freeze();
    mongod.start().await;
    let mut late = Reference::sample();
    let on_known_form = late.campaign("facebook");
    let on_new_form = late.another_campaign("facebook", doc! { "lead_form_id": "form made later" });
    late.insert_into(&mongod.database("late").await).await;
    node.thaw();
    node.settled().await;

    let expected: [&[&str]; 3] = [
        &["lead", "lead"],
        &["lead"],
        &["ignored: campaign_not_found"],
    ];
    assert_eq!(ends(&node).await, expected);
    let world = World::upstream(&mongod.database("late").await).await;
    world.assert_whole();
    let mut both = vec![early, on_known_form];
    both.sort_unstable();
    assert_eq!(campaigns_of(&world, "known"), both);
    assert_eq!(campaigns_of(&world, "new"), [on_new_form]);
    node.terminate().await;
}
