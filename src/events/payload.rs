//! What listeners are told (documents.md, "Live events").
//!
//! Ids are those that the documents have upstream as far as this node knows now, as hex text; times are ISO 8601 in
//! UTC. A contact that turns out later to exist upstream under another `_id` was told under the first.

use bson::oid::ObjectId;
use serde::Serialize;

use crate::store::documents::{Collection, Stored};
use crate::store::events::{Event, Kind};
use crate::store::{Snapshot, StoreError};

/// One event's payload; fields that do not apply are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Payload {
    /// `leadadded`
    LeadAdded {
        /// The lead's `_id`, not the platform's id.
        lead_id: String,
        account_id: String,
        campaign_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        contact_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        integration: String,
        /// The webhook's arrival.
        created_at: String,
    },
    /// `joinRoom`
    JoinRoom {
        conversation_id: String,
        room_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        contact_id: Option<String>,
    },
    /// `message`
    Message { room_id: String, message_id: String },
}

/// The payload of an event; `None` where its lead was withdrawn meanwhile: another node has it (R10).
///
/// # Errors
/// When what it names is missing or damaged, or the store cannot be read.
pub(super) fn read(snapshot: &Snapshot, event: &Event) -> Result<Option<Payload>, StoreError> {
    let stored = snapshot.document(event.kind.collection().row(event.row))?;
    if stored.withdrawn {
        return Ok(None);
    }
    let id = snapshot
        .upstream_id(event.kind.collection().row(event.row), &stored)?
        .to_hex();
    match event.kind {
        Kind::LeadAdded => lead_added(snapshot, id, &stored),
        Kind::JoinRoom => join_room(snapshot, id, &stored),
        Kind::Message => Ok(Payload::Message {
            room_id: linked(snapshot, Collection::Rooms, stored.links.room)?,
            message_id: id,
        }),
    }
    .map(Some)
}

fn lead_added(
    snapshot: &Snapshot,
    lead_id: String,
    stored: &Stored,
) -> Result<Payload, StoreError> {
    let body = stored.body()?;
    let hex = |name: &str| body.get_object_id(name).map(ObjectId::to_hex);
    let damaged = |_| DAMAGED;
    Ok(Payload::LeadAdded {
        lead_id,
        account_id: hex("account_id").map_err(damaged)?,
        campaign_id: hex("campaign_id").map_err(damaged)?,
        contact_id: contact(snapshot, stored)?,
        user_id: hex("user_id").ok(),
        integration: body.get_str("integration").map_err(damaged)?.to_owned(),
        created_at: body
            .get_datetime("created_at")
            .map_err(damaged)?
            .try_to_rfc3339_string()
            .map_err(|_| DAMAGED)?,
    })
}

fn join_room(snapshot: &Snapshot, room_id: String, stored: &Stored) -> Result<Payload, StoreError> {
    let conversation = stored.links.conversation.ok_or(DAMAGED)?;
    let conversation = Collection::Conversations.row(conversation);
    let whose = snapshot.document(conversation)?;
    Ok(Payload::JoinRoom {
        conversation_id: snapshot.upstream_id(conversation, &whose)?.to_hex(),
        room_id,
        contact_id: contact(snapshot, &whose)?,
    })
}

fn contact(snapshot: &Snapshot, stored: &Stored) -> Result<Option<String>, StoreError> {
    let contact = stored.links.contact;
    let id = contact.map(|number| linked(snapshot, Collection::Contacts, Some(number)));
    id.transpose()
}

fn linked(
    snapshot: &Snapshot,
    collection: Collection,
    number: Option<u64>,
) -> Result<String, StoreError> {
    let row = collection.row(number.ok_or(DAMAGED)?);
    let stored = snapshot.document(row)?;
    Ok(snapshot.upstream_id(row, &stored)?.to_hex())
}

const DAMAGED: StoreError = StoreError::Corrupt { table: "documents" };
