//! A node without MongoDB works fully; when it gets one, everything accumulated is pushed (R32).

use std::time::Duration;

use bson::{DateTime, Document, doc};
use mongodb::Database;
use serde_json::json;

use crate::support::graph::Graph;
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::reference::Reference;
use crate::support::traffic::Traffic;
use crate::support::truth::World;
use crate::support::wait;

const CONNECTIONS: usize = 8;
const SIZE: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_made_alone_is_pushed_exactly_once_when_it_gets_a_mongodb() {
    let mut reference = Reference::sample();
    let withdrawn = reference.another_campaign("generic", doc! {});
    let graph = Graph::start().await;
    let build = Node::build().graph_url(&graph.url());
    let mut node = build.reference(reference.to_import()).start().await;
    let mut traffic = Traffic::new(&reference, &graph, SIZE);
    let report = node.fire(CONNECTIONS, traffic.next(&graph, SIZE)).await;
    assert_eq!(report.acknowledged().len(), SIZE);
    node.settled().await;
    assert_eq!(node.status().await["sync"]["mode"], "stand_alone");
    let alone = World::local(&node).await;
    traffic.assert_arrived(&alone);

    let mongod = Mongod::shared_replica_set().await;
    let database = mongod.database(&fresh_name("alone")).await;
    // Upstream knows that one campaign is no more, and another that the imported file did not have.
    let now = DateTime::now();
    reference.change(withdrawn, doc! { "is_deleted": true, "updated_at": now });
    let added = reference.another_campaign("generic", doc! {});
    reference.insert_into(&database).await;
    node.connect(mongod, database.name());
    node.restart().await;
    node.settled().await;
    let upstream = World::upstream(&database).await;
    traffic.assert_arrived(&upstream);
    upstream.assert_same_documents(&alone);
    upstream.assert_same_documents(&World::local(&node).await);

    let imported_is_gone = async || {
        let campaigns = &node.status().await["reference"]["campaigns"];
        let expected = living_campaigns(&database).await;
        (*campaigns == expected)
            .then_some(())
            .ok_or_else(|| format!("{campaigns} of {expected}"))
    };
    wait::until(
        "upstream's campaigns",
        Duration::from_secs(10),
        imported_is_gone,
    )
    .await;
    let body = json!({ "id": "after", "name": "Rita Sol", "email": "rita@example.pt" });
    for campaign in [withdrawn, added] {
        let reply = node
            .post("generic", reference.account, campaign, &body)
            .await;
        assert!(reply.is_acknowledged());
    }
    node.settled().await;
    let status = node.status().await;
    assert_eq!(status["reasons"]["campaign_not_found"], 1, "{status:#}");
    assert_eq!(
        status["outcomes"]["lead"],
        traffic.lead_count() + 1,
        "{status:#}"
    );
}

/// The node holds what is not deleted.
async fn living_campaigns(database: &Database) -> u64 {
    let campaigns = database.collection::<Document>("campaigns");
    let living = doc! { "is_deleted": { "$ne": true } };
    campaigns.count_documents(living).await.unwrap()
}
