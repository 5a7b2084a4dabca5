//! Any form builder or automation tool (ruling R39): JSON or a form, flat or one object deep.

use serde_json::Value;

use super::payload::{self, Fields, at};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Reading, Reason, Submission, Webhook};

/// The tenth platform.
pub static ADAPTER: Adapter = Adapter {
    slug: "generic",
    integration: "generic",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// Where the id may be. Only at the root: a nested id may well be the form's, and every submission would repeat it.
const LEAD_IDS: &[&str] = &["id", "lead_id", "submission_id", "event_id"];

/// Objects whose `name` would pass for the lead's.
const OTHERS: &[&str] = &[
    "id",
    "lead_id",
    "submission_id",
    "event_id",
    "event",
    "account",
    "owner",
    "source",
    "site",
    "website",
    "meta",
    "metadata",
    "organization",
    "created_at",
    "updated_at",
    "timestamp",
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    let lead_id = payload::id(&payload, LEAD_IDS);
    let fields = fields(&payload);
    payload::submission(payload, lead_id, fields)
}

/// A company that is an object keeps its name apart from the person's.
fn fields(payload: &Value) -> Fields {
    let company = at(payload, "company.name");
    let except = if company.is_some() {
        &[OTHERS, &["company"]].concat()
    } else {
        OTHERS
    };
    Fields::default()
        .set("company_name", company)
        .fill_one_deep(payload, except)
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "flat JSON",
        r#"{"id":"12345","name":"John Doe","email":"john@example.com","phone":"4155551234"}"#,
        Expect::Lead("12345"),
    ),
    Sample::json(
        SampleKind::Real,
        "an automation tool, one object deep",
        r#"{"submission_id":"sub_01HKX2","submitted_at":"2026-01-09T09:30:11Z","form":{"id":7,"name":"Contact us"},
            "data":{"First name":"Wanjiru","Last name":"Kamau","Email":"wanjiru.kamau@example.co.ke",
            "Phone":"0712 123456","City":"Nairobi","Country":"Kenya","Message":"Please call me in the afternoon."}}"#,
        Expect::Lead("sub_01HKX2"),
    ),
    Sample::json(
        SampleKind::Test,
        "a tool's ping",
        r#"{"event":"ping","id":null}"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
    Sample::form(
        SampleKind::Odd,
        "a form in PHP's brackets, with a blank id and a key",
        "id=&fields[name]=Wanjiru+Kamau&fields[email]=wanjiru.kamau%40example.co.ke&api_key=s3cret",
        Expect::LeadWithoutId,
    ),
    Sample::post(
        SampleKind::Broken,
        "XML",
        "application/xml",
        b"<lead><name>Wanjiru Kamau</name></lead>",
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
