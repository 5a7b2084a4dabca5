//! The change log: what has to go upstream, in the order in which it changed, and what is held back.
//!
//! Every transaction that touches a document appends a ticket. The push reads tickets in order, sends the newest
//! state of each document, and removes exactly the tickets it has sent: what changed meanwhile has a newer ticket.

use inlet_sync::ports::{Pending, Row};
use redb::{ReadableTable, ReadableTableMetadata};

use super::documents::{Collection, key};
use super::{Snapshot, StoreError, Tables, codec};

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

const FIRST: u8 = 0;
const AGAIN: u8 = 1;

/// Why a document is out of the change log.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Held {
    /// It was never pushed; when released it goes as new.
    pub first: bool,
    /// Refusals so far.
    pub attempts: u32,
    /// When it is tried again, milliseconds since the epoch; `None`: being tried now, or waiting for another.
    pub next_at_ms: Option<i64>,
    /// When it was first held.
    pub since_ms: i64,
    /// MongoDB's answer.
    pub refusal: Option<Refusal>,
    /// The document it waits for.
    pub blocked_by: Option<(u8, u64)>,
}

/// MongoDB's answer to a document it refused (R36).
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Refusal {
    /// Its code.
    pub code: i32,
    /// Its message.
    pub message: String,
}

/// How long after each refusal a document is tried again (R36); then it is set aside, and tried once a day.
const RETRY_AFTER_MS: [i64; 5] = [1_000, 10_000, 60_000, 600_000, 3_600_000];
const RETRY_DAILY_MS: i64 = 86_400_000;
/// Held documents released in one go.
const RELEASE_MAX: usize = 1_000;
const TABLE: &str = "held";

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

    /// Lets go what waited for a document that is upstream now.
    pub(crate) fn pushed(&mut self, row: Row) -> Result<(), StoreError> {
        if self.unhold(row)?.is_some() {
            self.release_blocked_by(row)?;
        }
        Ok(())
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

    /// Sets a refused document aside until its next try.
    pub(crate) fn refused(
        &mut self,
        pending: &Pending,
        refusal: Refusal,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let first = self.is_first(pending)?;
        let earlier = self.held(pending.row)?;
        let attempts = earlier.as_ref().map_or(0, |held| held.attempts);
        let wait_ms = RETRY_AFTER_MS
            .get(attempts as usize)
            .unwrap_or(&RETRY_DAILY_MS);
        let held = Held {
            first: first || earlier.as_ref().is_some_and(|held| held.first),
            attempts: attempts + 1,
            next_at_ms: Some(now_ms + wait_ms),
            since_ms: earlier.as_ref().map_or(now_ms, |held| held.since_ms),
            refusal: Some(refusal),
            blocked_by: None,
        };
        self.remove_tickets(std::iter::once(pending))?;
        self.hold(pending.row, &held)
    }

    /// Takes a document out of the log until another one is upstream.
    pub(crate) fn blocked(
        &mut self,
        pending: &Pending,
        by: Row,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        if self.held(by)?.is_none() {
            // It came free meanwhile, and let go what waited for it: this document is met again in the next pass.
            return Ok(());
        }
        let held = Held::behind(by, self.is_first(pending)?, now_ms);
        self.remove_tickets(std::iter::once(pending))?;
        self.hold(pending.row, &held)
    }

    /// Takes a document out of the log, in place of how it was held before.
    pub(crate) fn hold(&mut self, row: Row, held: &Held) -> Result<(), StoreError> {
        self.unhold(row)?;
        let record = codec::encode(held);
        self.held.insert(key(row), record.as_slice())?;
        let (collection, number) = key(row);
        if let Some((parent_collection, parent)) = held.blocked_by {
            self.blocked
                .insert((parent_collection, parent, collection, number), ())?;
        }
        if let Some(at_ms) = held.next_at_ms {
            self.retries
                .insert((at_ms.max(0).cast_unsigned(), collection, number), ())?;
        }
        Ok(())
    }

    /// No longer holds a document; how it was held is returned.
    fn unhold(&mut self, row: Row) -> Result<Option<Held>, StoreError> {
        let Some(held) = self.held(row)? else {
            return Ok(None);
        };
        let (collection, number) = key(row);
        self.held.remove(key(row))?;
        if let Some((parent_collection, parent)) = held.blocked_by {
            self.blocked
                .remove((parent_collection, parent, collection, number))?;
        }
        if let Some(at_ms) = held.next_at_ms {
            self.retries
                .remove((at_ms.max(0).cast_unsigned(), collection, number))?;
        }
        Ok(Some(held))
    }

    pub(crate) fn held(&self, row: Row) -> Result<Option<Held>, StoreError> {
        load(&self.held, row)
    }

    /// Puts held documents whose time has come back into the log; returns how many.
    pub(crate) fn release_due(&mut self, now_ms: i64) -> Result<usize, StoreError> {
        let until = (now_ms.max(0).cast_unsigned(), u8::MAX, u64::MAX);
        let mut due = Vec::new();
        for entry in self.retries.range(..=until)?.take(RELEASE_MAX) {
            let (entry, _) = entry?;
            let (_, collection, number) = entry.value();
            due.push(Row { collection, number });
        }
        for row in &due {
            if let Some(mut held) = self.held(*row)? {
                held.next_at_ms = None;
                self.hold(*row, &held)?;
                self.append_change(*row, held.change())?;
            }
        }
        Ok(due.len())
    }

    /// Everything that waits for `parent` goes back into the log, and what waits for that.
    fn release_blocked_by(&mut self, parent: Row) -> Result<(), StoreError> {
        let mut parents = vec![parent];
        while let Some(parent) = parents.pop() {
            for row in self.waiting_for(parent)? {
                if let Some(held) = self.unhold(row)? {
                    self.append_change(row, held.change())?;
                    parents.push(row);
                }
            }
        }
        Ok(())
    }

    fn waiting_for(&self, parent: Row) -> Result<Vec<Row>, StoreError> {
        let (collection, number) = key(parent);
        let all = (collection, number, 0, 0)..=(collection, number, u8::MAX, u64::MAX);
        let mut rows = Vec::new();
        for entry in self.blocked.range(all)? {
            let (entry, _) = entry?;
            let (_, _, collection, number) = entry.value();
            rows.push(Row { collection, number });
        }
        Ok(rows)
    }

    /// A lead that went whole found itself there already, or did not: what it was told before that may be missing
    /// upstream, and goes once more, which changes nothing where it is there.
    pub(crate) fn tell_again(&mut self, pending: &Pending) -> Result<(), StoreError> {
        if Collection::of(pending.row) != Collection::Leads
            || pending.tickets.len() < 2
            || !self.is_first(pending)?
        {
            return Ok(());
        }
        for ticket in &pending.tickets {
            let told = self.changes.get(ticket)?.map(|change| {
                let (_, _, kind, before) = change.value();
                (kind, before.to_vec())
            });
            if let Some((AGAIN, before)) = told
                && !before.is_empty()
            {
                self.append_change(pending.row, Change::Again { before: &before })?;
            }
        }
        Ok(())
    }

    fn is_first(&self, pending: &Pending) -> Result<bool, StoreError> {
        for ticket in &pending.tickets {
            if self
                .changes
                .get(ticket)?
                .is_some_and(|change| change.value().2 == FIRST)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Held {
    /// Waiting for `parent`.
    pub(crate) fn behind(parent: Row, first: bool, now_ms: i64) -> Self {
        Self {
            first,
            attempts: 0,
            next_at_ms: None,
            since_ms: now_ms,
            refusal: None,
            blocked_by: Some(key(parent)),
        }
    }

    /// New, in the log, and in the way of what refers to it until it is upstream.
    pub(crate) fn being_tried(now_ms: i64) -> Self {
        Self {
            first: true,
            attempts: 0,
            next_at_ms: None,
            since_ms: now_ms,
            refusal: None,
            blocked_by: None,
        }
    }

    fn change(&self) -> Change<'static> {
        if self.first {
            Change::First
        } else {
            Change::Again { before: &[] }
        }
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

    /// Whether a pending document is new, and else its BSON before the first of its pending changes. What was refused
    /// when it was new still is, whatever has changed since.
    pub(crate) fn before(&self, pending: &Pending) -> Result<Option<Vec<u8>>, StoreError> {
        let mut earliest = None;
        for ticket in &pending.tickets {
            let Some(change) = self.changes.get(ticket)? else {
                continue;
            };
            let (_, _, kind, before) = change.value();
            if kind == FIRST {
                return Ok(None);
            }
            earliest.get_or_insert_with(|| before.to_vec());
        }
        if self.held(pending.row)?.is_some_and(|held| held.first) {
            return Ok(None);
        }
        Ok(Some(earliest.unwrap_or_default()))
    }

    /// What each of the pending changes says was before it.
    pub(crate) fn each_before(&self, pending: &Pending) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut each = Vec::with_capacity(pending.tickets.len());
        for ticket in &pending.tickets {
            each.extend(
                self.changes
                    .get(ticket)?
                    .map(|change| change.value().3.to_vec()),
            );
        }
        Ok(each)
    }

    /// How many changes wait to be pushed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pending_count(&self) -> Result<u64, StoreError> {
        Ok(self.changes.len()?)
    }

    /// Whether the time of a held document's next try has come.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_due_retry(&self, now_ms: i64) -> Result<bool, StoreError> {
        let until = (now_ms.max(0).cast_unsigned(), u8::MAX, u64::MAX);
        Ok(self.retries.range(..=until)?.next().is_some())
    }

    /// How many documents are held back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn held_count(&self) -> Result<u64, StoreError> {
        Ok(self.held.len()?)
    }

    /// Documents that are held back, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn held_documents(&self, limit: usize) -> Result<Vec<(Row, Held)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.held.iter()?.take(limit) {
            let (row, record) = entry?;
            let (collection, number) = row.value();
            found.push((
                Row { collection, number },
                codec::decode(TABLE, record.value())?,
            ));
        }
        Ok(found)
    }

    pub(crate) fn held(&self, row: Row) -> Result<Option<Held>, StoreError> {
        load(&self.held, row)
    }

    /// When the document of the oldest ticket was created, milliseconds since the epoch: the lag's beginning.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn oldest_pending_ms(&self) -> Result<Option<i64>, StoreError> {
        let Some((_, change)) = self.changes.first()? else {
            return Ok(None);
        };
        let (collection, number, _, _) = change.value();
        let stored = self.document(Row { collection, number })?;
        let field = if Collection::of(Row { collection, number }) == Collection::Contacts {
            "updated_at"
        } else {
            "created_at"
        };
        Ok(stored
            .body()?
            .get_datetime(field)
            .ok()
            .map(bson::DateTime::timestamp_millis))
    }
}

fn load(
    held: &impl ReadableTable<super::tables::RowTuple, &'static [u8]>,
    row: Row,
) -> Result<Option<Held>, StoreError> {
    let Some(record) = held.get(key(row))? else {
        return Ok(None);
    };
    codec::decode(TABLE, record.value()).map(Some)
}
