//! CallTrackingMetrics: calls, texts and forms with over a hundred names flat at the root.
//!
//! Only what is the caller's is taken (R15); `lead_data` is the payload as JSON text (R19).

use serde_json::Value;

use super::callrail::is_name;
use super::payload::{self, Fields, at, field};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Reading, Reason, Submission, Webhook};

/// CallTrackingMetrics.
pub static ADAPTER: Adapter = Adapter {
    slug: "calltrackingmetrics",
    integration: "call_tracking_metrics",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// Where the caller's data may be, best first. The specification takes `cnam`; `name` says the same in mixed case.
const CALLERS: &[(&str, &str)] = &[
    ("full_name", "form.name"),
    ("full_name", "name"),
    ("full_name", "cnam"),
    ("phone", "contact_number"),
    ("phone", "caller_number"),
    ("email", "email"),
    ("email", "form.email"),
    ("street", "street"),
    ("city", "city"),
    ("state", "state"),
    ("country", "country"),
    ("postal_code", "postal_code"),
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    if payload::is_outbound(&payload) {
        return Err(Reason::UnsupportedEvent);
    }
    let lead_id = payload::id(&payload, &["id"]);
    let tracking_number = payload::text(&payload, "tracking_number");
    let fields = fields(&payload);
    let submission = payload::submission(payload, lead_id, fields)?;
    Ok(Submission {
        payload_as_text: true,
        tracking_number,
        ..submission
    })
}

fn fields(payload: &Value) -> Fields {
    let caller = CALLERS
        .iter()
        .fold(Fields::default(), |fields, (to, from)| {
            let value = at(payload, from).filter(|it| *to != "full_name" || is_name(it));
            fields.set(to, value)
        });
    caller
        .named(at(payload, "form.custom"), "id", "value")
        .fill(field(payload, "custom_fields"), &[])
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "a call",
        r#"{"id":"call_12345","tracking_number":"+14155559999","contact_number":"+14155551234","cnam":"John Doe"}"#,
        Expect::Lead("call_12345"),
    ),
    Sample::json(
        SampleKind::Real,
        "a call after it ended",
        r#"{"id":4379952365,"sid":"CAf0e1d2c3b4a5968778695a4b3c2d1e0f","account_id":334410,"name":"Jane Mckay","cnam":"MCKAY JANE",
            "source":"Google Organic","direction":"inbound","duration":41,"talk_time":30,"ring_time":11,
            "called_at":"2026-01-09 04:30 AM -05:00","unix_time":1767951011,"tracking_number_id":"TPN0011",
            "tracking_number":"+14155559999","tracking_number_bare":"4155559999","tracking_number_format":"(415) 555-9999",
            "tracking_label":"Main","business_number":"+14155550100","caller_number":"+12396001971",
            "caller_number_bare":"2396001971","caller_number_split":["1","239","600","1971"],"contact_number":"+12396001971",
            "email":null,"street":null,"city":"Naples","state":"FL","country":"US","postal_code":"34102","status":"completed",
            "is_new_caller":true,"tag_list":[],"agent":{"name":"Tina","email":"tina@agency.example"},
            "custom_fields":{"service":"Roof repair"},"form":null,"audio":null}"#,
        Expect::Lead("4379952365"),
    ),
    Sample::json(
        SampleKind::Test,
        "a call as it starts, with the caller's number only",
        r#"{"id":4379952366,"direction":"inbound","tracking_number":"(415) 555-9999","caller_number":"+12396001971","cnam":null}"#,
        Expect::Lead("4379952366"),
    ),
    Sample::json(
        SampleKind::Odd,
        "a form reactor",
        r#"{"id":12345678901234567890,"direction":"form","tracking_number":"+14155559999","name":null,"caller_number":"+12396001971",
            "form":{"name":"Jane Mckay","email":"jane.mckay@example.com","form_id":"FRT1","form_name":"Estimate",
            "custom":[{"id":"roof_type","value":"Slate"}]}}"#,
        Expect::Lead("12345678901234567890"),
    ),
    Sample::json(
        SampleKind::Odd,
        "a text message without an id",
        r#"{"direction":"msg_inbound","message_id":"MSG1","message_body":"Call me","tracking_number":"+14155559999","caller_number":"+12396001971"}"#,
        Expect::LeadWithoutId,
    ),
    Sample::json(
        SampleKind::Broken,
        "a text message that went out",
        r#"{"id":4379952367,"direction":"msg_outbound","tracking_number":"+14155559999","contact_number":"+12396001971"}"#,
        Expect::Ignored(Reason::UnsupportedEvent),
    ),
];
