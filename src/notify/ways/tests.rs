//! Facts about what goes out for a lead, and about a user with several devices.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use serde_json::json;

use super::push::Tally;
use super::{email, sms};
use crate::model::{Campaign, User};
use crate::notify::email::Content;
use crate::notify::facts::Facts;
use crate::notify::push::Failure as NotPushed;
use crate::notify::{Device, Failure, Handed, Receipt, content};

fn facts(details: Document) -> Facts {
    let mut campaign = doc! { "_id": id(1), "account_id": id(2), "country": "US" };
    campaign.extend(details);
    let user = doc! { "_id": id(3), "email": "rep@example.com", "phone": "(415) 555-0111" };
    Facts {
        delivery: "edge-1.0.d1".parse().unwrap(),
        lead: id(4),
        campaign: Arc::new(Campaign::read(&campaign).unwrap()),
        user: User::read(&user).unwrap(),
        tokens: Vec::new(),
        project: None,
        is_trusted_project: false,
        known: vec![("name", "Ada <b>".to_owned())],
        lead_data: json!({ "name": "somebody else", "budget": "1 & 2", "note": "{{name}}" }),
        at_ms: 1_768_000_000_000,
        message_id: "m@inlet".to_owned(),
    }
}

fn id(byte: u8) -> ObjectId {
    ObjectId::from_bytes([byte; 12])
}

#[test]
fn a_campaigns_mail_is_filled_in_and_only_its_html_is_escaped() {
    let message = email::message(&facts(doc! {
        "notification_type": "only_send_email",
        "email_details": {
            "subject": "{{Name}}: {{budget}}",
            "content": "<p>{{name}}, {{budget}}, {{note}}, {{nobody_knows}}</p>",
            "from": "Sales <sales@example.com>",
            "reply_to": { "name": "Ada", "email": "ada@example.com" },
            "attachments": [{ "name": "a.pdf", "url": "https://example.com/a" }],
        },
    }))
    .unwrap();
    assert_eq!(message.subject, "Ada <b>: 1 & 2");
    let html = "<p>Ada &lt;b&gt;, 1 &amp; 2, {{name}}, </p>".to_owned();
    assert!(message.content == Content::Html(html));
    assert_eq!(message.from.as_deref(), Some("Sales <sales@example.com>"));
    let reply_to = message.reply_to.unwrap();
    assert_eq!(
        (reply_to.name.as_deref(), reply_to.email.as_str()),
        (Some("Ada"), "ada@example.com")
    );
    assert_eq!(message.attachments[0].url, "https://example.com/a");
    assert_eq!(
        (message.message_id.as_str(), message.date_ms),
        ("m@inlet", 1_768_000_000_000)
    );
}

#[test]
fn a_campaign_without_a_text_says_the_standard_one() {
    let message = email::message(&facts(doc! { "notification_type": "only_send_email" })).unwrap();
    assert_eq!(message.subject, content::STANDARD_TEXT);
    let text = content::STANDARD_TEXT.to_owned();
    assert!(message.content == Content::Text(text));
}

#[test]
fn an_sms_is_filled_in_as_plain_text_and_its_number_is_dialled_as_from_abroad() {
    let message = sms::message(&facts(doc! {
        "notification_type": "only_send_sms",
        "sms_details": { "from": "+14155550100", "content": "{{name}}: {{budget}}" },
    }))
    .unwrap();
    assert_eq!(message.body, "Ada <b>: 1 & 2");
    assert_eq!(
        (message.to.as_str(), message.from.as_str()),
        ("+14155550111", "+14155550100")
    );
}

fn taken() -> Result<Receipt, NotPushed> {
    Ok(Receipt::default())
}

fn gone() -> Result<Receipt, NotPushed> {
    Err(NotPushed::DeviceGone {
        project: "p".to_owned(),
        detail: "UNREGISTERED".to_owned(),
    })
}

fn foreign() -> Result<Receipt, NotPushed> {
    Err(NotPushed::OtherProject {
        project: "p".to_owned(),
        detail: "SENDER_ID_MISMATCH".to_owned(),
    })
}

fn tokens(devices: &[Device]) -> Vec<&str> {
    assert!(devices.iter().all(|device| device.project == "p"));
    devices.iter().map(|device| device.token.as_str()).collect()
}

fn failed(failure: Failure) -> Result<Receipt, NotPushed> {
    Err(failure.into())
}

fn away(seconds: Option<u64>) -> Failure {
    Failure::Unavailable {
        detail: "away".to_owned(),
        retry_after: seconds.map(Duration::from_secs),
    }
}

fn refused() -> Failure {
    let detail = "refused".to_owned();
    Failure::Refused { detail }
}

fn unknown() -> Failure {
    let detail = "unknown".to_owned();
    Failure::Unknown { detail }
}

fn total(outcomes: [Result<Receipt, NotPushed>; 2]) -> Handed {
    total_of(outcomes, false)
}

/// Whatever the order of the devices.
fn total_of(outcomes: [Result<Receipt, NotPushed>; 2], is_trusted: bool) -> Handed {
    let of = |outcomes: Vec<(&str, Result<Receipt, NotPushed>)>| {
        let mut tally = Tally::of(Some("p".to_owned()), is_trusted);
        for (token, outcome) in outcomes {
            tally.add(token, outcome);
        }
        tally.total()
    };
    let [first, second] = outcomes;
    let forth = of(vec![("a", first.clone()), ("b", second.clone())]);
    let back = of(vec![("b", second), ("a", first)]);
    assert_eq!(forth.outcome, back.outcome);
    forth
}

#[test]
fn a_push_that_one_device_took_is_sent_and_devices_that_are_gone_are_named() {
    for other in [failed(away(None)), failed(unknown()), failed(refused())] {
        assert!(total([taken(), other]).outcome.is_ok());
    }
    let handed = total([gone(), taken()]);
    assert!(handed.outcome.is_ok());
    assert_eq!(tokens(&handed.dead), ["a"]);
    let handed = total([gone(), gone()]);
    let error = handed.outcome.unwrap_err();
    assert!(
        matches!(&error, Failure::Refused { detail } if detail.contains("no device any more: UNREGISTERED")),
        "{error:?}"
    );
    assert_eq!(tokens(&handed.dead), ["a", "b"]);
}

#[test]
fn a_device_of_another_project_is_gone_only_if_this_project_reaches_others() {
    let handed = total([foreign(), taken()]);
    assert_eq!(tokens(&handed.dead), ["a"]);
    assert_eq!(handed.works.as_deref(), Some("p"));
    for other in [foreign(), gone(), failed(away(None)), failed(refused())] {
        let handed = total([foreign(), other]);
        assert!(!tokens(&handed.dead).contains(&"a"));
        assert!(
            matches!(handed.outcome, Err(Failure::Unavailable { .. })),
            "{handed:?}"
        );
        assert_eq!(handed.works, None);
    }
    let handed = total_of([foreign(), foreign()], true);
    assert_eq!(tokens(&handed.dead), ["a", "b"]);
    let words = "the user has no device any more: SENDER_ID_MISMATCH".to_owned();
    assert_eq!(handed.outcome, Err(Failure::Refused { detail: words }));
}

#[test]
fn a_push_that_no_device_took_is_tried_again_as_long_as_any_of_them_may_take_it() {
    let table = [
        (failed(away(Some(5))), failed(away(Some(9))), away(Some(9))),
        (failed(away(Some(5))), failed(unknown()), away(Some(5))),
        (failed(away(None)), failed(refused()), away(None)),
        (failed(unknown()), failed(refused()), unknown()),
        (failed(refused()), gone(), refused()),
        (failed(away(None)), gone(), away(None)),
    ];
    for (one, other, expected) in table {
        assert_eq!(total([one, other]).outcome.unwrap_err(), expected);
    }
}
