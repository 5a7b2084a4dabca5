//! One webhook's way: from a socket to documents in a real MongoDB.

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::Database;
use serde_json::json;

use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::reference::Reference;
use crate::support::truth::World;

async fn only(database: &Database, collection: &str) -> Document {
    let documents = database.collection::<Document>(collection);
    assert_eq!(
        documents.count_documents(doc! {}).await.unwrap(),
        1,
        "{collection}"
    );
    documents.find_one(doc! {}).await.unwrap().unwrap()
}

async fn an_instapage_lead_reaches(mongod: &Mongod) {
    let database = mongod.database(&fresh_name("spine")).await;
    let reference = Reference::sample();
    reference.insert_into(&database).await;
    let mut node = Node::build().mongodb(mongod, database.name()).start().await;
    let campaign = reference.campaign("instapage");
    let body = json!({ "id": "s-1", "Name": "Ada Lindqvist", "Email": "Ada@Example.se", "Phone": "+46 70-123 45 67" });
    let reply = node
        .post(
            "instapage",
            &reference.account.to_hex(),
            &campaign.to_hex(),
            &body,
        )
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (200, r#"{"success": true}"#)
    );
    node.settled().await;

    let lead = only(&database, "inbound.leads").await;
    assert_eq!(lead.get_str("lead_id").unwrap(), "s-1");
    assert_eq!(
        lead.get_document("lead_data")
            .unwrap()
            .get_str("Name")
            .unwrap(),
        "Ada Lindqvist"
    );
    assert_eq!(lead.get_object_id("campaign_id").unwrap(), campaign);
    assert_eq!(lead.get_str("integration").unwrap(), "instapage");
    assert_eq!(lead.get_str("freshness").unwrap(), "new");
    let contact = only(&database, "crm.contacts").await;
    assert_eq!(contact.get_str("name").unwrap(), "Ada Lindqvist");
    assert_eq!(contact.get_str("first_name").unwrap(), "Ada");
    assert_eq!(contact.get_str("phone").unwrap(), "+46701234567");
    let id: ObjectId = contact.get_object_id("_id").unwrap();
    assert_eq!(lead.get_object_id("contact_id").unwrap(), id);
    let deal = only(&database, "crm.deals").await;
    assert_eq!(deal.get_object_id("person").unwrap(), id);
    assert_eq!(
        deal.get_object_id("lead").unwrap(),
        lead.get_object_id("_id").unwrap()
    );
    World::upstream(&database).await.assert_whole();
    node.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posted_lead_stands_in_a_standalone_mongodb_with_all_that_belongs_to_it() {
    an_instapage_lead_reaches(Mongod::shared_standalone().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posted_lead_stands_in_a_replica_set_with_all_that_belongs_to_it() {
    an_instapage_lead_reaches(Mongod::shared_replica_set().await).await;
}
