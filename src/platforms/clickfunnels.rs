//! ClickFunnels: classic funnels in three dialects (JSON:API with underscored or dashed names, JSON, Attributes), and
//! ClickFunnels 2.0.
//!
//! Must not know: more than the contact. Purchases carry products and currency tables, of which nothing is the lead's.

use serde_json::Value;

use super::payload::{self, Fields, at, field};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{Names, Reading, Reason, Submission, Webhook};

/// ClickFunnels classic and 2.0.
pub static ADAPTER: Adapter = Adapter {
    slug: "clickfunnels",
    integration: "clickfunnels",
    addressing: Addressing::Url,
    read,
    samples: SAMPLES,
};

/// The funnel's bookkeeping, which is not the contact's.
const BOOKKEEPING: &[&str] = &[
    "id",
    "public_id",
    "uuid",
    "event",
    "event_id",
    "event_type",
    "subject_id",
    "subject_type",
    "api_version",
    "contact_id",
    "contact_profile",
    "additional_info",
    "custom_attributes",
    "purchase",
    "funnel_id",
    "funnel_step_id",
    "cf_uvid",
    "cf_affiliate_id",
    "affiliate_id",
    "webinar_at",
    "webinar_ext",
    "known_ltv",
    "anonymous",
    "tags",
    "time_zone",
    "created_at",
    "updated_at",
    "unsubscribed_at",
];

fn read(webhook: &Webhook) -> Reading {
    payload::read(webhook).and_then(submission).into()
}

fn submission(payload: Value) -> Result<Submission, Reason> {
    if is_setup_test(&payload) {
        return Err(Reason::Test);
    }
    let event = payload::text(&payload, "event_type").or_else(|| payload::text(&payload, "event"));
    if event
        .as_deref()
        .is_some_and(|event| event.ends_with("deleted"))
    {
        return Err(Reason::UnsupportedEvent);
    }
    let lead_id = payload::id(&payload, LEAD_IDS);
    let contact = contact(&payload);
    let fields = fields(contact);
    let ip = payload::ip(contact);
    let submission = payload::submission(payload, lead_id, fields)?;
    let of_contact = event.is_some_and(|event| event.starts_with("contact."));
    Ok(Submission {
        names: if of_contact {
            Names::Person
        } else {
            Names::Submission
        },
        ip: ip.or(submission.ip),
        ..submission
    })
}

/// Where the id may be (R11); a purchase of the JSON dialect has its own.
const LEAD_IDS: &[&str] = &[
    "data.attributes.id",
    "data.id",
    "contact.id",
    "purchase.id",
    "id",
];

/// The setup test, should it come here instead of to `/funnel_webhooks/test` (R7).
fn is_setup_test(payload: &Value) -> bool {
    let fields = payload.as_object();
    fields.is_some_and(|it| it.len() == 1 && it.contains_key("time"))
}

/// The object that describes the contact, in whichever dialect; of a purchase the buyer.
fn contact(payload: &Value) -> &Value {
    let subject = ["data.attributes", "data", "purchase"]
        .iter()
        .find_map(|path| at(payload, path).filter(|it| it.is_object()))
        .unwrap_or(payload);
    field(subject, "contact")
        .filter(|it| it.is_object())
        .unwrap_or(subject)
}

/// The profile knows what the form left blank; the funnel's own form fields are in `additional_info`.
fn fields(contact: &Value) -> Fields {
    ["contact_profile", "additional_info", "custom_attributes"]
        .iter()
        .fold(
            Fields::default().fill(Some(contact), BOOKKEEPING),
            |fields, part| fields.fill(field(contact, part), BOOKKEEPING),
        )
}

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "the id among the attributes",
        r#"{"data":{"attributes":{"id":"12345","full_name":"John Doe","email":"john@example.com","phone":"4155551234"}}}"#,
        Expect::Lead("12345"),
    ),
    Sample::json(
        SampleKind::Real,
        "classic, JSON:API",
        r#"{"data":{"id":"238707001","type":"contacts","attributes":{
            "page_id":"41880231","first_name":"Ada","last_name":"Lindqvist","name":"Ada Lindqvist ",
            "address":"","city":"Uppsala","country":"Sweden","state":"","zip":"","email":"ada.lindqvist@example.se",
            "phone":"","webinar_at":null,"webinar_ext":"xAbC12de","created_at":"2026-01-09T09:30:11.000Z",
            "ip":"203.0.113.24","funnel_id":"9911022","funnel_step_id":"57110044","cf_uvid":"null",
            "contact_profile":{"id":88100211,"first_name":"Ada","last_name":"Lindqvist",
              "email":"ada.lindqvist@example.se","phone":"070-123 45 67","known_ltv":"0.00","tags":[]},
            "additional_info":{"time_zone":"Stockholm","utm_source":"","budget":"50000 kr","purchase":{}}}},
            "jsonapi":{"version":"1.0"},"event":"created"}"#,
        Expect::Lead("238707001"),
    ),
    Sample::json(
        SampleKind::Real,
        "2.0",
        r#"{"data":{"id":90412277,"public_id":"xYzAbC","workspace_id":20331,"anonymous":false,
            "email_address":"hana.yamada@example.jp","first_name":"Hana","last_name":"Yamada",
            "phone_number":"+819012345678","time_zone":null,"tags":[],"custom_attributes":{"plan":"Pro"},
            "created_at":"2026-01-09T09:30:11.000Z"},
            "event_id":"0d9c7f2e-6a1b-4c1d-9e2f-3a4b5c6d7e8f","event_type":"contact.created","subject_id":90412277,
            "subject_type":"Contact","api_version":2,"workspace_id":20331,"page_id":null,"funnel_id":null}"#,
        Expect::Lead("90412277"),
    ),
    Sample::json(
        SampleKind::Test,
        "the setup test, sent to a campaign",
        r#"{"time":"2026-01-09 09:30:11 UTC"}"#,
        Expect::Ignored(Reason::Test),
    ),
    Sample::json(
        SampleKind::Odd,
        "classic with dashes: a purchase whose product has a name",
        r#"{"data":{"id":51002377,"type":"purchases","attributes":{"products":[{"id":1,"name":"Gold plan"}],
            "contact":{"id":241300777,"first-name":"Milo","last-name":"Novak","email":"milo.novak@example.cz",
            "phone":"601 123 456","country":"Czechia","ip":{"family":2,"addr":"198.51.100.9"},
            "contact-profile":{"email":"other@example.cz"},"additional-info":{"time-zone":"Prague"}}}},"event":"created"}"#,
        Expect::Lead("51002377"),
    ),
    Sample::json(
        SampleKind::Odd,
        "classic, JSON",
        r#"{"contact":{"id":241300777,"name":"Milo Novak","email":"milo.novak@example.cz"},"event":"updated"}"#,
        Expect::Lead("241300777"),
    ),
    Sample::form(
        SampleKind::Odd,
        "classic, Attributes, as a form",
        "id=241300778&name=Milo+Novak&email=milo.novak%40example.cz&event=created",
        Expect::Lead("241300778"),
    ),
    Sample::json(
        SampleKind::Broken,
        "2.0, a deleted contact",
        r#"{"data":{"id":90412277,"email_address":"hana.yamada@example.jp"},"event_type":"contact.deleted"}"#,
        Expect::Ignored(Reason::UnsupportedEvent),
    ),
    Sample::json(
        SampleKind::Broken,
        "JSON that breaks off",
        r#"{"data":{"id":"238707001","type":"contacts","attributes":{"first_name":"A"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
];
