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

    /// Whether bytes of the change log are a reference, or the want of one.
    pub(super) fn is_meant_by(bytes: &[u8]) -> bool {
        bytes.is_empty() || bytes.len() == 24
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (contact, document) = bytes.split_at_checked(12)?;
        Some(Self {
            contact: ObjectId::from_bytes(contact.try_into().ok()?),
            document: ObjectId::from_bytes(document.try_into().ok()?),
        })
    }
}

/// The contact that a document is to refer to, and where that may be written.
pub(super) struct Wanted {
    /// The contact's `_id`.
    pub(super) contact: ObjectId,
    /// The field that refers to it.
    pub(super) field: &'static str,
    /// Under which `_id`s the document may be upstream.
    pub(super) ids: Vec<Bson>,
    /// What the field may be replaced from; null, which in a query means absent, where it may be missing.
    pub(super) replaces: Vec<Bson>,
}

impl Wanted {
    /// Whether the document may have been pushed without a contact.
    pub(super) fn had_none(&self) -> bool {
        self.replaces.contains(&Bson::Null)
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
    let Some(wanted) = wanted(snapshot, row, stored, &owed.befores)? else {
        return Ok(Rendered::Nothing);
    };
    let (field, had_none) = (wanted.field, wanted.had_none());
    let update = update(row, field, wanted.contact, had_none);
    let filter = doc! { "_id": { "$in": wanted.ids }, field: { "$in": wanted.replaces } };
    Ok(Rendered::Update {
        filter: RawDocumentBuf::try_from(&filter).map_err(|_| DAMAGED)?,
        update: RawBson::Document(RawDocumentBuf::try_from(&update).map_err(|_| DAMAGED)?),
        upsert: false,
    })
}

/// `befores`: the references that the document may have upstream; with none of them it may have no reference.
pub(super) fn wanted(
    snapshot: &Snapshot,
    row: Row,
    stored: &Stored,
    befores: &[Vec<u8>],
) -> Result<Option<Wanted>, StoreError> {
    let Some(contact) = stored.links.contact else {
        return Ok(None);
    };
    let contact = snapshot.document(Collection::Contacts.row(contact))?;
    let field = match Collection::of(row) {
        Collection::Leads | Collection::Conversations => "contact_id",
        Collection::Deals => snapshot.deal_contact_field(&stored.links)?,
        Collection::Messages => "metadata.contact_id",
        Collection::Contacts | Collection::Rooms | Collection::Logs => return Ok(None),
    };
    let earlier: Vec<_> = befores
        .iter()
        .map(|before| Reference::from_bytes(before))
        .collect();
    let mut ids = vec![Bson::ObjectId(snapshot.upstream_id(row, stored)?)];
    let mut replaces = Vec::new();
    for earlier in earlier.iter().flatten() {
        ids.push(earlier.document.into());
        replaces.push(earlier.contact.into());
    }
    if earlier.is_empty() || earlier.contains(&None) {
        replaces.push(Bson::Null);
    }
    Ok(Some(Wanted {
        contact: contact.settled_id(),
        field,
        ids,
        replaces,
    }))
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
