//! The one place that writes a plan: contact, conversation, lead, deal, keys and changes, in the caller's transaction.

use bson::oid::ObjectId;
use bson::{Document, RawDocument};
use redb::ReadableTable;

use super::plan::{
    Facts, KnownContact, KnownLead, LeadIdentity, NewLead, News, Plan, RepeatMessage, identify,
    plan,
};
use super::prepare::Draft;
use super::settle::Settling;
use super::{contact, link};
use crate::model::{Outcome, TaskKey};
use crate::store::changes::Change;
use crate::store::documents::{
    Collection, ContactKeys, LeadFacts, Links, Stored, bound_contact_id,
};
use crate::store::events::{Event, Kind};
use crate::store::{StoreError, Tables};

/// Makes the lead, or finds it made.
pub(super) fn lead(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    settling: &Settling,
) -> Result<Outcome, StoreError> {
    let identity = identify(draft);
    let facts = match gather(tables, draft, &identity, settling) {
        // Nothing is written yet: what is damaged stops this webhook, and none behind it.
        Err(error @ StoreError::Corrupt { .. }) => {
            let error = error.to_string();
            return Ok(Outcome::DeadLetter { error });
        }
        gathered => gathered?,
    };
    match plan(draft, &identity, &facts, &settling.identity.node) {
        Plan::Repeat { of, news } => {
            if let (Some(news), Some(lead)) = (news, &facts.repeated) {
                let message = write_news(tables, draft, news, &facts, lead)?;
                let happened = message.map(|row| (Kind::Message, row));
                announce(tables, draft, happened.as_slice(), settling)?;
            }
            Ok(Outcome::Duplicate { of })
        }
        Plan::New(new) => {
            let happened = write_new(tables, key, draft, &identity, &facts, *new)?;
            announce(tables, draft, &happened, settling)?;
            Ok(Outcome::Lead {
                id: identity.id.bytes(),
            })
        }
    }
}

/// Reads what the decision depends on.
fn gather(
    tables: &Tables<'_>,
    draft: &Draft,
    identity: &LeadIdentity,
    settling: &Settling,
) -> Result<Facts, StoreError> {
    let mut facts = Facts::default();
    let repeated = repeated_row(tables, draft, identity, settling)?;
    let contact = match repeated {
        Some(row) => {
            let lead = tables.document(Collection::Leads.row(row))?;
            let fields_hash = lead.lead.map_or([0; 32], |facts| facts.fields_hash);
            facts.repeated = Some(KnownLead {
                row,
                id: lead.settled_id().bytes(),
                fields_hash,
                has_contact: lead.links.contact.is_some(),
                withdrawn: lead.withdrawn,
            });
            match lead.links.contact {
                Some(contact) => Some(contact),
                None => contact_row(tables, draft)?,
            }
        }
        None => contact_row(tables, draft)?,
    };
    if let Some(row) = contact {
        facts.contact = Some(known_contact(tables, row)?);
        facts.has_conversation = tables.conversations.get(row)?.is_some();
    }
    let last_user = tables.last_users.get(&draft.campaign.id.bytes())?;
    facts.last_user = last_user.map(|user| ObjectId::from_bytes(*user.value()));
    Ok(facts)
}

fn repeated_row(
    tables: &Tables<'_>,
    draft: &Draft,
    identity: &LeadIdentity,
    settling: &Settling,
) -> Result<Option<u64>, StoreError> {
    let same_id = tables
        .keys
        .get(&identity.id.bytes())?
        .map(|row| row.value());
    let (Some(first_copy), None) = (&identity.first_copy, same_id) else {
        return Ok(same_id);
    };
    let Some(copy) = tables.first_copies.get(first_copy)? else {
        return Ok(None);
    };
    let (arrived_at_ms, row) = copy.value();
    let apart_ms = u128::from(draft.arrived_at_ms.abs_diff(arrived_at_ms));
    Ok((apart_ms <= settling.limits.dedupe_window.as_millis()).then_some(row))
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

/// Appends live events for the listeners of the campaign's owner; without an owner nobody could hear them.
fn announce(
    tables: &mut Tables<'_>,
    draft: &Draft,
    happened: &[(Kind, u64)],
    settling: &Settling,
) -> Result<(), StoreError> {
    let Some(owner) = draft.campaign.owner_text().filter(|_| settling.live_events) else {
        return Ok(());
    };
    for (kind, row) in happened {
        tables.append_event(&Event {
            owner: owner.clone(),
            kind: *kind,
            row: *row,
            at_ms: settling.now_ms,
        })?;
    }
    Ok(())
}

/// Writes a lead with all that belongs to it; what listeners may be told of it is returned, the conversation first, as
/// the specification draws it.
fn write_new(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    identity: &LeadIdentity,
    facts: &Facts,
    new: NewLead,
) -> Result<[(Kind, u64); 2], StoreError> {
    let bound = new.contact.is_bound();
    let contact = write_contact(tables, draft, new.contact, facts, identity.id)?;
    let lead = write_lead(tables, key, draft, identity, contact, &new.lead)?;
    if let (Some(contact), true) = (contact, bound) {
        link::bind(tables, contact, lead)?;
    }
    let owner = contact.unwrap_or(lead);
    let is_new_room = new.opening.is_some();
    let (conversation, room) = match new.opening {
        Some(opening) => {
            let links = Links {
                contact,
                lead: (contact.is_none() || bound).then_some(lead),
                ..Links::default()
            };
            open_conversation(tables, owner, links, &opening)?
        }
        None => conversation_of(tables, owner)?,
    };
    let links = Links {
        contact,
        lead: Some(lead),
        conversation: Some(conversation),
        room: Some(room),
    };
    let message = Stored::new([0; 12], &new.message).with_links(links);
    let message = add(tables, Collection::Messages, message)?;
    let deal = match new.deal {
        Some(deal) => {
            let links = Links {
                contact,
                lead: Some(lead),
                ..Links::default()
            };
            let deal = Stored::new([0; 12], &deal).with_links(links);
            add(tables, Collection::Deals, deal)?
        }
        None => 0,
    };
    tables.submissions.insert((owner, message), (lead, deal))?;
    if let Some(user) = new.user {
        tables
            .last_users
            .insert(&draft.campaign.id.bytes(), &user.bytes())?;
    }
    let conversation_news = if is_new_room {
        (Kind::JoinRoom, room)
    } else {
        (Kind::Message, message)
    };
    Ok([conversation_news, (Kind::LeadAdded, lead)])
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
    let mut lead = Stored::new(id, body).with_links(Links {
        contact,
        ..Links::default()
    });
    lead.lead = Some(LeadFacts {
        task: key,
        fields_hash: draft.fields_hash,
        without_id: identity.first_copy.is_some(),
        arrived_at_ms: draft.arrived_at_ms,
    });
    let row = add(tables, Collection::Leads, lead)?;
    let taken = tables.keys.insert(&id, row)?.is_some();
    assert!(!taken, "lead {} was about to be made twice", identity.id);
    if let Some(first_copy) = &identity.first_copy {
        tables
            .first_copies
            .insert(first_copy, (draft.arrived_at_ms, row))?;
    }
    Ok(row)
}

/// Writes the contact's plan; returns its row. `lead`: the `_id` of the lead it comes with.
fn write_contact(
    tables: &mut Tables<'_>,
    draft: &Draft,
    plan: contact::Plan,
    facts: &Facts,
    lead: ObjectId,
) -> Result<Option<u64>, StoreError> {
    match plan {
        contact::Plan::None | contact::Plan::Impossible => Ok(None),
        contact::Plan::New { body, keys } => {
            // Without a key nobody else's submission can be this person's: every node derives the same `_id` (R34).
            let id = if keys.is_empty() {
                bound_contact_id(lead)
            } else {
                ObjectId::new()
            };
            let mut stored = Stored::new(id.bytes(), &body);
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
    owner: u64,
    links: Links,
    opening: &super::conversation::Opening,
) -> Result<(u64, u64), StoreError> {
    let none = [0; 12];
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

/// Writes what a repetition adds; gives the row of its lead message where it has one of its own.
fn write_news(
    tables: &mut Tables<'_>,
    draft: &Draft,
    news: News,
    facts: &Facts,
    lead: &KnownLead,
) -> Result<Option<u64>, StoreError> {
    let (id, bound) = (ObjectId::from_bytes(lead.id), news.contact.is_bound());
    let contact = write_contact(tables, draft, news.contact, facts, id)?;
    if let (Some(contact), false) = (contact, lead.has_contact) {
        if bound {
            link::bind(tables, contact, lead.row)?;
        }
        link::give_contact(tables, lead.row, contact)?;
    }
    let contact = contact.or(facts.contact.as_ref().map(|known| known.row));
    match news.message {
        Some(message) => write_repeat_message(tables, message, contact, lead.row),
        None => Ok(None),
    }
}

fn write_repeat_message(
    tables: &mut Tables<'_>,
    message: RepeatMessage,
    contact: Option<u64>,
    lead: u64,
) -> Result<Option<u64>, StoreError> {
    if tables.keys.get(&message.seed)?.is_some() {
        return Ok(None);
    }
    let owner = contact.unwrap_or(lead);
    let (conversation, room) = conversation_of(tables, owner)?;
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
    tables.submissions.insert((owner, row), (0, 0))?;
    Ok(Some(row))
}

/// Stores a new document and its change.
fn add(tables: &mut Tables<'_>, collection: Collection, stored: Stored) -> Result<u64, StoreError> {
    let row = tables.add_document(collection, &stored)?;
    tables.append_change(row, Change::First)?;
    Ok(row.number)
}
