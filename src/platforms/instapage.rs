//! Instapage: a form or JSON whose names are the labels as the page's author typed them, in any language.

use serde_json::Value;

use super::payload::{self, Fields};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Reading, Reason, Submission, Webhook};

/// Instapage.
pub static ADAPTER: Adapter = Adapter {
    slug: "instapage",
    integration: "instapage",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// What the page adds to the form.
const BOOKKEEPING: &[&str] = &[
    "id",
    "submission_id",
    "submission_time",
    "created_at",
    "timestamp",
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

/// Little is published about what Instapage sends: fields in one nested object are read like those of the root.
fn submission(payload: Value) -> Result<Submission, Reason> {
    let lead_id = payload::id(&payload, &["id"]);
    let fields = Fields::default().fill_one_deep(&payload, BOOKKEEPING);
    payload::submission(payload, lead_id, fields)
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "flat JSON",
        r#"{"id":"submission_12345","email":"john@example.com","phone":"4155551234","first_name":"John","last_name":"Doe"}"#,
        Expect::Lead("submission_12345"),
    ),
    Sample::form(
        SampleKind::Real,
        "labels as typed, and no id",
        "First+Name=%C3%89lodie&Last+Name=Marchand&E-mail=elodie.marchand%40example.fr&Phone+Number=06+12+34+56+78\
         &Country=France&Message=Un+devis%2C+s%27il+vous+pla%C3%AEt&page_id=2204411&page_name=Devis+gratuit\
         &page_url=https%3A%2F%2Fdevis.example.fr%2F&variant=A&ip=192.0.2.61",
        Expect::LeadWithoutId,
    ),
    Sample::get(
        SampleKind::Test,
        "a test by GET",
        "Name=Test&Email=test%40example.com&page_name=Test",
        Expect::LeadWithoutId,
    ),
    Sample::post(
        SampleKind::Odd,
        "a multipart form with a file, in another encoding than it says",
        "multipart/form-data; boundary=----x7",
        b"------x7\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n 77120 \r\n\
          ------x7\r\nContent-Disposition: form-data; name=\"Name\"\r\n\r\nJos\xE9 Prieto\r\n\
          ------x7\r\nContent-Disposition: form-data; name=\"plan\"; filename=\"plan.pdf\"\r\n\r\n%PDF\r\n------x7--\r\n",
        Expect::Lead("77120"),
    ),
    Sample::form(
        SampleKind::Broken,
        "nothing but the page",
        "page_name=Devis+gratuit&variant=A&Email=",
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
