//! CallRail: calls, texts and forms on tracked numbers, flat at the root; of old setups the call is in the query.
//!
//! Its payloads are full of the advertiser's numbers, names and staff, so only what is the caller's is taken (R15).

use serde_json::Value;

use super::payload::{self, Fields, field};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Reading, Reason, Submission, Webhook};

/// CallRail.
pub static ADAPTER: Adapter = Adapter {
    slug: "callrail",
    integration: "callrail",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// Where the caller's data may be, best first; `caller...` are the query's names, `source_number` is a text message's.
const CALLERS: &[(&str, &str)] = &[
    ("full_name", "formatted_customer_name"),
    ("full_name", "customer_name"),
    ("full_name", "callername"),
    ("phone", "customer_phone_number"),
    ("phone", "formatted_customer_phone_number"),
    ("phone", "callernum"),
    ("phone", "source_number"),
    ("city", "customer_city"),
    ("state", "customer_state"),
    ("country", "customer_country"),
];

/// What telephone networks say instead of a name.
const NAMELESS: &[&str] = &[
    "unknown",
    "anonymous",
    "unavailable",
    "restricted",
    "private",
    "no name",
    "wireless caller",
    "name unavailable",
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    if payload::is_outbound(&payload) {
        return Err(Reason::UnsupportedEvent);
    }
    let lead_id = payload::id(&payload, &["resource_id"]);
    let caller = CALLERS
        .iter()
        .fold(Fields::default(), |fields, (to, from)| {
            let value = field(&payload, from).filter(|it| *to != "full_name" || is_name(it));
            fields.set(to, value)
        });
    let fields = caller.fill(field(&payload, "form_data"), &[]);
    payload::submission(payload, lead_id, fields)
}

/// Whether a caller's name is one, and not the number again or the network's word for none.
pub(super) fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(|name| {
        let name = name.trim().to_lowercase();
        name.contains(char::is_alphabetic) && !NAMELESS.contains(&name.as_str())
    })
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "a call, with the tracking number in the body",
        r#"{"resource_id":"call_12345","trackingnum":"+14155559999","formatted_customer_name":"John Doe","customer_phone_number":"+14155551234"}"#,
        Expect::Lead("call_12345"),
    ),
    Sample::json(
        SampleKind::Real,
        "a call after it ended",
        r#"{"resource_id":"CAL8154748ae6bd4e27","answered":true,"direction":"inbound","duration":"132","call_type":"first_call",
            "customer_name":"TREMBLAY CLAIRE","formatted_customer_name":"Claire Tremblay","customer_phone_number":"+15062345678",
            "formatted_customer_phone_number":"506-234-5678","customer_city":"Moncton","customer_state":"NB",
            "customer_country":"CA","tracking_phone_number":"+14155559999","business_phone_number":"+14155550100",
            "tracker_resource_id":"TRK8154748ae6bd4e27","person_resource_id":"PER8154748ae6bd4e27",
            "company_resource_id":"COM8154748ae6bd4e27","company_name":"Bay Plumbing",
            "start_time":"2026-01-09T01:28:00.000-08:00","first_call":true,"source_name":"Google Ads","keywords":null,
            "tags":[],"note":"","value":null,"lead_status":null,"agent_email":"agent@agency.example",
            "recording":"https://example.com/r.mp3","voicemail":false,"timestamp":"2026-01-09T09:31:02.000Z"}"#,
        Expect::Lead("CAL8154748ae6bd4e27"),
    ),
    Sample::json(
        SampleKind::Test,
        "a call before it is answered, from a withheld number",
        r#"{"resource_id":"CAL0000000000000001","direction":"inbound","formatted_customer_name":"Unknown","customer_phone_number":null}"#,
        Expect::Lead("CAL0000000000000001"),
    ),
    Sample::get(
        SampleKind::Odd,
        "an old setup: everything in the query, and no id",
        "datetime=2026-01-09+01%3A28&callernum=%2B15062345678&trackingnum=%2B14155559999&destinationnum=%2B14155550100&callername=Claire+Tremblay",
        Expect::LeadWithoutId,
    ),
    Sample::json(
        SampleKind::Odd,
        "a form submission",
        r#"{"resource_id":"FRM8154748ae6bd4e27","form_data":{"Your name":"Claire Tremblay","Email":"claire.tremblay@example.ca"},
            "form_url":"https://bayplumbing.example/contact","company_name":"Bay Plumbing"}"#,
        Expect::Lead("FRM8154748ae6bd4e27"),
    ),
    Sample::json(
        SampleKind::Broken,
        "a call that went out",
        r#"{"resource_id":"CAL8154748ae6bd4e28","direction":"outbound","formatted_customer_name":"Claire Tremblay","customer_phone_number":"+15062345678"}"#,
        Expect::Ignored(Reason::UnsupportedEvent),
    ),
    Sample::json(
        SampleKind::Broken,
        "nothing of a call",
        r#"{"company_name":"Bay Plumbing","agent_email":"agent@agency.example"}"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
