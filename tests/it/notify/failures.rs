//! What a provider does not take, or perhaps took: the lead says so upstream, and people can have it sent again.

use bson::{Bson, Document};
use serde_json::Value;

use super::{CHANNELS, WITHIN, each, listed, resend, submit, until};
use crate::support::mongod::Mongod;
use crate::support::node::Node;
use crate::support::providers::{Providers, header, notifying_reference};
use crate::support::scene::Scene;
use crate::support::scripted;
use crate::support::smtp::{Act, Step};
use crate::support::{fcm, twilio, wait};

/// The lead's errors by type, with what each says.
fn errors(lead: &Document) -> Vec<(String, String)> {
    let told = |error: &Bson| {
        let error = error.as_document().unwrap();
        let details = error.get_document("details").unwrap();
        let json = details.get_str("errorJson").unwrap();
        let json: Value = serde_json::from_str(json).unwrap();
        let message = json["message"].as_str().unwrap_or_default().to_owned();
        (error.get_str("type").unwrap().to_owned(), message)
    };
    let errors = lead.get_array("errors").into_iter().flatten();
    let mut errors: Vec<_> = errors.map(told).collect();
    errors.sort_unstable();
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_to_the_lead_upstream_and_what_was_refused_can_be_sent_again() {
    let providers = Providers::start().await;
    providers
        .smtp
        .script(Step::Rcpt, [Act::Say("550 5.1.1 no such user")]);
    let refusal = twilio::error(400, 21610, "Attempt to send to unsubscribed recipient");
    providers.twilio.script([scripted::Step::Say(refusal)]);
    let refusal = fcm::error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT");
    providers.fcm.script([scripted::Step::Say(refusal)]);
    let mongod = Mongod::shared_replica_set().await;
    let scene = Scene::knowing(notifying_reference(), mongod, providers.build()).await;
    submit(&scene.node, &scene.reference, 1).await;
    scene.node.settled().await;

    let told = errors(&scene.lead("1").await);
    let [(sms, unsubscribed), (email, no_such_user)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (sms.as_str(), email.as_str()),
        ("SmsSendError", "emailSendError")
    );
    assert!(unsubscribed.contains("21610"), "{unsubscribed}");
    assert!(no_such_user.contains("no such user"), "{no_such_user}");
    let failed = listed(&scene.node, &["--state", "failed"]).await;
    assert_eq!(failed.len(), 3, "{failed:#?}");

    resend(&scene.node, &["--state", "failed"]).await;
    scene.node.settled().await;
    assert_eq!(providers.mails(), each([1], 1));
    assert_eq!(providers.texts(), each([1], 1));
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(listed(&scene.node, &["--state", "sent"]).await.len(), 3);
    // What happened, happened: the lead keeps its errors.
    assert_eq!(errors(&scene.lead("1").await), told);
    // What was sent is not sent again for the asking.
    let sent = listed(&scene.node, &["--channel", "sms"]).await;
    let id = sent[0]["id"].as_str().unwrap();
    let again = scene.node.cli(&["deliveries", "resend", id]).await;
    assert_eq!(again.code, 1, "{}", again.stdout);
    assert_eq!(providers.texts(), each([1], 1));
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_taken_is_sent_again_but_for_an_sms_which_is_shown() {
    let providers = Providers::start().await;
    providers.smtp.script(Step::Dot, [Act::TakeAndBreak]);
    providers.twilio.script([scripted::Step::TakeAndDrop]);
    providers.fcm.script([scripted::Step::TakeAndDrop]);
    let mongod = Mongod::shared_standalone().await;
    let scene = Scene::knowing(notifying_reference(), mongod, providers.build()).await;
    submit(&scene.node, &scene.reference, 1).await;
    scene.node.settled().await;

    let mails = providers.smtp.taken();
    assert_eq!(mails.len(), 2);
    for name in ["Message-ID", "Date", "Subject"] {
        let [one, other] = [&mails[0], &mails[1]].map(|mail| header(&mail.text, name));
        assert!(!one.is_empty());
        assert_eq!(one, other, "a mailbox can tell that it is the same");
    }
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [2]);
    assert_eq!(providers.texts(), each([1], 1));
    let unknown = listed(&scene.node, &["--state", "unknown"]).await;
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0]["channel"], "sms");
    let told = errors(&scene.lead("1").await);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "SmsSendError");
    // Whoever has asked the representative may have it sent again.
    resend(&scene.node, &["--state", "unknown"]).await;
    scene.node.settled().await;
    assert_eq!(providers.texts(), each([1], 2));
    scene.world().await.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_wrong_are_waited_for_and_no_lead_is_blamed() {
    let providers = Providers::start().await;
    providers.smtp.demand("inlet", "hunter22");
    let build = providers.build();
    providers.smtp.demand("inlet", "another");
    let reference = notifying_reference();
    let build = build.config("twilio.auth_token = \"another\"");
    let mut node = build.reference(reference.to_import()).start().await;
    submit(&node, &reference, 1).await;
    for channel in ["email", "sms"] {
        until(&node, channel, "waiting", 1).await;
    }
    until(&node, "push", "sent", 1).await;
    assert_eq!(listed(&node, &["--state", "failed"]).await.len(), 0);
    providers.smtp.demand("inlet", "hunter22");
    until(&node, "email", "sent", 1).await;
    assert_eq!(providers.mails(), each([1], 1));
    assert!(!node.log_tail().contains("hunter22"));
    node.leave_unfinished();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_key_file_keeps_no_node_from_starting_and_may_be_mended_in_its_place() {
    let providers = Providers::start().await;
    let reference = notifying_reference();
    let build = providers.build().reference(reference.to_import());
    providers.break_key_file();
    let node = build.start().await;
    let push = node.status().await["deliveries"]["push"].clone();
    assert_eq!(push["channel"], "waiting", "{push}");
    let told = push["last_error"].as_str().unwrap();
    assert!(
        told.contains("`private_key_id`") && told.contains("fcm.service_account"),
        "{told}"
    );
    submit(&node, &reference, 1).await;
    until(&node, "push", "waiting", 1).await;
    until(&node, "sms", "sent", 1).await;
    providers.mend_key_file();
    node.settled().await;
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(node.status().await["deliveries"]["push"]["channel"], "ok");
}

/// A wrong key file marked every device as gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_project_that_reaches_nobody_is_waited_for_and_no_device_is_forgotten() {
    let providers = Providers::start().await;
    let reference = notifying_reference();
    let devices: Vec<_> = (0..reference.users.len())
        .map(|number| format!("device-{number}"))
        .collect();
    providers.fcm.belong_elsewhere(&devices);
    let build = providers.build().reference(reference.to_import());
    let node = build.start().await;
    for id in 1..=4 {
        submit(&node, &reference, id).await;
    }
    wait::until("the mismatch to be told", WITHIN, async || {
        let push = node.status().await["deliveries"]["push"].clone();
        let told = push["last_error"].as_str().unwrap_or_default();
        let remedy = "set `fcm.service_account` to a key of the app's project";
        let is_told = push["channel"] == "waiting" && told.contains(remedy);
        is_told.then_some(()).ok_or_else(|| push.to_string())
    })
    .await;
    until(&node, "push", "waiting", 4).await;
    // One phone has an app of the past, and no other.
    providers.fcm.belong_elsewhere(&devices[..1]);
    node.settled().await;
    let mut states: Vec<_> = listed(&node, &["--channel", "push"])
        .await
        .iter()
        .map(|one| one["state"].as_str().unwrap().to_owned())
        .collect();
    states.sort_unstable();
    states.dedup();
    assert!(states.contains(&"sent".to_owned()), "{states:?}");
    assert!(!states.contains(&"unknown".to_owned()), "{states:?}");
    let reached = providers.fcm.taken();
    assert!(reached.iter().all(|push| push.token != devices[0]));
    assert!(providers.pushes().into_values().all(|count| count == 1));
}

/// A client over TLS cannot be built without them: SMS and pushes failed for good as if they were not configured, and
/// with the client for Facebook the whole node did not start.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_root_certificates_takes_webhooks_and_what_needs_tls_waits_for_them() {
    let providers = Providers::start().await;
    let reference = notifying_reference();
    let folder = tempfile::TempDir::with_prefix_in("roots-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (roots, none) = (folder.path().join("roots.pem"), folder.path().join("none"));
    std::fs::write(&roots, "").unwrap();
    let build = providers.build().reference(reference.to_import());
    let build = build
        .environment("SSL_CERT_FILE", roots.clone())
        .environment("SSL_CERT_DIR", none);
    let node = build.start().await;
    for channel in ["sms", "push"] {
        let health = node.status().await["deliveries"][channel].clone();
        assert_eq!(health["channel"], "waiting", "{health}");
        let told = health["last_error"].as_str().unwrap();
        assert!(told.contains("has root certificates"), "{told}");
    }
    submit(&node, &reference, 1).await;
    // The relay is spoken to without TLS.
    until(&node, "email", "sent", 1).await;
    for channel in ["sms", "push"] {
        until(&node, channel, "waiting", 1).await;
    }
    std::fs::write(&roots, providers.smtp.certificate().pem()).unwrap();
    node.settled().await;
    assert_eq!(providers.texts(), each([1], 1));
    assert_eq!(providers.pushes().into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(listed(&node, &["--state", "sent"]).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_not_set_up_says_so_and_the_others_go_on() {
    let providers = Providers::start().await;
    let reference = notifying_reference();
    let build = Node::build()
        .config(&format!("smtp.url = {:?}", providers.smtp.url()))
        .config("smtp.from = \"leads@inlet.example\"");
    let node = build.reference(reference.to_import()).start().await;
    submit(&node, &reference, 1).await;
    node.settled().await;
    assert_eq!(providers.mails(), each([1], 1));
    let status = node.status().await;
    let channels = CHANNELS.map(|channel| status["deliveries"][channel]["channel"].clone());
    assert_eq!(channels, ["ok", "off", "off"]);
    let status = node.cli(&["status"]).await.stdout;
    for key in ["twilio.account_sid", "fcm.service_account"] {
        assert!(status.contains(&format!("`{key}` is not set")), "{status}");
    }
}
