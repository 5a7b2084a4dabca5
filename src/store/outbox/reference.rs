//! How a document that is upstream gets the reference to its contact, or another one than it had (R9, R31, R36).
//!
//! Must not know: why. What the change log keeps of such a change is the reference as it was, so that the update
//! touches only what still says what this node wrote: what people changed stays.

use bson::oid::ObjectId;
use bson::{Bson, Document, RawBson, RawDocumentBuf, doc};
use inlet_sync::ports::{Rendered, Row};

use super::DAMAGED;
use crate::store::changes::Owed;
use crate::store::documents::{Collection, Stored};
use crate::store::{Snapshot, StoreError};

/// A document's reference to its contact, as it was upstream before a change. As bytes: the contact's `_id`, then the
/// document's; nothing where it had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    /// The contact's `_id`.
    pub(super) contact: ObjectId,
    /// The document's own, which may depend on the contact's.
    pub(super) document: ObjectId,
}

impl Reference {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.contact.bytes(), self.document.bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (contact, document) = bytes.split_at_checked(12)?;
        Some(Self {
            contact: ObjectId::from_bytes(contact.try_into().ok()?),
            document: ObjectId::from_bytes(document.try_into().ok()?),
        })
    }
}

/// Says which contact a document refers to now, where it refers to none or to one it referred to before, whichever the
/// change log says.
pub(super) fn render(
    snapshot: &Snapshot,
    row: Row,
    stored: &Stored,
    owed: &Owed,
) -> Result<Rendered, StoreError> {
    let Some(contact) = stored.links.contact else {
        return Ok(Rendered::Nothing);
    };
    let contact = snapshot.document(Collection::Contacts.row(contact))?;
    let field = match Collection::of(row) {
        Collection::Leads | Collection::Conversations => "contact_id",
        Collection::Deals => snapshot.deal_contact_field(&stored.links)?,
        Collection::Messages => "metadata.contact_id",
        Collection::Contacts | Collection::Rooms | Collection::Logs => {
            return Ok(Rendered::Nothing);
        }
    };
    let earlier = || {
        owed.befores
            .iter()
            .map(|before| Reference::from_bytes(before))
    };
    let had_none = owed.befores.is_empty() || earlier().any(|earlier| earlier.is_none());
    let mut ids = vec![Bson::ObjectId(snapshot.upstream_id(row, stored)?)];
    let mut contacts = Vec::new();
    for earlier in earlier().flatten() {
        ids.push(earlier.document.into());
        contacts.push(earlier.contact.into());
    }
    if had_none {
        // In a query this means absent.
        contacts.push(Bson::Null);
    }
    let filter = doc! { "_id": { "$in": ids }, field: { "$in": contacts } };
    let update = update(row, field, contact.settled_id(), had_none);
    Ok(Rendered::Update {
        filter: RawDocumentBuf::try_from(&filter).map_err(|_| DAMAGED)?,
        update: RawBson::Document(RawDocumentBuf::try_from(&update).map_err(|_| DAMAGED)?),
        upsert: false,
    })
}

fn update(row: Row, field: &str, contact: ObjectId, had_none: bool) -> Document {
    let mut update = doc! { "$set": { field: contact } };
    match Collection::of(row) {
        Collection::Leads if had_none => {
            update.insert("$pull", doc! { "errors": { "type": "contactCreation" } });
        }
        // It is the contact's now (R21).
        Collection::Conversations if had_none => {
            update.insert("$unset", doc! { "lead": "" });
        }
        _ => {}
    }
    update
}
