//! PhoneSites: the form's fields flat beside the page's own, and a secret among them.

use serde_json::Value;

use super::payload::{self, Fields};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Reading, Reason, Submission, Webhook};

/// PhoneSites.
pub static ADAPTER: Adapter = Adapter {
    slug: "phonesites",
    integration: "phonesites",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

/// `page`, a name for the specification and in truth a URL, has to be there (R12).
fn submission(payload: Value) -> Result<Submission, Reason> {
    payload::text(&payload, "page").ok_or(Reason::InvalidPayload)?;
    let lead_id = payload::id(&payload, &["lead_id"]);
    let fields = Fields::default().fill(Some(&payload), &["lead_id"]);
    payload::submission(payload, lead_id, fields)
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "a page's name",
        r#"{"lead_id":"ps_12345","page":"Landing Page Name","email":"john@example.com","phone":"4155551234"}"#,
        Expect::Lead("ps_12345"),
    ),
    Sample::json(
        SampleKind::Real,
        "a page's address and a key",
        r#"{"lead_id":"a81bc81b-0d4e","email":"roy.hall@example.com","phone":"(415) 555-2671","name":"Roy Hall",
            "page":"https://offer.phonesites.example/quote","apiKey":"s3cret","websiteName":"Quote Funnel"}"#,
        Expect::Lead("a81bc81b-0d4e"),
    ),
    Sample::json(
        SampleKind::Test,
        "the integration's test lead, always the same",
        r#"{"lead_id":"leadUid123","email":"test@example.com","name":"Test Lead","page":"https://test.phonesites.com","apiKey":"s3cret"}"#,
        Expect::Lead("leadUid123"),
    ),
    Sample::get(
        SampleKind::Odd,
        "fields in the query",
        "lead_id=0&page=https%3A%2F%2Foffer.phonesites.example%2Fquote&name=Roy+Hall&phone=%2B14155552671&api_key=s3cret",
        Expect::LeadWithoutId,
    ),
    Sample::json(
        SampleKind::Broken,
        "a blank page",
        r#"{"lead_id":"a81bc81b-0d4e","email":"roy.hall@example.com","page":" "}"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
