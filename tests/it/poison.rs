//! Documents that MongoDB refuses: they are set aside in plain view, and everything else passes (R36).

use std::time::Duration;

use bson::{Document, doc};
use serde_json::{Value, json};

use crate::support::http::Ask;
use crate::support::load::Shot;
use crate::support::mongod::Mongod;
use crate::support::node::{Node, route};
use crate::support::scene::Scene;
use crate::support::wait;

const VALIDATION: i32 = 121;
const TOO_LARGE: i32 = 10_334;
/// The tries come 1 s and 10 s after a refusal.
const MENDED: Duration = Duration::from_secs(40);

fn somebody(id: &str) -> Value {
    json!({ "id": id, "name": format!("Ada {id}"), "email": format!("ada{id}@example.se") })
}

/// From now on contacts with the e-mail `poison@example.se` are refused.
async fn refuse_poison(scene: &Scene) {
    // The node's own index may have made the collection already.
    let _ = scene.database.create_collection("crm.contacts").await;
    validate(scene, doc! { "email": { "$ne": "poison@example.se" } }).await;
}

async fn allow_everything(scene: &Scene) {
    validate(scene, doc! {}).await;
}

async fn validate(scene: &Scene, validator: Document) {
    let change = doc! { "collMod": "crm.contacts", "validator": validator };
    scene.database.run_command(change).await.unwrap();
}

fn poison(id: &str) -> Value {
    json!({ "id": id, "name": "Paul Oison", "email": "poison@example.se" })
}

async fn held_documents(scene: &Scene) -> Vec<Value> {
    let said = scene.node.cli(&["sync", "status", "--json"]).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.json()["held_documents"].as_array().unwrap().clone()
}

fn error_types(lead: &Document) -> Vec<&str> {
    let errors = lead.get_array("errors").unwrap().iter();
    errors
        .map(|error| error.as_document().unwrap().get_str("type").unwrap())
        .collect()
}

/// Waits until nothing is held any more and everything is upstream.
async fn mended(scene: &Scene) {
    wait::until("the refused documents to get through", MENDED, async || {
        let sync = &scene.node.status().await["sync"];
        let is_done = sync["held"] == 0 && sync["pending"] == 0;
        is_done.then_some(()).ok_or_else(|| sync.to_string())
    })
    .await;
    scene.node.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_goes_without_its_refused_contact_and_gets_it_when_the_contact_is_mended() {
    let scene = Scene::on(Mongod::shared_replica_set().await).await;
    refuse_poison(&scene).await;
    for body in [somebody("1"), poison("2"), somebody("3")] {
        scene.submit(body).await;
    }
    scene.node.settled().await;

    let lead = scene.lead("2").await;
    let id = lead.get_object_id("_id").unwrap();
    assert!(!lead.contains_key("contact_id"), "{lead}");
    assert_eq!(error_types(&lead), ["contactCreation"]);
    assert_eq!(scene.find("crm.deals", doc! {}).await.len(), 2);
    assert_eq!(scene.find("inbound.leads", doc! {}).await.len(), 3);
    scene.world().await.assert_whole();
    assert_waits_visibly(&scene).await;

    allow_everything(&scene).await;
    mended(&scene).await;
    let contact = scene
        .one("crm.contacts", doc! { "email": "poison@example.se" })
        .await;
    let lead = scene.lead("2").await;
    assert_eq!(lead.get("contact_id"), contact.get("_id"));
    assert!(error_types(&lead).is_empty(), "{lead}");
    let deal = scene.one("crm.deals", doc! { "lead": id }).await;
    assert_eq!(deal.get("person"), contact.get("_id"));
    assert_eq!(scene.find("support.messages", doc! {}).await.len(), 6);
    scene.world().await.assert_whole();
}

async fn assert_waits_visibly(scene: &Scene) {
    let held = held_documents(scene).await;
    let of = |collection: &str| {
        let found = held.iter().filter(|held| held["collection"] == collection);
        found.collect::<Vec<_>>()
    };
    let contacts = of("crm.contacts");
    assert_eq!(contacts.len(), 1, "{held:#?}");
    assert_eq!(contacts[0]["code"], VALIDATION, "{held:#?}");
    let contact = format!("crm.contacts/{}", contacts[0]["id"].as_str().unwrap());
    for (collection, count) in [
        ("crm.deals", 1),
        ("support.conversations", 1),
        ("support.rooms", 1),
        ("support.messages", 2),
    ] {
        let waiting = of(collection);
        assert_eq!(waiting.len(), count, "{collection}: {held:#?}");
        assert!(waiting.iter().all(|held| held["blocked_by"].is_string()));
    }
    assert_eq!(of("crm.deals")[0]["blocked_by"], *contact);
    assert_eq!(of("support.conversations")[0]["blocked_by"], *contact);
}

/// The contact's next try and the person's next lead meet in one batch: the lead is judged while the contact counts
/// as refused, and the contact passes.
#[tokio::test(flavor = "multi_thread")]
async fn leads_of_a_refused_person_that_come_during_an_outage_get_their_contact_too() {
    let mut mongod = Mongod::standalone().await;
    let mut scene = Scene::on(&mongod).await;
    refuse_poison(&scene).await;
    scene.deliver(poison("1")).await;
    allow_everything(&scene).await;
    mongod.stop().await;
    scene.submit(poison("2")).await;
    // The time of the next try comes while MongoDB is away.
    wait::until("the contact's next try", MENDED, async || {
        let held = held_documents(&scene).await;
        let contact = held
            .iter()
            .find(|held| held["collection"] == "crm.contacts");
        let is_due = contact.is_some_and(|held| held["next_at_ms"].is_null());
        is_due.then_some(()).ok_or_else(|| format!("{held:?}"))
    })
    .await;
    mongod.start().await;
    mended(&scene).await;

    scene.database = mongod.database(scene.database.name()).await;
    let contact = scene.one("crm.contacts", doc! {}).await;
    for lead_id in ["1", "2"] {
        let lead = scene.lead(lead_id).await;
        assert_eq!(lead.get("contact_id"), contact.get("_id"), "{lead}");
        assert!(error_types(&lead).is_empty(), "{lead}");
    }
    assert_eq!(scene.find("crm.deals", doc! {}).await.len(), 2);
    assert_eq!(scene.find("support.messages", doc! {}).await.len(), 3);
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_leads_wait_for_a_refused_contact_none_is_left_behind() {
    const LEADS: usize = 400;
    let scene = Scene::on(Mongod::shared_standalone().await).await;
    refuse_poison(&scene).await;
    let (account, campaign) = (scene.reference.account, scene.reference.campaign("generic"));
    let shots = (0..LEADS).map(move |number| Shot {
        key: number.to_string(),
        ask: Ask::post_json(
            route("generic", account, campaign),
            poison(&number.to_string()),
        ),
    });
    let report = scene.node.fire(8, shots).await;
    assert_eq!(report.acknowledged().len(), LEADS);
    scene.node.settled().await;
    allow_everything(&scene).await;
    scene
        .deliver(json!({ "id": "last", "name": "Paula Oison", "email": "poison@example.se" }))
        .await;
    mended(&scene).await;
    let with_contact = doc! { "contact_id": { "$exists": true } };
    assert_eq!(
        scene.find("inbound.leads", with_contact).await.len(),
        LEADS + 1
    );
    assert_eq!(scene.find("crm.deals", doc! {}).await.len(), LEADS + 1);
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn further_leads_of_a_refused_person_go_without_a_contact_as_well() {
    let scene = Scene::on(Mongod::shared_standalone().await).await;
    refuse_poison(&scene).await;
    for lead_id in ["1", "2"] {
        scene.deliver(poison(lead_id)).await;
        let lead = scene.lead(lead_id).await;
        assert!(!lead.contains_key("contact_id"), "{lead}");
        assert_eq!(error_types(&lead), ["contactCreation"]);
        scene.world().await.assert_whole();
    }
    allow_everything(&scene).await;
    // What comes next makes the contact go at once, whenever its next try was due.
    scene
        .deliver(json!({ "id": "3", "name": "Paula Oison", "email": "poison@example.se" }))
        .await;
    mended(&scene).await;
    let contact = scene.one("crm.contacts", doc! {}).await;
    for lead_id in ["1", "2", "3"] {
        let lead = scene.lead(lead_id).await;
        assert_eq!(lead.get("contact_id"), contact.get("_id"), "{lead}");
        assert!(error_types(&lead).is_empty(), "{lead}");
    }
    assert_eq!(scene.find("crm.deals", doc! {}).await.len(), 3);
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_too_large_for_mongodb_is_set_aside_and_blocks_nobody() {
    let build = Node::build().config("intake.body_limit = \"16MiB\"");
    let scene = Scene::with(Mongod::shared_standalone().await, build).await;
    let mut large = somebody("large");
    // Intake takes it, and with the lead's other fields it is more than a document may have.
    large["essay"] = json!("x".repeat((16 << 20) - 256));
    let target = route(
        "generic",
        scene.reference.account,
        scene.reference.campaign("generic"),
    );
    let reply = scene.node.ask(Ask::post_json(target, large)).await;
    assert!(reply.is_acknowledged(), "{}", reply.status);
    for lead_id in ["1", "2"] {
        scene.deliver(somebody(lead_id)).await;
    }
    assert_eq!(scene.find("inbound.leads", doc! {}).await.len(), 2);
    assert_eq!(scene.find("crm.deals", doc! {}).await.len(), 2);
    let held = held_documents(&scene).await;
    let lead = held
        .iter()
        .find(|held| held["collection"] == "inbound.leads");
    assert_eq!(lead.unwrap()["code"], TOO_LARGE, "{held:#?}");
    let deal = held.iter().find(|held| held["collection"] == "crm.deals");
    assert!(deal.unwrap()["blocked_by"].is_string(), "{held:#?}");
    scene.world().await.assert_whole();
}
