//! Facebook Lead Ads: batches of changes that name leads; what people answered is read from the Graph API afterwards.
//!
//! Must not know: how Graph is asked. It reads the notification (R5) and, in [`submission`], Graph's answer.

use serde_json::Value;

use super::payload::{self, Fields, field, items};
use super::{Adapter, Addressing, Expect, Sample, SampleKind};
use crate::model::{LeadChange, LeadId, Names, Reading, Reason, Submission, Webhook};

/// Facebook Lead Ads.
pub static ADAPTER: Adapter = Adapter {
    slug: "facebook",
    integration: "facebook_ads",
    addressing: Addressing::Page,
    read,
    samples: SAMPLES,
};

/// The lead that the app dashboard's "Test" button names; Graph does not know it.
const DASHBOARD_TEST: &str = "444444444444";

fn read(webhook: &Webhook) -> Reading {
    let changes = payload::read(webhook).map(|payload| changes(&payload));
    match changes {
        Ok(changes) if !changes.is_empty() => Reading::Changes(changes),
        _ => Reading::Ignored(Reason::InvalidPayload),
    }
}

/// Every change of every entry, in order. The dashboard shows a single one in a wrapper, and people send that.
fn changes(payload: &Value) -> Vec<LeadChange> {
    if let Some(sample) = payload.get("sample") {
        return vec![change(sample)];
    }
    let entries = items(payload.get("entry")).iter();
    let changes = entries.flat_map(|entry| items(entry.get("changes")));
    changes.map(change).collect()
}

/// The specification's own payload has no `field`; where there is one, it counts.
fn change(change: &Value) -> LeadChange {
    let is_leadgen = change.get("field").is_none_or(|field| field == "leadgen");
    if !is_leadgen {
        return LeadChange::Ignored(Reason::UnsupportedEvent);
    }
    let id = |name| LeadId::read(change.get("value")?.get(name)?);
    match (id("leadgen_id"), id("page_id"), id("form_id")) {
        (Some(leadgen_id), _, _) if leadgen_id.as_str() == DASHBOARD_TEST => {
            LeadChange::Ignored(Reason::Test)
        }
        (Some(leadgen_id), Some(page_id), Some(form_id)) => LeadChange::Leadgen {
            leadgen_id,
            page_id: page_id.as_str().to_owned(),
            form_id: form_id.as_str().to_owned(),
        },
        _ => LeadChange::Ignored(Reason::InvalidPayload),
    }
}

/// The submission in Graph's answer to a lead's id: the answers become fields, the whole answer is `lead_data` (R19).
///
/// An answer without a single filled field is a submission too: the lead exists, whatever it says.
#[must_use]
pub fn submission(graph_answer: &Value) -> Submission {
    let answers = items(field(graph_answer, "field_data"));
    Submission {
        lead_id: payload::id(graph_answer, &["id"]),
        names: Names::Submission,
        fields: answers.iter().fold(Fields::default(), answer).into_value(),
        payload: payload::masked(graph_answer.clone()),
        payload_as_text: false,
        tracking_number: None,
        phone_country_code: None,
        ip: None,
    }
}

fn answer(fields: Fields, answer: &Value) -> Fields {
    match payload::text(answer, "name") {
        Some(question) => fields.set(&question, field(answer, "values")),
        None => fields,
    }
}

/// What Graph answers for the lead of the `Real` sample.
pub const GRAPH_ANSWER: &str = r#"{
  "created_time": "2026-01-09T09:20:01+0000", "id": "1088214550913377", "form_id": "733910284410077",
  "ad_id": "23861200345670412", "platform": "ig", "is_organic": false,
  "field_data": [
    {"name": "full_name", "values": ["Grace Okafor"]},
    {"name": "email", "values": ["grace.okafor\u0040example.com"]},
    {"name": "phone_number", "values": ["+2348021234567"]},
    {"name": "city", "values": ["Lagos"]},
    {"name": "country", "values": ["NG"]},
    {"name": "which_services_do_you_need?", "values": ["seo", "ads"]},
    {"name": "company_name", "values": [""]}
  ]}"#;

static SAMPLES: &[Sample] = &[
    Sample::json(
        SampleKind::Specification,
        "no field is named",
        r#"{"entry":[{"changes":[{"value":{"leadgen_id":"123456789","form_id":"987654321","page_id":"555555555"}}]}]}"#,
        Expect::Changes(&[Expect::Lead("123456789")]),
    ),
    Sample::json(
        SampleKind::Real,
        "an advertisement's lead",
        r#"{"object":"page","entry":[{"id":"104822739105512","time":1767950402,"changes":[
            {"field":"leadgen","value":{"created_time":1767950401,"leadgen_id":"1088214550913377",
             "page_id":"104822739105512","form_id":"733910284410077",
             "ad_id":"23861200345670412","adgroup_id":"23861200345670411"}}]}]}"#,
        Expect::Changes(&[Expect::Lead("1088214550913377")]),
    ),
    Sample::json(
        SampleKind::Test,
        "the dashboard's Test button",
        r#"{"object":"page","entry":[{"id":"0","time":1767950402,"changes":[
            {"field":"leadgen","value":{"created_time":1767950402,"leadgen_id":"444444444444",
             "page_id":"444444444444","form_id":"444444444444","ad_id":"444444444","adgroup_id":"44444444444"}}]}]}"#,
        Expect::Changes(&[Expect::Ignored(Reason::Test)]),
    ),
    Sample::json(
        SampleKind::Test,
        "the dashboard's sample in its wrapper",
        r#"{"sample":{"field":"leadgen","value":{"leadgen_id":"444444444444","page_id":"444444444444"}}}"#,
        Expect::Changes(&[Expect::Ignored(Reason::Test)]),
    ),
    Sample::json(
        SampleKind::Odd,
        "a batch of two pages with ids as numbers, another field and a change without ids",
        r#"{"object":"page","entry":[
            {"id":104822739105512,"changes":[
              {"field":"leadgen","value":{"leadgen_id":55459717045641545,"page_id":104822739105512,"form_id":733910284410077}},
              {"field":"feed","value":{"item":"status"}},
              {"field":"leadgen","value":{"page_id":104822739105512}}]},
            {"id":104822739105513,"changes":[
              {"field":"leadgen","value":{"leadgen_id":55459717045641547,"page_id":104822739105513,"form_id":733910284410078}}]}]}"#,
        Expect::Changes(&[
            Expect::Lead("55459717045641545"),
            Expect::Ignored(Reason::UnsupportedEvent),
            Expect::Ignored(Reason::InvalidPayload),
            Expect::Lead("55459717045641547"),
        ]),
    ),
    Sample::json(
        SampleKind::Broken,
        "no changes",
        r#"{"object":"page","entry":[{"id":"104822739105512","messaging":[]},7]}"#,
        Expect::Ignored(Reason::InvalidPayload),
    ),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn graph_s_answer_becomes_fields_by_question_and_stays_whole_as_payload() {
        let answer: Value = serde_json::from_str(GRAPH_ANSWER).unwrap();
        let submission = submission(&answer);
        let expected = json!({
            "full_name": "Grace Okafor", "email": "grace.okafor@example.com", "phone_number": "+2348021234567",
            "city": "Lagos", "country": "NG", "which_services_do_you_need?": ["seo", "ads"],
        });
        assert_eq!(submission.lead_id.unwrap().as_str(), "1088214550913377");
        assert_eq!(submission.fields, expected);
        assert_eq!(submission.payload, answer);
    }

    #[test]
    fn an_answer_that_says_nothing_is_a_submission_too() {
        for answer in [
            json!(null),
            json!({"id": "1", "field_data": 7}),
            json!({"field_data": [{"values": []}]}),
        ] {
            assert_eq!(submission(&answer).fields, json!({}));
        }
    }
}
