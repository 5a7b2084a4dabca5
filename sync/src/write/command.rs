//! Insert and update commands as bytes, and what their replies mean.
//!
//! `run_command` inherits no write concern and returns `Ok` with `writeErrors` and `writeConcernError` inside: each
//! command says all it wants, and each reply is read to the end. Errors are told apart by index and code only,
//! because the server cuts their texts.

use std::time::Duration;

use bson::raw::{CStr, RawArrayBuf, RawDocument, cstr};
use bson::{Bson, Document, RawBson, RawDocumentBuf, doc, rawdoc};

use crate::error::Error;

/// The most documents in one command.
pub(crate) const COMMAND_DOCUMENTS_MAX: usize = 1000;
/// The most bytes in one command; the server's own limit is near 16 MiB.
pub(crate) const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most bytes of one document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// MongoDB's codes for a document that is too large, and for a key that is taken.
pub(crate) const TOO_LARGE: i32 = 10334;
pub(crate) const DUPLICATE_KEY: i32 = 11000;

/// One statement of an `update` command: `{q, u, upsert}` or `{q, u, multi}`.
#[derive(Debug, Clone)]
pub(crate) struct Statement(RawDocumentBuf);

impl Statement {
    pub(crate) fn new(filter: &RawDocument, update: &RawBson, upsert: bool) -> Self {
        let mut statement = RawDocumentBuf::new();
        statement.append(cstr!("q"), filter);
        statement.append(cstr!("u"), update.as_raw_bson_ref());
        statement.append(cstr!("upsert"), upsert);
        Self(statement)
    }

    pub(crate) fn of(filter: &Document, update: &Document, upsert: bool) -> Result<Self, Error> {
        let raw = |document: &Document| {
            RawDocumentBuf::try_from(document).map_err(|error| not_bson(&error))
        };
        Ok(Self::new(
            &raw(filter)?,
            &RawBson::Document(raw(update)?),
            upsert,
        ))
    }

    /// Updates every document that matches.
    pub(crate) fn of_all(filter: &Document, update: &Document) -> Result<Self, Error> {
        let Self(mut statement) = Self::of(filter, update, false)?;
        statement.append(cstr!("multi"), true);
        Ok(Self(statement))
    }

    pub(crate) fn document(&self) -> &RawDocument {
        &self.0
    }
}

/// An unordered insert, majority-committed and journaled.
pub(crate) fn insert(
    collection: &str,
    documents: &[&RawDocument],
    deadline: Duration,
) -> RawDocumentBuf {
    command(
        cstr!("insert"),
        collection,
        cstr!("documents"),
        documents,
        deadline,
    )
}

/// An unordered update, majority-committed and journaled.
pub(crate) fn update(
    collection: &str,
    statements: &[&Statement],
    deadline: Duration,
) -> RawDocumentBuf {
    let statements: Vec<_> = statements
        .iter()
        .map(|statement| statement.document())
        .collect();
    command(
        cstr!("update"),
        collection,
        cstr!("updates"),
        &statements,
        deadline,
    )
}

/// An unordered removal of single documents, majority-committed and journaled.
pub(crate) fn delete(
    collection: &str,
    filters: &[Document],
    deadline: Duration,
) -> Result<RawDocumentBuf, Error> {
    let statement = |filter: &Document| {
        let statement = doc! { "q": filter, "limit": 1 };
        RawDocumentBuf::try_from(&statement).map_err(|error| not_bson(&error))
    };
    let statements = filters
        .iter()
        .map(statement)
        .collect::<Result<Vec<_>, _>>()?;
    let statements: Vec<_> = statements.iter().map(AsRef::as_ref).collect();
    Ok(command(
        cstr!("delete"),
        collection,
        cstr!("deletes"),
        &statements,
        deadline,
    ))
}

fn command(
    verb: &CStr,
    collection: &str,
    list: &CStr,
    items: &[&RawDocument],
    deadline: Duration,
) -> RawDocumentBuf {
    // Half the deadline, so that MongoDB gives up, and says so, before this side does.
    let time_ms = i64::try_from(deadline.as_millis() / 2).unwrap_or(i64::MAX);
    let array: RawArrayBuf = items.iter().copied().collect();
    let mut command = RawDocumentBuf::new();
    command.append(verb, collection);
    command.append(list, array);
    command.append(cstr!("ordered"), false);
    command.append(cstr!("maxTimeMS"), time_ms);
    command.append(
        cstr!("writeConcern"),
        rawdoc! { "w": "majority", "j": true, "wtimeout": time_ms },
    );
    command
}

/// The reply to a write command.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Documents inserted, matched or upserted.
    pub(crate) n: i64,
    /// What was refused.
    pub(crate) errors: Vec<WriteError>,
    /// The rest may be rolled back yet: nothing of this command counts as done.
    pub(crate) write_concern_error: Option<Error>,
}

/// One refused document or statement.
#[derive(Debug)]
pub(crate) struct WriteError {
    /// Its place in the command.
    pub(crate) index: usize,
    pub(crate) code: i32,
    pub(crate) message: String,
    /// A duplicate key, and the key is `_id`.
    pub(crate) is_same_id: bool,
}

impl Reply {
    pub(crate) fn parse(reply: Document) -> Self {
        let errors = reply
            .get_array("writeErrors")
            .map(Vec::as_slice)
            .unwrap_or_default();
        Self {
            n: integer(&reply, "n").unwrap_or_default(),
            errors: errors
                .iter()
                .filter_map(Bson::as_document)
                .filter_map(WriteError::parse)
                .collect(),
            write_concern_error: reply
                .get_document("writeConcernError")
                .ok()
                .map(concern_error),
        }
    }
}

impl WriteError {
    fn parse(error: &Document) -> Option<Self> {
        let code = i32::try_from(integer(error, "code")?).ok()?;
        let key = error.get_document("keyPattern").ok();
        Some(Self {
            index: usize::try_from(integer(error, "index")?).ok()?,
            code,
            message: error.get_str("errmsg").unwrap_or_default().to_owned(),
            is_same_id: code == DUPLICATE_KEY && key.is_some_and(|key| key.keys().eq(["_id"])),
        })
    }
}

fn concern_error(error: &Document) -> Error {
    let code = integer(error, "code")
        .and_then(|code| i32::try_from(code).ok())
        .unwrap_or_default();
    let message = error.get_str("errmsg").unwrap_or_default().to_owned();
    match Error::from_code(code, message.clone()) {
        error @ (Error::Connectivity { .. } | Error::Configuration { .. }) => error,
        _ => Error::Capacity { code, message },
    }
}

fn integer(document: &Document, key: &str) -> Option<i64> {
    match document.get(key)? {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        #[allow(clippy::cast_possible_truncation)]
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

fn not_bson(error: &bson::error::Error) -> Error {
    Error::Document {
        code: 22,
        message: error.to_string(),
    }
}

/// Groups of neighbours that each fit into one command of at most `documents` documents.
pub(crate) fn batches<T>(items: &[T], documents: usize, bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        if at - start >= documents || (at > start && size + bytes(item) > COMMAND_BYTES_MAX) {
            batches.push(&items[start..at]);
            (start, size) = (at, 0);
        }
        size += bytes(item);
    }
    if start < items.len() {
        batches.push(&items[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bson::doc;

    use super::*;

    #[test]
    fn a_command_is_cut_by_count_and_by_bytes() {
        let sizes = [1, 1, 1, COMMAND_BYTES_MAX, COMMAND_BYTES_MAX, 1];
        let lengths: Vec<_> = batches(&sizes, 2, |size| *size)
            .iter()
            .map(|batch| batch.len())
            .collect();
        assert_eq!(lengths, [2, 1, 1, 1, 1]);
    }

    #[test]
    fn a_reply_that_says_ok_may_hold_both_kinds_of_errors() {
        let reply = Reply::parse(doc! {
            "ok": 1, "n": 1,
            "writeErrors": [{ "index": 3, "code": 11000, "keyPattern": { "_id": 1 }, "errmsg": "" }],
            "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" },
        });
        assert!(reply.errors[0].index == 3 && reply.errors[0].is_same_id);
        assert!(matches!(
            reply.write_concern_error.unwrap(),
            Error::Capacity { code: 64, .. }
        ));
    }

    #[test]
    fn a_duplicate_on_another_index_is_not_the_same_document() {
        let reply = Reply::parse(doc! {
            "writeErrors": [{ "index": 0, "code": 11000, "keyPattern": { "email": 1 } }],
        });
        assert!(!reply.errors[0].is_same_id);
    }
}
