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
            Collection::Messages => derived_id("message", &[&self.seed(stored)?]),
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

    /// Whose conversation it is: the contact's, else the lead's.
    fn owner(&self, links: &Links) -> Result<[u8; 12], StoreError> {
        if let Some(contact) = links.contact {
            let contact = self.parent(Collection::Contacts, contact)?;
            return Ok(contact.settled_id().bytes());
        }
        let lead = links.lead.ok_or(DANGLING)?;
        Ok(self.parent(Collection::Leads, lead)?.own_id)
    }

    /// What a message is: a lead's, a repetition of one, or a room's first. Where it is said is no part of it: a
    /// contact may turn out to be another one, with another conversation, between a push whose outcome is unknown and
    /// the next.
    fn seed(&self, stored: &Stored) -> Result<[u8; 12], StoreError> {
        if stored.payload.is_some() {
            return Ok(stored.own_id);
        }
        let links = stored.links;
        let of = match links.lead {
            Some(_) => self.linked(Collection::Leads, links.lead)?,
            None => self.linked(Collection::Rooms, links.room)?,
        };
        Ok(of.ok_or(DANGLING)?.bytes())
    }
}
