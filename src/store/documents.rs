//! Documents as the store keeps them, and as they leave it.
//!
//! A document is kept as BSON *without* its `_id` and without references to other documents; those are links to rows.
//! ObjectIds are filled in when a document leaves (push, export, listing). So when a contact turns out to exist
//! upstream under another `_id`, one record changes, and everything that refers to it follows.

use bson::oid::ObjectId;
use bson::{RawDocument, RawDocumentBuf};
use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::tables::RowTuple;
use super::{Snapshot, StoreError, Tables, codec};
use crate::model::identity::derived_hash;
use crate::model::{TaskKey, derived_id};
pub(crate) use assembly::Assembler;
use ids::Ids;

mod assembly;
mod ids;

/// The collections of documents.md that the edge writes; the discriminant is the first half of a row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Collection {
    /// `crm.contacts`
    Contacts,
    /// `inbound.leads`
    Leads,
    /// `support.conversations`
    Conversations,
    /// `support.rooms`
    Rooms,
    /// `support.messages`
    Messages,
    /// `crm.deals`
    Deals,
    /// `logs`
    Logs,
}

impl Collection {
    /// Every collection, in the order of its number.
    pub const ALL: [Collection; 7] = [
        Collection::Contacts,
        Collection::Leads,
        Collection::Conversations,
        Collection::Rooms,
        Collection::Messages,
        Collection::Deals,
        Collection::Logs,
    ];
    /// Their names, parallel to [`Collection::ALL`].
    pub const NAMES: [&'static str; 7] = [
        "crm.contacts",
        "inbound.leads",
        "support.conversations",
        "support.rooms",
        "support.messages",
        "crm.deals",
        "logs",
    ];

    /// The name in MongoDB.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The collection of this number.
    #[must_use]
    pub fn of(row: Row) -> Self {
        Self::ALL[usize::from(row.collection)]
    }

    /// A row of this collection.
    #[must_use]
    pub fn row(self, number: u64) -> Row {
        Row {
            collection: self as u8,
            number,
        }
    }
}

/// A document at rest.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Stored {
    /// Contacts, leads, logs: the `_id`. Repeating messages: what their `_id` is derived from.
    /// Conversations that were a lead's before they were its contact's: the `_id` from then.
    /// All others: zeroes, their `_id` is derived from what they belong to.
    pub own_id: [u8; 12],
    /// Somebody else's document upstream that stands for this one (R31).
    pub adopted: Option<Adopted>,
    /// Never to be pushed (again): another node's lead turned out to be this one (R10).
    pub withdrawn: bool,
    /// What it refers to.
    pub links: Links,
    /// What only leads have.
    pub lead: Option<LeadFacts>,
    /// What only contacts have.
    pub contact: Option<ContactKeys>,
    /// A message's own `webhook_response` (BSON document with that one field) where it is not the lead's.
    pub payload: Option<Vec<u8>>,
    /// BSON: every field but `_id` and references. `account_id` comes first.
    pub body: Vec<u8>,
}

/// An upstream document adopted in place of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Adopted {
    /// Its `_id`.
    pub id: [u8; 12],
    /// Whether it was seen upstream, or only claimed by a node that has not pushed it yet.
    pub seen: bool,
}

/// Rows a document refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Links {
    /// `contact_id`, `person` or `business`.
    pub contact: Option<u64>,
    /// `lead`.
    pub lead: Option<u64>,
    /// `conversation_id`.
    pub conversation: Option<u64>,
    /// `room_id`.
    pub room: Option<u64>,
}

/// What the store has to know of a lead besides its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct LeadFacts {
    /// The task whose outcome it is.
    pub task: TaskKey,
    /// Hash of its decoded fields: tells a resend from news (R9, R10).
    pub fields_hash: [u8; 32],
    /// No platform id: other nodes' copies are found through a claim (R10).
    pub without_id: bool,
    /// When its webhook arrived, milliseconds since the epoch.
    pub arrived_at_ms: i64,
    /// Of somebody who came back after an erasure, under the same id (R38): that finds the erased one upstream.
    pub is_return: bool,
}

/// What identifies a contact (R20).
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct ContactKeys {
    /// The e-mail address, lower-case.
    pub email: Option<String>,
    /// The phone number, where it may identify a person.
    pub phone: Option<String>,
}

impl ContactKeys {
    /// Nothing but a name is known: nobody else's submission can be this person's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.email.is_none() && self.phone.is_none()
    }

    /// What the contact is found by (`contact_keys`), e-mail before phone.
    pub(crate) fn hashes(&self, account: ObjectId, kind: &str) -> Vec<[u8; 16]> {
        let keys = [
            ("contact.email", &self.email),
            ("contact.phone", &self.phone),
        ];
        let hash = |tag: &str, value: &String| {
            let parts = [&account.bytes(), kind.as_bytes(), value.as_bytes()];
            let hash = derived_hash(tag, &parts);
            let mut key = [0; 16];
            key.copy_from_slice(&hash[..16]);
            key
        };
        let present = keys.into_iter().filter_map(|(tag, value)| {
            let value = value.as_ref()?;
            Some(hash(tag, value))
        });
        present.collect()
    }
}

impl Stored {
    /// A document that refers to nothing.
    #[must_use]
    pub fn new(own_id: [u8; 12], body: &RawDocument) -> Self {
        Self {
            own_id,
            adopted: None,
            withdrawn: false,
            links: Links::default(),
            lead: None,
            contact: None,
            payload: None,
            body: body.as_bytes().to_vec(),
        }
    }

    /// The same with links.
    #[must_use]
    pub fn with_links(mut self, links: Links) -> Self {
        self.links = links;
        self
    }

    /// The `_id` this document has upstream where it does not depend on others: adopted, else its own.
    #[must_use]
    pub fn settled_id(&self) -> ObjectId {
        ObjectId::from_bytes(self.adopted.map_or(self.own_id, |adopted| adopted.id))
    }

    /// The lead that a contact without e-mail and phone belongs to: its `_id` is derived from that lead's, so that two
    /// nodes agree on it, and it goes where the lead goes.
    #[must_use]
    pub fn bound_lead(&self) -> Option<u64> {
        let is_bound = self.contact.as_ref().is_some_and(ContactKeys::is_empty);
        self.links.lead.filter(|_| is_bound)
    }

    /// The fields without ids and references.
    ///
    /// # Errors
    /// When the bytes are no BSON.
    pub fn body(&self) -> Result<&RawDocument, StoreError> {
        RawDocument::from_bytes(&self.body).map_err(|_| StoreError::Corrupt { table: TABLE })
    }

    /// What a contact is found by.
    pub(crate) fn contact_hashes(&self) -> Result<Vec<[u8; 16]>, StoreError> {
        let Some(keys) = &self.contact else {
            return Ok(Vec::new());
        };
        let body = self.body()?;
        let kind = body
            .get_str("type")
            .map_err(|_| StoreError::Corrupt { table: TABLE })?;
        Ok(keys.hashes(self.account()?, kind))
    }

    fn account(&self) -> Result<ObjectId, StoreError> {
        self.body()?
            .get_object_id("account_id")
            .map_err(|_| StoreError::Corrupt { table: TABLE })
    }
}

/// The `_id` of a contact that belongs to the lead of this `_id`.
#[must_use]
pub fn bound_contact_id(lead: ObjectId) -> ObjectId {
    derived_id("contact", &[&lead.bytes()])
}

const TABLE: &str = "documents";
/// Bytes read at once, give or take a document.
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A document with its row's number, or the error that reading it was.
pub type Numbered = (u64, Result<Stored, StoreError>);

pub(crate) fn key(row: Row) -> RowTuple {
    (row.collection, row.number)
}

impl Tables<'_> {
    /// Stores a document under a new row.
    pub(crate) fn add_document(
        &mut self,
        collection: Collection,
        stored: &Stored,
    ) -> Result<Row, StoreError> {
        let row = collection.row(self.next_number("last_row")?);
        self.put_document(row, stored)?;
        Ok(row)
    }

    /// Stores a document in place of what the row held.
    pub(crate) fn put_document(&mut self, row: Row, stored: &Stored) -> Result<(), StoreError> {
        let record = codec::encode(stored);
        self.documents.insert(key(row), record.as_slice())?;
        Ok(())
    }

    pub(crate) fn document(&self, row: Row) -> Result<Stored, StoreError> {
        load(&self.documents, row)
    }

    /// The lead of a row that a key names; `None` where it is no longer kept (R41).
    pub(crate) fn kept_lead(&self, number: u64) -> Result<Option<Stored>, StoreError> {
        let row = Collection::Leads.row(number);
        match self.documents.get(key(row))? {
            Some(record) => codec::decode(TABLE, record.value()).map(Some),
            None => Ok(None),
        }
    }

    /// The `_id` upstream of a lead that is no longer kept; `own_id` is what it was derived to be.
    pub(crate) fn departed_id(&self, own_id: [u8; 12]) -> Result<[u8; 12], StoreError> {
        departed_id(&self.departed, own_id)
    }

    /// The rows of a lead's further messages (R9).
    pub(crate) fn repeats_of(&self, lead: u64) -> Result<Vec<u64>, StoreError> {
        let all = self.repeats.range((lead, 0)..=(lead, u64::MAX))?;
        all.map(|entry| Ok(entry?.0.value().1)).collect()
    }

    /// As [`Snapshot::upstream_id`].
    pub(crate) fn upstream_id(&self, row: Row, stored: &Stored) -> Result<ObjectId, StoreError> {
        Ids::among(&self.documents).of(row, stored)
    }
}

impl Snapshot {
    /// The `_id` upstream of the lead whose `_id` was derived to be `own_id`, if it was ever made.
    ///
    /// # Errors
    /// When the store cannot be read, or the lead is damaged.
    pub fn lead_made(&self, own_id: [u8; 12]) -> Result<Option<[u8; 12]>, StoreError> {
        let Some(number) = self.keys.get(&own_id)?.map(|row| row.value()) else {
            return Ok(None);
        };
        let kept = self.documents.get(key(Collection::Leads.row(number)))?;
        match kept {
            Some(record) => {
                let lead: Stored = codec::decode(TABLE, record.value())?;
                Ok(Some(lead.settled_id().bytes()))
            }
            None => departed_id(&self.departed, own_id).map(Some),
        }
    }

    /// The row of the lead whose `_id` was derived to be `own_id`, if it was made and not erased.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn lead_row(&self, own_id: [u8; 12]) -> Result<Option<u64>, StoreError> {
        let row = self.keys.get(&own_id)?.map(|row| row.value());
        Ok(row.filter(|row| *row != super::erasures::ERASED_ROW))
    }

    /// The document of a row.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn document(&self, row: Row) -> Result<Stored, StoreError> {
        load(&self.documents, row)
    }

    pub(crate) fn has_document(&self, row: Row) -> Result<bool, StoreError> {
        Ok(self.documents.get(key(row))?.is_some())
    }

    /// The documents of a collection after row `after`, in order, at most `limit` and about 8 MiB of them. A damaged
    /// one is given as its error.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn documents_after(
        &self,
        collection: Collection,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Numbered>, StoreError> {
        let rows = (collection as u8, after + 1)..(collection as u8 + 1, 0);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for entry in self.documents.range(rows)?.take(limit) {
            let (row, record) = entry?;
            bytes += record.value().len();
            found.push((row.value().1, codec::decode(TABLE, record.value())));
            if bytes > READ_BYTES_MAX {
                break;
            }
        }
        Ok(found)
    }

    /// The document as MongoDB gets it: with its `_id` and references.
    ///
    /// # Errors
    /// When it or what it refers to is missing or damaged.
    pub fn whole(&self, row: Row) -> Result<RawDocumentBuf, StoreError> {
        let stored = self.document(row)?;
        Assembler::new(self).assemble(row, &stored, true)
    }

    /// `_id` upstream: settled, or derived from what the document belongs to (R34).
    ///
    /// # Errors
    /// When what it belongs to is missing or damaged.
    pub(crate) fn upstream_id(&self, row: Row, stored: &Stored) -> Result<ObjectId, StoreError> {
        Ids::among(&self.documents).of(row, stored)
    }

    /// `person` or `business`, by the contact's type.
    pub(crate) fn deal_contact_field(&self, links: &Links) -> Result<&'static str, StoreError> {
        Assembler::new(self).deal_contact_field(links)
    }
}

const DANGLING: StoreError = StoreError::Corrupt { table: TABLE };

fn departed_id(
    departed: &impl ReadableTable<&'static [u8; 12], &'static [u8; 12]>,
    own_id: [u8; 12],
) -> Result<[u8; 12], StoreError> {
    let upstream = departed.get(&own_id)?;
    Ok(upstream.map_or(own_id, |upstream| *upstream.value()))
}

fn load(
    documents: &impl ReadableTable<RowTuple, &'static [u8]>,
    row: Row,
) -> Result<Stored, StoreError> {
    let record = documents.get(key(row))?.ok_or(DANGLING)?;
    codec::decode(TABLE, record.value())
}
