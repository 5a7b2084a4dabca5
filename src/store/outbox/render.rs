//! What the push writes of a document: all of it, only what changed, or nothing yet.

use bson::{Document, RawDocumentBuf, bson};
use inlet_sync::ports::{Pending, Rendered, Row};

use super::unsettled::lacks;
use super::{DAMAGED, Lacking, contact_update, lead_update, reference};
use crate::store::changes::{Held, Owed};
use crate::store::documents::{Assembler, Collection, Stored};
use crate::store::{Snapshot, StoreError};

/// Renders a stage of a batch.
pub(super) struct Render<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) assembler: Assembler<'s>,
    /// Whether anything is held at all: usually nothing is.
    pub(super) anything_held: bool,
    /// What the batch's contacts had not when they were settled.
    pub(super) lacking: Lacking,
}

impl Render<'_> {
    /// What cannot be read is set aside, behind what it refers to where that is held already.
    pub(super) fn one(&self, pending: &Pending) -> Result<Rendered, StoreError> {
        match self.render(pending) {
            Err(error @ StoreError::Corrupt { .. }) => {
                if let Some(by) = self.held_parent(pending.row) {
                    return Ok(Rendered::Blocked { by });
                }
                tracing::error!(%error, row = ?pending.row, "a document cannot be pushed: it is set aside");
                let message = error.to_string();
                Ok(Rendered::Damaged { message })
            }
            rendered => rendered,
        }
    }

    fn held_parent(&self, row: Row) -> Option<Row> {
        let stored = self.snapshot.document(row).ok()?;
        self.blocking(&stored).ok()?
    }

    fn render(&self, pending: &Pending) -> Result<Rendered, StoreError> {
        let row = pending.row;
        if !self.snapshot.has_document(row)? {
            // It was erased, in a round that failed before it had removed the tickets.
            return Ok(Rendered::Nothing);
        }
        let stored = self.snapshot.document(row)?;
        if self.is_withdrawn(row, &stored)? {
            return Ok(Rendered::Nothing);
        }
        match Collection::of(row) {
            Collection::Contacts => self.contact(pending, &self.as_settled(row, stored)?),
            Collection::Leads => self.lead(pending, &stored),
            _ => self.dependant(pending, &stored),
        }
    }

    /// Without a key that came after the contact was settled: whose it is has not been asked. The change that brought
    /// it is pending still.
    fn as_settled(&self, row: Row, mut stored: Stored) -> Result<Stored, StoreError> {
        let lacking = self.lacking.get(&row).map_or(&[][..], Vec::as_slice);
        if lacks(&stored, lacking)?.len() == lacking.len() {
            return Ok(stored);
        }
        let mut body = Document::try_from(stored.body()?).map_err(|_| DAMAGED)?;
        for field in lacking {
            body.remove(field);
        }
        let body = RawDocumentBuf::try_from(&body).map_err(|_| DAMAGED)?;
        stored.body = body.into_bytes();
        Ok(stored)
    }

    fn contact(&self, pending: &Pending, stored: &Stored) -> Result<Rendered, StoreError> {
        let owed = self.snapshot.owed(pending)?;
        let before = match (owed.before(), stored.adopted) {
            // Whatever was pushed went to another document.
            (_, Some(adopted)) if !adopted.seen => &[],
            (Some(before), _) => before,
            (None, Some(_)) => &[],
            (None, None) => {
                return self
                    .assembler
                    .assemble(pending.row, stored, true)
                    .map(Rendered::Create);
            }
        };
        if before == stored.body {
            return Ok(Rendered::Nothing);
        }
        let upsert = stored.adopted.is_some_and(|adopted| !adopted.seen);
        contact_update::render(stored, before, upsert)
    }

    /// A lead never waits for a refused contact: it goes without, says so, and gets the reference later (R36).
    fn lead(&self, pending: &Pending, stored: &Stored) -> Result<Rendered, StoreError> {
        let row = pending.row;
        let owed = self.snapshot.owed(pending)?;
        let contact = stored
            .links
            .contact
            .map(|number| Collection::Contacts.row(number));
        let held = match contact {
            Some(contact) if self.anything_held => {
                let held = self.snapshot.held(contact)?;
                held.filter(|held| held.owed.first).zip(Some(contact))
            }
            _ => None,
        };
        match held {
            None => self.written(row, stored, &owed),
            Some(_) if lead_update::is_only_errors(&owed) => self.written(row, stored, &owed),
            Some((_, by)) if is_upstream(stored) || !owed.first => Ok(Rendered::Blocked { by }),
            Some((held, _)) => {
                let whole = self.assembler.assemble(row, stored, false)?;
                let whole = without_contact(&whole, &held)?;
                // Should it turn out to be there already, what it has been told since goes by update.
                Ok(if owed.befores.is_empty() {
                    Rendered::Append(whole)
                } else {
                    Rendered::Create(whole)
                })
            }
        }
    }

    fn dependant(&self, pending: &Pending, stored: &Stored) -> Result<Rendered, StoreError> {
        let row = pending.row;
        if let Some(by) = self.blocking(stored)? {
            return Ok(Rendered::Blocked { by });
        }
        let owed = self.snapshot.owed(pending)?;
        let exists = stored.adopted.is_some() || self.opens_adopted_room(row, stored)?;
        if exists && owed.befores.is_empty() {
            return Ok(Rendered::Nothing);
        }
        self.written(row, stored, &owed)
    }

    /// A new document whose contact came later goes without it, because that contact may not be upstream yet: the
    /// change that brought it follows in the log. Where both are at hand the document is new as a whole, unless a push
    /// whose outcome was unknown turns out to have brought it.
    fn written(&self, row: Row, stored: &Stored, owed: &Owed) -> Result<Rendered, StoreError> {
        if is_upstream(stored) || !owed.first {
            return match Collection::of(row) {
                Collection::Leads => lead_update::render(self.snapshot, row, stored, owed),
                _ => reference::render(self.snapshot, row, stored, owed),
            };
        }
        if !owed.befores.is_empty() {
            let whole = self.assembler.assemble(row, stored, true)?;
            return Ok(Rendered::Create(whole));
        }
        let came_before = stored
            .links
            .contact
            .is_none_or(|contact| contact < row.number);
        self.assembler
            .assemble(row, stored, came_before)
            .map(Rendered::Append)
    }

    /// A system message says that the conversation began: not when somebody else began it.
    fn opens_adopted_room(&self, row: Row, stored: &Stored) -> Result<bool, StoreError> {
        let (Collection::Messages, None, Some(room)) =
            (Collection::of(row), stored.links.lead, stored.links.room)
        else {
            return Ok(false);
        };
        let room = self.assembler.parent(Collection::Rooms, room)?;
        Ok(room.adopted.is_some())
    }

    fn blocking(&self, stored: &Stored) -> Result<Option<Row>, StoreError> {
        if !self.anything_held {
            return Ok(None);
        }
        for parent in parents(stored) {
            // A lead that waits only for its contact's reference is upstream.
            let holds = |held: Held| held.owed.first;
            if self.snapshot.held(parent)?.is_some_and(holds) {
                return Ok(Some(parent));
            }
        }
        Ok(None)
    }

    /// Whether the lead that it belongs to turned out to be another node's.
    fn is_withdrawn(&self, row: Row, stored: &Stored) -> Result<bool, StoreError> {
        let lead = match (Collection::of(row), stored.links) {
            (Collection::Leads, _) => return Ok(stored.withdrawn),
            (Collection::Contacts, _) => stored.bound_lead(),
            (_, links) if links.lead.is_some() => links.lead,
            (_, links) => match links.conversation {
                Some(conversation) => {
                    let conversation = self
                        .assembler
                        .parent(Collection::Conversations, conversation)?;
                    conversation.links.lead
                }
                None => None,
            },
        };
        match lead {
            Some(lead) => Ok(self.assembler.parent(Collection::Leads, lead)?.withdrawn),
            None => Ok(stored.withdrawn),
        }
    }
}

/// Whether it, or what stands for it, was seen there.
fn is_upstream(stored: &Stored) -> bool {
    stored.adopted.is_some_and(|adopted| adopted.seen)
}

fn parents(stored: &Stored) -> impl Iterator<Item = Row> {
    let links = stored.links;
    [
        links.contact.map(|number| Collection::Contacts.row(number)),
        links.lead.map(|number| Collection::Leads.row(number)),
        links
            .conversation
            .map(|number| Collection::Conversations.row(number)),
        links.room.map(|number| Collection::Rooms.row(number)),
    ]
    .into_iter()
    .flatten()
}

fn without_contact(whole: &RawDocumentBuf, held: &Held) -> Result<RawDocumentBuf, StoreError> {
    let mut lead = Document::try_from(whole.as_ref()).map_err(|_| DAMAGED)?;
    let message = held
        .failure()
        .map_or("the contact is not upstream yet", |failure| {
            failure.cause.message()
        });
    let error = bson!({ "type": "contactCreation", "details": { "errorJson": message } });
    if let Ok(errors) = lead.get_array_mut("errors") {
        errors.push(error);
    } else {
        lead.insert("errors", vec![error]);
    }
    RawDocumentBuf::try_from(&lead).map_err(|_| DAMAGED)
}
