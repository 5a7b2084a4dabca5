//! What has to be asked upstream before a document is pushed: is it there, as whose, and may its keys be claimed?

use bson::oid::ObjectId;
use bson::{Bson, RawDocument, doc};
use inlet_sync::ports::{Claim, Known, Lookup, Pending, Row, Unsettled};

use super::{DAMAGED, Lacking};
use crate::model::identity::derived_hash;
use crate::store::documents::{Collection, ContactKeys, Stored};
use crate::store::{Snapshot, StoreError};

pub(super) struct Settle {
    pub(super) snapshot: Snapshot,
    pub(super) window_ms: i64,
}

impl Settle {
    pub(super) fn lacking(&self, pending: &[Pending]) -> Result<Lacking, StoreError> {
        let rows = pending.iter().map(|pending| pending.row);
        let contacts = rows.filter(|row| Collection::of(*row) == Collection::Contacts);
        contacts
            .filter_map(|row| intact(self.lacks_keys(row)).map(|keys| Ok((row, keys?))))
            .collect()
    }

    fn lacks_keys(&self, row: Row) -> Result<Vec<&'static str>, StoreError> {
        lacks(&self.snapshot.document(row)?, &KEY_FIELDS)
    }

    pub(super) fn unsettled(&self, pending: &Pending) -> Result<Option<Unsettled>, StoreError> {
        intact(self.identity_of(pending)).unwrap_or(Ok(None))
    }

    fn identity_of(&self, pending: &Pending) -> Result<Option<Unsettled>, StoreError> {
        let row = pending.row;
        let stored = self.snapshot.document(row)?;
        if stored.withdrawn {
            return Ok(None);
        }
        match Collection::of(row) {
            Collection::Contacts if self.is_the_leads(pending, &stored)? => self.lead_of(&stored),
            Collection::Contacts => self.contact(pending, &stored).map(Some),
            Collection::Leads if self.snapshot.owed(pending)?.first => self.lead(row, &stored),
            Collection::Conversations | Collection::Rooms => self.of_adopted(row, &stored),
            _ => Ok(None),
        }
    }

    /// Whether a contact's `_id` is its lead's to say: it has neither e-mail nor phone, came with the lead (a later one
    /// may find it pushed), and nothing was tried yet.
    fn is_the_leads(&self, pending: &Pending, stored: &Stored) -> Result<bool, StoreError> {
        let came_with_it = |lead| pending.row.number < lead;
        Ok(stored.bound_lead().is_some_and(came_with_it)
            && stored.adopted.is_none()
            && self.snapshot.owed(pending)?.first
            && self.snapshot.held(pending.row)?.is_none())
    }

    /// The lead is asked about in the contact's place, ahead of its own turn.
    fn lead_of(&self, contact: &Stored) -> Result<Option<Unsettled>, StoreError> {
        let row = Collection::Leads.row(contact.bound_lead().ok_or(DAMAGED)?);
        let lead = self.snapshot.document(row)?;
        if lead.withdrawn {
            return Ok(None);
        }
        self.lead(row, &lead)
    }

    /// Found by e-mail, else by phone, else claimed (R20, R31).
    fn contact(&self, pending: &Pending, stored: &Stored) -> Result<Unsettled, StoreError> {
        let body = stored.body()?;
        let account = body.get_object_id("account_id").map_err(|_| DAMAGED)?;
        let kind = body.get_str("type").map_err(|_| DAMAGED)?;
        let alive = doc! { "is_deleted": { "$ne": true } };
        let filter = doc! { "account_id": account, "type": kind, "is_deleted": { "$ne": true } };
        let at_ms = body
            .get_datetime("created_at")
            .map_or(0, bson::DateTime::timestamp_millis);
        let keys = stored.contact.clone().unwrap_or_default();
        let lookup = |field, value: &String| Lookup {
            filter: filter.clone(),
            field,
            value: Bson::String(value.clone()),
            ignore_case: field == "email",
        };
        let owed = self.snapshot.owed(pending)?;
        let was_pushed = stored.adopted.is_some() || !owed.first;
        let gained = gained(&keys, owed.before());
        Ok(Unsettled {
            row: pending.row,
            own_id: stored.settled_id(),
            known: was_pushed
                .then(|| Known {
                    id: stored.settled_id(),
                    alive,
                    gained,
                })
                .filter(|_| stored.adopted.is_none_or(|adopted| adopted.seen)),
            lookups: key_list(&keys)
                .map(|(field, value)| lookup(field, value))
                .collect(),
            claims: key_list(&keys)
                .map(|(field, value)| Claim {
                    key: claim_key(field, account, kind, value),
                    window_ms: None,
                    at_ms,
                })
                .collect(),
        })
    }

    /// A lead with an id may have been written by the cloud service under another `_id`; one without an id by another
    /// node within the window (R10, R31). Of somebody who came back after an erasure nothing is asked: by that id the
    /// erased lead is found, which may be there until somebody removes it, and the new one would be taken for it (R38).
    fn lead(&self, row: Row, stored: &Stored) -> Result<Option<Unsettled>, StoreError> {
        let body = stored.body()?;
        let id = |name| body.get_object_id(name).map_err(|_| DAMAGED);
        let (account, campaign) = (id("account_id")?, id("campaign_id")?);
        let lead_id = body.get_str("lead_id").map_err(|_| DAMAGED)?;
        let facts = stored.lead.ok_or(DAMAGED)?;
        if facts.is_return {
            return Ok(None);
        }
        let lookup = Lookup {
            filter: doc! { "account_id": account, "campaign_id": campaign },
            field: "lead_id",
            value: Bson::String(lead_id.to_owned()),
            ignore_case: false,
        };
        let claim = facts.without_id.then(|| Claim {
            key: hex::encode(derived_hash(
                "claim.lead",
                &[&account.bytes(), &campaign.bytes(), &facts.fields_hash],
            )),
            window_ms: Some(self.window_ms),
            at_ms: facts.arrived_at_ms,
        });
        Ok(Some(Unsettled {
            row,
            own_id: stored.settled_id(),
            known: None,
            lookups: vec![lookup],
            claims: claim.into_iter().collect(),
        }))
    }

    /// The conversation and the room of a contact that others know may exist already (R31).
    fn of_adopted(&self, row: Row, stored: &Stored) -> Result<Option<Unsettled>, StoreError> {
        let links = stored.links;
        let (parent, filter, field) = match Collection::of(row) {
            Collection::Conversations => {
                let account = stored
                    .body()?
                    .get_object_id("account_id")
                    .map_err(|_| DAMAGED)?;
                let parent = links.contact.map(|number| Collection::Contacts.row(number));
                (
                    parent,
                    doc! { "account_id": account, "origin": "inbound" },
                    "contact_id",
                )
            }
            _ => {
                let parent = links
                    .conversation
                    .map(|number| Collection::Conversations.row(number));
                (parent, doc! { "room_type": "inbound" }, "conversation_id")
            }
        };
        let Some(parent) = parent else {
            return Ok(None);
        };
        let parent = self.snapshot.document(parent)?;
        if stored.adopted.is_some() || parent.adopted.is_none() {
            return Ok(None);
        }
        let value = Bson::ObjectId(parent.settled_id());
        let own_id = self.snapshot.upstream_id(row, stored)?;
        let lookups = vec![Lookup {
            filter,
            field,
            value,
            ignore_case: false,
        }];
        Ok(Some(Unsettled {
            row,
            own_id,
            known: None,
            lookups,
            claims: Vec::new(),
        }))
    }
}

/// What may identify a contact, the strongest first.
const KEY_FIELDS: [&str; 2] = ["email", "phone"];

/// Those of `fields` that a contact has not.
pub(super) fn lacks(
    contact: &Stored,
    fields: &[&'static str],
) -> Result<Vec<&'static str>, StoreError> {
    let body = contact.body()?;
    let absent = |field: &&&'static str| body.get_str(field).is_err();
    Ok(fields.iter().filter(absent).copied().collect())
}

/// How many of its keys, the strongest, a contact had not as it was last pushed.
fn gained(keys: &ContactKeys, before: Option<&[u8]>) -> usize {
    let before = before.and_then(|bytes| RawDocument::from_bytes(bytes).ok());
    let had = |field| before.is_some_and(|before| before.get_str(field).is_ok());
    key_list(keys).take_while(|(field, _)| !had(*field)).count()
}

/// The keys of a contact in order of precedence.
fn key_list(keys: &ContactKeys) -> impl Iterator<Item = (&'static str, &String)> {
    let email = keys.email.as_ref().map(|value| ("email", value));
    let phone = keys.phone.as_ref().map(|value| ("phone", value));
    email.into_iter().chain(phone)
}

/// A hash: `inlet.claims` holds no personal data (R35).
fn claim_key(field: &str, account: ObjectId, kind: &str, value: &str) -> String {
    hex::encode(claim_hash(field, account, kind, value))
}

fn claim_hash(field: &str, account: ObjectId, kind: &str, value: &str) -> [u8; 32] {
    let tag = format!("claim.contact.{field}");
    derived_hash(&tag, &[&account.bytes(), kind.as_bytes(), value.as_bytes()])
}

/// The keys, before they are written as text, of all claims that a contact may have made.
pub(in crate::store) fn claims_of(contact: &Stored) -> Result<Vec<[u8; 32]>, StoreError> {
    let body = contact.body()?;
    let account = body.get_object_id("account_id").map_err(|_| DAMAGED)?;
    let kind = body.get_str("type").map_err(|_| DAMAGED)?;
    let keys = contact.contact.clone().unwrap_or_default();
    let claims = key_list(&keys).map(|(field, value)| claim_hash(field, account, kind, value));
    Ok(claims.collect())
}

/// Nothing of a damaged document: rendering it tells.
fn intact<T>(read: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
    match read {
        Err(StoreError::Corrupt { .. }) => None,
        read => Some(read),
    }
}
