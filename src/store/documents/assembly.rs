//! Documents as they leave: with their `_id` and their references (documents.md).
//!
//! Must not know: why they leave, or where to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf};
use inlet_sync::ports::Row;

use super::{Collection, DANGLING, Links, Stored, TABLE};
use crate::model::derived_id;
use crate::store::{Snapshot, StoreError};

/// Puts documents of one snapshot together. What several of them refer to is read once: of a lead's documents, each
/// refers to two or three of the others.
pub(crate) struct Assembler<'s> {
    snapshot: &'s Snapshot,
    parents: RefCell<HashMap<Row, Rc<Stored>>>,
    ids: RefCell<HashMap<Row, ObjectId>>,
}

impl<'s> Assembler<'s> {
    pub(crate) fn new(snapshot: &'s Snapshot) -> Self {
        Self {
            snapshot,
            parents: RefCell::default(),
            ids: RefCell::default(),
        }
    }

    /// The document as MongoDB gets it; a lead may go without its contact (R36).
    pub(crate) fn assemble(
        &self,
        row: Row,
        stored: &Stored,
        with_contact: bool,
    ) -> Result<RawDocumentBuf, StoreError> {
        let mut document = Assembly::new(self.upstream_id(row, stored)?, &stored.body)?;
        let links = stored.links;
        let contact =
            self.linked_id(Collection::Contacts, links.contact.filter(|_| with_contact))?;
        match Collection::of(row) {
            Collection::Leads => document.reference("contact_id", contact),
            Collection::Deals => {
                document.reference(self.deal_contact_field(&links)?, contact);
                document.reference("lead", self.lead_id(links.lead)?);
            }
            Collection::Conversations => {
                document.reference("contact_id", contact);
                let lead = links.lead.filter(|_| contact.is_none());
                document.reference("lead", self.lead_id(lead)?);
            }
            Collection::Rooms => {
                document.reference("conversation_id", self.conversation_id(&links)?);
            }
            Collection::Messages => {
                document.reference("conversation_id", self.conversation_id(&links)?);
                document.reference("room_id", self.linked_id(Collection::Rooms, links.room)?);
                if links.lead.is_some() {
                    document.embed("metadata", &self.message_metadata(stored, contact)?);
                }
            }
            Collection::Contacts | Collection::Logs => {}
        }
        document.finish()
    }

    /// `_id` upstream: settled, or derived from what the document belongs to (R34).
    pub(crate) fn upstream_id(&self, row: Row, stored: &Stored) -> Result<ObjectId, StoreError> {
        if stored.adopted.is_some() {
            return Ok(stored.settled_id());
        }
        let links = stored.links;
        Ok(match Collection::of(row) {
            Collection::Conversations => {
                let owner = match links.contact {
                    Some(number) => self.parent(Collection::Contacts, number)?.settled_id(),
                    None => ObjectId::from_bytes(self.lead(links.lead)?.own_id),
                };
                derived_id(
                    "conversation",
                    &[&stored.account()?.bytes(), &owner.bytes()],
                )
            }
            Collection::Rooms => {
                let conversation = self.conversation_id(&links)?;
                derived_id("room", &[&conversation.ok_or(DANGLING)?.bytes()])
            }
            Collection::Messages => {
                let room = self.linked_id(Collection::Rooms, links.room)?;
                derived_id(
                    "message",
                    &[&room.ok_or(DANGLING)?.bytes(), &self.seed(stored)?],
                )
            }
            Collection::Deals => {
                let lead = self.lead_id(links.lead)?;
                derived_id("deal", &[&lead.ok_or(DANGLING)?.bytes()])
            }
            Collection::Contacts | Collection::Leads | Collection::Logs => stored.settled_id(),
        })
    }

    /// What tells a room's messages apart: the lead, unless it repeats one; nothing for the system's.
    fn seed(&self, stored: &Stored) -> Result<[u8; 12], StoreError> {
        match (&stored.payload, self.lead_id(stored.links.lead)?) {
            (None, Some(lead)) => Ok(lead.bytes()),
            _ => Ok(stored.own_id),
        }
    }

    fn conversation_id(&self, links: &Links) -> Result<Option<ObjectId>, StoreError> {
        self.linked_id(Collection::Conversations, links.conversation)
    }

    fn lead_id(&self, number: Option<u64>) -> Result<Option<ObjectId>, StoreError> {
        self.linked_id(Collection::Leads, number)
    }

    fn linked_id(
        &self,
        collection: Collection,
        number: Option<u64>,
    ) -> Result<Option<ObjectId>, StoreError> {
        let Some(number) = number else {
            return Ok(None);
        };
        let row = collection.row(number);
        if let Some(id) = self.ids.borrow().get(&row) {
            return Ok(Some(*id));
        }
        let id = self.upstream_id(row, &*self.parent(collection, number)?)?;
        self.ids.borrow_mut().insert(row, id);
        Ok(Some(id))
    }

    fn lead(&self, number: Option<u64>) -> Result<Rc<Stored>, StoreError> {
        self.parent(Collection::Leads, number.ok_or(DANGLING)?)
    }

    /// A document that others refer to.
    pub(crate) fn parent(
        &self,
        collection: Collection,
        number: u64,
    ) -> Result<Rc<Stored>, StoreError> {
        let row = collection.row(number);
        if let Some(parent) = self.parents.borrow().get(&row) {
            return Ok(Rc::clone(parent));
        }
        let parent = Rc::new(self.snapshot.document(row)?);
        self.parents.borrow_mut().insert(row, Rc::clone(&parent));
        Ok(parent)
    }

    /// `person` or `business`, by the contact's type.
    fn deal_contact_field(&self, links: &Links) -> Result<&'static str, StoreError> {
        let Some(number) = links.contact else {
            return Ok("person");
        };
        let contact = self.parent(Collection::Contacts, number)?;
        let kind = contact.body()?.get_str("type");
        Ok(if kind.is_ok_and(|kind| kind == "business") {
            "business"
        } else {
            "person"
        })
    }

    /// `{contact_id, origin, inbound_integration, webhook_response}` of a lead message.
    fn message_metadata(
        &self,
        stored: &Stored,
        contact: Option<ObjectId>,
    ) -> Result<RawDocumentBuf, StoreError> {
        let lead = self.lead(stored.links.lead)?;
        let lead_body = lead.body()?;
        let mut metadata = RawDocumentBuf::new();
        if let Some(contact) = contact {
            metadata.append(cstr!("contact_id"), contact);
        }
        metadata.append(cstr!("origin"), "inbound");
        if let Ok(integration) = lead_body.get_str("integration") {
            metadata.append(cstr!("inbound_integration"), integration);
        }
        let own = stored
            .payload
            .as_deref()
            .and_then(|bytes| RawDocument::from_bytes(bytes).ok());
        let payload = match own {
            Some(own) => own.get("webhook_response"),
            None => lead_body.get("lead_data"),
        };
        if let Some(payload) = payload.map_err(|_| StoreError::Corrupt { table: TABLE })? {
            metadata.append(cstr!("webhook_response"), payload);
        }
        Ok(metadata)
    }
}

/// Puts a document together from its stored bytes and references, without parsing them again.
struct Assembly {
    bytes: Vec<u8>,
}

const OBJECT_ID: u8 = 0x07;
const EMBEDDED: u8 = 0x03;

impl Assembly {
    fn new(id: ObjectId, body: &[u8]) -> Result<Self, StoreError> {
        let fields = body.get(4..body.len().saturating_sub(1)).ok_or(DANGLING)?;
        let mut bytes = Vec::with_capacity(body.len() + 128);
        bytes.extend_from_slice(&[0; 4]);
        let mut assembly = Self { bytes };
        assembly.reference("_id", Some(id));
        assembly.bytes.extend_from_slice(fields);
        Ok(assembly)
    }

    fn reference(&mut self, name: &str, id: Option<ObjectId>) {
        let Some(id) = id else { return };
        self.element(OBJECT_ID, name, &id.bytes());
    }

    fn embed(&mut self, name: &str, document: &RawDocument) {
        self.element(EMBEDDED, name, document.as_bytes());
    }

    fn element(&mut self, kind: u8, name: &str, value: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.bytes.extend_from_slice(value);
    }

    fn finish(mut self) -> Result<RawDocumentBuf, StoreError> {
        self.bytes.push(0);
        let len = i32::try_from(self.bytes.len()).map_err(|_| DANGLING)?;
        self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        RawDocumentBuf::from_bytes(self.bytes).map_err(|_| DANGLING)
    }
}
