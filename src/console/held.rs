//! How a document that is held back is told to people: what it is, why, since when, until when.

use inlet_sync::ports::Row;
use serde_json::{Value, json};

use crate::store::changes::{Cause, Held};
use crate::store::documents::Collection;
use crate::store::{Snapshot, StoreError};

pub(super) fn describe(snapshot: &Snapshot, row: Row, held: &Held) -> Result<Value, StoreError> {
    let name = |row: Row| {
        let id = id_of(snapshot, row)?.unwrap_or_else(|| format!("row {}", row.number));
        Ok::<_, StoreError>(format!("{}/{id}", Collection::of(row).name()))
    };
    let failure = held.failure();
    let (reason, code) = match failure.map(|failure| &failure.cause) {
        Some(Cause::Refused { code, .. }) => ("refused", Some(*code)),
        Some(Cause::Damaged { .. }) => ("damaged", None),
        None => ("waiting", None),
    };
    Ok(json!({
        "collection": Collection::of(row).name(),
        "row": row.number,
        "id": id_of(snapshot, row)?,
        "reason": reason,
        "code": code,
        "message": failure.map(|failure| failure.cause.message()),
        "attempts": failure.map_or(0, |failure| failure.attempts),
        "next_at_ms": held.next_at_ms(),
        "since_ms": held.since_ms,
        "blocked_by": held.parent().map(name).transpose()?,
    }))
}

/// The `_id` upstream; `None` of a damaged document.
fn id_of(snapshot: &Snapshot, row: Row) -> Result<Option<String>, StoreError> {
    let id = snapshot
        .document(row)
        .and_then(|stored| snapshot.upstream_id(row, &stored));
    match id {
        Ok(id) => Ok(Some(id.to_hex())),
        Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
