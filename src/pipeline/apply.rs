//! The one place that writes a plan: contact, conversation, lead, deal, keys and changes, in the caller's transaction.

use bson::oid::ObjectId;
use bson::{Document, RawDocument};
use redb::ReadableTable;

use super::contact;
use super::plan::{
    Facts, KnownContact, KnownLead, LeadIdentity, NewLead, News, Plan, RepeatMessage, identify,
    identify_as_of, plan,
};
use super::prepare::Draft;
use super::settle::Settling;
use crate::model::{Outcome, TaskKey};
use crate::store::changes::Change;
use crate::store::documents::{Adopted, Collection, ContactKeys, LeadFacts, Links, Stored};
use crate::store::{StoreError, Tables};

/// Makes the lead, or finds it made.
pub(super) fn lead(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    settling: &Settling,
) -> Result<Outcome, StoreError> {
    let identity = identify(draft);
    let (repeated, facts) = match gather(tables, draft, &identity, settling) {
        // Nothing is written yet: what is damaged stops this webhook, and none behind it.
        Err(error @ StoreError::Corrupt { .. }) => {
            let error = error.to_string();
            return Ok(Outcome::DeadLetter { error });
        }
        gathered => gathered?,
    };
    let identity = match &repeated {
        Some(repeated) => repeated.identity.clone(),
        None => identity,
    };
    match plan(draft, &identity, &facts, &settling.identity.node) {
        Plan::Repeat { of, news } => {
            if let (Some(news), Some(repeated)) = (news, repeated) {
                write_news(tables, key, draft, *news, &facts, &repeated)?;
            }
            Ok(Outcome::Duplicate { of })
        }
        Plan::New(new) => {
            write_new(tables, key, draft, &identity, &facts, *new)?;
            Ok(Outcome::Lead {
                id: identity.id.bytes(),
            })
        }
    }
}

/// The lead that a draft repeats.
struct Repeated {
    /// Where it is, or was before it was removed (R41).
    row: u64,
    identity: LeadIdentity,
}

/// Reads what the decision depends on; also the lead that is repeated.
fn gather(
    tables: &Tables<'_>,
    draft: &Draft,
    identity: &LeadIdentity,
    settling: &Settling,
) -> Result<(Option<Repeated>, Facts), StoreError> {
    let mut facts = Facts::default();
    let repeated = repeated(tables, draft, identity, settling)?;
    let kept = match &repeated {
        Some(repeated) => tables.kept_lead(repeated.row)?,
        None => None,
    };
    let contact = match (&repeated, &kept) {
        (Some(_), Some(lead)) => lead.links.contact,
        _ => contact_row(tables, draft)?,
    };
    if let Some(repeated) = &repeated {
        facts.repeated = Some(known_lead(tables, repeated, kept)?);
    }
    if let Some(row) = contact {
        facts.contact = Some(known_contact(tables, row)?);
        facts.has_conversation = tables.conversations.get(row)?.is_some();
    }
    let last_user = tables.last_users.get(&draft.campaign.id.bytes())?;
    facts.last_user = last_user.map(|user| ObjectId::from_bytes(*user.value()));
    Ok((repeated, facts))
}

fn known_lead(
    tables: &Tables<'_>,
    repeated: &Repeated,
    kept: Option<Stored>,
) -> Result<KnownLead, StoreError> {
    Ok(match kept {
        Some(lead) => KnownLead {
            id: lead.settled_id().bytes(),
            fields_hash: Some(lead.lead.map_or([0; 32], |facts| facts.fields_hash)),
        },
        None => KnownLead {
            id: tables.departed_id(repeated.identity.id.bytes())?,
            fields_hash: None,
        },
    })
}

fn repeated(
    tables: &Tables<'_>,
    draft: &Draft,
    identity: &LeadIdentity,
    settling: &Settling,
) -> Result<Option<Repeated>, StoreError> {
    let same_id = tables.keys.get(&identity.id.bytes())?;
    if let Some(row) = same_id {
        return Ok(Some(Repeated {
            row: row.value(),
            identity: identity.clone(),
        }));
    }
    let Some(first_copy) = &identity.first_copy else {
        return Ok(None);
    };
    let Some(copy) = tables.first_copies.get(first_copy)? else {
        return Ok(None);
    };
    let (arrived_at_ms, row) = copy.value();
    let apart_ms = u128::from(draft.arrived_at_ms.abs_diff(arrived_at_ms));
    if apart_ms > settling.limits.dedupe_window.as_millis() {
        return Ok(None);
    }
    let identity = identify_as_of(draft, arrived_at_ms);
    // A lead that was remembered anew has another row than at first.
    let newest = tables.keys.get(&identity.id.bytes())?;
    Ok(Some(Repeated {
        row: newest.map_or(row, |row| row.value()),
        identity,
    }))
}

/// By e-mail, else by phone (R20).
fn contact_row(tables: &Tables<'_>, draft: &Draft) -> Result<Option<u64>, StoreError> {
    if !draft.campaign.add_to_crm {
        return Ok(None);
    }
    let keys = contact::keys(&draft.person);
    for hash in contact::key_hashes(&draft.campaign, &keys) {
        if let Some(row) = tables.contact_keys.get(&hash)? {
            return Ok(Some(row.value()));
        }
    }
    Ok(None)
}

fn known_contact(tables: &Tables<'_>, row: u64) -> Result<KnownContact, StoreError> {
    let stored = tables.document(Collection::Contacts.row(row))?;
    let body = Document::try_from(stored.body()?)
        .map_err(|_| StoreError::Corrupt { table: "documents" })?;
    Ok(KnownContact {
        row,
        body,
        keys: stored.contact.unwrap_or_default(),
    })
}

fn write_new(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    identity: &LeadIdentity,
    facts: &Facts,
    new: NewLead,
) -> Result<(), StoreError> {
    let contact = write_contact(tables, draft, new.contact, facts)?;
    let lead = write_lead(tables, key, draft, identity, contact, &new.lead)?;
    let owner = contact.unwrap_or(lead);
    let (conversation, room) = match new.opening {
        Some(opening) => open_conversation(tables, contact, lead, owner, &opening)?,
        None => conversation_of(tables, owner)?,
    };
    let links = Links {
        contact,
        lead: Some(lead),
        conversation: Some(conversation),
        room: Some(room),
    };
    let message = add(
        tables,
        Collection::Messages,
        Stored::new([0; 12], &new.message).with_links(links),
    )?;
    let deal = match new.deal {
        Some(deal) => add_deal(tables, contact, lead, &deal)?,
        None => 0,
    };
    tables.families.insert((owner, lead), (message, deal))?;
    if let Some(user) = new.user {
        tables
            .last_users
            .insert(&draft.campaign.id.bytes(), &user.bytes())?;
    }
    Ok(())
}

fn add_deal(
    tables: &mut Tables<'_>,
    contact: Option<u64>,
    lead: u64,
    body: &RawDocument,
) -> Result<u64, StoreError> {
    let links = Links {
        contact,
        lead: Some(lead),
        ..Links::default()
    };
    let deal = Stored::new([0; 12], body).with_links(links);
    add(tables, Collection::Deals, deal)
}

fn write_lead(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    identity: &LeadIdentity,
    contact: Option<u64>,
    body: &RawDocument,
) -> Result<u64, StoreError> {
    let id = identity.id.bytes();
    let row = add(
        tables,
        Collection::Leads,
        lead_at_rest(key, draft, identity, contact, body),
    )?;
    let taken = tables.keys.insert(&id, row)?.is_some();
    assert!(!taken, "lead {} was about to be made twice", identity.id);
    if let Some(first_copy) = &identity.first_copy {
        tables
            .first_copies
            .insert(first_copy, (draft.arrived_at_ms, row))?;
    }
    Ok(row)
}

fn lead_at_rest(
    key: TaskKey,
    draft: &Draft,
    identity: &LeadIdentity,
    contact: Option<u64>,
    body: &RawDocument,
) -> Stored {
    let mut lead = Stored::new(identity.id.bytes(), body).with_links(Links {
        contact,
        ..Links::default()
    });
    lead.lead = Some(LeadFacts {
        task: key,
        fields_hash: draft.fields_hash,
        without_id: identity.first_copy.is_some(),
        arrived_at_ms: draft.arrived_at_ms,
    });
    lead
}

/// Writes the contact's plan; returns its row.
fn write_contact(
    tables: &mut Tables<'_>,
    draft: &Draft,
    plan: contact::Plan,
    facts: &Facts,
) -> Result<Option<u64>, StoreError> {
    match plan {
        contact::Plan::None | contact::Plan::Impossible => Ok(None),
        contact::Plan::New { body, keys } => {
            let mut stored = Stored::new(ObjectId::new().bytes(), &body);
            stored.contact = Some(keys.clone());
            let row = add(tables, Collection::Contacts, stored)?;
            index_contact(tables, draft, &keys, row)?;
            Ok(Some(row))
        }
        contact::Plan::Merge { body, keys } => {
            let Some(known) = &facts.contact else {
                return Ok(None);
            };
            merge_contact(tables, known.row, &body, keys.clone())?;
            index_contact(tables, draft, &keys, known.row)?;
            Ok(Some(known.row))
        }
    }
}

/// The change log gets the contact as it was, so that the push can tell a person's edit from our own value (R30).
fn merge_contact(
    tables: &mut Tables<'_>,
    number: u64,
    body: &RawDocument,
    keys: ContactKeys,
) -> Result<(), StoreError> {
    let row = Collection::Contacts.row(number);
    let mut stored = tables.document(row)?;
    let before = std::mem::replace(&mut stored.body, body.as_bytes().to_vec());
    stored.contact = Some(keys);
    tables.put_document(row, &stored)?;
    tables.append_change(row, Change::Again { before: &before })
}

/// The oldest contact keeps a key (R20).
fn index_contact(
    tables: &mut Tables<'_>,
    draft: &Draft,
    keys: &ContactKeys,
    row: u64,
) -> Result<(), StoreError> {
    for hash in contact::key_hashes(&draft.campaign, keys) {
        if tables.contact_keys.get(&hash)?.is_none() {
            tables.contact_keys.insert(&hash, row)?;
        }
    }
    Ok(())
}

fn open_conversation(
    tables: &mut Tables<'_>,
    contact: Option<u64>,
    lead: u64,
    owner: u64,
    opening: &super::conversation::Opening,
) -> Result<(u64, u64), StoreError> {
    let none = [0; 12];
    let links = Links {
        contact,
        lead: contact.is_none().then_some(lead),
        ..Links::default()
    };
    let conversation = add(
        tables,
        Collection::Conversations,
        Stored::new(none, &opening.conversation).with_links(links),
    )?;
    let links = Links {
        conversation: Some(conversation),
        ..Links::default()
    };
    let room = add(
        tables,
        Collection::Rooms,
        Stored::new(none, &opening.room).with_links(links),
    )?;
    let links = Links {
        room: Some(room),
        ..links
    };
    let message = add(
        tables,
        Collection::Messages,
        Stored::new(none, &opening.message).with_links(links),
    )?;
    tables
        .conversations
        .insert(owner, (conversation, room, message))?;
    Ok((conversation, room))
}

fn conversation_of(tables: &Tables<'_>, owner: u64) -> Result<(u64, u64), StoreError> {
    let rows = tables
        .conversations
        .get(owner)?
        .ok_or(StoreError::Corrupt {
            table: "conversations",
        })?;
    let (conversation, room, _) = rows.value();
    Ok((conversation, room))
}

fn write_news(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    news: News,
    facts: &Facts,
    repeated: &Repeated,
) -> Result<(), StoreError> {
    let known = facts.contact.as_ref().map(|known| known.row);
    let contact = write_contact(tables, draft, news.contact, facts)?.or(known);
    let lead = match news.remembered {
        Some(remembered) => {
            let id = facts.repeated.as_ref().map(|known| known.id);
            let stored = lead_at_rest(key, draft, &repeated.identity, contact, &remembered.lead);
            let lead = remember(tables, stored, id, contact)?;
            if let Some(opening) = remembered.opening {
                open_conversation(tables, contact, lead, contact.unwrap_or(lead), &opening)?;
            }
            lead
        }
        None => repeated.row,
    };
    match news.message {
        Some(message) => write_repeat_message(tables, message, contact, lead),
        None => Ok(()),
    }
}

/// A lead that is upstream and no longer kept here is kept again, without a change to push: what is new refers to it.
fn remember(
    tables: &mut Tables<'_>,
    mut lead: Stored,
    upstream: Option<[u8; 12]>,
    contact: Option<u64>,
) -> Result<u64, StoreError> {
    lead.adopted = upstream.map(|id| Adopted { id, seen: true });
    let row = tables.add_document(Collection::Leads, &lead)?.number;
    tables.keys.insert(&lead.own_id, row)?;
    tables
        .families
        .insert((contact.unwrap_or(row), row), (0, 0))?;
    Ok(row)
}

fn write_repeat_message(
    tables: &mut Tables<'_>,
    message: RepeatMessage,
    contact: Option<u64>,
    lead: u64,
) -> Result<(), StoreError> {
    if tables.keys.get(&message.seed)?.is_some() {
        return Ok(());
    }
    let (conversation, room) = conversation_of(tables, contact.unwrap_or(lead))?;
    let links = Links {
        contact,
        lead: Some(lead),
        conversation: Some(conversation),
        room: Some(room),
    };
    let mut stored = Stored::new(message.seed, &message.body).with_links(links);
    stored.payload = Some(message.payload.into_bytes());
    let row = add(tables, Collection::Messages, stored)?;
    tables.keys.insert(&message.seed, row)?;
    tables.repeats.insert((lead, row), ())?;
    Ok(())
}

/// Stores a new document and its change.
fn add(tables: &mut Tables<'_>, collection: Collection, stored: Stored) -> Result<u64, StoreError> {
    let row = tables.add_document(collection, &stored)?;
    tables.append_change(row, Change::First)?;
    Ok(row.number)
}
