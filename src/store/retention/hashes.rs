//! A step through a table whose keys are hashes: old and new stand side by side there.

use redb::{ReadableTable, Table, Value};

use super::{Budget, Swept};
use crate::store::StoreError;

/// Hashes looked at in one step: each is a few bytes.
const STEP_MAX: usize = 1_000;

/// A place among the hashes.
pub(crate) type Place = [u8; 16];

/// Looks at hashes from `from` on and removes those that are old.
pub(super) fn sweep<V: Value>(
    table: &mut Table<'_, &'static Place, V>,
    from: &Place,
    is_old: impl for<'v> Fn(V::SelfType<'v>) -> bool,
) -> Result<Swept<Place>, StoreError> {
    let budget = Budget::begin();
    let mut old = Vec::new();
    let mut next = None;
    for (looked_at, entry) in table.range::<&Place>(from..)?.enumerate() {
        let (hash, value) = entry?;
        if looked_at == STEP_MAX || budget.is_used_up() {
            next = Some(*hash.value());
            break;
        }
        if is_old(value.value()) {
            old.push(*hash.value());
        }
    }
    for hash in &old {
        table.remove(hash)?;
    }
    Ok(Swept {
        purged: old.len() as u64,
        next,
    })
}
