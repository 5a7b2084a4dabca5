//! Under which `_id` a document is upstream: its own, an adopted one, or derived from what it belongs to (R34).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bson::oid::ObjectId;
use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::{Collection, DANGLING, Links, Stored, load};
use crate::model::derived_id;
use crate::store::StoreError;
use crate::store::tables::RowTuple;

/// Finds ids in the documents of a snapshot, or of a transaction that changes none of them meanwhile. What several
/// documents belong to is read once: of a lead's documents, each refers to two or three of the others.
pub(super) struct Ids<'a, T> {
    documents: &'a T,
    parents: RefCell<HashMap<Row, Rc<Stored>>>,
    found: RefCell<HashMap<Row, ObjectId>>,
}

impl<'a, T: ReadableTable<RowTuple, &'static [u8]>> Ids<'a, T> {
    pub(super) fn among(documents: &'a T) -> Self {
        Self {
            documents,
            parents: RefCell::default(),
            found: RefCell::default(),
        }
    }

    /// A document that others belong to.
    pub(super) fn parent(
        &self,
        collection: Collection,
        number: u64,
    ) -> Result<Rc<Stored>, StoreError> {
        let row = collection.row(number);
        if let Some(parent) = self.parents.borrow().get(&row) {
            return Ok(Rc::clone(parent));
        }
        let parent = Rc::new(load(self.documents, row)?);
        self.parents.borrow_mut().insert(row, Rc::clone(&parent));
        Ok(parent)
    }

    pub(super) fn of(&self, row: Row, stored: &Stored) -> Result<ObjectId, StoreError> {
        if stored.adopted.is_some() {
            return Ok(stored.settled_id());
        }
        let links = stored.links;
        Ok(match Collection::of(row) {
            Collection::Conversations if stored.own_id == [0; 12] => {
                let owner = self.owner(&links)?;
                derived_id("conversation", &[&stored.account()?.bytes(), &owner])
            }
            Collection::Rooms => {
                let conversation = self.linked(Collection::Conversations, links.conversation)?;
                derived_id("room", &[&conversation.ok_or(DANGLING)?.bytes()])
            }
            Collection::Messages => {
                let room = self.linked(Collection::Rooms, links.room)?;
                derived_id(
                    "message",
                    &[&room.ok_or(DANGLING)?.bytes(), &self.seed(stored)?],
                )
            }
            Collection::Deals => {
                let lead = self.linked(Collection::Leads, links.lead)?;
                derived_id("deal", &[&lead.ok_or(DANGLING)?.bytes()])
            }
            _ => stored.settled_id(),
        })
    }

    pub(super) fn linked(
        &self,
        collection: Collection,
        number: Option<u64>,
    ) -> Result<Option<ObjectId>, StoreError> {
        let Some(number) = number else {
            return Ok(None);
        };
        let row = collection.row(number);
        if let Some(id) = self.found.borrow().get(&row) {
            return Ok(Some(*id));
        }
        let id = self.of(row, &*self.parent(collection, number)?)?;
        self.found.borrow_mut().insert(row, id);
        Ok(Some(id))
    }

    /// A message's `_id` if it was pushed before its conversation was adopted.
    pub(super) fn before_adoption(&self, message: &Stored) -> Result<ObjectId, StoreError> {
        let number = message.links.conversation.ok_or(DANGLING)?;
        let mut conversation = Stored::clone(&*self.parent(Collection::Conversations, number)?);
        conversation.adopted = None;
        let conversation = self.of(Collection::Conversations.row(number), &conversation)?;
        let room = derived_id("room", &[&conversation.bytes()]);
        Ok(derived_id(
            "message",
            &[&room.bytes(), &self.seed(message)?],
        ))
    }

    /// Whose conversation it is: the contact's, else the lead's.
    fn owner(&self, links: &Links) -> Result<[u8; 12], StoreError> {
        if let Some(contact) = links.contact {
            let contact = self.parent(Collection::Contacts, contact)?;
            return Ok(contact.settled_id().bytes());
        }
        let lead = links.lead.ok_or(DANGLING)?;
        Ok(self.parent(Collection::Leads, lead)?.own_id)
    }

    /// What tells a room's messages apart: the lead, unless it repeats one; nothing for the system's.
    fn seed(&self, stored: &Stored) -> Result<[u8; 12], StoreError> {
        match (
            &stored.payload,
            self.linked(Collection::Leads, stored.links.lead)?,
        ) {
            (None, Some(lead)) => Ok(lead.bytes()),
            _ => Ok(stored.own_id),
        }
    }
}
