//! Documents as they leave: with their `_id` and their references (documents.md).
//!
//! Must not know: why they leave, or where to.

use std::rc::Rc;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf};
use inlet_sync::ports::Row;
use redb::ReadOnlyTable;

use super::ids::Ids;
use super::{Collection, DANGLING, Links, Stored, TABLE};
use crate::store::tables::RowTuple;
use crate::store::{Snapshot, StoreError};

/// Puts documents of one snapshot together.
pub(crate) struct Assembler<'s> {
    ids: Ids<'s, ReadOnlyTable<RowTuple, &'static [u8]>>,
}

impl<'s> Assembler<'s> {
    pub(crate) fn new(snapshot: &'s Snapshot) -> Self {
        Self {
            ids: Ids::among(&snapshot.documents),
        }
    }

    /// The document as MongoDB gets it; a lead may go without its contact (R36).
    pub(crate) fn assemble(
        &self,
        row: Row,
        stored: &Stored,
        with_contact: bool,
    ) -> Result<RawDocumentBuf, StoreError> {
        let mut document = Assembly::new(self.ids.of(row, stored)?, &stored.body)?;
        let links = stored.links;
        let contact = links.contact.filter(|_| with_contact);
        let contact = self.ids.linked(Collection::Contacts, contact)?;
        let lead = |number| self.ids.linked(Collection::Leads, number);
        let conversation = |links: &Links| {
            self.ids
                .linked(Collection::Conversations, links.conversation)
        };
        match Collection::of(row) {
            Collection::Leads => document.reference("contact_id", contact),
            Collection::Deals => {
                document.reference(self.deal_contact_field(&links)?, contact);
                document.reference("lead", lead(links.lead)?);
            }
            Collection::Conversations => {
                document.reference("contact_id", contact);
                let owner = links.lead.filter(|_| contact.is_none());
                document.reference("lead", lead(owner)?);
            }
            Collection::Rooms => {
                document.reference("conversation_id", conversation(&links)?);
            }
            Collection::Messages => {
                document.reference("conversation_id", conversation(&links)?);
                document.reference("room_id", self.ids.linked(Collection::Rooms, links.room)?);
                if links.lead.is_some() {
                    document.embed("metadata", &self.message_metadata(stored, contact)?);
                }
            }
            Collection::Contacts | Collection::Logs => {}
        }
        document.finish()
    }

    /// A document that others belong to.
    pub(crate) fn parent(
        &self,
        collection: Collection,
        number: u64,
    ) -> Result<Rc<Stored>, StoreError> {
        self.ids.parent(collection, number)
    }

    /// `person` or `business`, by the contact's type.
    pub(crate) fn deal_contact_field(&self, links: &Links) -> Result<&'static str, StoreError> {
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
        let lead = stored.links.lead.ok_or(DANGLING)?;
        let lead = self.parent(Collection::Leads, lead)?;
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
