//! Campaigns are cached at the edge, and a stale cache never costs a lead: a "no" is only said on data that was read
//! after the webhook arrived (R13).

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use serde_json::{Value, json};

use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::scene::Scene;
use crate::support::wait;

/// "Within seconds", on a machine that runs other tests at the same time.
const SOON: Duration = Duration::from_secs(60);

/// A node that would not hear of changes by polling while a test lasts.
async fn scene(mongod: &Mongod) -> Scene {
    Scene::with(
        mongod,
        Node::build().config("mongodb.pull_interval = \"1h\""),
    )
    .await
}

fn body(id: &str) -> Value {
    json!({ "id": id, "name": "Ada Lindqvist", "email": "ada@example.se" })
}

/// A campaign that nobody has announced to the node.
async fn new_campaign(scene: &Scene) -> ObjectId {
    let id = ObjectId::new();
    let known = doc! { "_id": scene.reference.campaign("generic") };
    let mut campaign = scene.one("campaigns", known).await;
    campaign.insert("_id", id);
    let campaigns = scene.collection("campaigns");
    campaigns.insert_one(campaign).await.unwrap();
    id
}

async fn post(scene: &Scene, campaign: ObjectId, id: &str) {
    let account = scene.reference.account;
    let reply = scene
        .node
        .post("generic", account, campaign, &body(id))
        .await;
    assert!(reply.is_acknowledged(), "{}", reply.status);
}

async fn waiting(scene: &Scene, count: u64) {
    wait::until("the webhooks to wait", SOON, async || {
        let backlog = &scene.node.status().await["backlog"];
        let is_so = backlog["waiting"] == count && backlog["ready"] == 0;
        is_so.then_some(()).ok_or_else(|| backlog.to_string())
    })
    .await;
}

async fn a_campaign_made_a_moment_ago_gets_its_lead(mongod: &Mongod) {
    let scene = scene(mongod).await;
    let campaign = new_campaign(&scene).await;
    post(&scene, campaign, "1").await;
    scene.node.settled_within(SOON).await;
    let lead = scene.lead("1").await;
    assert_eq!(lead.get_object_id("campaign_id").unwrap(), campaign);
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_made_a_moment_ago_gets_its_lead_without_change_streams() {
    a_campaign_made_a_moment_ago_gets_its_lead(Mongod::shared_standalone().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_made_a_moment_ago_gets_its_lead_with_change_streams() {
    a_campaign_made_a_moment_ago_gets_its_lead(Mongod::shared_replica_set().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_activated_a_moment_ago_gets_its_lead() {
    let mongod = Mongod::shared_standalone().await;
    let scene = scene(mongod).await;
    let campaign = new_campaign(&scene).await;
    let this = doc! { "_id": campaign };
    let set = |status: &str| doc! { "$set": { "status": status } };
    scene.edit("campaigns", this.clone(), set("inactive")).await;
    post(&scene, campaign, "early").await;
    scene.node.settled_within(SOON).await;
    let status = scene.node.status().await;
    assert_eq!(status["reasons"]["campaign_inactive"], 1, "{status:#}");
    scene.edit("campaigns", this, set("active")).await;
    post(&scene, campaign, "late").await;
    scene.node.settled_within(SOON).await;
    scene.lead("late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_was_unknown_gets_the_lead_of_the_next_webhook() {
    let mongod = Mongod::shared_standalone().await;
    let scene = scene(mongod).await;
    let campaign = ObjectId::new();
    post(&scene, campaign, "early").await;
    scene.node.settled_within(SOON).await;
    let status = scene.node.status().await;
    assert_eq!(status["reasons"]["campaign_not_found"], 1, "{status:#}");
    let known = doc! { "_id": scene.reference.campaign("generic") };
    let mut document: Document = scene.one("campaigns", known).await;
    document.insert("_id", campaign);
    scene
        .collection("campaigns")
        .insert_one(document)
        .await
        .unwrap();
    post(&scene, campaign, "late").await;
    scene.node.settled_within(SOON).await;
    scene.lead("late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_unknown_campaigns_wait_for_mongodb_s_return_and_are_judged_by_what_it_says() {
    let mut mongod = Mongod::standalone().await;
    let mut scene = scene(&mongod).await;
    let campaign = new_campaign(&scene).await;
    mongod.stop().await;
    post(&scene, campaign, "1").await;
    post(&scene, campaign, "2").await;
    post(&scene, ObjectId::new(), "3").await;
    waiting(&scene, 3).await;
    let status = scene.node.status().await;
    assert_eq!(status["outcomes"]["ignored"], 0, "{status:#}");

    mongod.start().await;
    scene.node.settled().await;
    scene.database = mongod.database(scene.database.name()).await;
    assert_eq!(scene.world().await.leads().len(), 2);
    let status = scene.node.status().await;
    assert_eq!(status["reasons"]["campaign_not_found"], 1, "{status:#}");
    scene.world().await.assert_whole();
}
