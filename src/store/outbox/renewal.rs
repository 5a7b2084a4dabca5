//! A contact comes to be another document upstream: people deleted it, or it turned out to be somebody else's (R31).
//!
//! Nothing that refers to it, or to the conversation it brings along, gets ahead of it.

use bson::oid::ObjectId;
use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::DAMAGED;
use super::reference::Reference;
use crate::store::changes::{Change, Held};
use crate::store::documents::{Adopted, Collection, Stored, bound_contact_id};
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

    /// The contact is another document upstream than it was: its conversation there is another one too. What was said
    /// until now stays where it was said, with the contact to whom it was said: people may have answered there, and a
    /// contact has one conversation (R23), which the other may have had for long.
    pub(super) fn renew_conversation(
        &mut self,
        contact: Row,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some((conversation, room, message)) = self.conversation_of(contact.number)? else {
            return Ok(());
        };
        for row in [
            Collection::Conversations.row(conversation),
            Collection::Rooms.row(room),
        ] {
            self.wait_for_anew(row, now_ms)?;
        }
        self.push_anew(Collection::Messages.row(message))
    }

    /// Pushes it once more, as a document that what refers to it has to wait for.
    fn wait_for_anew(&mut self, row: Row, now_ms: i64) -> Result<(), StoreError> {
        self.push_anew(row)?;
        let ticket = self.last_number("last_ticket")?;
        self.hold(row, &Held::being_tried(now_ms, ticket))
    }

    /// A conversation that was a lead's turns out to exist for its contact: the room follows.
    pub(super) fn renew_room(
        &mut self,
        conversation: &Stored,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let contact = conversation.links.contact.ok_or(DAMAGED)?;
        let Some((_, room, message)) = self.conversation_of(contact)? else {
            return Ok(());
        };
        self.wait_for_anew(Collection::Rooms.row(room), now_ms)?;
        self.push_anew(Collection::Messages.row(message))
    }

    fn conversation_of(&self, owner: u64) -> Result<Option<(u64, u64, u64)>, StoreError> {
        Ok(self.conversations.get(owner)?.map(|rows| rows.value()))
    }

    /// The contact is about to be another document upstream: what is there and refers to it is told so. Whoever is new
    /// refers to the right one anyway.
    pub(super) fn refer_elsewhere(&mut self, contact: Row) -> Result<(), StoreError> {
        let was = self.document(contact)?.settled_id();
        for row in self.referring(contact.number)? {
            let document = match self.document(row) {
                Ok(stored) => self.upstream_id(row, &stored),
                Err(error) => Err(error),
            };
            match document {
                Ok(document) => {
                    let before = Reference {
                        contact: was,
                        document,
                    };
                    let before = &before.to_bytes();
                    self.append_change(row, Change::Again { before })?;
                }
                // Nobody can say what it refers to.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Leads, deals and messages of a contact.
    fn referring(&self, contact: u64) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        for entry in self.families.range((contact, 0)..=(contact, u64::MAX))? {
            let (entry, made) = entry?;
            let ((_, lead), (message, deal)) = (entry.value(), made.value());
            rows.push(Collection::Leads.row(lead));
            rows.extend((message != 0).then(|| Collection::Messages.row(message)));
            rows.extend((deal != 0).then(|| Collection::Deals.row(deal)));
            let repeats = self.repeats_of(lead)?.into_iter();
            rows.extend(repeats.map(|message| Collection::Messages.row(message)));
        }
        Ok(rows)
    }

    /// A contact that belongs to a lead has its `_id` from that lead, whichever node's that turns out to be.
    pub(super) fn bind_contact(
        &mut self,
        lead: Row,
        stored: &Stored,
        id: ObjectId,
    ) -> Result<(), StoreError> {
        let Some(contact) = stored.links.contact else {
            return Ok(());
        };
        let row = Collection::Contacts.row(contact);
        let mut contact = match self.document(row) {
            Ok(contact) => contact,
            Err(StoreError::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if contact.bound_lead() != Some(lead.number) || contact.adopted.is_some() {
            return Ok(());
        }
        contact.own_id = bound_contact_id(id).bytes();
        self.put_document(row, &contact)
    }

    /// A damaged document is pushed as well, which sets it aside in plain view.
    fn push_anew(&mut self, row: Row) -> Result<(), StoreError> {
        match self.document(row) {
            Ok(mut stored) => {
                stored.adopted = None;
                if Collection::of(row) == Collection::Conversations {
                    // It is the contact's alone from now on.
                    stored.own_id = [0; 12];
                    stored.links.lead =
                        stored.links.lead.filter(|_| stored.links.contact.is_none());
                }
                self.put_document(row, &stored)?;
            }
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        self.append_change(row, Change::First)
    }

    /// The contact was written under this `_id`. If it is the one that was only claimed, its deletion would be noticed
    /// from here on; if the contact has got another one meanwhile, that one was never written.
    pub(super) fn seen(&mut self, row: Row, id: ObjectId) -> Result<(), StoreError> {
        if Collection::of(row) != Collection::Contacts {
            return Ok(());
        }
        let mut stored = self.document(row)?;
        match &mut stored.adopted {
            Some(adopted) if adopted.id == id.bytes() && !adopted.seen => adopted.seen = true,
            _ => return Ok(()),
        }
        self.put_document(row, &stored)
    }
}
