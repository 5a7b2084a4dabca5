//! Push messages: every answer of FCM's and of its token endpoint, against real sockets and real signatures
//! (platforms.md 11, R26, R28).

mod access;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inlet::clock::ManualClock;
use inlet::notify::push::{Failure, Message, Options, PushSender};
use inlet::notify::{Failure as NotTaken, Receipt};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::fcm::{Fcm, error};
use crate::support::scripted::{Said, Step};

/// A sender, what it talks to, and the time they share.
struct Scene {
    fcm: Fcm,
    clock: Arc<ManualClock>,
    sender: Arc<PushSender>,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with_timeout(Options::default().timeout).await
    }

    async fn with_timeout(timeout: Duration) -> Self {
        let fcm = Fcm::start().await;
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(fcm.now_ms()));
        let options = Options {
            timeout,
            ..options(&fcm, folder.path())
        };
        let sender = Arc::new(PushSender::new(options, clock.clone()).unwrap());
        Self {
            fcm,
            clock,
            sender,
            folder,
        }
    }

    async fn send(&self) -> Result<Receipt, Failure> {
        self.sender.send(&message()).await
    }

    /// As many at once as there are numbers below `count`.
    async fn send_many(&self, count: usize) -> Vec<Result<Receipt, Failure>> {
        let one = |_| {
            let sender = Arc::clone(&self.sender);
            tokio::spawn(async move { sender.send(&message()).await })
        };
        let sending: Vec<_> = (0..count).map(one).collect();
        let mut outcomes = Vec::new();
        for task in sending {
            outcomes.push(task.await.unwrap());
        }
        outcomes
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.fcm.advance(by);
    }

    /// Changes one field of the key file on disk.
    fn edit_key_file(&self, field: &str, value: impl Into<Value>) {
        let mut file = self.fcm.key_file();
        file[field] = value.into();
        let path = self.folder.path().join("service-account.json");
        std::fs::write(path, file.to_string()).unwrap();
    }
}

fn options(fcm: &Fcm, folder: &Path) -> Options {
    Options {
        service_account: fcm.write_key_file(folder),
        base_url: fcm.url(),
        ..Options::default()
    }
}

fn message() -> Message {
    Message {
        token: "device-1".to_owned(),
        title: "New lead".to_owned(),
        body: "Grace Hopper".to_owned(),
        project: None,
        data: BTreeMap::from([("lead_id".to_owned(), "7".to_owned())]),
    }
}

/// The outcome's name, for tables.
fn name(outcome: &Result<Receipt, Failure>) -> &'static str {
    match outcome {
        Ok(_) => "taken",
        Err(Failure::DeviceGone { .. }) => "device gone",
        Err(Failure::OtherProject { .. }) => "other project",
        Err(Failure::NotTaken(NotTaken::Unavailable { .. })) => "unavailable",
        Err(Failure::NotTaken(NotTaken::Deferred { .. })) => "deferred",
        Err(Failure::NotTaken(NotTaken::Refused { .. })) => "refused",
        Err(Failure::NotTaken(NotTaken::Unknown { .. })) => "unknown",
    }
}

fn wait_seconds(outcome: &Result<Receipt, Failure>) -> Option<u64> {
    match outcome {
        Err(Failure::NotTaken(
            NotTaken::Unavailable { retry_after, .. } | NotTaken::Deferred { retry_after, .. },
        )) => retry_after.map(|wait| wait.as_secs()),
        _ => None,
    }
}

#[tokio::test]
async fn a_message_arrives_and_the_receipt_carries_its_name() {
    let scene = Scene::new().await;
    let receipt = scene.send().await.unwrap();
    let taken = scene.fcm.taken().remove(0);
    assert_eq!(receipt.id, Some(taken.name));
    assert_eq!(taken.token, "device-1");
    assert_eq!(
        taken.notification,
        json!({"title": "New lead", "body": "Grace Hopper"})
    );
    assert_eq!(taken.data, message().data);
}

#[tokio::test]
async fn a_long_text_and_reserved_keys_cost_nobody_the_message() {
    let scene = Scene::new().await;
    let mut long = message();
    long.body = "👩\u{200d}👩\u{200d}👧 \"quoted\" ".repeat(1_000);
    for key in ["from", "message_type", "google.c", "gcm.n"] {
        long.data.insert(key.to_owned(), "x".to_owned());
    }
    scene.sender.send(&long).await.unwrap();
    assert_eq!(scene.fcm.taken().remove(0).data, message().data);
}

#[tokio::test]
async fn every_answer_has_its_meaning() {
    let quota = || error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    let until = |said: Said| {
        said.header("date", "Fri, 09 Jan 2026 09:30:00 GMT")
            .header("retry-after", "Fri, 09 Jan 2026 09:32:00 GMT")
    };
    let table = [
        (error(404, "NOT_FOUND", "UNREGISTERED"), "device gone", None),
        (
            error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
            "other project",
            None,
        ),
        (
            error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
            "refused",
            None,
        ),
        (error(400, "FAILED_PRECONDITION", ""), "refused", None),
        (error(403, "PERMISSION_DENIED", ""), "unavailable", None),
        (error(404, "NOT_FOUND", ""), "unavailable", None),
        (quota(), "unavailable", Some(60)),
        (quota().header("retry-after", "5"), "unavailable", Some(5)),
        (
            quota().header("retry-after", "600"),
            "unavailable",
            Some(600),
        ),
        (
            quota().header("retry-after", "soon"),
            "unavailable",
            Some(60),
        ),
        (Said::new(429, "slow down"), "unavailable", Some(60)),
        (error(500, "INTERNAL", "INTERNAL"), "unavailable", None),
        (
            error(503, "UNAVAILABLE", "UNAVAILABLE"),
            "unavailable",
            None,
        ),
        (
            error(503, "UNAVAILABLE", "UNAVAILABLE").header("retry-after", "30"),
            "unavailable",
            Some(30),
        ),
        (
            until(error(503, "UNAVAILABLE", "UNAVAILABLE")),
            "unavailable",
            Some(120),
        ),
        (
            until(error(500, "INTERNAL", "INTERNAL")),
            "unavailable",
            Some(120),
        ),
        (error(500, "INTERNAL", "UNREGISTERED"), "unavailable", None),
        (Said::new(502, "<html>Sorry</html>"), "unavailable", None),
        (
            Said::new(404, "<html>Not Found</html>"),
            "unavailable",
            None,
        ),
        (
            Said::new(307, "").header("location", "http://127.0.0.1:1/"),
            "unavailable",
            None,
        ),
        (Said::new(400, "<html>Bad Request</html>"), "refused", None),
        (Said::new(413, ""), "refused", None),
        (
            Said::new(200, "<html>Welcome to the hotel</html>"),
            "unavailable",
            None,
        ),
        (
            Said::new(200, r#"{"name":"projects/p/messages/1"}"#),
            "taken",
            None,
        ),
    ];
    let scene = Scene::new().await;
    for (said, expected, wait) in table {
        let case = format!("{said:?}");
        scene.fcm.script([Step::Say(said)]);
        let outcome = scene.send().await;
        assert_eq!(name(&outcome), expected, "{case}: {outcome:?}");
        assert_eq!(wait_seconds(&outcome), wait, "{case}");
    }
    assert!(
        scene.fcm.taken().is_empty(),
        "the script stood before FCM throughout"
    );
    assert_eq!(
        scene.fcm.tokens_asked(),
        1,
        "one access token served them all"
    );
}

#[tokio::test]
async fn a_quota_is_the_projects_unless_it_is_said_to_be_the_devices() {
    let scene = Scene::new().await;
    let quota = |subject: &str, description: &str| {
        let body = json!({"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED", "details": [
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "QUOTA_EXCEEDED"},
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"subject": subject, "description": description}]},
        ]}});
        Said::new(429, body)
    };
    let table = [
        (
            quota("device:device-1", "Device message rate exceeded"),
            "deferred",
        ),
        (quota("", "Device message rate exceeded"), "deferred"),
        (
            quota("project:inlet", "Message rate exceeded"),
            "unavailable",
        ),
    ];
    for (said, expected) in table {
        scene.fcm.script([Step::Say(said)]);
        let outcome = scene.send().await;
        assert_eq!(name(&outcome), expected, "{outcome:?}");
        assert_eq!(wait_seconds(&outcome), Some(60));
    }
}

#[tokio::test]
async fn an_invalid_argument_tells_which_field() {
    let scene = Scene::new().await;
    let body = json!({"error": {"code": 400, "message": "Invalid value", "status": "INVALID_ARGUMENT", "details": [
        {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "message.token", "description": "Not a registration token"}]},
    ]}});
    scene.fcm.script([Step::Say(Said::new(400, body))]);
    let failure = scene.send().await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "FCM: 400 Bad Request: INVALID_ARGUMENT: Invalid value (message.token: Not a registration token)"
    );
}

#[tokio::test]
async fn a_device_that_is_gone_is_told_apart() {
    let scene = Scene::new().await;
    scene.fcm.unregister("device-1");
    let failure = scene.send().await.unwrap_err();
    assert!(matches!(failure, Failure::DeviceGone { .. }), "{failure:?}");
    let plain = NotTaken::from(failure);
    assert!(matches!(plain, NotTaken::Refused { .. }), "{plain:?}");
}

/// A push may be sent again (R26), so what is not known is at least said to be so.
#[tokio::test]
async fn a_connection_lost_after_the_request_leaves_the_outcome_unknown() {
    let table = [
        (Step::Drop, "unknown", 0),
        (Step::Hang, "unknown", 0),
        (Step::TakeAndDrop, "unknown", 1),
        (Step::TakeAndHang, "unknown", 1),
        (Step::TakeAndBreakOff, "taken", 1),
        (
            Step::BreakOff(Said::new(503, "<html>Sorry</html>")),
            "unavailable",
            0,
        ),
    ];
    for (step, expected, taken) in table {
        let case = format!("{step:?}");
        let scene = Scene::with_timeout(Duration::from_secs(2)).await;
        scene.fcm.script([step]);
        let outcome = scene.send().await;
        assert_eq!(name(&outcome), expected, "{case}: {outcome:?}");
        assert_eq!(
            scene.fcm.taken().len(),
            taken,
            "{case}: asked once and no more"
        );
    }
}

#[tokio::test]
async fn what_never_reached_fcm_waits_and_goes_on_afterwards() {
    let mut scene = Scene::new().await;
    scene.fcm.go_away();
    assert_eq!(name(&scene.send().await), "unavailable");
    scene.fcm.resume().await;
    assert_eq!(name(&scene.send().await), "taken");
}

#[tokio::test]
async fn no_secret_is_in_an_error_or_a_debug_print() {
    let scene = Scene::new().await;
    scene.send().await.unwrap();
    let echo = "you sent Bearer ya29.granted-1 for device-1";
    let coded = json!({"error": {"code": 400, "message": echo, "status": "INVALID_ARGUMENT"}});
    for said in [
        Said::new(400, echo),
        Said::new(503, echo),
        Said::new(400, coded),
    ] {
        scene.fcm.script([Step::Say(said)]);
        let shown = format!("{:?}", scene.send().await.unwrap_err());
        assert!(
            !shown.contains("ya29") && !shown.contains("device-1"),
            "{shown}"
        );
        assert!(shown.contains("***"), "{shown}");
    }
    let shown = format!("{:?}", scene.sender);
    assert_eq!(shown, "PushSender { .. }");
}
