//! Under which `_id` a document is upstream: its own, an adopted one, or derived from what it belongs to (R34).

use bson::oid::ObjectId;
use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::{Collection, DANGLING, Links, Stored, load};
use crate::model::derived_id;
use crate::store::StoreError;
use crate::store::tables::RowTuple;

/// Finds ids in the documents of a snapshot, or of a transaction.
pub(super) struct Ids<'a, T>(pub(super) &'a T);

impl<T: ReadableTable<RowTuple, &'static [u8]>> Ids<'_, T> {
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
        self.of(row, &load(self.0, row)?).map(Some)
    }

    /// Whose conversation it is: the contact's, else the lead's.
    fn owner(&self, links: &Links) -> Result<[u8; 12], StoreError> {
        if let Some(contact) = links.contact {
            let contact = load(self.0, Collection::Contacts.row(contact))?;
            return Ok(contact.settled_id().bytes());
        }
        let lead = Collection::Leads.row(links.lead.ok_or(DANGLING)?);
        Ok(load(self.0, lead)?.own_id)
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
