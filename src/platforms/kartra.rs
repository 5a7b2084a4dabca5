//! Kartra: the outbound API posts some 25 kinds of action; only a filled form makes a lead (R12).
//!
//! The id is the contact's: a second form of the same person repeats it (R9).

use serde_json::Value;

use super::payload::{self, Fields, field, items};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Names, Reading, Reason, Submission, Webhook};

/// Kartra.
pub static ADAPTER: Adapter = Adapter {
    slug: "kartra",
    integration: "kartra",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// Kartra's bookkeeping about a contact. The calling code goes beside the fields: it is no phone number (R17).
const BOOKKEEPING: &[&str] = &[
    "id",
    "phone_country_code",
    "date_joined",
    "lead_picture",
    "source",
    "source_id",
    "score",
    "referring_id",
    "blacklisted",
    "sales_tax_id",
    "gdpr_lead_status",
    "gdpr_lead_status_date",
    "gdpr_lead_status_ip",
    "gdpr_lead_communications",
    "lead_preferred_time_zone",
    "custom_fields",
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    if !is_filled_form(&payload) {
        return Err(Reason::UnsupportedEvent);
    }
    let lead = field(&payload, "lead").filter(|lead| lead.is_object());
    let lead = lead.ok_or(Reason::InvalidPayload)?;
    let lead_id = payload::id(lead, &["id"]);
    let fields = Fields::default().fill(Some(lead), BOOKKEEPING);
    let fields = items(field(lead, "custom_fields"))
        .iter()
        .fold(fields, custom_field);
    let (ip, code) = (payload::ip(lead), payload::text(lead, "phone_country_code"));
    let submission = payload::submission(payload, lead_id, fields)?;
    Ok(Submission {
        names: Names::Person,
        phone_country_code: code,
        ip,
        ..submission
    })
}

/// The vendor's page nests the form under `tag`, the specification under `form`; relays flatten it.
fn is_filled_form(payload: &Value) -> bool {
    const FORM_IDS: &[&str] = &[
        "action_details.form.form_id",
        "action_details.tag.form_id",
        "action_details.form_id",
    ];
    let is_form = payload::text(payload, "action").is_some_and(|action| action == "filled_form");
    is_form && payload::id(payload, FORM_IDS).is_some()
}

/// A custom field's value is text, or the list of the options that were chosen.
fn custom_field(fields: Fields, custom: &Value) -> Fields {
    let Some(name) = payload::text(custom, "field_identifier") else {
        return fields;
    };
    let chosen = items(field(custom, "field_value")).iter();
    let values = chosen.map(|value| field(value, "option_value").unwrap_or(value).clone());
    fields.set(&name, Some(&values.collect()))
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "a filled form",
        r#"{"action":"filled_form","action_details":{"form":{"form_id":"12345"}},"lead":{"id":"lead_12345",
            "email":"john@example.com","first_name":"John","last_name":"Doe","phone":"4155551234","phone_country_code":"+1"}}"#,
        Expect::Lead("lead_12345"),
    ),
    Sample::post(
        SampleKind::Real,
        "JSON labelled as a form",
        "application/x-www-form-urlencoded",
        br#"{"lead":{"id":"90122","first_name":"Meera","middle_name":"","last_name":"Nair","last_name2":"",
            "email":"meera.nair@example.in","phone_country_code":"+91","phone":"081234 56789","company":"","address":"",
            "city":"Kochi","zip":"682001","state":"Kerala","country":"India","date_joined":"2026-01-09 09:30:11",
            "website":"","ip":"198.51.100.3","ip_country":"United States","lead_picture":"https://example.com/p.png",
            "source":"https://example.com/guide","score":"0","referring_id":"0","blacklisted":"0","source_id":"0",
            "custom_fields":[{"field_id":"12","field_identifier":"plan","field_type":"drop_down",
               "field_value":[{"option_id":"44","option_value":"Gold"}]},
              {"field_id":"13","field_identifier":"note","field_type":"text","field_value":"hello"}]},
            "action":"filled_form","action_details":{"form":{"form_id":"311","form_name":"Free guide"}}}"#,
        Expect::Lead("90122"),
    ),
    Sample::json(
        SampleKind::Test,
        "the API's test call",
        r#"{"action":"test","lead":{"id":"1","email":"test@example.com"}}"#,
        Expect::Ignored(Reason::UnsupportedEvent),
    ),
    Sample::json(
        SampleKind::Odd,
        "ids as numbers, the form under tag",
        r#"{"lead":{"id":90123,"first_name":"Meera","email":"meera.nair@example.in"},"action":"filled_form",
            "action_details":{"tag":{"form_id":311}}}"#,
        Expect::Lead("90123"),
    ),
    Sample::form(
        SampleKind::Odd,
        "a form in PHP's brackets",
        "action=filled_form&action_details[form][form_id]=311&lead[id]=90124&lead[email]=meera.nair%40example.in\
         &lead[custom_fields][0][field_identifier]=plan&lead[custom_fields][0][field_value]=Gold",
        Expect::Lead("90124"),
    ),
    Sample::json(
        SampleKind::Broken,
        "another action",
        r#"{"lead":{"id":"90122","email":"meera.nair@example.in"},"action":"buy_product","action_details":{"product":{"product_name":"Gold"}}}"#,
        Expect::Ignored(Reason::UnsupportedEvent),
    ),
    Sample::json(
        SampleKind::Broken,
        "a filled form without a lead",
        r#"{"action":"filled_form","action_details":{"form":{"form_id":"311"}},"lead":null}"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
