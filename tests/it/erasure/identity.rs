//! Whose things are whose, where two nodes or MongoDB have a say in it (R38).

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;
use serde_json::json;

use super::{EMAIL, FINISHED_WITHIN, FOLLOWED_WITHIN, Late, NAME, PHONE, erase, finished};
use crate::support::graph::Graph;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::outcomes;
use crate::support::reference::{PAGE, Reference, TOKEN};
use crate::support::scene::Scene;
use crate::support::wait;

/// A subscriber's id is the person's: it is the same in everything that she sends.
const SUBSCRIBER: &str = "77";

async fn says(node: &Node, reference: &Reference, text: &str) {
    let campaign = reference.campaign("manychat");
    let body = json!({ "id": SUBSCRIBER, "name": NAME, "email": EMAIL, "last_input_text": text });
    let reply = node.post("manychat", reference.account, campaign, &body);
    assert!(reply.await.is_acknowledged());
}

async fn upstream(database: &Database, collection: &str, filter: Document) -> Vec<Document> {
    let found = database.collection(collection).find(filter).await;
    found.unwrap().try_collect().await.unwrap()
}

async fn leads(database: &Database) -> Vec<ObjectId> {
    let leads = upstream(database, "inbound.leads", doc! { "lead_id": SUBSCRIBER }).await;
    let ids = leads.iter().map(|lead| lead.get_object_id("_id").unwrap());
    ids.collect()
}

/// What the messages say of her that refer to this lead's contact, sorted.
async fn texts_beside(database: &Database, lead: ObjectId) -> Vec<String> {
    let lead = upstream(database, "inbound.leads", doc! { "_id": lead }).await;
    let contact = lead[0].get_object_id("contact_id").unwrap();
    let hers = doc! { "metadata.contact_id": contact };
    let messages = upstream(database, "support.messages", hers).await;
    let texts = messages.iter().map(|message| {
        let metadata = message.get_document("metadata").unwrap();
        let response = metadata.get_document("webhook_response").unwrap();
        response.get_str("last_input_text").unwrap().to_owned()
    });
    let mut texts: Vec<_> = texts.collect();
    texts.sort_unstable();
    texts
}

/// A node that connects reads the erasures of others before it does anything upstream.
async fn follows(node: &mut Node) {
    node.restart().await;
    wait::until("the other node to follow", FOLLOWED_WITHIN, async || {
        let left = outcomes::webhooks(node).await;
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?}"))
    })
    .await;
    finished(node).await;
}

/// Nobody has removed the erased lead yet: the new one used to be taken for it, and stayed on the node.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_arrives_upstream_beside_what_is_left_of_the_erased_lead() {
    let mongod = Mongod::shared_replica_set().await;
    let mut scene = Scene::on(mongod).await;
    let build = Node::build().mongodb(mongod, scene.database.name());
    let mut other = build.reference(scene.reference.to_import()).start().await;
    for node in [&scene.node, &other] {
        says(node, &scene.reference, "hello").await;
        node.settled().await;
    }
    let erased = leads(&scene.database).await;
    assert_eq!(erased.len(), 1);
    erase(&scene.node, EMAIL).await;
    follows(&mut other).await;
    for text in ["I am back", "and more"] {
        for node in [&other, &scene.node] {
            says(node, &scene.reference, text).await;
            node.settled().await;
        }
    }
    for node in [&other, &scene.node] {
        let ends = outcomes::last_ends(node).await;
        assert_eq!(ends, ["duplicate"], "what she said next is a repetition");
    }
    let mut all = leads(&scene.database).await;
    all.retain(|id| *id != erased[0]);
    assert_eq!(all.len(), 1, "both nodes took her for the same lead");
    let texts = texts_beside(&scene.database, all[0]).await;
    assert_eq!(texts, ["I am back", "and more", "hello"]);
    // A second time the same, whatever is upstream of the first two.
    erase(&other, EMAIL).await;
    follows(&mut scene.node).await;
    for text in ["hello", "and more", "here again"] {
        for node in [&scene.node, &other] {
            says(node, &scene.reference, text).await;
            node.settled().await;
        }
    }
    assert_eq!(leads(&scene.database).await.len(), 3);
    let expected = [["duplicate"], ["duplicate"], ["lead"]];
    assert_eq!(outcomes::ends(&scene.node).await, expected);
    assert_eq!(outcomes::ends(&other).await, expected);
}

/// It went with the lead that it repeated, and nobody heard of it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_off_node_takes_for_a_repetition_becomes_the_lead_that_other_nodes_make_of_it() {
    let mut mongod = Mongod::standalone().await;
    let database = mongod.database(&fresh_name("cut_off")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let node = || {
        let build = Node::build().mongodb(&mongod, database.name());
        build.reference(reference.to_import()).start()
    };
    let (asked, mut cut_off) = tokio::join!(node(), node());
    for node in [&asked, &cut_off] {
        says(node, &reference, "hello").await;
        node.settled().await;
    }
    let erased = leads(&database).await;
    cut_off.terminate().await;
    let report = erase(&asked, EMAIL).await;
    assert_eq!(report["record"], "upstream");
    mongod.stop().await;
    cut_off.start().await;
    says(&cut_off, &reference, "I am back").await;
    wait::until("the repetition to end", FINISHED_WITHIN, async || {
        let ends = outcomes::last_ends(&cut_off).await;
        (ends == ["duplicate"])
            .then_some(())
            .ok_or_else(|| format!("{ends:?}"))
    })
    .await;
    mongod.start().await;
    wait::until("the repetition to be a lead", FOLLOWED_WITHIN, async || {
        let ends = outcomes::ends(&cut_off).await;
        (ends == [["lead"]])
            .then_some(())
            .ok_or_else(|| format!("{ends:?}"))
    })
    .await;
    says(&asked, &reference, "I am back").await;
    for node in [&asked, &cut_off] {
        node.settled().await;
        finished(node).await;
    }
    let mut all = leads(&database).await;
    all.retain(|id| !erased.contains(id));
    assert_eq!(all.len(), 1, "and it is the same lead for both");
}

/// Her contact has the phone, too; nobody asked for that, and it may be others' who live with her.
#[tokio::test(flavor = "multi_thread")]
async fn a_facebook_lead_that_is_fetched_late_under_the_contacts_phone_is_not_made() {
    let graph = Graph::start().await;
    graph.grant(TOKEN, PAGE);
    let late = [("full_name", NAME), ("phone_number", PHONE)];
    graph.lead(PAGE, "5501", &late);
    let housemates = [
        ("full_name", "Milo Novak"),
        ("email", "milo@example.com"),
        ("phone_number", PHONE),
    ];
    graph.lead(PAGE, "5502", &housemates);
    let late = Late::begin(&graph).await;
    late.scene
        .deliver(json!({ "id": "g-1", "name": NAME, "email": EMAIL, "phone": PHONE }))
        .await;
    late.is_fetched_after_an_erasure().await;
    let record = late.scene.one("inlet.erasures", doc! {}).await;
    let keys = record.get_array("keys").unwrap().len();
    assert_eq!(keys, 1, "other nodes are told what was asked for");
}
