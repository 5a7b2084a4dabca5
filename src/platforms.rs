//! The platforms: one adapter, one file, one line in [`ALL`] each.
//!
//! An adapter is a pure function from the raw webhook to what it says, with its samples beside it: they drive the
//! tests, the fuzz corpus and `inlet demo`. It never fails: what it cannot read is `Ignored` with a reason, kept whole
//! and replayable.
//!
//! Must not know: where webhooks come from and leads go to, campaigns, the clock, any I/O. It knows `model` only.

pub mod body;
pub mod callrail;
pub mod calltrackingmetrics;
pub mod clickfunnels;
pub mod facebook;
pub mod generic;
pub mod instapage;
pub mod kartra;
pub mod manychat;
mod payload;
pub mod phonesites;
pub mod unbounce;

use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Method, Reading, Reason, Webhook};

/// Every platform, in the order of the specification; the tenth is ruling R39.
pub static ALL: &[&Adapter] = &[
    &facebook::ADAPTER,
    &clickfunnels::ADAPTER,
    &manychat::ADAPTER,
    &unbounce::ADAPTER,
    &instapage::ADAPTER,
    &kartra::ADAPTER,
    &phonesites::ADAPTER,
    &callrail::ADAPTER,
    &calltrackingmetrics::ADAPTER,
    &generic::ADAPTER,
];

/// The adapter of a route, by its path segment.
#[must_use]
pub fn by_slug(slug: &str) -> Option<&'static Adapter> {
    ALL.iter().copied().find(|adapter| adapter.slug == slug)
}

/// One platform.
#[derive(Debug)]
pub struct Adapter {
    /// The path segment after `/v1/inbound/webhooks/`.
    pub slug: &'static str,
    /// The value of `campaigns.integration` and of every document's `integration`.
    pub integration: &'static str,
    /// How a webhook says for which campaign it is.
    pub addressing: Addressing,
    /// What the webhook says. Total and pure: any bytes give a [`Reading`], the same bytes always the same one.
    pub read: fn(&Webhook) -> Reading,
    /// At least one sample of every [`SampleKind`].
    pub samples: &'static [Sample],
}

/// How a webhook says for which campaign it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// Account and campaign ids are in the path.
    Url,
    /// Page and form ids are in the payload (Facebook); the account follows from the campaign.
    Page,
}

/// A request a platform sends, and what the adapter makes of it.
#[derive(Debug)]
pub struct Sample {
    /// What is worth knowing about it, in a few words.
    pub name: &'static str,
    /// Where it comes from.
    pub kind: SampleKind,
    /// How it is sent.
    pub method: Method,
    /// The `Content-Type` header, which may lie.
    pub content_type: Option<&'static str>,
    /// The query string without the question mark, percent-encoded.
    pub query: &'static str,
    /// The body.
    pub body: &'static [u8],
    /// What the adapter has to answer.
    pub expect: Expect,
}

/// Where a sample comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    /// The payload of the specification, word for word.
    Specification,
    /// The shape the platform really sends, with an invented person.
    Real,
    /// The platform's own test.
    Test,
    /// Unusual, and yet to be understood.
    Odd,
    /// Nothing to make a lead of.
    Broken,
}

impl SampleKind {
    /// Every kind, in order.
    pub const ALL: &'static [SampleKind] = &[
        SampleKind::Specification,
        SampleKind::Real,
        SampleKind::Test,
        SampleKind::Odd,
        SampleKind::Broken,
    ];
}

/// What the adapter has to answer to a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A submission with this lead id; for a change, a leadgen id.
    Lead(&'static str),
    /// A submission without a usable id (R10).
    LeadWithoutId,
    /// Nothing to make a lead of.
    Ignored(Reason),
    /// A batch, change by change.
    Changes(&'static [Expect]),
}

impl Sample {
    /// The sample as a webhook of `platform`, from this machine, without ids in its path or a time of arrival.
    #[must_use]
    pub fn webhook(&self, platform: &str) -> Webhook {
        Webhook {
            platform: platform.to_owned(),
            account: None,
            campaign: None,
            method: self.method,
            query: self.query.to_owned(),
            content_type: self.content_type.map(str::to_owned),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: 0,
            body: self.body.to_vec(),
        }
    }

    /// A POST of JSON that says so.
    const fn json(
        kind: SampleKind,
        name: &'static str,
        body: &'static str,
        expect: Expect,
    ) -> Self {
        Self::post(kind, name, "application/json", body.as_bytes(), expect)
    }

    /// A POST of a form that says so.
    const fn form(
        kind: SampleKind,
        name: &'static str,
        body: &'static str,
        expect: Expect,
    ) -> Self {
        let content_type = "application/x-www-form-urlencoded";
        Self::post(kind, name, content_type, body.as_bytes(), expect)
    }

    /// A POST of anything.
    const fn post(
        kind: SampleKind,
        name: &'static str,
        content_type: &'static str,
        body: &'static [u8],
        expect: Expect,
    ) -> Self {
        Self {
            name,
            kind,
            method: Method::Post,
            content_type: Some(content_type),
            query: "",
            body,
            expect,
        }
    }

    /// A GET whose query holds the fields (R3).
    const fn get(
        kind: SampleKind,
        name: &'static str,
        query: &'static str,
        expect: Expect,
    ) -> Self {
        Self {
            name,
            kind,
            method: Method::Get,
            content_type: None,
            query,
            body: b"",
            expect,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::{LeadChange, Names, Submission, lead_data};

    fn webhook(sample: &Sample) -> Webhook {
        sample.webhook("any")
    }

    fn every_sample() -> impl Iterator<Item = (&'static Adapter, &'static Sample)> {
        let with_samples = |adapter: &&'static Adapter| {
            let adapter = *adapter;
            adapter.samples.iter().map(move |sample| (adapter, sample))
        };
        ALL.iter().flat_map(with_samples)
    }

    fn meets(reading: &Reading, expect: Expect) -> bool {
        match (reading, expect) {
            (Reading::Submission(submission), Expect::Lead(id)) => submission
                .lead_id
                .as_ref()
                .is_some_and(|it| it.as_str() == id),
            (Reading::Submission(submission), Expect::LeadWithoutId) => {
                submission.lead_id.is_none()
            }
            (Reading::Ignored(reason), Expect::Ignored(expected)) => *reason == expected,
            (Reading::Changes(changes), Expect::Changes(expected)) => {
                changes.len() == expected.len()
                    && changes
                        .iter()
                        .zip(expected)
                        .all(|(it, expect)| change_meets(it, *expect))
            }
            _ => false,
        }
    }

    fn change_meets(change: &LeadChange, expect: Expect) -> bool {
        match (change, expect) {
            (LeadChange::Leadgen { leadgen_id, .. }, Expect::Lead(id)) => leadgen_id.as_str() == id,
            (LeadChange::Ignored(reason), Expect::Ignored(expected)) => *reason == expected,
            _ => false,
        }
    }

    #[test]
    fn every_sample_reads_as_it_promises() {
        for (adapter, sample) in every_sample() {
            let reading = (adapter.read)(&webhook(sample));
            assert!(
                meets(&reading, sample.expect),
                "{}, {}: expected {:?}, read {reading:#?}",
                adapter.slug,
                sample.name,
                sample.expect,
            );
        }
    }

    #[test]
    fn every_adapter_has_every_kind_of_sample() {
        for adapter in ALL {
            for kind in SampleKind::ALL {
                let has = adapter.samples.iter().any(|sample| sample.kind == *kind);
                assert!(has, "{} has no {kind:?} sample", adapter.slug);
            }
        }
    }

    #[test]
    fn slugs_and_integrations_are_distinct_and_found() {
        for adapter in ALL {
            assert_eq!(
                by_slug(adapter.slug).unwrap().integration,
                adapter.integration
            );
            let same = |other: &&&Adapter| other.integration == adapter.integration;
            assert_eq!(ALL.iter().filter(same).count(), 1);
        }
        assert!(by_slug("Facebook").is_none());
    }

    #[test]
    fn every_adapter_survives_every_other_ones_samples() {
        for (_, sample) in every_sample() {
            let webhook = webhook(sample);
            for adapter in ALL {
                let _ = (adapter.read)(&webhook);
            }
        }
    }

    #[test]
    fn a_submission_shows_no_secret_and_encodes_as_a_document() {
        for (adapter, sample) in every_sample() {
            if let Reading::Submission(submission) = (adapter.read)(&webhook(sample)) {
                let shown = format!("{} {}", submission.payload, submission.fields);
                assert!(
                    !shown.contains("s3cret"),
                    "{}, {}",
                    adapter.slug,
                    sample.name
                );
                assert!(submission.fields.is_object());
                let _ = lead_data::document(&submission.payload, submission.payload_as_text);
            }
        }
    }

    #[test]
    fn what_holds_nothing_is_no_lead_on_any_route() {
        for body in [
            "", "{}", "[]", "null", "\"\"", "0", "[[]]", "hello", "<a/>", "{\"a\":",
        ] {
            for adapter in ALL {
                let sample = Sample::json(SampleKind::Broken, body, "", Expect::LeadWithoutId);
                let webhook = Webhook {
                    body: body.as_bytes().to_owned(),
                    ..webhook(&sample)
                };
                let reading = (adapter.read)(&webhook);
                assert_eq!(
                    reading,
                    Reading::Ignored(Reason::InvalidPayload),
                    "{}: {body}",
                    adapter.slug
                );
            }
        }
    }

    fn read(slug: &str, kind: SampleKind, nth: usize) -> Submission {
        let adapter = by_slug(slug).unwrap();
        let mut samples = adapter.samples.iter().filter(|sample| sample.kind == kind);
        match (adapter.read)(&webhook(samples.nth(nth).unwrap())) {
            Reading::Submission(submission) => *submission,
            other => panic!("{slug}: {other:?}"),
        }
    }

    #[test]
    fn a_call_says_who_called_and_nothing_about_the_advertiser() {
        let callrail = read("callrail", SampleKind::Real, 0);
        let expected = json!({
            "full_name": "Claire Tremblay", "phone": "+15062345678", "city": "Moncton", "state": "NB", "country": "CA",
        });
        assert_eq!(callrail.fields, expected);
        let metrics = read("calltrackingmetrics", SampleKind::Real, 0);
        let expected = json!({
            "full_name": "Jane Mckay", "phone": "+12396001971", "city": "Naples", "state": "FL", "country": "US",
            "postal_code": "34102", "service": "Roof repair",
        });
        assert_eq!(metrics.fields, expected);
        assert_eq!(metrics.tracking_number.as_deref(), Some("+14155559999"));
        assert!(metrics.payload_as_text);
    }

    #[test]
    fn a_withheld_caller_has_no_name() {
        assert_eq!(read("callrail", SampleKind::Test, 0).fields, json!({}));
    }

    #[test]
    fn what_is_custom_goes_before_the_profile_and_ids_are_no_fields() {
        let fields = read("manychat", SampleKind::Real, 0).fields;
        assert_eq!(fields["Best contact"], "una.brennan@example.ie");
        assert_eq!(fields["first_name"], "Una");
        assert!(fields.get("id").is_none() && fields.get("key").is_none());
        let listed = read("manychat", SampleKind::Odd, 0).fields;
        assert_eq!(listed["phone"].to_string(), "212650123456");
    }

    #[test]
    fn lists_of_one_are_single_values_and_the_page_has_no_say() {
        let submission = read("unbounce", SampleKind::Real, 0);
        let expected = json!({
            "name": "Rita Sol", "email": "rita.sol@example.pt", "phone_number": "912 345 678", "country": "Portugal",
            "interests": ["seo", "ads"],
        });
        assert_eq!(submission.fields, expected);
        assert_eq!(submission.ip.as_deref(), Some("198.51.100.7"));
        assert_eq!(
            read("unbounce", SampleKind::Odd, 0).fields["name"],
            "Rita Sol"
        );
    }

    #[test]
    fn a_contact_s_profile_fills_what_the_funnel_left_blank() {
        let fields = read("clickfunnels", SampleKind::Real, 0).fields;
        assert_eq!(fields["phone"], "070-123 45 67");
        assert_eq!(fields["budget"], "50000 kr");
    }

    #[test]
    fn a_purchase_is_the_buyer_s_and_not_the_product_s() {
        let submission = read("clickfunnels", SampleKind::Odd, 0);
        let expected = json!({
            "first-name": "Milo", "last-name": "Novak", "email": "milo.novak@example.cz", "phone": "601 123 456",
            "country": "Czechia",
        });
        assert_eq!(submission.fields, expected);
        assert_eq!(submission.ip.as_deref(), Some("198.51.100.9"));
    }

    #[test]
    fn a_calling_code_goes_beside_the_fields_and_chosen_options_into_them() {
        let submission = read("kartra", SampleKind::Real, 0);
        let expected = json!({
            "first_name": "Meera", "last_name": "Nair", "email": "meera.nair@example.in", "phone": "081234 56789",
            "city": "Kochi", "zip": "682001", "state": "Kerala", "country": "India", "plan": "Gold", "note": "hello",
        });
        assert_eq!(submission.fields, expected);
        assert_eq!(submission.phone_country_code.as_deref(), Some("+91"));
        assert_eq!(submission.ip.as_deref(), Some("198.51.100.3"));
    }

    #[test]
    fn a_key_is_masked_in_the_payload_and_absent_from_the_fields() {
        let submission = read("phonesites", SampleKind::Real, 0);
        assert_eq!(submission.payload["apiKey"], "***");
        let expected =
            json!({"email": "roy.hall@example.com", "phone": "(415) 555-2671", "name": "Roy Hall"});
        assert_eq!(submission.fields, expected);
    }

    #[test]
    fn a_form_s_name_is_not_the_person_s() {
        let fields = read("generic", SampleKind::Real, 0).fields;
        assert_eq!(fields["First name"], "Wanjiru");
        assert!(fields.get("name").is_none());
    }

    #[test]
    fn an_id_names_a_person_only_where_it_is_the_contact_s() {
        for (slug, nth, names) in [
            ("clickfunnels", 0, Names::Submission),
            ("clickfunnels", 1, Names::Person),
            ("manychat", 0, Names::Person),
            ("kartra", 0, Names::Person),
            ("callrail", 0, Names::Submission),
        ] {
            assert_eq!(read(slug, SampleKind::Real, nth).names, names, "{slug}");
        }
    }

    #[test]
    fn ids_that_are_numbers_keep_every_digit() {
        for id in ["9007199254740993", "12345678901234567890"] {
            let body = format!(r#"{{"id":{id},"email":"a@example.com"}}"#);
            let sample = &generic::ADAPTER.samples[0];
            let webhook = Webhook {
                body: body.into_bytes(),
                ..webhook(sample)
            };
            let Reading::Submission(submission) = (generic::ADAPTER.read)(&webhook) else {
                panic!("no submission");
            };
            assert_eq!(submission.lead_id.unwrap().as_str(), id);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_can_stop_an_adapter(
            which in 0..every_sample().count(),
            cut in any::<prop::sample::Index>(),
            noise in any::<Vec<u8>>(),
            query in "[ -~]{0,40}",
        ) {
            let mut webhook = webhook(every_sample().nth(which).unwrap().1);
            let at = cut.index(webhook.body.len() + 1);
            webhook.body.splice(at..(at + noise.len() / 2).min(webhook.body.len()), noise);
            webhook.query = query;
            for adapter in ALL {
                if let Reading::Submission(submission) = (adapter.read)(&webhook) {
                    let _ = lead_data::document(&submission.payload, submission.payload_as_text);
                }
            }
        }
    }
}
