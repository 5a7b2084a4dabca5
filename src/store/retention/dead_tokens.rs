//! Device tokens that lead nowhere, as long as somebody may still want to send to them.

use super::Swept;
use super::hashes::{self, Place};
use crate::store::{Snapshot, StoreError, Tables};

impl Tables<'_> {
    /// Looks at dead tokens from `from` on and forgets those that were found dead before `before_ms`.
    pub(crate) fn purge_dead_tokens(
        &mut self,
        from: Place,
        before_ms: i64,
    ) -> Result<Swept<Place>, StoreError> {
        hashes::sweep(&mut self.dead_tokens, &from, |died_ms| died_ms < before_ms)
    }
}

impl Snapshot {
    /// Whether there are dead tokens from `from` on.
    pub(crate) fn has_dead_tokens(&self, from: &Place) -> Result<bool, StoreError> {
        Ok(self.dead_tokens.range::<&Place>(from..)?.next().is_some())
    }
}
