//! How a lead that is upstream already is updated: errors of its notifications, and a contact's reference that it went
//! without (R36). Each update says the same however often it is sent, and touches nothing else: `errors` is written by
//! others, too, and is never set as a whole from here.

use bson::oid::ObjectId;
use bson::{Bson, Document, RawBson, RawDocumentBuf, bson, doc, rawdoc};
use inlet_sync::ports::Rendered;

use super::DAMAGED;
use crate::model::Channel;
use crate::store::StoreError;
use crate::store::documents::Stored;

/// Adds the errors that changes brought; each of `added` is BSON: `{errors: [...]}`.
pub(super) fn add_errors(id: ObjectId, added: &[Vec<u8>]) -> Result<Rendered, StoreError> {
    let mut errors = Vec::new();
    for added in added {
        let added = Document::from_reader(added.as_slice()).map_err(|_| DAMAGED)?;
        errors.extend(added.get_array("errors").map_err(|_| DAMAGED)?.clone());
    }
    let update = doc! { "$addToSet": { "errors": { "$each": errors } } };
    Ok(Rendered::Update {
        filter: rawdoc! { "_id": id },
        update: RawBson::Document(RawDocumentBuf::try_from(&update).map_err(|_| DAMAGED)?),
        upsert: false,
    })
}

/// Gives the lead its contact, if it is without, and whatever errors of notifications it has not heard of.
pub(super) fn make_up_for(
    id: ObjectId,
    contact: Option<ObjectId>,
    stored: &Stored,
) -> Result<Rendered, StoreError> {
    let errors = notification_errors(stored)?;
    match contact {
        Some(contact) if errors.is_empty() => Ok(give_contact(id, contact)),
        None if errors.is_empty() => Ok(Rendered::Nothing),
        contact => give_all(id, contact, errors),
    }
}

fn give_contact(id: ObjectId, contact: ObjectId) -> Rendered {
    let update = rawdoc! {
        "$set": { "contact_id": contact },
        "$pull": { "errors": { "type": "contactCreation" } },
    };
    Rendered::Update {
        filter: rawdoc! { "_id": id, "contact_id": { "$exists": false } },
        update: RawBson::Document(update),
        upsert: false,
    }
}

/// Both in one statement, which must not depend on whether either was said before.
fn give_all(
    id: ObjectId,
    contact: Option<ObjectId>,
    errors: Vec<Bson>,
) -> Result<Rendered, StoreError> {
    let there = bson!({ "$cond": [{ "$isArray": "$errors" }, "$errors", []] });
    let not_contact = bson!({ "$filter": {
        "input": there.clone(), "cond": { "$ne": ["$$this.type", "contactCreation"] },
    } });
    let without = bson!({ "$eq": [{ "$type": "$contact_id" }, "missing"] });
    let kept = match contact {
        Some(_) => bson!({ "$cond": [without.clone(), not_contact, there] }),
        None => there,
    };
    let news = bson!({ "$filter": {
        "input": { "$literal": errors }, "cond": { "$not": { "$in": ["$$this", "$$kept"] } },
    } });
    let all = bson!({ "$let": { "vars": { "kept": kept }, "in": { "$concatArrays": ["$$kept", news] } } });
    let mut set = doc! { "errors": all };
    if let Some(contact) = contact {
        let given = bson!({ "$cond": [without, contact, "$contact_id"] });
        set.insert("contact_id", given);
    }
    let update = RawBson::try_from(bson!([{ "$set": set }])).map_err(|_| DAMAGED)?;
    Ok(Rendered::Update {
        filter: rawdoc! { "_id": id },
        update,
        upsert: false,
    })
}

fn notification_errors(stored: &Stored) -> Result<Vec<Bson>, StoreError> {
    let body = Document::try_from(stored.body()?).map_err(|_| DAMAGED)?;
    let is_ours = |error: &&Bson| {
        let kind = error
            .as_document()
            .and_then(|error| error.get_str("type").ok());
        kind.is_some_and(|kind| {
            Channel::ALL
                .iter()
                .any(|channel| channel.error_type() == Some(kind))
        })
    };
    let errors = body.get_array("errors").into_iter().flatten();
    Ok(errors.filter(is_ours).cloned().collect())
}
