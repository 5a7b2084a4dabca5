//! How a contact that exists upstream is updated: only where that undoes nothing (R30, R20).
//!
//! Only what is new since the last push is said, so that what a person emptied stays empty. A field is set where it is
//! empty upstream or still equals what this node last pushed. E-mail and phone stay; others are kept beside them. Every
//! value from outside is wrapped in `$literal`: a lead may be called `$email`.

use bson::{Bson, Document, RawBson, bson, doc, rawdoc};
use inlet_sync::ports::Rendered;

use super::DAMAGED;
use crate::store::StoreError;
use crate::store::documents::Stored;

/// Newer data replaces older data of our own.
const REPLACED: [&str; 4] = ["name", "first_name", "last_name", "address"];
/// Filled once, then kept; what differs goes beside them.
const FILLED: [(&str, &str); 2] = [("email", "other_emails"), ("phone", "other_phones")];
/// Set when the document comes to be.
const FIXED: [&str; 7] = [
    "account_id",
    "owner",
    "type",
    "source",
    "is_deleted",
    "created_at",
    "node",
];

/// One statement of an `update` command. `before`: the contact's BSON as last pushed, or empty.
pub(super) fn render(stored: &Stored, before: &[u8], upsert: bool) -> Result<Rendered, StoreError> {
    let now = Document::try_from(stored.body()?).map_err(|_| DAMAGED)?;
    let before = read(before)?;
    let id = stored.settled_id();
    let pipeline = vec![
        Bson::Document(doc! { "$set": values(&now, &before) }),
        others(&now, &before),
    ];
    let filter = if upsert {
        rawdoc! { "_id": id }
    } else {
        rawdoc! { "_id": id, "is_deleted": { "$ne": true } }
    };
    let update = RawBson::try_from(Bson::Array(pipeline)).map_err(|_| DAMAGED)?;
    Ok(Rendered::Update {
        filter,
        update,
        upsert,
    })
}

fn read(bytes: &[u8]) -> Result<Document, StoreError> {
    if bytes.is_empty() {
        return Ok(Document::new());
    }
    Document::from_reader(bytes).map_err(|_| DAMAGED)
}

fn values(now: &Document, before: &Document) -> Document {
    let mut set = Document::new();
    for field in REPLACED {
        if let Some(value) = now
            .get(field)
            .filter(|value| before.get(field) != Some(value))
        {
            set.insert(field, replace(field, value, before.get(field)));
        }
    }
    for (field, kept_in) in FILLED {
        if let Some(value) = news(now, before, field, kept_in).first() {
            set.insert(field, replace(field, value, None));
        }
    }
    for field in FIXED {
        if let Some(value) = now.get(field) {
            set.insert(field, doc! { "$ifNull": [path(field), literal(value)] });
        }
    }
    if let Some(value) = now.get("updated_at") {
        set.insert(
            "updated_at",
            doc! { "$max": ["$updated_at", literal(value)] },
        );
    }
    set
}

/// Ours where upstream is empty or still what we pushed; else upstream's.
fn replace(field: &str, value: &Bson, pushed: Option<&Bson>) -> Bson {
    let empty = bson!({ "$in": [{ "$ifNull": [path(field), ""] }, ["", {}]] });
    let mut ours = vec![empty];
    if let Some(pushed) = pushed {
        ours.push(bson!({ "$eq": [path(field), literal(pushed)] }));
    }
    bson!({ "$cond": [{ "$or": ours }, literal(value), path(field)] })
}

/// The addresses or numbers that were not there at the last push.
fn news(now: &Document, before: &Document, field: &str, kept_in: &str) -> Vec<Bson> {
    let all = |of: &Document| -> Vec<Bson> {
        let others = of.get_array(kept_in).into_iter().flatten();
        of.get(field).into_iter().chain(others).cloned().collect()
    };
    let known = all(before);
    let mut news = all(now);
    news.retain(|value| !known.contains(value));
    news
}

/// Second stage, once `email` and `phone` are known: what differs from them is kept beside.
fn others(now: &Document, before: &Document) -> Bson {
    let mut set = Document::new();
    for (field, kept_in) in FILLED {
        let news = news(now, before, field, kept_in);
        if !news.is_empty() {
            set.insert(kept_in, beside(field, kept_in, news));
        }
    }
    set.insert("is_deleted", bson!({ "$ifNull": ["$is_deleted", false] }));
    bson!({ "$set": set })
}

fn beside(field: &str, kept_in: &str, news: Vec<Bson>) -> Bson {
    let lower = |value: Bson| bson!({ "$toLower": { "$convert": { "input": value, "to": "string", "onError": "", "onNull": "" } } });
    let kept = bson!({ "$cond": [{ "$isArray": path(kept_in) }, path(kept_in), []] });
    let is_new = bson!({ "$and": [
        { "$ne": [lower(bson!("$$this")), lower(path(field))] },
        { "$not": { "$in": ["$$this", "$$kept"] } },
    ] });
    bson!({ "$let": {
        "vars": { "kept": kept },
        "in": { "$let": {
            "vars": { "new": { "$filter": { "input": literal(&Bson::Array(news)), "cond": is_new } } },
            "in": { "$cond": [
                { "$eq": [{ "$size": "$$new" }, 0] },
                { "$ifNull": [path(kept_in), "$$REMOVE"] },
                { "$concatArrays": ["$$kept", "$$new"] },
            ] },
        } },
    } })
}

fn path(field: &str) -> Bson {
    Bson::String(format!("${field}"))
}

fn literal(value: &Bson) -> Bson {
    bson!({ "$literal": value.clone() })
}
