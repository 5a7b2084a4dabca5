//! The one place that writes a plan: contact, conversation, lead, deal, keys and changes, in the caller's transaction.

use bson::oid::ObjectId;
use bson::{Document, RawDocument};
use redb::ReadableTable;

use super::plan::{
    Facts, KnownContact, KnownLead, LeadIdentity, NewLead, News, Plan, RepeatMessage, identify,
    identify_as_of, plan,
};
use super::prepare::Draft;
use super::settle::Settling;
use super::taken::key_of;
use super::{contact, erased, link};
use crate::model::{Outcome, Reason, TaskKey};
use crate::store::changes::Change;
use crate::store::deliveries::Delivery;
use crate::store::documents::{
    Adopted, Collection, ContactKeys, LeadFacts, Links, Stored, bound_contact_id,
};
use crate::store::erasures::ERASED_ROW;
use crate::store::events::{Event, Kind};
use crate::store::{StoreError, Tables};

/// Makes the lead, or finds it made.
pub(super) fn lead(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
    settling: &Settling,
) -> Result<Outcome, StoreError> {
    if erased::is_erased(tables, key, draft)? {
        return Ok(Outcome::Ignored {
            reason: Reason::Erased,
        });
    }
    let (identity, facts) = match gather(tables, draft, settling) {
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
                let as_new = (key, &identity);
                let message = write_news(tables, draft, *news, &facts, lead, as_new)?;
                let happened = message.map(|row| (Kind::Message, row));
                announce(tables, draft, happened.as_slice(), settling)?;
            }
            Ok(Outcome::Duplicate { of })
        }
        Plan::New(new) => {
            let happened = write_new(tables, key, draft, &identity, &facts, *new, settling.now_ms)?;
            announce(tables, draft, &happened, settling)?;
            Ok(Outcome::Lead {
                id: identity.id.bytes(),
            })
        }
    }
}

/// Reads what the decision depends on; also under which id the lead is, or is to be.
fn gather(
    tables: &Tables<'_>,
    draft: &Draft,
    settling: &Settling,
) -> Result<(LeadIdentity, Facts), StoreError> {
    let mut facts = Facts::default();
    let (identity, repeated) = repeated(tables, draft, settling)?;
    if let Some(row) = repeated {
        facts.repeated = Some(known_lead(tables, row, &identity)?);
    }
    let contact = match facts.repeated.as_ref().and_then(|lead| lead.contact) {
        Some(contact) => Some(contact),
        None => contact_row(tables, draft)?,
    };
    if let Some(row) = contact {
        facts.contact = Some(known_contact(tables, row)?);
        facts.has_conversation = tables.conversations.get(row)?.is_some();
    }
    let last_user = tables.last_users.get(&draft.campaign.id.bytes())?;
    facts.last_user = last_user.map(|user| ObjectId::from_bytes(*user.value()));
    Ok((identity, facts))
}

/// The row at which a lead that this repeats is, or was before it was removed (R41).
fn repeated(
    tables: &Tables<'_>,
    draft: &Draft,
    settling: &Settling,
) -> Result<(LeadIdentity, Option<u64>), StoreError> {
    let mut own = identify(draft);
    let link = tables.link_of(&key_of(own.id, draft))?;
    own.id = ObjectId::from_bytes(link.id);
    own.is_return = link.is_return;
    if let Some(row) = link.row {
        return Ok((own, Some(row)));
    }
    let Some(first_copy) = &own.first_copy else {
        return Ok((own, None));
    };
    let Some(copy) = tables.first_copies.get(first_copy)? else {
        return Ok((own, None));
    };
    let (arrived_at_ms, row) = copy.value();
    let apart_ms = u128::from(draft.arrived_at_ms.abs_diff(arrived_at_ms));
    if apart_ms > settling.limits.dedupe_window.as_millis() {
        return Ok((own, None));
    }
    let identity = identify_as_of(draft, arrived_at_ms);
    // A lead that was remembered anew has another row than at first.
    let newest = tables.keys.get(&identity.id.bytes())?;
    let row = newest.map_or(row, |row| row.value());
    Ok((identity, Some(row)))
}

fn known_lead(
    tables: &Tables<'_>,
    row: u64,
    identity: &LeadIdentity,
) -> Result<KnownLead, StoreError> {
    Ok(match tables.kept_lead(row)? {
        Some(lead) => KnownLead {
            row,
            id: lead.settled_id().bytes(),
            fields_hash: Some(lead.lead.map_or([0; 32], |facts| facts.fields_hash)),
            contact: lead.links.contact,
            withdrawn: lead.withdrawn,
            erased: false,
        },
        None => KnownLead {
            row,
            id: tables.departed_id(identity.id.bytes())?,
            fields_hash: None,
            contact: None,
            withdrawn: false,
            erased: row == ERASED_ROW,
        },
    })
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
    now_ms: i64,
) -> Result<[(Kind, u64); 2], StoreError> {
    let bound = new.contact.is_bound();
    let contact = write_contact(tables, new.contact, facts, identity.id)?;
    let stored = lead_at_rest(key, draft, identity, contact, &new.lead);
    let lead = write_lead(tables, draft, identity, stored)?;
    // Whose a lead without an id is, MongoDB says when it is pushed (R10).
    let ticket = tables.last_number("last_ticket")?;
    let settled_by = identity.first_copy.map(|_| ticket);
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
        Some(deal) => add_deal(tables, contact, lead, &deal)?,
        None => 0,
    };
    tables.families.insert((owner, lead), (message, deal))?;
    if let Some(user) = new.user {
        tables
            .last_users
            .insert(&draft.campaign.id.bytes(), &user.bytes())?;
        for channel in new.notify_by {
            let mut delivery = Delivery::new(channel, (lead, key.seq), user.bytes(), now_ms);
            delivery.settled_by = settled_by;
            tables.add_delivery(&delivery)?;
        }
    }
    let conversation_news = if is_new_room {
        (Kind::JoinRoom, room)
    } else {
        (Kind::Message, message)
    };
    Ok([conversation_news, (Kind::LeadAdded, lead)])
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

fn lead_at_rest(
    task: TaskKey,
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
        task,
        fields_hash: draft.fields_hash,
        without_id: identity.first_copy.is_some(),
        arrived_at_ms: draft.arrived_at_ms,
        is_return: identity.is_return,
    });
    lead
}

fn write_lead(
    tables: &mut Tables<'_>,
    draft: &Draft,
    identity: &LeadIdentity,
    lead: Stored,
) -> Result<u64, StoreError> {
    let row = add(tables, Collection::Leads, lead)?;
    let before = tables.keys.insert(&identity.id.bytes(), row)?;
    let is_taken = before.is_some();
    assert!(!is_taken, "lead {} was about to be made twice", identity.id);
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
            stored.contact = Some(keys);
            let hashes = stored.contact_hashes()?;
            let row = add(tables, Collection::Contacts, stored)?;
            index_contact(tables, &hashes, row)?;
            Ok(Some(row))
        }
        contact::Plan::Merge { body, keys } => {
            let Some(known) = &facts.contact else {
                return Ok(None);
            };
            merge_contact(tables, known.row, &body, keys)?;
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
    index_contact(tables, &stored.contact_hashes()?, number)?;
    tables.append_change(row, Change::Again { before: &before })
}

/// The oldest contact keeps a key (R20). The hashes are of the contact's own type, whatever its campaign makes by now:
/// under these it is removed again.
fn index_contact(tables: &mut Tables<'_>, hashes: &[[u8; 16]], row: u64) -> Result<(), StoreError> {
    for hash in hashes {
        if tables.contact_keys.get(hash)?.is_none() {
            tables.contact_keys.insert(hash, row)?;
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

/// Writes what a repetition adds; gives the row of its lead message where it has one of its own. `as_new`: the task and
/// the identity of a lead that is remembered anew.
fn write_news(
    tables: &mut Tables<'_>,
    draft: &Draft,
    news: News,
    facts: &Facts,
    lead: &KnownLead,
    as_new: (TaskKey, &LeadIdentity),
) -> Result<Option<u64>, StoreError> {
    let (id, bound) = (ObjectId::from_bytes(lead.id), news.contact.is_bound());
    let contact = write_contact(tables, news.contact, facts, id)?;
    let contact = contact.or(facts.contact.as_ref().map(|known| known.row));
    let lead = match news.remembered {
        Some(remembered) => {
            let (task, identity) = as_new;
            let mut stored = lead_at_rest(task, draft, identity, contact, &remembered.lead);
            stored.adopted = Some(Adopted {
                id: lead.id,
                seen: true,
            });
            remember(tables, &stored)?
        }
        None => {
            if let (Some(contact), None) = (contact, lead.contact) {
                if bound {
                    link::bind(tables, contact, lead.row)?;
                }
                link::give_contact(tables, lead.row, contact)?;
            }
            lead.row
        }
    };
    match news.message {
        Some(message) => write_repeat_message(tables, message, contact, lead),
        None => Ok(None),
    }
}

/// A lead that is upstream and no longer kept here is kept again, without a change to push: what is new refers to it.
fn remember(tables: &mut Tables<'_>, lead: &Stored) -> Result<u64, StoreError> {
    let row = tables.add_document(Collection::Leads, lead)?.number;
    tables.keys.insert(&lead.own_id, row)?;
    let contact = lead.links.contact;
    let owner = contact.unwrap_or(row);
    tables.families.insert((owner, row), (0, 0))?;
    Ok(row)
}

/// The room of a repetition's message: its contact's, else its lead's, else a new one.
fn room_of_repetition(
    tables: &mut Tables<'_>,
    contact: Option<u64>,
    lead: u64,
    opening: &super::conversation::Opening,
) -> Result<(u64, u64), StoreError> {
    for owner in contact.into_iter().chain([lead]) {
        if let Some(rows) = tables.conversations.get(owner)? {
            let (conversation, room, _) = rows.value();
            return Ok((conversation, room));
        }
    }
    let links = Links {
        contact,
        lead: contact.is_none().then_some(lead),
        ..Links::default()
    };
    open_conversation(tables, contact.unwrap_or(lead), links, opening)
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
    let (conversation, room) = room_of_repetition(tables, contact, lead, &message.opening)?;
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
    Ok(Some(row))
}

/// Stores a new document and its change.
fn add(tables: &mut Tables<'_>, collection: Collection, stored: Stored) -> Result<u64, StoreError> {
    let row = tables.add_document(collection, &stored)?;
    tables.append_change(row, Change::First)?;
    Ok(row.number)
}
