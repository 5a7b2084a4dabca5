//! Submissions of every platform, told apart by a mark that survives into `lead_data`.
//!
//! A submission without an id cannot be recognised by its lead id, so all of them are recognised by their mark.

use bson::{Document, oid::ObjectId};
use serde_json::{Value, json};

use super::extended;
use super::graph::Graph;
use super::http::Ask;
use super::node::route;
use super::reference::{FORM, PAGE, Reference, TRACKING_NUMBER};

/// A platform's name in the URL and whether its submissions here carry an id.
pub(crate) const SHAPES: [(&str, bool); 11] = [
    ("instapage", true),
    ("unbounce", false),
    ("manychat", true),
    ("generic", false),
    ("kartra", true),
    ("clickfunnels", true),
    ("phonesites", true),
    ("callrail", true),
    ("calltrackingmetrics", true),
    ("generic", true),
    ("facebook", true),
];

const MARK_DIGITS: usize = 6;

/// One person's filling in of one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submission {
    /// Of [`SHAPES`].
    pub(crate) platform: &'static str,
    /// Whether the platform gives it an id.
    pub(crate) has_id: bool,
    /// Tells it from every other one.
    pub(crate) mark: String,
    /// As typed.
    pub(crate) email: Option<String>,
    /// In E.164.
    pub(crate) phone: Option<String>,
}

impl Submission {
    /// Submission `number` of a test, its platform going round; of a person nobody else is.
    pub(crate) fn numbered(number: usize) -> Self {
        let (platform, has_id) = SHAPES[number % SHAPES.len()];
        let mark = mark(number);
        Self {
            platform,
            has_id,
            email: Some(format!("{mark}@example.com")),
            phone: Some(phone(number)),
            mark,
        }
    }

    /// The request that brings it. A Facebook lead has to be on Graph beforehand ([`Submission::put_on`]).
    pub(crate) fn ask(&self, reference: &Reference) -> Ask {
        self.ask_for(reference, reference.campaign(self.platform))
    }

    /// As [`Submission::ask`], for a campaign that may not be there.
    pub(crate) fn ask_for(&self, reference: &Reference, campaign: ObjectId) -> Ask {
        let target = match self.platform {
            "facebook" => "/v1/inbound/webhooks/facebook".to_owned(),
            platform => route(platform, reference.account, campaign),
        };
        match self.platform {
            "unbounce" => Ask::post_form(target, &[("data.json", &self.body().to_string())]),
            _ => Ask::post_json(target, self.body()),
        }
    }

    /// Makes the lead that a Facebook notification only names.
    pub(crate) fn put_on(&self, graph: &Graph) {
        let fields = [
            ("full_name", Some("Ada Lindqvist")),
            ("email", self.email.as_deref()),
            ("phone_number", self.phone.as_deref()),
            ("note", Some(&self.mark)),
        ];
        let given: Vec<_> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        graph.lead(PAGE, &self.mark, &given);
    }

    fn body(&self) -> Value {
        let Self {
            mark, email, phone, ..
        } = self;
        match self.platform {
            "instapage" => json!({ "id": mark, "Name": NAME, "Email": email, "Phone": phone }),
            "unbounce" => {
                json!({ "name": [NAME], "email": [email], "phone_number": [phone], "note": [mark] })
            }
            "manychat" => json!({ "id": mark, "first_name": "Ada", "last_name": "Lindqvist",
                "custom_fields": { "email": email, "phone": phone } }),
            "kartra" => {
                json!({ "action": "filled_form", "action_details": { "form": { "form_id": "311" } },
                "lead": { "id": mark, "first_name": "Ada", "last_name": "Lindqvist", "email": email, "phone": phone } })
            }
            "clickfunnels" => {
                json!({ "data": { "attributes": { "id": mark, "full_name": NAME, "email": email, "phone": phone } } })
            }
            "phonesites" => {
                json!({ "lead_id": mark, "page": "Landing", "name": NAME, "email": email, "phone": phone })
            }
            "callrail" => {
                json!({ "resource_id": mark, "customer_name": NAME, "form_data": { "Email": email }, "customer_phone_number": phone })
            }
            "calltrackingmetrics" => {
                json!({ "id": mark, "tracking_number": TRACKING_NUMBER, "name": NAME,
                "email": email, "contact_number": phone })
            }
            "facebook" => {
                let value = json!({ "leadgen_id": mark, "page_id": PAGE, "form_id": FORM });
                json!({ "entry": [{ "changes": [{ "field": "leadgen", "value": value }] }] })
            }
            "generic" if self.has_id => {
                json!({ "id": mark, "name": NAME, "email": email, "phone": phone })
            }
            "generic" => json!({ "name": NAME, "email": email, "phone": phone, "note": mark }),
            other => panic!("no submission of {other}"),
        }
    }
}

const NAME: &str = "Ada Lindqvist";

/// A valid number of the country of the campaigns, another for each `number`.
pub(crate) fn phone(number: usize) -> String {
    format!("+1415{}", 2_000_000 + number)
}

/// The mark of submission `number`.
pub(crate) fn mark(number: usize) -> String {
    format!("m{number:0MARK_DIGITS$}z")
}

/// The mark of the submission that a lead document was made of.
pub(crate) fn mark_of(lead: &Document) -> String {
    let text = extended::to_json(lead)["lead_data"].to_string();
    let starts = text.match_indices('m').map(|(at, _)| at);
    let mut marks = starts.filter_map(|at| text.get(at..at + MARK_DIGITS + 2));
    let is_mark = |text: &&str| {
        text.ends_with('z')
            && text[1..=MARK_DIGITS]
                .bytes()
                .all(|byte| byte.is_ascii_digit())
    };
    let found = marks.find(is_mark);
    found
        .unwrap_or_else(|| panic!("no mark in {text}"))
        .to_owned()
}
