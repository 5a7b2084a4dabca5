//! Notifications as an operator and MongoDB see them: failures reach the lead, once, beside what others wrote, and can
//! be sent once more; two nodes on one database notify once (R26).

mod agreement;

use std::time::Duration;

use bson::{Bson, Document, doc};
use serde_json::{Value, json};

use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::reference::Reference;
use crate::support::scene::Scene;
use crate::support::wait;

/// A node that is to notify by e-mail and SMS, and has neither set up.
async fn unable_to_notify(mongod: &Mongod) -> Scene {
    let mut reference = Reference::sample();
    let details = doc! { "notification_type": "send_email_sms" };
    reference.change(reference.campaign("generic"), details);
    Scene::knowing(reference, mongod, Node::build()).await
}

fn somebody(id: &str) -> Value {
    json!({ "id": id, "name": format!("Ada {id}"), "email": format!("ada{id}@example.se") })
}

fn error_types(lead: &Document) -> Vec<String> {
    let errors = lead.get_array("errors").unwrap().iter();
    let kind = |error: &Bson| {
        error
            .as_document()
            .unwrap()
            .get_str("type")
            .unwrap()
            .to_owned()
    };
    let mut kinds: Vec<_> = errors.map(kind).collect();
    kinds.sort_unstable();
    kinds
}

async fn listed(scene: &Scene, arguments: &[&str]) -> Vec<Value> {
    let command = [&["deliveries", "list", "--json"], arguments].concat();
    let said = scene.node.cli(&command).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.json()["deliveries"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_notification_is_told_to_the_lead_once_and_beside_what_others_wrote() {
    let scene = unable_to_notify(Mongod::shared_replica_set().await).await;
    scene.deliver(somebody("1")).await;
    let lead = scene.lead("1").await;
    assert_eq!(error_types(&lead), ["SmsSendError", "emailSendError"]);
    let error = lead.get_array("errors").unwrap()[0].as_document().unwrap();
    let details = error.get_document("details").unwrap();
    let told: Value = serde_json::from_str(details.get_str("errorJson").unwrap()).unwrap();
    let failed = listed(&scene, &["--state", "failed"]).await;
    let id = told["delivery"].as_str().unwrap();
    assert!(failed.iter().any(|one| one["id"] == id), "{failed:#?}");

    let theirs = doc! { "type": "dealCreateError", "details": { "errorJson": "{}" } };
    let update = doc! { "$push": { "errors": theirs }, "$set": { "freshness": "seen" } };
    scene
        .edit("inbound.leads", doc! { "lead_id": "1" }, update)
        .await;
    for one in failed.iter().filter(|one| one["channel"] != "push") {
        let said = scene
            .node
            .cli(&["deliveries", "resend", one["id"].as_str().unwrap()])
            .await;
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    scene.node.settled().await;
    let lead = scene.lead("1").await;
    assert_eq!(
        error_types(&lead),
        ["SmsSendError", "dealCreateError", "emailSendError"]
    );
    assert_eq!(lead.get_str("freshness").unwrap(), "seen");
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_whose_push_was_applied_but_not_confirmed_is_not_told_twice() {
    let mongod = Mongod::replica_set().await;
    let scene = unable_to_notify(&mongod).await;
    let fault = doc! {
        "failCommands": ["insert", "update"],
        "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" },
    };
    mongod.fail_commands(20, fault).await;
    for id in ["1", "2", "3"] {
        scene.submit(somebody(id)).await;
    }
    scene.node.settled().await;
    for id in ["1", "2", "3"] {
        let lead = scene.lead(id).await;
        assert_eq!(error_types(&lead), ["SmsSendError", "emailSendError"]);
    }
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_gets_its_contact_late_keeps_the_errors_of_its_notifications() {
    let scene = unable_to_notify(Mongod::shared_standalone().await).await;
    let _ = scene.database.create_collection("crm.contacts").await;
    let validate = async |validator: Document| {
        let change = doc! { "collMod": "crm.contacts", "validator": validator };
        scene.database.run_command(change).await.unwrap();
    };
    validate(doc! { "email": { "$ne": "ada1@example.se" } }).await;
    scene.deliver(somebody("1")).await;
    let lead = scene.lead("1").await;
    assert_eq!(
        error_types(&lead),
        ["SmsSendError", "contactCreation", "emailSendError"]
    );
    validate(doc! {}).await;
    let what = "the lead to get its contact";
    wait::until(what, Duration::from_secs(40), async || {
        let lead = scene.lead("1").await;
        let has_contact = lead.contains_key("contact_id");
        has_contact.then_some(()).ok_or_else(|| lead.to_string())
    })
    .await;
    let lead = scene.lead("1").await;
    assert_eq!(error_types(&lead), ["SmsSendError", "emailSendError"]);
    scene.node.settled().await;
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_where_notifications_stand_running_or_not() {
    let mut reference = Reference::sample();
    let details = doc! { "notification_type": "only_send_sms" };
    let campaign = reference.campaign("generic");
    reference.change(campaign, details);
    let mut node = Node::build().reference(reference.to_import()).start().await;
    let reply = node
        .post("generic", reference.account, campaign, &somebody("1"))
        .await;
    assert!(reply.is_acknowledged());
    node.settled().await;

    let status = node.cli(&["status"]).await.stdout;
    assert!(
        status.contains("`twilio.account_sid` is not set"),
        "{status}"
    );
    assert_eq!(node.status().await["deliveries"]["sms"]["failed"], 1);
    let webhooks = node.cli(&["webhooks", "list", "--json"]).await.json();
    let webhook = webhooks["webhooks"][0]["id"].as_str().unwrap().to_owned();
    for is_running in [true, false] {
        let shown = node.cli(&["webhooks", "show", &webhook]).await.stdout;
        assert!(shown.contains(".d1") && shown.contains("failed"), "{shown}");
        let listed = node.cli(&["deliveries", "list", "--channel", "sms"]).await;
        assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
        let id = listed
            .stdout
            .lines()
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        let resent = node.cli(&["deliveries", "resend", id]).await;
        assert_eq!((resent.code, resent.stdout.trim()), (0, "1 to be sent"));
        let wrong = node
            .cli(&["deliveries", "resend", &format!("{id}9"), &webhook])
            .await;
        assert_eq!(wrong.code, 2, "a webhook is no delivery: {}", wrong.stderr);
        let absent = node.cli(&["deliveries", "resend", &format!("{id}9")]).await;
        assert_eq!(absent.code, 1);
        assert!(
            absent.stderr.contains("there is no delivery"),
            "{}",
            absent.stderr
        );
        if is_running {
            node.settled().await;
            assert!(node.terminate().await.success());
        }
    }
    node.start().await;
    node.settled().await;
    assert_eq!(
        node.status().await["deliveries"]["sms"]["failed"],
        1,
        "it was tried once more"
    );
}
