//! Of whom a contact, a lead or a webhook is, among the people who are to be erased.
//!
//! A webhook is read as the pipeline reads it, but every address in it counts, not only the best one. What no adapter
//! can make a lead of is looked through all the same: it may be what a person sent that nobody could read.
//!
//! Must not know: where any of it is stored, and what becomes of it.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, RawDocument};
use serde_json::Value;

use crate::fields::{self, Context};
use crate::model::erasure::{PersonKey, email_key, phone_key};
use crate::model::{Campaign, ContactType, Erasure, Method, Reading, Submission, Webhook};
use crate::pipeline::readings::Opened;
use crate::pipeline::taken::{Taken, taken_by};
use crate::platforms::{self, body, facebook};
use crate::store::documents::Stored;
use crate::store::erasures::keys_of_contact;
use crate::store::reference::Reference;

/// Erasures by their places in a list: several may be of the same person.
pub(super) type Places = BTreeSet<usize>;

/// Recognises the people of some erasures.
pub(super) struct Recogniser<'a> {
    erasures: &'a [Erasure],
    by_key: HashMap<PersonKey, Vec<usize>>,
    /// Their contacts, by account and by what the pipeline would find them by (R20).
    contacts: HashMap<([u8; 12], PersonKey), Places>,
    reference: Arc<Reference>,
}

/// A webhook of somebody's.
pub(super) struct Recognised {
    /// Whose.
    pub(super) places: Places,
    /// It gives none of the addresses that were asked for, but one by which the pipeline would take it for a contact
    /// of theirs: if nothing has been made of it, it is theirs.
    pub(super) is_by_contact: bool,
    /// The derived keys it takes, where a lead may be made of it.
    pub(super) taken: Option<Taken>,
}

impl<'a> Recogniser<'a> {
    pub(super) fn new(erasures: &'a [Erasure], reference: Arc<Reference>) -> Self {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for (place, erasure) in erasures.iter().enumerate() {
            for key in &erasure.keys {
                by_key.entry(*key).or_default().push(place);
            }
        }
        Self {
            erasures,
            by_key,
            contacts: HashMap::new(),
            reference,
        }
    }

    /// Remembers whose a contact is.
    pub(super) fn remember(&mut self, contact: &Stored, places: &Places) {
        for key in found_by(contact) {
            self.contacts.entry(key).or_default().extend(places);
        }
    }

    /// What this contact is found by is not theirs alone.
    pub(super) fn forget(&mut self, contact: &Stored) {
        for key in found_by(contact) {
            self.contacts.remove(&key);
        }
    }

    /// Whose a contact is, by what it is found by and by what is kept beside it.
    pub(super) fn contact(&self, contact: &Stored) -> Places {
        let (Ok(body), Ok(keys)) = (contact.body(), keys_of_contact(contact)) else {
            return Places::new();
        };
        self.known_by(keys, body.get_object_id("account_id").ok())
    }

    /// Whose a lead is, by what was sent.
    pub(super) fn lead(&self, lead: &Stored) -> Places {
        let said = |body: &RawDocument| Bson::try_from(body.get("lead_data").ok()??).ok();
        lead.body()
            .map_or_else(|_| Places::new(), |body| self.sent(body, said(body)))
    }

    /// Whose a lead is, by what was sent again under its id (R9): the payload of a message of its own.
    pub(super) fn repetition(&self, lead: &Stored, payload: &[u8]) -> Places {
        let said = || {
            let payload = RawDocument::from_bytes(payload).ok()?;
            Bson::try_from(payload.get("webhook_response").ok()??).ok()
        };
        lead.body()
            .map_or_else(|_| Places::new(), |body| self.sent(body, said()))
    }

    /// Whose a payload is that was sent for a lead.
    fn sent(&self, lead: &RawDocument, payload: Option<Bson>) -> Places {
        let campaign = lead.get_object_id("campaign_id").ok();
        let campaign = campaign.and_then(|id| self.reference.campaign_by_id(id));
        guarded(|| {
            let submission = submission_of(lead.get_str("integration").ok()?, payload?)?;
            let keys = keys_of(&submission, campaign.map(AsRef::as_ref));
            Some(self.known_by(keys, lead.get_object_id("account_id").ok()))
        })
    }

    /// Whose a webhook is, with what a resend of it is to be recognised by.
    pub(super) fn webhook(&self, seq: u64, webhook: Webhook) -> Option<Recognised> {
        if webhook.is_erased() {
            return None;
        }
        let account = object_id(webhook.account.as_deref());
        let place = account.zip(object_id(webhook.campaign.as_deref()));
        let campaign = place
            .and_then(|(account, campaign)| self.reference.campaign(account, campaign))
            .map(AsRef::as_ref);
        let (raw, arrived_at_ms) = (webhook.clone(), webhook.arrived_at_ms);
        let reading = Opened::read(seq, webhook).map(|opened| opened.reading);
        let mut is_by_contact = false;
        let (places, taken) = match reading {
            Ok(Reading::Submission(submission)) => {
                let keys = || Some(self.known_by(keys_of(&submission, campaign), account));
                let taken = || place.map(|place| taken_by(place, &submission, arrived_at_ms));
                let mut places = guarded(keys);
                if places.is_empty() {
                    places = guarded(|| self.contact_of(&submission, campaign, account?));
                    is_by_contact = true;
                }
                let taken = if places.is_empty() { None } else { taken() };
                (places, taken)
            }
            // A notification of Facebook's says nothing of anybody: the lead does that is made of it.
            Ok(Reading::Changes(_)) => return None,
            Ok(Reading::Ignored(_)) | Err(_) => {
                let keys = || keys_in(&unread(&raw), campaign, None);
                (guarded(|| Some(self.known_by(keys(), account))), None)
            }
        };
        (!places.is_empty()).then_some(Recognised {
            places,
            is_by_contact,
            taken,
        })
    }

    /// Whose contact the pipeline would take the sender for: by e-mail, else by phone (R20).
    fn contact_of(
        &self,
        submission: &Submission,
        campaign: Option<&Campaign>,
        account: ObjectId,
    ) -> Option<Places> {
        if self.contacts.is_empty() {
            return None;
        }
        let calling_code = submission.phone_country_code.as_deref();
        let person = fields::extract(&submission.fields, &context(campaign, calling_code));
        let phone = person.phone.filter(|phone| phone.identifies);
        let key = match (person.email, phone) {
            (Some(email), _) => email_key(&email),
            (None, Some(phone)) => phone_key(&phone.number),
            (None, None) => return None,
        };
        self.contacts.get(&(account.bytes(), key)).cloned()
    }

    fn known_by(
        &self,
        keys: impl IntoIterator<Item = PersonKey>,
        account: Option<ObjectId>,
    ) -> Places {
        let places = keys.into_iter().filter_map(|key| self.by_key.get(&key));
        let places = places.flatten().copied();
        let concerned = |place: &usize| self.erasures[*place].concerns_account(account);
        places.filter(concerned).collect()
    }
}

/// The account of a contact with each address that the pipeline finds it by.
fn found_by(contact: &Stored) -> impl Iterator<Item = ([u8; 12], PersonKey)> {
    let account = contact.body().ok();
    let account = account.and_then(|body| body.get_object_id("account_id").ok());
    let keys = contact.contact.clone().unwrap_or_default();
    let email = keys.email.as_deref().map(email_key);
    let phone = keys.phone.as_deref().map(phone_key);
    let keys = email.into_iter().chain(phone);
    keys.filter_map(move |key| Some((account?.bytes(), key)))
}

fn keys_of(submission: &Submission, campaign: Option<&Campaign>) -> Vec<PersonKey> {
    let calling_code = submission.phone_country_code.as_deref();
    keys_in(&submission.fields, campaign, calling_code)
}

fn keys_in(
    fields: &Value,
    campaign: Option<&Campaign>,
    calling_code: Option<&str>,
) -> Vec<PersonKey> {
    fields::reach(fields, &context(campaign, calling_code)).keys()
}

fn context<'a>(campaign: Option<&'a Campaign>, calling_code: Option<&'a str>) -> Context<'a> {
    Context {
        contact_type: campaign.map_or(ContactType::Person, |campaign| campaign.contact_type),
        campaign_country: campaign.and_then(|campaign| campaign.country.as_deref()),
        phone_country_code: calling_code,
    }
}

/// Foreign text is read here: should that panic, it is nobody's, and the erasure goes on.
fn guarded(look: impl FnOnce() -> Option<Places>) -> Places {
    let looked = catch_unwind(AssertUnwindSafe(look));
    if looked.is_err() {
        tracing::error!("a payload could not be looked through: a panic");
    }
    looked.ok().flatten().unwrap_or_default()
}

/// What a payload says that was kept with a lead, read once more by its platform's adapter.
fn submission_of(integration: &str, payload: Bson) -> Option<Submission> {
    let payload = match payload {
        Bson::String(text) => serde_json::from_str(&text).ok()?,
        payload => payload.into_relaxed_extjson(),
    };
    if integration == facebook::ADAPTER.integration {
        return Some(facebook::submission(&payload));
    }
    let mut adapters = platforms::ALL.iter();
    let adapter = adapters.find(|adapter| adapter.integration == integration)?;
    match (adapter.read)(&posted(adapter.slug, &payload)) {
        Reading::Submission(submission) => Some(*submission),
        _ => None,
    }
}

/// A payload as if it had just been posted as JSON.
fn posted(platform: &str, payload: &Value) -> Webhook {
    Webhook {
        platform: platform.to_owned(),
        method: Method::Post,
        content_type: Some("application/json".to_owned()),
        body: payload.to_string().into_bytes(),
        ..Webhook::erased(0)
    }
}

/// What can be made out in a webhook that says nothing an adapter understands: its fields, else its words.
fn unread(webhook: &Webhook) -> Value {
    body::decode(webhook).unwrap_or_else(|| {
        let text = [webhook.query.as_bytes(), &webhook.body].join(&b' ');
        let text: Vec<u8> = percent_encoding::percent_decode(&text).collect();
        let text = String::from_utf8_lossy(&text);
        let words = text.split(|c: char| c.is_whitespace() || "<>\"'&=,;".contains(c));
        words.map(Value::from).collect()
    })
}

fn object_id(text: Option<&str>) -> Option<ObjectId> {
    ObjectId::parse_str(text?.trim()).ok()
}
