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
        let rows = self.conversations.get(row.number)?.map(|rows| rows.value());
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

    fn push_anew(&mut self, row: Row) -> Result<(), StoreError> {
        let mut stored = self.document(row)?;
        stored.adopted = None;
        self.put_document(row, &stored)?;
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
