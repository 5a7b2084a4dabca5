//! A contact that people deleted upstream comes back under a new `_id` (R31).
//!
//! Nothing that refers to it, or to the conversation it brings along, gets ahead of it.

use bson::oid::ObjectId;
use inlet_sync::ports::Row;
use redb::ReadableTable;

use crate::store::changes::{Change, Held};
use crate::store::documents::{Adopted, Collection};
use crate::store::{StoreError, Tables};

impl Tables<'_> {
    /// The contact was deleted upstream: it gets a new `_id`, and a new conversation with it (R31). What refers to
    /// the conversation or its room waits until they are upstream.
    pub(super) fn renew_contact(&mut self, row: Row, now_ms: i64) -> Result<(), StoreError> {
        let id = ObjectId::new().bytes();
        let mut contact = self.document(row)?;
        contact.own_id = id;
        contact.adopted = Some(Adopted { id, seen: false });
        self.put_document(row, &contact)?;
        self.renew_conversation(row, now_ms)
    }

    /// The contact is another document upstream than it was: its conversation there is another one too.
    pub(super) fn renew_conversation(
        &mut self,
        contact: Row,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let rows = self
            .conversations
            .get(contact.number)?
            .map(|rows| rows.value());
        let Some((conversation, room, message)) = rows else {
            return Ok(());
        };
        for row in [
            Collection::Conversations.row(conversation),
            Collection::Rooms.row(room),
        ] {
            self.push_anew(row)?;
            self.hold(row, &Held::being_tried(now_ms))?;
        }
        self.push_anew(Collection::Messages.row(message))
    }

    /// A damaged document is pushed as well, which sets it aside in plain view.
    fn push_anew(&mut self, row: Row) -> Result<(), StoreError> {
        match self.document(row) {
            Ok(mut stored) => {
                stored.adopted = None;
                self.put_document(row, &stored)?;
            }
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        self.append_change(row, Change::First)
    }

    /// A contact under an `_id` that was only claimed is upstream now: from here on its deletion would be noticed.
    pub(super) fn seen(&mut self, row: Row) -> Result<(), StoreError> {
        if Collection::of(row) != Collection::Contacts {
            return Ok(());
        }
        let mut stored = self.document(row)?;
        match &mut stored.adopted {
            Some(adopted) if !adopted.seen => adopted.seen = true,
            _ => return Ok(()),
        }
        self.put_document(row, &stored)
    }
}
