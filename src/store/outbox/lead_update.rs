//! How a lead that is upstream already is updated: errors of its notifications that came since (R26), beside its
//! contact's reference (R9, R31, R36). Each update says the same however often it is sent, and touches nothing else:
//! `errors` is written by others, too, and is never set as a whole from here.

use bson::oid::ObjectId;
use bson::{Bson, Document, RawBson, RawDocumentBuf, bson, doc, rawdoc};
use inlet_sync::ports::{Rendered, Row};

use super::DAMAGED;
use super::reference::{self, Reference, Wanted, wanted};
use crate::store::changes::Owed;
use crate::store::documents::Stored;
use crate::store::{Snapshot, StoreError};

/// What the change log keeps of a lead's change is its reference as it was, or, as BSON `{errors: [...]}`, the errors
/// that were added.
pub(super) fn render(
    snapshot: &Snapshot,
    row: Row,
    stored: &Stored,
    owed: &Owed,
) -> Result<Rendered, StoreError> {
    let (references, added): (Vec<_>, Vec<_>) = owed
        .befores
        .iter()
        .cloned()
        .partition(|before| Reference::is_meant_by(before));
    if added.is_empty() {
        return reference::render(snapshot, row, stored, owed);
    }
    let errors = errors(&added)?;
    // A lead that was new, and is there all the same, may have gone without its contact.
    let owes_reference = owed.first || !references.is_empty();
    match wanted(snapshot, row, stored, &references)? {
        Some(wanted) if owes_reference => both(wanted, errors),
        _ => add_errors(snapshot.upstream_id(row, stored)?, errors),
    }
}

/// Whether a lead that is upstream is to be told errors, and nothing else.
pub(super) fn is_only_errors(owed: &Owed) -> bool {
    let is_reference = |before: &Vec<u8>| Reference::is_meant_by(before);
    !owed.first && !owed.befores.is_empty() && !owed.befores.iter().any(is_reference)
}

fn errors(added: &[Vec<u8>]) -> Result<Vec<Bson>, StoreError> {
    let mut errors = Vec::new();
    for added in added {
        let added = Document::from_reader(added.as_slice()).map_err(|_| DAMAGED)?;
        errors.extend(added.get_array("errors").map_err(|_| DAMAGED)?.clone());
    }
    Ok(errors)
}

fn add_errors(id: ObjectId, errors: Vec<Bson>) -> Result<Rendered, StoreError> {
    let update = doc! { "$addToSet": { "errors": { "$each": errors } } };
    Ok(Rendered::Update {
        filter: rawdoc! { "_id": id },
        update: RawBson::Document(RawDocumentBuf::try_from(&update).map_err(|_| DAMAGED)?),
        upsert: false,
    })
}

/// Both in one statement, which must not depend on whether either was said before.
fn both(wanted: Wanted, errors: Vec<Bson>) -> Result<Rendered, StoreError> {
    let had_none = wanted.had_none();
    let now = bson!({ "$ifNull": ["$contact_id", null] });
    let replaces = bson!({ "$in": [now, { "$literal": wanted.replaces }] });
    let there = bson!({ "$cond": [{ "$isArray": "$errors" }, "$errors", []] });
    let kept = if had_none {
        let others = bson!({ "$filter": {
            "input": there.clone(), "cond": { "$ne": ["$$this.type", "contactCreation"] },
        } });
        bson!({ "$cond": [replaces.clone(), others, there] })
    } else {
        there
    };
    let news = bson!({ "$filter": {
        "input": { "$literal": errors }, "cond": { "$not": { "$in": ["$$this", "$$kept"] } },
    } });
    let all = bson!({ "$let": { "vars": { "kept": kept }, "in": { "$concatArrays": ["$$kept", news] } } });
    let given = bson!({ "$cond": [replaces, wanted.contact, "$contact_id"] });
    let set = doc! { "errors": all, "contact_id": given };
    let filter = doc! { "_id": { "$in": wanted.ids } };
    Ok(Rendered::Update {
        filter: RawDocumentBuf::try_from(&filter).map_err(|_| DAMAGED)?,
        update: RawBson::try_from(bson!([{ "$set": set }])).map_err(|_| DAMAGED)?,
        upsert: false,
    })
}
