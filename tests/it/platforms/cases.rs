//! The samples of every platform and what each has to become: the table behind the facts.

use bson::{Bson, Document, doc};
use inlet::model::Method;
use inlet::platforms::facebook::GRAPH_ANSWER;
use inlet::platforms::{self, Expect, Sample, SampleKind};

use crate::support::http::Ask;
use crate::support::node::route;
use crate::support::reference::{FORM, PAGE, Reference};

const LOCALHOST: &str = "127.0.0.1";
const FACEBOOK: &str = "/v1/inbound/webhooks/facebook";

/// The page and the form of the specification's Facebook sample.
pub(super) const SPECIFIED_PAGE: &str = "555555555";
const SPECIFIED_FORM: &str = "987654321";

/// The specification's Graph answer.
pub(super) const SPECIFIED_ANSWER: &str = r#"{"id": "123456789", "created_time": "2025-01-15T10:30:00+0000",
    "ad_id": "9876543210", "form_id": "987654321", "field_data": [
      {"name": "full_name", "values": ["John Doe"]}, {"name": "email", "values": ["john@example.com"]},
      {"name": "phone_number", "values": ["4155551234"]}, {"name": "city", "values": ["San Francisco"]}]}"#;

/// A sample, and what it has to become.
pub(super) struct Case {
    pub(super) platform: &'static str,
    pub(super) kind: SampleKind,
    /// Among the samples of this kind.
    pub(super) nth: usize,
    /// Overrides of the campaign.
    pub(super) campaign: Document,
    pub(super) integration: &'static str,
    pub(super) lead_data: Data,
    /// The contact's own fields.
    pub(super) person: Document,
    pub(super) ip: &'static str,
    pub(super) deal_name: &'static str,
    pub(super) deal_value: Bson,
    pub(super) currency: &'static str,
    pub(super) message: &'static str,
}

/// Where the exact `lead_data` is written down.
pub(super) enum Data {
    /// The JSON that was posted.
    Body,
    /// The same as one string.
    Text,
    /// The fields of the form that was posted.
    Form,
    /// This JSON.
    Json(&'static str),
}

impl Case {
    fn of(platform: &'static str, integration: &'static str, kind: SampleKind) -> Self {
        Self {
            platform,
            kind,
            nth: 0,
            campaign: Document::new(),
            integration,
            lead_data: Data::Body,
            person: Document::new(),
            ip: LOCALHOST,
            deal_name: "John Doe",
            deal_value: Bson::Int32(250),
            currency: "USD",
            message: "Lead received for John Doe",
        }
    }

    pub(super) fn sample(&self) -> &'static Sample {
        let adapter = platforms::by_slug(self.platform).expect("a platform");
        let mut of_kind = adapter.samples.iter().filter(|it| it.kind == self.kind);
        of_kind.nth(self.nth).expect("a sample")
    }

    pub(super) fn lead_id(&self) -> Option<&'static str> {
        match self.sample().expect {
            Expect::Lead(id) | Expect::Changes(&[Expect::Lead(id)]) => Some(id),
            Expect::LeadWithoutId => None,
            other => panic!("{}: {other:?}", self.platform),
        }
    }

    pub(super) fn ask(&self, reference: &Reference) -> Ask {
        let target = match self.platform {
            "facebook" => FACEBOOK.to_owned(),
            platform => {
                let campaign = reference.campaign(platform);
                route(platform, reference.account, campaign)
            }
        };
        let sample = self.sample();
        assert_eq!((sample.method, sample.query), (Method::Post, ""));
        Ask::new("POST", target)
            .header("content-type", sample.content_type.expect("a content type"))
            .body(sample.body)
    }
}

fn john() -> Document {
    doc! { "name": "John Doe", "first_name": "John", "last_name": "Doe" }
}

/// John Doe with everything the specification knows of him.
fn john_in_full() -> Document {
    let mut john = john();
    john.extend(doc! { "email": "john@example.com", "phone": "+14155551234" });
    john
}

/// Every sample of the specification and every real one.
pub(super) fn cases() -> Vec<Case> {
    use SampleKind::{Real, Specification};
    let spec = |platform, integration| Case {
        person: john_in_full(),
        ..Case::of(platform, integration, Specification)
    };
    let real = |platform, integration, name, message, person| Case {
        deal_name: name,
        message,
        person,
        ..Case::of(platform, integration, Real)
    };
    let tracked = || doc! { "tracking_number": "(415) 555-9999" };
    vec![
        Case {
            campaign: doc! { "page_id": SPECIFIED_PAGE, "lead_form_id": SPECIFIED_FORM },
            lead_data: Data::Json(SPECIFIED_ANSWER),
            person: {
                let mut john = john_in_full();
                john.insert("address", doc! { "city": "San Francisco" });
                john
            },
            ..Case::of("facebook", "facebook_ads", Specification)
        },
        Case {
            campaign: doc! { "page_id": PAGE, "lead_form_id": FORM },
            lead_data: Data::Json(GRAPH_ANSWER),
            ..real(
                "facebook",
                "facebook_ads",
                "Grace Okafor",
                "Lead received for Grace Okafor",
                doc! {
                    "name": "Grace Okafor", "first_name": "Grace", "last_name": "Okafor",
                    "email": "grace.okafor@example.com", "phone": "+2348021234567",
                    "address": { "city": "Lagos", "country": "NG" },
                },
            )
        },
        spec("clickfunnels", "clickfunnels"),
        Case {
            ip: "203.0.113.24",
            ..real(
                "clickfunnels",
                "clickfunnels",
                "Ada Lindqvist",
                "Lead received for Ada Lindqvist",
                doc! {
                    "name": "Ada Lindqvist", "first_name": "Ada", "last_name": "Lindqvist",
                    "email": "ada.lindqvist@example.se", "phone": "+46701234567",
                    "address": { "city": "Uppsala", "country": "Sweden" },
                },
            )
        },
        Case {
            nth: 1,
            ..real(
                "clickfunnels",
                "clickfunnels",
                "Hana Yamada",
                "Lead received for Hana Yamada",
                doc! {
                    "name": "Hana Yamada", "first_name": "Hana", "last_name": "Yamada",
                    "email": "hana.yamada@example.jp", "phone": "+819012345678",
                },
            )
        },
        spec("manychat", "manychat"),
        real(
            "manychat",
            "manychat",
            "Una Brennan",
            "Lead received for Una Brennan",
            doc! {
                "name": "Una Brennan", "first_name": "Una", "last_name": "Brennan",
                "email": "una.brennan@example.ie", "phone": "+353850123456",
            },
        ),
        Case {
            lead_data: Data::Form,
            person: {
                let mut john = john();
                john.insert("email", "john@example.com");
                john
            },
            ..Case::of("unbounce", "unbounce", Specification)
        },
        Case {
            campaign: doc! { "deal_value": 1250.5, "currency": "EUR" },
            deal_value: Bson::Double(1250.5),
            currency: "EUR",
            lead_data: Data::Form,
            ip: "198.51.100.7",
            ..real(
                "unbounce",
                "unbounce",
                "Rita Sol",
                "Lead received for Rita Sol",
                doc! {
                    "name": "Rita Sol", "first_name": "Rita", "last_name": "Sol",
                    "email": "rita.sol@example.pt", "phone": "+351912345678",
                    "address": { "country": "Portugal" },
                },
            )
        },
        spec("instapage", "instapage"),
        Case {
            lead_data: Data::Form,
            ip: "192.0.2.61",
            ..real(
                "instapage",
                "instapage",
                "Élodie Marchand",
                "Lead received for Élodie Marchand",
                doc! {
                    "name": "Élodie Marchand", "first_name": "Élodie", "last_name": "Marchand",
                    "email": "elodie.marchand@example.fr", "phone": "+33612345678",
                    "address": { "country": "France" },
                },
            )
        },
        spec("kartra", "kartra"),
        Case {
            ip: "198.51.100.3",
            ..real(
                "kartra",
                "kartra",
                "Meera Nair",
                "Lead received for Meera Nair",
                doc! {
                    "name": "Meera Nair", "first_name": "Meera", "last_name": "Nair",
                    "email": "meera.nair@example.in", "phone": "+918123456789",
                    "address": {
                        "city": "Kochi", "state_province": "Kerala", "postal_code": "682001", "country": "India",
                    },
                },
            )
        },
        Case {
            deal_name: "john",
            message: "Lead received for john@example.com",
            person: doc! { "name": "john@example.com", "email": "john@example.com", "phone": "+14155551234" },
            ..Case::of("phonesites", "phonesites", Specification)
        },
        Case {
            lead_data: Data::Json(
                r#"{"lead_id":"a81bc81b-0d4e","email":"roy.hall@example.com","phone":"(415) 555-2671",
                    "name":"Roy Hall","page":"https://offer.phonesites.example/quote","apiKey":"***",
                    "websiteName":"Quote Funnel"}"#,
            ),
            ..real(
                "phonesites",
                "phonesites",
                "Roy Hall",
                "Lead received for Roy Hall",
                doc! {
                    "name": "Roy Hall", "first_name": "Roy", "last_name": "Hall",
                    "email": "roy.hall@example.com", "phone": "+14155552671",
                },
            )
        },
        Case {
            person: {
                let mut john = john();
                john.insert("phone", "+14155551234");
                john
            },
            ..Case::of("callrail", "callrail", Specification)
        },
        real(
            "callrail",
            "callrail",
            "Claire Tremblay",
            "Lead received for Claire Tremblay",
            doc! {
                "name": "Claire Tremblay", "first_name": "Claire", "last_name": "Tremblay",
                "phone": "+15062345678",
                "address": { "city": "Moncton", "state_province": "NB", "country": "CA" },
            },
        ),
        Case {
            campaign: tracked(),
            lead_data: Data::Text,
            person: {
                let mut john = john();
                john.insert("phone", "+14155551234");
                john
            },
            ..Case::of(
                "calltrackingmetrics",
                "call_tracking_metrics",
                Specification,
            )
        },
        Case {
            campaign: tracked(),
            lead_data: Data::Text,
            ..real(
                "calltrackingmetrics",
                "call_tracking_metrics",
                "Jane Mckay",
                "Lead received for Jane Mckay",
                doc! {
                    "name": "Jane Mckay", "first_name": "Jane", "last_name": "Mckay", "phone": "+12396001971",
                    "address": {
                        "city": "Naples", "state_province": "FL", "postal_code": "34102", "country": "US",
                    },
                },
            )
        },
        Case {
            campaign: doc! { "deal_value": null, "currency": null },
            deal_value: Bson::Int32(0),
            ..spec("generic", "generic")
        },
        real(
            "generic",
            "generic",
            "Wanjiru Kamau",
            "Lead received for Wanjiru Kamau",
            doc! {
                "name": "Wanjiru Kamau", "first_name": "Wanjiru", "last_name": "Kamau",
                "email": "wanjiru.kamau@example.co.ke", "phone": "+254712123456",
                "address": { "city": "Nairobi", "country": "Kenya" },
            },
        ),
    ]
}
