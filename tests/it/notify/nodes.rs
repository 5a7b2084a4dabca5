//! Two nodes with the same webhooks: notified once as long as MongoDB can be asked, and by each where it cannot (R26).

use super::{CHANNELS, each, lead_ids, submit, until};
use crate::support::mongod::{Mongod, fresh_name};
use crate::support::node::Node;
use crate::support::providers::{Providers, notifying_reference};

const LEADS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_notify_once_while_mongodb_can_be_asked_and_each_while_it_cannot() {
    let mut mongod = Mongod::standalone().await;
    let database = mongod.database(&fresh_name("notify")).await;
    let providers = Providers::start().await;
    let reference = notifying_reference();
    reference.insert_into(&database).await;
    let node = || {
        let build = providers.build().mongodb(&mongod, database.name());
        build.reference(reference.to_import()).start()
    };
    let (one, other): (Node, Node) = tokio::join!(node(), node());
    for id in 1..=LEADS {
        tokio::join!(submit(&one, &reference, id), submit(&other, &reference, id));
    }
    tokio::join!(one.settled(), other.settled());
    assert_eq!(providers.mails(), each(1..=LEADS, 1));
    assert_eq!(providers.texts(), each(1..=LEADS, 1));
    let leads = lead_ids(&one).await;
    assert_eq!(
        providers.pushes(),
        leads.into_keys().map(|lead| (lead, 1)).collect()
    );
    let statuses = [one.status().await, other.status().await];
    for channel in CHANNELS {
        let count = |state: &str| -> u64 {
            let of = |status: &serde_json::Value| status["deliveries"][channel][state].as_u64();
            statuses.iter().filter_map(of).sum()
        };
        let both = (count("sent"), count("elsewhere"));
        assert_eq!(both, (LEADS as u64, LEADS as u64), "{channel}");
    }

    mongod.stop().await;
    let sent = async |node: &Node| {
        let before = node.status().await["deliveries"]["sms"]["sent"]
            .as_u64()
            .unwrap();
        submit(node, &reference, LEADS + 1).await;
        until(node, "sms", "sent", before + 1).await;
        until(node, "email", "waiting", 0).await;
    };
    tokio::join!(sent(&one), sent(&other));
    mongod.start().await;
    tokio::join!(one.settled(), other.settled());
    let last = format!("Lead {}", LEADS + 1);
    assert_eq!((providers.mails()[&last], providers.texts()[&last]), (2, 2));
}
