//! The change log: what has to go upstream, in the order in which it changed, and what is held back.
//!
//! Every transaction that touches a document appends a ticket. The push reads tickets in order, sends the newest
//! state of each document, and removes exactly the tickets it has sent: what changed meanwhile has a newer ticket.

use inlet_sync::ports::{Pending, Row};
use redb::{ReadableTable, ReadableTableMetadata};

use super::documents::Collection;
use super::{Snapshot, StoreError, Tables};
pub use held::{Cause, Failure, Held, State};

mod held;

/// How a document changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// It is new.
    First,
    /// It was there before; `before` is its BSON as last handed to the change log (contacts), or empty.
    Again {
        /// BSON bytes, or none.
        before: &'a [u8],
    },
}

/// What of a document is not upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Owed {
    /// All of it: it is new.
    pub first: bool,
    /// What the change log has said of it since, oldest first: how it was; of contacts only the oldest.
    pub befores: Vec<Vec<u8>>,
}

impl Owed {
    /// Of a document that exists upstream: how it was when it was last pushed, as far as is known.
    pub(crate) fn before(&self) -> Option<&[u8]> {
        let oldest = self.befores.first().map_or(&[][..], Vec::as_slice);
        (!self.first).then_some(oldest)
    }

    fn add(&mut self, row: Row, before: &[u8]) {
        let is_enough = Collection::of(row) == Collection::Contacts && !self.befores.is_empty();
        if !is_enough && !self.befores.iter().any(|known| known == before) {
            self.befores.push(before.to_vec());
        }
    }
}

pub(in crate::store) const FIRST: u8 = 0;
const AGAIN: u8 = 1;

impl Tables<'_> {
    /// Appends a ticket.
    pub(crate) fn append_change(&mut self, row: Row, change: Change<'_>) -> Result<(), StoreError> {
        let ticket = self.next_number("last_ticket")?;
        let (kind, before) = match change {
            Change::First => (FIRST, &[][..]),
            Change::Again { before } => (AGAIN, before),
        };
        self.changes
            .insert(ticket, (row.collection, row.number, kind, before))?;
        Ok(())
    }

    /// Appends tickets for all that a document owes, one at least.
    fn append_owed(&mut self, row: Row, owed: &Owed) -> Result<(), StoreError> {
        if owed.first {
            self.append_change(row, Change::First)?;
        } else if owed.befores.is_empty() {
            self.append_change(row, Change::Again { before: &[] })?;
        }
        for before in &owed.befores {
            self.append_change(row, Change::Again { before })?;
        }
        Ok(())
    }

    /// As [`Snapshot::owed`].
    fn owed(&self, pending: &Pending) -> Result<Owed, StoreError> {
        owed(&self.changes, self.held(pending.row)?, pending)
    }

    /// Takes the tickets of documents out of the log. A batch's tickets are mostly neighbours: each run of them is cut
    /// out in one go.
    pub(crate) fn remove_tickets<'a>(
        &mut self,
        pending: impl Iterator<Item = &'a Pending>,
    ) -> Result<(), StoreError> {
        let mut tickets: Vec<u64> = pending
            .flat_map(|pending| pending.tickets.iter().copied())
            .collect();
        tickets.sort_unstable();
        for run in tickets.chunk_by(|one, next| one + 1 == *next) {
            self.changes
                .retain_in(run[0]..=run[run.len() - 1], |_, _| false)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// The oldest pending documents with tickets above `after`, from at most `limit` tickets.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pending(&self, after: u64, limit: usize) -> Result<Vec<Pending>, StoreError> {
        let mut places = std::collections::HashMap::new();
        let mut pending: Vec<Pending> = Vec::new();
        for entry in self.changes.range(after + 1..)?.take(limit) {
            let (ticket, change) = entry?;
            let (collection, number, _, _) = change.value();
            let row = Row { collection, number };
            let place = *places.entry(row).or_insert(pending.len());
            if place == pending.len() {
                pending.push(Pending {
                    row,
                    tickets: Vec::with_capacity(1),
                });
            }
            pending[place].tickets.push(ticket.value());
        }
        Ok(pending)
    }

    /// What a pending document owes; what it owed when it was held is not forgotten.
    pub(crate) fn owed(&self, pending: &Pending) -> Result<Owed, StoreError> {
        owed(&self.changes, self.held(pending.row)?, pending)
    }

    /// How many changes wait to be pushed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pending_count(&self) -> Result<u64, StoreError> {
        Ok(self.changes.len()?)
    }

    /// When the document of the oldest ticket was created, milliseconds since the epoch: the lag's beginning.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn oldest_pending_ms(&self) -> Result<Option<i64>, StoreError> {
        for entry in self.changes.iter()? {
            let (_, change) = entry?;
            let (collection, number, _, _) = change.value();
            match self.changed_ms(Row { collection, number }) {
                // The push will show it; the lag is the others'.
                Err(StoreError::Corrupt { .. }) => {}
                changed => return changed,
            }
        }
        Ok(None)
    }

    fn changed_ms(&self, row: Row) -> Result<Option<i64>, StoreError> {
        let field = match Collection::of(row) {
            Collection::Contacts => "updated_at",
            _ => "created_at",
        };
        let stored = self.document(row)?;
        let at = stored.body()?.get_datetime(field).ok();
        Ok(at.map(bson::DateTime::timestamp_millis))
    }
}

fn owed(
    changes: &impl ReadableTable<u64, (u8, u64, u8, &'static [u8])>,
    held: Option<Held>,
    pending: &Pending,
) -> Result<Owed, StoreError> {
    let mut owed = held.map(|held| held.owed).unwrap_or_default();
    for ticket in &pending.tickets {
        let Some(change) = changes.get(ticket)? else {
            continue;
        };
        match change.value() {
            (_, _, FIRST, _) => owed.first = true,
            (_, _, _, before) => owed.add(pending.row, before),
        }
    }
    Ok(owed)
}
