//! The contact of a lead: made, or found and merged (R20, R21).

use bson::{Array, Bson, DateTime, Document, RawDocumentBuf, doc};

use super::conversation::called;
use super::plan::KnownContact;
use super::prepare::Draft;
use crate::model::{Address, Campaign, Person};
use crate::store::documents::ContactKeys;

/// What becomes of the contact.
pub(super) enum Plan {
    /// The campaign makes none (`add_to_crm` off).
    None,
    /// There is nothing to make one of.
    Impossible,
    /// Nobody by this e-mail or phone is known.
    New {
        body: RawDocumentBuf,
        keys: ContactKeys,
    },
    /// Somebody is: what is new is merged in.
    Merge {
        body: RawDocumentBuf,
        keys: ContactKeys,
    },
}

impl Plan {
    /// A new contact of which only the name is known: it belongs to the lead it comes with.
    pub(super) fn is_bound(&self) -> bool {
        matches!(self, Self::New { keys, .. } if keys.is_empty())
    }
}

pub(super) fn plan(draft: &Draft, known: Option<&KnownContact>, node: &str) -> Plan {
    let person = &draft.person;
    if !draft.campaign.add_to_crm {
        return Plan::None;
    }
    match known {
        Some(known) => merge(draft, known),
        None if person.email.is_none() && person.phone.is_none() && person.name.is_none() => {
            Plan::Impossible
        }
        None => {
            let mut body = doc! { "account_id": draft.campaign.account_id };
            body.extend(identity(draft, node));
            body.extend(data(person));
            // A contact always has a name (documents.md); a real one takes this one's place as soon as it is known.
            if person.name.is_none() {
                body.insert("name", called(person));
            }
            raw(&body).map_or(Plan::Impossible, |body| Plan::New {
                body,
                keys: keys(person),
            })
        }
    }
}

/// What identifies this person (R20): a phone only where it may.
pub(super) fn keys(person: &Person) -> ContactKeys {
    ContactKeys {
        email: person.email.as_ref().map(|email| email.to_lowercase()),
        phone: person
            .phone
            .as_ref()
            .filter(|phone| phone.identifies)
            .map(|phone| phone.number.clone()),
    }
}

/// Index keys, e-mail before phone.
pub(super) fn key_hashes(campaign: &Campaign, keys: &ContactKeys) -> Vec<[u8; 16]> {
    keys.hashes(campaign.account_id, campaign.contact_type.name())
}

fn identity(draft: &Draft, node: &str) -> Document {
    let at = DateTime::from_millis(draft.arrived_at_ms);
    let mut identity = doc! {
        "type": draft.campaign.contact_type.name(),
        "source": "inbound",
        "is_deleted": false,
        "created_at": at,
        "updated_at": at,
        "node": node,
    };
    if let Some(owner) = &draft.campaign.owner {
        identity.insert("owner", owner.clone());
    }
    identity
}

fn data(person: &Person) -> Document {
    let phone = person.phone.as_ref().map(|phone| phone.number.clone());
    let texts = [
        ("name", person.name.clone()),
        ("first_name", person.first_name.clone()),
        ("last_name", person.last_name.clone()),
        ("email", person.email.clone()),
        ("phone", phone),
    ];
    let mut data: Document = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), Bson::String(text?))))
        .collect();
    if let Some(address) = &person.address {
        data.insert("address", self::address(address));
    }
    data
}

fn address(address: &Address) -> Document {
    let parts = [
        ("street", &address.street),
        ("unit", &address.unit),
        ("city", &address.city),
        ("state_province", &address.state_province),
        ("postal_code", &address.postal_code),
        ("country", &address.country),
    ];
    parts
        .into_iter()
        .filter_map(|(name, part)| Some((name.to_owned(), Bson::String(part.clone()?))))
        .collect()
}

/// New data replaces old, but e-mail and phone stay: differing ones are kept beside, so nothing is dropped.
fn merge(draft: &Draft, known: &KnownContact) -> Plan {
    let mut body = known.body.clone();
    let mut kept = known.keys.clone();
    let found = keys(&draft.person);
    for (name, value) in data(&draft.person) {
        match name.as_str() {
            "email" => keep(&mut body, "email", "other_emails", value),
            "phone" => keep(&mut body, "phone", "other_phones", value),
            "address" => merge_address(&mut body, value),
            _ => drop(body.insert(name, value)),
        }
    }
    if kept.email.is_none() {
        kept.email = found.email;
    }
    if kept.phone.is_none() && body.get_str("phone").ok() == found.phone.as_deref() {
        kept.phone = found.phone;
    }
    if body != known.body {
        let newest = known
            .body
            .get_datetime("updated_at")
            .map_or(draft.arrived_at_ms, |at| at.timestamp_millis());
        body.insert(
            "updated_at",
            DateTime::from_millis(newest.max(draft.arrived_at_ms)),
        );
    }
    raw(&body).map_or(Plan::None, |body| Plan::Merge { body, keys: kept })
}

fn keep(body: &mut Document, field: &str, beside: &str, value: Bson) {
    let same = |one: &Bson| match (one.as_str(), value.as_str()) {
        (Some(one), Some(other)) => one.to_lowercase() == other.to_lowercase(),
        _ => false,
    };
    match body.get(field) {
        None => drop(body.insert(field, value)),
        Some(present) if same(present) => {}
        Some(_) => {
            let mut others = body
                .get_array(beside)
                .cloned()
                .unwrap_or_else(|_| Array::new());
            if !others.iter().any(same) {
                others.push(value);
            }
            body.insert(beside, others);
        }
    }
}

fn merge_address(body: &mut Document, found: Bson) {
    let mut merged = body.get_document("address").cloned().unwrap_or_default();
    if let Bson::Document(found) = found {
        merged.extend(found);
    }
    body.insert("address", merged);
}

fn raw(body: &Document) -> Option<RawDocumentBuf> {
    RawDocumentBuf::try_from(body).ok()
}
