//! Facts about the harness itself: a check that cannot fail proves nothing about the node.

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::options::WriteConcern;

use crate::support::graph::{Answer, Graph};
use crate::support::http::{Ask, Reply, ask};
use crate::support::load::{Shot, fire};
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::reference::{PAGE, PLATFORMS, Reference, TOKEN};
use crate::support::truth::World;
use crate::support::{extended, port};

#[tokio::test]
async fn a_stand_alone_mongod_keeps_its_data_over_a_stop_and_over_a_kill() {
    let mut mongod = Mongod::standalone().await;
    insert(&mongod, doc! { "_id": 1 }).await;
    mongod.stop().await;
    mongod.start().await;
    insert(&mongod, doc! { "_id": 2 }).await;
    mongod.kill();
    mongod.start().await;
    assert_eq!(count(&mongod).await, 2);
}

#[tokio::test]
async fn a_replica_set_is_primary_again_after_a_stop_and_offers_change_streams() {
    let mut mongod = Mongod::replica_set().await;
    mongod.stop().await;
    mongod.start().await;
    let letters = mongod
        .database("harness")
        .await
        .collection::<Document>("letters");
    letters.watch().await.unwrap();
    letters.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_eq!(count(&mongod).await, 1);
}

#[tokio::test]
async fn the_shared_mongod_of_a_stand_alone_kind_has_no_change_streams() {
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("streams")).await;
    let refusal = database.watch().await.unwrap_err();
    assert!(refusal.to_string().contains("40573"), "{refusal}");
}

#[tokio::test]
async fn a_frozen_mongod_answers_once_it_is_thawed() {
    let mut mongod = Mongod::standalone().await;
    insert(&mongod, doc! { "_id": 1 }).await;
    let letters = mongod
        .database("harness")
        .await
        .collection::<Document>("letters");
    assert_eq!(letters.count_documents(doc! {}).await.unwrap(), 1);
    mongod.freeze();
    let mut asked = tokio::spawn(async move { letters.count_documents(doc! {}).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut asked).await;
    assert!(early.is_err(), "a frozen server answered: {early:?}");
    mongod.thaw();
    assert_eq!(asked.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_scripted_command_failure_happens_as_often_as_asked() {
    let mongod = Mongod::standalone().await;
    let letters = mongod
        .database("harness")
        .await
        .collection::<Document>("letters");
    mongod
        .fail_commands(1, doc! { "failCommands": ["insert"], "errorCode": 121 })
        .await;
    letters.insert_one(doc! { "_id": 1 }).await.unwrap_err();
    letters.insert_one(doc! { "_id": 1 }).await.unwrap();
}

#[tokio::test]
async fn graph_shows_a_lead_to_the_token_of_its_page_only() {
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    graph.grant("another-pages-token", "2");
    graph.lead(PAGE, "77", &[("email", "grace@example.com")]);
    assert_eq!(read(&graph, "77", TOKEN).await.unwrap().json()["id"], "77");
    assert_eq!(error_code(&graph, "77", "another-pages-token").await, 100);
    assert_eq!(error_code(&graph, "78", TOKEN).await, 100);
    graph.revoke(TOKEN);
    assert_eq!(error_code(&graph, "77", TOKEN).await, 190);
    assert_eq!(graph.calls("77").len(), 3);
}

#[tokio::test]
async fn graph_follows_its_script_and_then_gives_the_lead() {
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    graph.lead(PAGE, "77", &[]);
    graph.script(
        "77",
        [
            Answer::error_with(190, 463),
            Answer::Throttled { minutes: 3 },
            Answer::Reset,
            Answer::Late(Duration::from_millis(200)),
        ],
    );
    assert_eq!(error_code(&graph, "77", TOKEN).await, 190);
    let throttled = read(&graph, "77", TOKEN).await.unwrap();
    assert!(throttled.headers.contains_key("x-business-use-case-usage"));
    assert!(read(&graph, "77", TOKEN).await.is_none());
    let begun = Instant::now();
    assert_eq!(read(&graph, "77", TOKEN).await.unwrap().status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn graph_demands_the_proof_of_the_app_secret() {
    let graph = Graph::start().await;
    graph.grant("token", PAGE);
    graph.lead(PAGE, "77", &[]);
    graph.demand_proof("1", "secret");
    assert_eq!(error_code(&graph, "77", "token").await, 100);
    // HMAC-SHA256 of `token` under `secret`, from OpenSSL.
    let proof = "e941110e3d2bfe82621f0e3e1434730d7305d106c5f68c87165d0b27a4611a4a";
    let proven = format!("token&appsecret_proof={proof}");
    assert_eq!(read(&graph, "77", &proven).await.unwrap().status, 200);
}

#[tokio::test]
async fn graph_exchanges_a_living_token_for_a_new_one() {
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    graph.lead(PAGE, "77", &[]);
    let exchanged = exchange(&graph, TOKEN).await.json();
    let token = exchanged["access_token"].as_str().unwrap();
    assert_eq!(read(&graph, "77", token).await.unwrap().status, 200);
    graph.revoke(TOKEN);
    assert_eq!(exchange(&graph, TOKEN).await.json()["error"]["code"], 190);
    assert_eq!(graph.exchanged(), 1);
}

#[tokio::test]
async fn graph_can_go_away_and_come_back() {
    let mut graph = Graph::start().await;
    graph.go_away();
    assert!(read(&graph, "77", TOKEN).await.is_none());
    graph.resume().await;
    assert!(read(&graph, "77", TOKEN).await.is_some());
}

#[tokio::test]
async fn load_counts_as_acknowledged_only_what_says_success() {
    let graph = Graph::start().await;
    let address = graph.url().replace("http://", "").parse().unwrap();
    let report = fire(address, 4, shots(20)).await;
    assert_eq!(report.hits.len(), 20);
    assert!(report.hits.iter().all(|hit| hit.status == Some(400)));
    assert!(report.acknowledged().is_empty());
    let unheard = fire(port::free(), 2, shots(3)).await;
    assert!(unheard.hits.iter().all(|hit| hit.status.is_none()));
}

#[tokio::test]
async fn reference_data_can_be_inserted_and_imported() {
    let reference = Reference::sample();
    let mongod = Mongod::shared_standalone().await;
    let database = mongod.database(&fresh_name("reference")).await;
    reference.insert_into(&database).await;
    let campaigns = database.collection::<Document>("campaigns");
    let manychat = campaigns.find_one(doc! { "_id": reference.campaign("manychat") });
    let manychat = manychat.await.unwrap().unwrap();
    assert_eq!(manychat.get_str("integration").unwrap(), "manychat");
    let import = reference.to_import();
    let imported = import["campaigns"].as_array().unwrap();
    assert_eq!(imported.len(), PLATFORMS.len());
    assert!(
        imported
            .iter()
            .any(|json| widened(extended::from_json(json)) == widened(manychat.clone()))
    );
}

#[test]
fn a_whole_world_has_no_wrongs() {
    assert_eq!(whole_world(ObjectId::new()).wrongs(), Vec::<String>::new());
}

#[test]
fn a_doubled_lead_a_lost_contact_and_an_absent_field_are_wrongs() {
    let account = ObjectId::new();
    let mut second = lead(account);
    second.insert("_id", ObjectId::new());
    second.insert("contact_id", ObjectId::new());
    second.remove("owner");
    let wrongs = World::of([("inbound.leads", lead(account)), ("inbound.leads", second)]).wrongs();
    assert_eq!(wrongs.len(), 3, "{wrongs:#?}");
    for expected in [
        "has no owner",
        "crm.contacts does not have",
        "not the only one",
    ] {
        assert!(
            wrongs.iter().any(|wrong| wrong.contains(expected)),
            "{wrongs:#?}"
        );
    }
}

#[test]
#[should_panic(expected = "1 of 1 promised leads lost")]
fn a_lost_lead_fails_the_test() {
    let account = ObjectId::new();
    let promised = whole_world(account).leads();
    World::of([]).assert_leads_include(&promised);
}

/// Journalled: only then does a killed server keep it.
async fn insert(mongod: &Mongod, letter: Document) {
    let letters = mongod.database("harness").await.collection("letters");
    let journalled = WriteConcern::builder().journal(true).build();
    let inserted = letters.insert_one(letter).write_concern(journalled).await;
    inserted.unwrap();
}

async fn count(mongod: &Mongod) -> u64 {
    let letters = mongod
        .database("harness")
        .await
        .collection::<Document>("letters");
    letters.count_documents(doc! {}).await.unwrap()
}

/// `None`: no answer.
async fn read(graph: &Graph, lead: &str, token: &str) -> Option<Reply> {
    get(graph, format!("/v18.0/{lead}?access_token={token}")).await
}

async fn error_code(graph: &Graph, lead: &str, token: &str) -> i64 {
    let reply = read(graph, lead, token).await.unwrap();
    reply.json()["error"]["code"].as_i64().unwrap()
}

async fn exchange(graph: &Graph, token: &str) -> Reply {
    let grant = format!("grant_type=fb_exchange_token&fb_exchange_token={token}");
    get(graph, format!("/v18.0/oauth/access_token?{grant}"))
        .await
        .unwrap()
}

async fn get(graph: &Graph, target: String) -> Option<Reply> {
    let address = graph.url().replace("http://", "").parse().unwrap();
    ask(address, Ask::get(target)).await.ok()
}

fn shots(count: usize) -> impl Iterator<Item = Shot> {
    (0..count).map(|number| Shot {
        key: number.to_string(),
        ask: Ask::post_json("/", "{}"),
    })
}

fn whole_world(account: ObjectId) -> World {
    World::of([("inbound.leads", lead(account))])
}

fn lead(account: ObjectId) -> Document {
    doc! {
        "_id": ObjectId::new(), "lead_id": "7", "lead_data": {}, "campaign_id": account,
        "account_id": account, "owner": account, "integration": "generic", "errors": [],
        "freshness": "new", "is_deleted": false, "created_at": bson::DateTime::now(),
        "updated_at": bson::DateTime::now(), "node": "edge-1",
    }
}

/// JSON does not tell an Int32 from an Int64.
fn widened(document: Document) -> serde_json::Value {
    extended::to_json(&document)
}
