//! Unbounce: a form whose field `data.json` holds the submission as JSON text, every value in a list. There is no id.

use serde_json::Value;

use super::payload::{self, Fields, field};
use super::{Adapter, Addressing, Expect, Sample, SampleKind, body};
use crate::model::{Reading, Reason, Submission, Webhook};

/// Unbounce.
pub static ADAPTER: Adapter = Adapter {
    slug: "unbounce",
    integration: "unbounce",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// The page's bookkeeping, and the submission's containers.
const BOOKKEEPING: &[&str] = &["data.json", "data.xml", "time_submitted", "date_submitted"];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    let data = data(&payload);
    // Without `data.json` the customer mapped the fields to the root.
    let fields = Fields::default()
        .fill(data.as_ref(), BOOKKEEPING)
        .fill(Some(&payload), BOOKKEEPING);
    let ip = data.as_ref().and_then(payload::ip);
    let submission = payload::submission(payload, None, fields)?;
    Ok(Submission {
        ip: ip.or(submission.ip),
        ..submission
    })
}

/// `data.json`, as the specification also calls it `data-json` and as PHP relays make it `data_json`: text, or JSON
/// already; an object, or a list of one as the specification shows it.
fn data(payload: &Value) -> Option<Value> {
    let data = match field(payload, "data.json")? {
        Value::String(text) => body::json(text)?,
        value => value.clone(),
    };
    match data {
        Value::Array(list) => list.into_iter().next(),
        data => Some(data),
    }
}

static SAMPLES: &[Sample] = &[
    Sample::form(
        SampleKind::Specification,
        "a list of one object as text",
        "data.json=%5B%7B%22name%22%3A%5B%22John+Doe%22%5D%2C%22email%22%3A%5B%22john%40example.com%22%5D%7D%5D&data.xml=%3Cxml%3E%3C%2Fxml%3E",
        Expect::LeadWithoutId,
    ),
    Sample::form(
        SampleKind::Real,
        "a landing page's form",
        "page_id=c3a9d5a4-2f1e-4a55-9d0e-8f1f6f3f3b10&page_name=Spring+%E2%80%93+Offer&page_url=http%3A%2F%2Fgo.example.com%2Fspring%2F&variant=b\
         &data.json=%7B%22name%22%3A%5B%22Rita+Sol%22%5D%2C%22email%22%3A%5B%22rita.sol%40example.pt%22%5D%2C%22phone_number%22%3A%5B%22912+345+678%22%5D%2C\
         %22country%22%3A%5B%22Portugal%22%5D%2C%22interests%22%3A%5B%22seo%22%2C%22ads%22%5D%2C%22company%22%3A%5B%22%22%5D%2C\
         %22ip_address%22%3A%5B%22198.51.100.7%22%5D%2C%22page_uuid%22%3A%5B%22c3a9d5a4-2f1e-4a55-9d0e-8f1f6f3f3b10%22%5D%2C\
         %22variant%22%3A%5B%22b%22%5D%2C%22time_submitted%22%3A%5B%2210%3A57+PM+UTC%22%5D%2C%22date_submitted%22%3A%5B%222026-01-09%22%5D%2C\
         %22page_name%22%3A%5B%22Spring+%E2%80%93+Offer%22%5D%7D&data.xml=%3Cform_data%2F%3E",
        Expect::LeadWithoutId,
    ),
    Sample::form(
        SampleKind::Test,
        "the integration's test data",
        "page_name=Test&variant=a&data.json=%7B%22email%22%3A%5B%22test%40example.com%22%5D%7D",
        Expect::LeadWithoutId,
    ),
    Sample::json(
        SampleKind::Odd,
        "JSON through a relay: an object, plain texts, null and an underscore",
        r#"{"page_name":"Spring","data_json":{"name":"Rita Sol","email":null,"phone":["912345678"]}}"#,
        Expect::LeadWithoutId,
    ),
    Sample::form(
        SampleKind::Broken,
        "data.json breaks off",
        "page_name=Spring&data.json=%7B%22name%22%3A%5B",
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
