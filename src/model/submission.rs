//! What an adapter reads out of a webhook.

use serde_json::Value;

use super::Reason;

/// What a webhook turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// One submission for the campaign named in the URL.
    Submission(Box<Submission>),
    /// Nothing to make a lead of; recorded with its reason (R8).
    Ignored(Reason),
    /// A batch whose parts are jobs of their own (Facebook, R5). Positions are the parts' names: they never change.
    Changes(Vec<LeadChange>),
}

/// One change of a Facebook batch: either a lead to fetch, or a recorded reason why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadChange {
    /// A new lead that has to be read from the Graph API.
    Leadgen {
        /// `value.leadgen_id`, exact text.
        leadgen_id: LeadId,
        /// `value.page_id`, exact text.
        page_id: String,
        /// `value.form_id`, exact text.
        form_id: String,
    },
    /// Not a lead: another field, a test, or a change that cannot be read.
    Ignored(Reason),
}

/// One person's submission to one campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The platform's id (R11); `None` where there is no usable one (R10).
    pub lead_id: Option<LeadId>,
    /// Whether the id names the submission or the person behind it (R9).
    pub names: Names,
    /// What field extraction may read: an object without the advertiser's own data (R15).
    pub fields: Value,
    /// The whole payload as received, secrets masked: the document's `lead_data` (R19).
    pub payload: Value,
    /// `lead_data` is stored as a JSON string instead of a document (CallTrackingMetrics).
    pub payload_as_text: bool,
    /// The number that was called, where it has to match the campaign's (CallTrackingMetrics, R12).
    pub tracking_number: Option<String>,
    /// A calling code sent beside the phone (Kartra, R17), as received: `+1`, `44`.
    pub phone_country_code: Option<String>,
    /// The submitter's address as the payload tells it (R23).
    pub ip: Option<String>,
}

/// What a lead id identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// One form submission or call: a second one with this id is a resend.
    Submission,
    /// A person (ManyChat subscriber, Kartra lead, ClickFunnels 2.0 contact): a second one may say something new.
    Person,
}

/// A platform's id for a lead: trimmed text that is really an id (R11).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeadId(String);

impl LeadId {
    /// Reads an id from JSON text or number. Missing, null, blank, booleans, objects, arrays, zero and unfilled
    /// template text are no ids (R11). Numbers keep their exact digits.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Reads an id from text, by the same rules as [`LeadId::read`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let unfilled = text.contains("{{") || text.contains("}}");
        (!text.is_empty() && text != "0" && !unfilled).then(|| Self(text.to_owned()))
    }

    /// The id's text, never empty.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
