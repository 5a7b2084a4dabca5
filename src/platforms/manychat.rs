//! ManyChat: a flow step of the customer's own making, mostly with "Add Full Contact Data".
//!
//! The id is the subscriber's: the same person comes again with it and may say something new (R9).

use serde_json::Value;

use super::payload::{self, Fields, field};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Names, Reading, Reason, Submission, Webhook};

/// ManyChat.
pub static ADAPTER: Adapter = Adapter {
    slug: "manychat",
    integration: "manychat",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// The subscription's bookkeeping: ids that look like phone numbers, links, times and switches.
const BOOKKEEPING: &[&str] = &[
    "key",
    "id",
    "user_refs",
    "status",
    "profile_pic",
    "locale",
    "language",
    "timezone",
    "live_chat_url",
    "optin_phone",
    "optin_email",
    "optin_whatsapp",
    "subscribed",
    "last_interaction",
    "ig_last_interaction",
    "last_seen",
    "is_followup_enabled",
    "ig_id",
    "last_growth_tool",
    "custom_fields",
    "tags",
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    let subscriber = subscriber(&payload);
    let lead_id = payload::id(subscriber, &["id"]);
    let fields = fields(subscriber);
    let submission = payload::submission(payload, lead_id, fields)?;
    Ok(Submission {
        names: Names::Person,
        ..submission
    })
}

/// The public API's answer wraps the subscriber in `data`, and people forward that.
fn subscriber(payload: &Value) -> &Value {
    let wrapped = field(payload, "data").filter(|data| field(data, "id").is_some());
    wrapped.unwrap_or(payload)
}

/// What somebody told the bot goes before what their profile says.
fn fields(subscriber: &Value) -> Fields {
    Fields::default()
        .named(field(subscriber, "custom_fields"), "name", "value")
        .fill(Some(subscriber), BOOKKEEPING)
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "everything in custom fields",
        r#"{"id":"chat_12345","custom_fields":{"email":"john@example.com","phone":"4155551234","first_name":"John","last_name":"Doe"}}"#,
        Expect::Lead("chat_12345"),
    ),
    Sample::json(
        SampleKind::Real,
        "full contact data",
        r#"{"key":"user:5566778899","id":"5566778899","page_id":"104822739105512","user_refs":[],"status":"active",
            "first_name":"Una","last_name":"Brennan","name":"Una Brennan","gender":"female",
            "profile_pic":"https://example.com/una.jpg","locale":"en_US","language":"English","timezone":"UTC+00",
            "live_chat_url":"https://manychat.example/fb5/chat/5566778899","last_input_text":"yes","optin_phone":false,
            "phone":null,"optin_email":false,"email":null,"subscribed":"2026-01-08T15:13:41+00:00","ig_id":null,
            "whatsapp_phone":null,"last_growth_tool":null,
            "custom_fields":{"Best contact":"una.brennan@example.ie","Mobile":"+353 85 012 3456","Budget":2500,"VIP":true,
              "Appt":"2026-02-01T10:00:00+00:00","Notes":null}}"#,
        Expect::Lead("5566778899"),
    ),
    Sample::json(
        SampleKind::Test,
        "a test of the request before any variable was filled",
        r#"{"id":"{{user_id}}","first_name":"Test","email":"{{email}}","custom_fields":[]}"#,
        Expect::LeadWithoutId,
    ),
    Sample::json(
        SampleKind::Odd,
        "the public API's answer, with a list of custom fields",
        r#"{"status":"success","data":{"id":5566778900,"first_name":"Leila","last_name":"Haddad","custom_fields":[
            {"id":1,"name":"email","type":"text","value":"leila.haddad@example.ma"},
            {"id":2,"name":"phone","type":"number","value":212650123456},{"id":3,"name":"note","value":null}]}}"#,
        Expect::Lead("5566778900"),
    ),
    Sample::json(
        SampleKind::Broken,
        "nothing was filled",
        r#"{"id":"{{user_id}}","email":"{{cuf_123}}","phone":"","custom_fields":[]}"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
