//! What only one node may do is done by one node.

use bson::{Document, doc};
use inlet_sync::{Options, Upstream};

use crate::support::Mongod;

const NOW_MS: i64 = 1_700_000_000_000;

fn keys(of: std::ops::Range<usize>) -> Vec<String> {
    of.map(|number| format!("key {number}")).collect()
}

fn node(mongod: &Mongod, name: &str) -> std::sync::Arc<Upstream> {
    Upstream::new(Options {
        node: name.to_owned(),
        ..mongod.options()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_claimed_by_one_node_and_stays_its_own() {
    let mongod = Mongod::standalone().await;
    let nodes = [node(&mongod, "one"), node(&mongod, "other")];
    let wanted = keys(0..1_500);
    let (one, other) = tokio::join!(
        nodes[0].claim_once(&wanted, NOW_MS),
        nodes[1].claim_once(&wanted, NOW_MS)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    for ((key, one), other) in wanted.iter().zip(&one).zip(&other) {
        assert_ne!(one, other, "{key}");
    }
    assert_eq!(nodes[0].claim_once(&wanted, NOW_MS + 1).await.unwrap(), one);
    assert_eq!(
        nodes[1].claim_once(&wanted, NOW_MS + 1).await.unwrap(),
        other
    );
    let more = keys(1_499..1_501);
    let more = nodes[1].claim_once(&more, NOW_MS).await.unwrap();
    assert_eq!(more, [other[1_499], true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_says_who_made_it_and_until_when_it_is_of_use() {
    let mongod = Mongod::standalone().await;
    node(&mongod, "one")
        .claim_once(&keys(0..1), NOW_MS)
        .await
        .unwrap();
    let claims = mongod
        .database()
        .await
        .collection::<Document>("inlet.claims");
    let claim = claims.find_one(doc! {}).await.unwrap().unwrap();
    let until = bson::DateTime::from_millis(NOW_MS + 30 * 24 * 60 * 60 * 1000);
    assert_eq!(
        claim,
        doc! { "_id": "key 0", "node": "one", "until": until }
    );
}

/// The node claimed, was stopped before it could take note of it, and came back under another name: it left its own
/// claim to somebody else, and nobody did what was claimed.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_node_has_what_it_claimed_before() {
    let mongod = Mongod::standalone().await;
    let wanted = keys(0..1);
    node(&mongod, "one")
        .claim_once(&wanted, NOW_MS)
        .await
        .unwrap();
    let renamed = Upstream::new(Options {
        node: "renamed".to_owned(),
        earlier_nodes: vec!["one".to_owned()],
        ..mongod.options()
    });
    assert_eq!(renamed.claim_once(&wanted, NOW_MS).await.unwrap(), [true]);
    let stranger = node(&mongod, "stranger");
    assert_eq!(stranger.claim_once(&wanted, NOW_MS).await.unwrap(), [false]);
}
