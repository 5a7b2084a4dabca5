//! The access token: fetched once for all, kept until its end, replaced when it is withdrawn, and whatever its endpoint
//! says.

use std::sync::Arc;
use std::time::Duration;

use inlet::clock::ManualClock;
use inlet::jwt::RsaKey;
use inlet::notify::push::{Message, OptionsError, PushSender};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Scene, message, name, options, wait_seconds};
use crate::support::fcm::{CLIENT_EMAIL, Fcm, KEY_ID, error, oauth_error};
use crate::support::http::{self, Ask};
use crate::support::scripted::{Said, Step};
use crate::support::wait;

const WITHIN: Duration = Duration::from_secs(10);

const PRIVATE_KEY: &str = include_str!("../../keys/rsa.pem");
const OTHER_KEY: &str = include_str!("../../keys/rsa_other.pem");
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

#[tokio::test]
async fn a_hundred_messages_at_once_share_one_access_token() {
    let scene = Scene::new().await;
    let late = Step::Late(Duration::from_millis(300));
    scene.fcm.script_tokens([late, Step::Serve]);
    let outcomes = scene.send_many(100).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(scene.fcm.taken().len(), 100);
    assert_eq!(scene.fcm.tokens_asked(), 1);
}

/// Were each to ask for itself, an endpoint that is down would be asked a hundred times, one after the other.
#[tokio::test]
async fn a_hundred_messages_at_once_share_one_failure() {
    let scene = Scene::new().await;
    let late = Step::Late(Duration::from_millis(500));
    let sorry = Step::Say(Said::new(503, "").header("retry-after", "20"));
    scene.fcm.script_tokens([late, sorry]);
    let outcomes = scene.send_many(100).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| wait_seconds(outcome) == Some(20)),
        "{outcomes:?}"
    );
    assert_eq!(scene.fcm.tokens_asked(), 1);
    assert_eq!(name(&scene.send().await), "taken", "the next one asks anew");
}

#[tokio::test]
async fn whoever_gives_up_while_asking_leaves_the_asking_to_the_next() {
    let scene = Scene::new().await;
    scene.fcm.script_tokens([Step::Hang]);
    let asked = wait::until("the first request for a token", WITHIN, async || {
        let asked = scene.fcm.tokens_asked();
        (asked == 1)
            .then_some(())
            .ok_or(format!("{asked} requests"))
    });
    tokio::select! {
        outcome = scene.send() => panic!("nobody answered: {outcome:?}"),
        () = asked => {}
    }
    assert_eq!(name(&scene.send().await), "taken");
    assert_eq!(scene.fcm.tokens_asked(), 2);
}

#[tokio::test]
async fn an_access_token_is_kept_until_a_minute_before_its_end() {
    let scene = Scene::new().await;
    scene.send().await.unwrap();
    scene.advance(Duration::from_secs(3_599 - 61));
    scene.send().await.unwrap();
    assert_eq!(scene.fcm.tokens_asked(), 1);
    scene.advance(Duration::from_secs(1));
    scene.send().await.unwrap();
    assert_eq!(scene.fcm.tokens_asked(), 2);
    assert_eq!(scene.fcm.messages_asked(), 3, "none was refused on the way");
}

#[tokio::test]
async fn a_token_without_a_life_is_used_and_not_kept() {
    let scene = Scene::new().await;
    scene.send().await.unwrap();
    scene.advance(Duration::from_secs(3_600));
    let token = |life: Value| {
        Step::Say(Said::new(
            200,
            json!({"access_token": "ya29.odd", "expires_in": life}),
        ))
    };
    scene
        .fcm
        .script_tokens([token(json!(null)), token(json!("0")), token(json!(-7))]);
    for _ in 0..3 {
        scene
            .fcm
            .script([Step::Say(Said::new(200, json!({"name": "n"})))]);
        assert_eq!(name(&scene.send().await), "taken");
    }
    assert_eq!(scene.fcm.tokens_asked(), 4);
}

#[tokio::test]
async fn a_withdrawn_access_token_is_replaced_once_for_all() {
    let scene = Scene::new().await;
    scene.send().await.unwrap();
    scene.fcm.revoke_tokens();
    let outcomes = scene.send_many(20).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(scene.fcm.taken().len(), 21, "each arrived once");
    assert_eq!(scene.fcm.tokens_asked(), 2);
}

#[tokio::test]
async fn a_401_that_a_fresh_token_does_not_mend_waits_with_a_remedy_but_for_a_key_of_some_devices()
{
    let ours = ("unavailable", "fcm.service_account");
    let table = [
        (error(401, "UNAUTHENTICATED", ""), ours),
        (
            error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
            ("refused", "APNs"),
        ),
        (Said::new(401, ""), ours),
    ];
    for (said, (outcome_name, remedy)) in table {
        let scene = Scene::new().await;
        scene.fcm.script([Step::Say(said.clone()), Step::Say(said)]);
        let outcome = scene.send().await;
        assert_eq!(name(&outcome), outcome_name);
        assert!(outcome.unwrap_err().to_string().contains(remedy));
        assert_eq!(
            scene.fcm.tokens_asked(),
            2,
            "one forced refresh and no more"
        );
        assert_eq!(scene.fcm.messages_asked(), 2);
    }
}

#[tokio::test]
async fn whatever_the_token_endpoint_says_no_message_is_to_blame() {
    let table = [
        (
            Step::Say(oauth_error(400, "invalid_grant", "Invalid JWT Signature.")),
            "was not revoked",
            None,
        ),
        (
            Step::Say(oauth_error(401, "invalid_client", "no such account")),
            "mend the service account",
            None,
        ),
        (
            Step::Say(oauth_error(403, "access_denied", "disabled")),
            "mend the service account",
            None,
        ),
        (
            Step::Say(Said::new(429, "").header("retry-after", "8")),
            "429",
            Some(8),
        ),
        (
            Step::Say(Said::new(503, "<html>Sorry</html>").header("retry-after", "9")),
            "503",
            Some(9),
        ),
        (
            Step::Say(Said::new(200, "<html>Welcome</html>")),
            "without a token",
            None,
        ),
        (
            Step::Say(Said::new(200, r#"{"access_token":""}"#)),
            "without a token",
            None,
        ),
        (
            Step::Say(Said::new(200, r#"{"access_token":"a\nb","expires_in":9}"#)),
            "without a token",
            None,
        ),
        (
            Step::Say(Said::new(302, "").header("location", "http://127.0.0.1:1/")),
            "302",
            None,
        ),
        (Step::TakeAndBreakOff, "without a token", None),
        (Step::Drop, "no access token", None),
        (Step::Hang, "no access token", None),
    ];
    for (step, words, wait) in table {
        let case = format!("{step:?}");
        let scene = Scene::with_timeout(Duration::from_secs(2)).await;
        scene.fcm.script_tokens([step]);
        let outcome = scene.send().await;
        assert_eq!(name(&outcome), "unavailable", "{case}: {outcome:?}");
        assert_eq!(wait_seconds(&outcome), wait, "{case}");
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains(words), "{case}: {told}");
        assert_eq!(scene.fcm.messages_asked(), 0, "{case}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_is_away_waits_and_goes_on_afterwards() {
    let mut scene = Scene::new().await;
    scene.fcm.go_away_tokens();
    assert_eq!(name(&scene.send().await), "unavailable");
    scene.fcm.resume_tokens().await;
    assert_eq!(name(&scene.send().await), "taken");
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off_is_named_as_a_cause() {
    let scene = Scene::new().await;
    scene.fcm.advance(Duration::from_secs(2 * 60 * 60));
    let outcome = scene.send().await;
    assert_eq!(name(&outcome), "unavailable");
    assert!(outcome.unwrap_err().to_string().contains("clock"));
}

#[tokio::test]
async fn a_rotated_key_needs_no_restart() {
    let scene = Scene::new().await;
    scene.edit_key_file("private_key", OTHER_KEY);
    let outcome = scene.send().await;
    assert_eq!(
        name(&outcome),
        "unavailable",
        "the endpoint knows another key"
    );
    scene.edit_key_file("private_key", PRIVATE_KEY);
    assert_eq!(name(&scene.send().await), "taken");
}

/// What a device took under another project was put down to the one that the batch was worked out for.
#[tokio::test]
async fn a_message_goes_out_under_the_project_it_was_worked_out_for_or_waits() {
    let scene = Scene::new().await;
    let for_project = |project: &str| Message {
        project: Some(project.to_owned()),
        ..message()
    };
    let own = scene.sender.project_id().unwrap();
    let sent = scene.sender.send(&for_project(&own)).await;
    assert_eq!(name(&sent), "taken");
    // Somebody puts another project's file there, and the token in use is withdrawn.
    scene.edit_key_file("project_id", "another");
    scene.fcm.revoke_tokens();
    let asked = scene.fcm.messages_asked();
    let sent = scene.sender.send(&for_project(&own)).await;
    assert_eq!(name(&sent), "unavailable");
    assert_eq!(scene.fcm.messages_asked(), asked + 1, "with the old token");
    let told = sent.unwrap_err().to_string();
    assert!(told.contains("another project by now"), "{told}");
    assert_eq!(scene.sender.project_id().as_deref(), Some("another"));
    let sent = scene.sender.send(&for_project(&own)).await;
    assert_eq!(name(&sent), "unavailable");
    assert_eq!(scene.fcm.messages_asked(), asked + 1);
}

#[tokio::test]
async fn a_key_file_that_broke_meanwhile_waits_and_says_what_is_wrong() {
    let scene = Scene::new().await;
    scene.edit_key_file("private_key_id", Value::Null);
    let outcome = scene.send().await;
    assert_eq!(name(&outcome), "unavailable");
    let told = outcome.unwrap_err().to_string();
    assert_eq!(
        told,
        "the key file has no `private_key_id`; mend the file of `fcm.service_account`"
    );
    scene.edit_key_file("private_key_id", KEY_ID);
    assert_eq!(name(&scene.send().await), "taken");
}

#[tokio::test]
async fn an_address_that_cannot_be_asked_makes_no_sender() {
    let fcm = Fcm::start().await;
    let folder = TempDir::new().unwrap();
    let mut options = options(&fcm, folder.path());
    let clock = Arc::new(ManualClock::at(0));
    options.base_url = "fcm.googleapis.com".to_owned();
    let no_url = PushSender::new(options, clock).unwrap_err();
    assert!(matches!(no_url, OptionsError::Url), "{no_url}");
}

/// The fake is worth something only if it refuses what Google refuses.
#[tokio::test]
async fn the_fake_token_endpoint_refuses_what_google_refuses() {
    let fcm = Fcm::start().await;
    let uri = fcm.key_file()["token_uri"].as_str().unwrap().to_owned();
    let now = fcm.now_ms() / 1000;
    let good =
        json!({"iss": CLIENT_EMAIL, "scope": SCOPE, "aud": uri, "iat": now, "exp": now + 3600});
    let mut expired = good.clone();
    expired["iat"] = json!(now - 7200);
    expired["exp"] = json!(now - 3600);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let table = [
        (PRIVATE_KEY, KEY_ID, good.clone(), 200),
        (OTHER_KEY, KEY_ID, good.clone(), 400),
        (PRIVATE_KEY, "another", good.clone(), 400),
        (
            PRIVATE_KEY,
            KEY_ID,
            with("iss", json!("somebody@else")),
            400,
        ),
        (PRIVATE_KEY, KEY_ID, with("scope", json!("email")), 400),
        (
            PRIVATE_KEY,
            KEY_ID,
            with("aud", json!("https://oauth2.googleapis.com/token")),
            400,
        ),
        (PRIVATE_KEY, KEY_ID, with("exp", json!(now + 3601)), 400),
        (PRIVATE_KEY, KEY_ID, with("exp", json!(null)), 400),
        (PRIVATE_KEY, KEY_ID, with("iat", json!(now - 7200)), 400),
        (PRIVATE_KEY, KEY_ID, expired, 400),
    ];
    let (_, address) = uri.split_once("//").unwrap();
    let (address, _) = address.split_once('/').unwrap();
    for (key, key_id, claims, expected) in table {
        let assertion = RsaKey::from_pem(key)
            .unwrap()
            .sign(key_id, &claims)
            .unwrap();
        let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let fields = [("grant_type", grant_type), ("assertion", &assertion)];
        let ask = Ask::post_form("/token", &fields);
        let reply = http::ask(address.parse().unwrap(), ask).await.unwrap();
        assert_eq!(reply.status, expected, "{claims}");
    }
}
