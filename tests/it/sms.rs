//! SMS: every answer of Twilio's, and every way a connection can break, against a real socket (platforms.md 10, R26,
//! R28).

use std::time::{Duration, Instant};

use inlet::notify::sms::{Message, Options, SmsSender};
use inlet::notify::{Failure, Receipt};
use tokio::net::TcpListener;

use crate::support::scripted::{Said, Step};
use crate::support::twilio::{ACCOUNT_SID, AUTH_TOKEN, Twilio, error};

const SHORT: Duration = Duration::from_secs(2);

fn options(url: &str) -> Options {
    Options {
        account_sid: ACCOUNT_SID.to_owned(),
        auth_token: AUTH_TOKEN.to_owned(),
        base_url: url.to_owned(),
        ..Options::default()
    }
}

fn sender(url: &str) -> SmsSender {
    SmsSender::new(options(url)).unwrap()
}

fn hasty(url: &str) -> SmsSender {
    SmsSender::new(Options {
        connect_timeout: SHORT,
        timeout: SHORT,
        ..options(url)
    })
    .unwrap()
}

fn message() -> Message {
    Message {
        to: "+14155552671".to_owned(),
        from: "+14155550100".to_owned(),
        body: "Grace & Hopper + 100% \u{1f44b}".to_owned(),
    }
}

/// The outcome's name, for tables.
fn name(outcome: &Result<Receipt, Failure>) -> &'static str {
    match outcome {
        Ok(_) => "taken",
        Err(Failure::Unavailable { .. }) => "unavailable",
        Err(Failure::Deferred { .. }) => "deferred",
        Err(Failure::Refused { .. }) => "refused",
        Err(Failure::Unknown { .. }) => "unknown",
    }
}

/// What became of an SMS that met this one step.
async fn after(step: Step) -> (Result<Receipt, Failure>, usize) {
    let twilio = Twilio::start().await;
    twilio.script([step]);
    let outcome = hasty(&twilio.url()).send(&message()).await;
    (outcome, twilio.taken().len())
}

#[tokio::test]
async fn an_sms_arrives_as_it_was_written_and_the_receipt_carries_its_sid() {
    let twilio = Twilio::start().await;
    let receipt = sender(&twilio.url()).send(&message()).await.unwrap();
    let taken = twilio.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(receipt.id.as_deref(), Some(taken[0].sid.as_str()));
    let sms = message();
    assert_eq!(
        (&taken[0].to, &taken[0].from, &taken[0].body),
        (&sms.to, &sms.from, &sms.body)
    );
}

#[tokio::test]
async fn a_messaging_service_sends_under_its_own_name() {
    let twilio = Twilio::start().await;
    let service = "MG0123456789abcdef0123456789abcdef";
    let sms = Message {
        from: service.to_owned(),
        ..message()
    };
    sender(&twilio.url()).send(&sms).await.unwrap();
    let taken = twilio.taken().remove(0);
    assert_eq!(
        (taken.from.as_str(), taken.messaging_service.as_str()),
        ("", service)
    );
}

#[tokio::test]
async fn a_text_longer_than_twilio_takes_is_cut_and_taken() {
    let twilio = Twilio::start().await;
    for letter in ["x", "é", "👋"] {
        let sms = Message {
            body: letter.repeat(3_000),
            ..message()
        };
        sender(&twilio.url()).send(&sms).await.unwrap();
    }
    let lengths: Vec<_> = twilio
        .taken()
        .iter()
        .map(|sms| sms.body.chars().count())
        .collect();
    assert_eq!(lengths, [1_600, 1_600, 800]);
}

#[tokio::test]
async fn every_answer_has_its_meaning() {
    let html = || Said::new(503, "<html>Sorry</html>");
    let with_code = |status, code| error(status, code, "scripted");
    let table = [
        (with_code(400, 21211), "refused", None),
        (with_code(400, 21212), "refused", None),
        (with_code(403, 21408), "refused", None),
        (with_code(400, 21602), "refused", None),
        (with_code(400, 21606), "refused", None),
        (with_code(400, 21608), "refused", None),
        (with_code(403, 21608), "refused", None),
        (with_code(400, 21610), "refused", None),
        (with_code(400, 21612), "refused", None),
        (with_code(400, 21614), "refused", None),
        (with_code(400, 21617), "refused", None),
        (with_code(500, 21211), "refused", None),
        (with_code(400, 20001), "refused", None),
        (with_code(400, 30007), "refused", None),
        (with_code(401, 20003), "unavailable", None),
        (with_code(400, 20003), "unavailable", None),
        (with_code(401, 20006), "unavailable", None),
        (with_code(403, 20005), "unavailable", None),
        (with_code(404, 20404), "unavailable", None),
        (with_code(429, 20429), "unavailable", None),
        (
            with_code(429, 20429).header("retry-after", "7"),
            "unavailable",
            Some(7),
        ),
        (
            with_code(400, 20429).header("retry-after", "7"),
            "unavailable",
            Some(7),
        ),
        (with_code(429, 21611), "deferred", None),
        (with_code(400, 21611), "refused", None),
        (with_code(429, 63038), "unavailable", None),
        (with_code(500, 20500), "unavailable", None),
        (
            with_code(503, 20503).header("retry-after", "9"),
            "unavailable",
            Some(9),
        ),
        (html(), "unavailable", None),
        (
            html().header("retry-after", "99999"),
            "unavailable",
            Some(3_600),
        ),
        (Said::new(500, "<html>Sorry</html>"), "unavailable", None),
        (Said::new(502, ""), "unknown", None),
        (Said::new(504, "<html>Sorry</html>"), "unknown", None),
        (Said::new(524, "<html>Sorry</html>"), "unknown", None),
        (with_code(502, 20502), "unknown", None),
        (with_code(504, 20504), "unknown", None),
        (with_code(502, 21211), "refused", None),
        (
            Said::new(429, "slow down").header("retry-after", "3"),
            "unavailable",
            Some(3),
        ),
        (Said::new(401, ""), "unavailable", None),
        (
            Said::new(403, "<html>Forbidden</html>"),
            "unavailable",
            None,
        ),
        (Said::new(404, "not here"), "unavailable", None),
        (Said::new(407, ""), "unavailable", None),
        (Said::new(408, ""), "unavailable", None),
        (Said::new(400, "<html>Bad Request</html>"), "refused", None),
        (Said::new(413, ""), "refused", None),
        (Said::new(201, r#"{"sid":"SM1"}"#), "taken", None),
        (Said::new(201, "not JSON"), "taken", None),
        (Said::new(201, "x".repeat(100_000)), "taken", None),
        (Said::new(200, r#"{"sid":"SM1"}"#), "taken", None),
        (
            Said::new(200, "<html>Welcome to the hotel</html>"),
            "unknown",
            None,
        ),
        (Said::new(204, ""), "unknown", None),
    ];
    let twilio = Twilio::start().await;
    let sender = sender(&twilio.url());
    for (said, expected, wait_seconds) in table {
        let case = format!("{said:?}");
        twilio.script([Step::Say(said)]);
        let outcome = sender.send(&message()).await;
        assert_eq!(name(&outcome), expected, "{case}: {outcome:?}");
        if let Err(Failure::Unavailable { retry_after, .. }) = outcome {
            assert_eq!(
                retry_after.map(|wait| wait.as_secs()),
                wait_seconds,
                "{case}"
            );
        }
    }
    assert!(
        twilio.taken().is_empty(),
        "the script stood before Twilio throughout"
    );
}

#[tokio::test]
async fn a_refusal_tells_twilios_code_and_words() {
    let twilio = Twilio::start().await;
    let sms = Message {
        to: "nobody".to_owned(),
        ..message()
    };
    let failure = sender(&twilio.url()).send(&sms).await.unwrap_err();
    let expected =
        "Twilio: 400 Bad Request: code 21211: The 'To' number nobody is not a valid phone number.";
    assert_eq!(failure.to_string(), expected);
}

#[tokio::test]
async fn wrong_credentials_wait_and_say_what_to_mend() {
    let twilio = Twilio::start().await;
    let wrong = SmsSender::new(Options {
        auth_token: "another".to_owned(),
        ..options(&twilio.url())
    });
    let failure = wrong.unwrap().send(&message()).await.unwrap_err();
    assert!(
        matches!(failure, Failure::Unavailable { .. }),
        "{failure:?}"
    );
    assert!(
        failure
            .to_string()
            .contains("mend `twilio.account_sid` and `twilio.auth_token`")
    );
}

/// There is no idempotency key: whether Twilio took it, nobody can say, and nobody tries again (R26).
#[tokio::test]
async fn a_connection_lost_after_the_request_leaves_the_outcome_unknown() {
    let broken = || Step::BreakOff(Said::new(503, "<html>Sorry</html>"));
    let table = [
        (Step::Drop, "unknown", 0),
        (Step::Hang, "unknown", 0),
        (Step::TakeAndDrop, "unknown", 1),
        (Step::TakeAndHang, "unknown", 1),
        (broken(), "unknown", 0),
        (Step::TakeAndBreakOff, "taken", 1),
    ];
    for (step, expected, taken_expected) in table {
        let case = format!("{step:?}");
        let (outcome, taken) = after(step).await;
        assert_eq!(name(&outcome), expected, "{case}: {outcome:?}");
        assert_eq!(taken, taken_expected, "{case}: asked once and no more");
    }
}

/// The head of a 201 is the promise; its sid is a convenience.
#[tokio::test]
async fn a_receipt_whose_answer_broke_off_has_no_id() {
    let (outcome, _) = after(Step::TakeAndBreakOff).await;
    assert_eq!(outcome, Ok(Receipt { id: None }));
}

#[tokio::test]
async fn a_connection_closed_at_once_is_no_success_and_no_refusal() {
    let (outcome, taken) = after(Step::Hide).await;
    assert!(
        ["unavailable", "unknown"].contains(&name(&outcome)),
        "{outcome:?}"
    );
    assert_eq!(taken, 0);
}

/// On a connection kept open, the server's closing may cross the next request: nobody could say whether it was taken,
/// and an SMS would be lost for nothing.
#[tokio::test]
async fn each_sms_has_a_connection_of_its_own() {
    let twilio = Twilio::start().await;
    let sender = sender(&twilio.url());
    for _ in 0..3 {
        sender.send(&message()).await.unwrap();
    }
    assert_eq!((twilio.connections(), twilio.taken().len()), (3, 3));
}

#[tokio::test]
async fn what_never_reached_twilio_waits() {
    let mut twilio = Twilio::start().await;
    let url = twilio.url();
    // A listener that takes connections and never shakes hands.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_url = format!("https://{}", mute.local_addr().unwrap());
    let table = [
        (
            "TLS with a server that has none",
            url.replace("http:", "https:"),
        ),
        ("a handshake that never ends", mute_url),
        (
            "a name that does not exist",
            "http://twilio.invalid".to_owned(),
        ),
    ];
    for (case, url) in table {
        let outcome = SmsSender::new(Options {
            connect_timeout: Duration::from_secs(1),
            ..options(&url)
        })
        .unwrap()
        .send(&message())
        .await;
        assert_eq!(name(&outcome), "unavailable", "{case}: {outcome:?}");
    }
    twilio.go_away();
    let sender = sender(&url);
    let outcome = sender.send(&message()).await;
    assert_eq!(name(&outcome), "unavailable", "refused: {outcome:?}");
    twilio.resume().await;
    assert_eq!(name(&sender.send(&message()).await), "taken");
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_the_timeout() {
    let begun = Instant::now();
    let (outcome, _) = after(Step::Late(Duration::from_secs(60))).await;
    assert_eq!(name(&outcome), "unknown");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_credentials() {
    let twilio = Twilio::start().await;
    let elsewhere = Twilio::start().await;
    let path = format!(
        "{}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json",
        elsewhere.url()
    );
    for status in [301, 302, 303, 307, 308] {
        twilio.script([Step::Say(Said::new(status, "").header("location", &path))]);
        let outcome = sender(&twilio.url()).send(&message()).await;
        assert_eq!(name(&outcome), "unavailable", "{status}: {outcome:?}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn the_auth_token_is_in_no_error_and_no_debug_print() {
    let twilio = Twilio::start().await;
    let in_url: String = form_urlencoded::byte_serialize(AUTH_TOKEN.as_bytes()).collect();
    let sender = sender(&twilio.url());
    for status in [200, 400, 401, 500] {
        let echo = format!("you sent {AUTH_TOKEN}, that is {in_url}");
        for said in [Said::new(status, &echo), error(status, 20001, &echo)] {
            twilio.script([Step::Say(said)]);
            let shown = format!("{:?}", sender.send(&message()).await.unwrap_err());
            assert!(!shown.contains("hush") && shown.contains("***"), "{shown}");
        }
    }
    let shown = format!("{sender:?} {:?}", options(&twilio.url()));
    assert!(!shown.contains("hush"), "{shown}");
}
