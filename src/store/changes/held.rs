//! Documents that are out of the change log: refused by MongoDB, damaged on disk, or waiting for another document
//! (R36).
//!
//! A held document is in nobody's way but of those that refer to it. It keeps what it owes, and goes back into the log
//! with all of it.

use inlet_sync::ports::{Pending, Row};
use redb::{ReadableTable, ReadableTableMetadata};

use super::{Change, Owed};
use crate::store::documents::{Collection, key};
use crate::store::tables::RowTuple;
use crate::store::{Snapshot, StoreError, Tables, codec};

/// How long after each refusal a document is tried again (R36); then it is set aside, and tried once a day.
const RETRY_AFTER_MS: [i64; 5] = [1_000, 10_000, 60_000, 600_000, 3_600_000];
const RETRY_DAILY_MS: i64 = 86_400_000;
/// Held documents released in one go.
const RELEASE_MAX: usize = 1_000;
const TABLE: &str = "held";

/// A document that is held.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Held {
    /// What of it is not upstream.
    pub owed: Owed,
    /// When it was first held, milliseconds since the epoch; `None`: its record is damaged.
    pub since_ms: Option<i64>,
    /// Until when.
    pub state: State,
    /// The ticket from which on a push speaks of what is held. Batches overlap: one that is older may be concluded when
    /// a newer one has had the document held already.
    pub from_ticket: u64,
}

/// What a held document waits for.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum State {
    /// For its next try.
    SetAside {
        /// What went wrong.
        failure: Failure,
        /// When it is tried again, milliseconds since the epoch.
        next_at_ms: i64,
    },
    /// For this very try: it is in the log, and what refers to it waits until it is upstream.
    BeingTried {
        /// What went wrong before.
        after: Option<Failure>,
    },
    /// For another document: collection and row.
    Behind {
        /// Which.
        parent: RowTuple,
    },
}

/// Why a document could not be pushed.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Failure {
    /// Tries that came to this.
    pub attempts: u32,
    /// What the last of them met.
    pub cause: Cause,
}

/// What a try met.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Cause {
    /// MongoDB's answer.
    Refused {
        /// Its code.
        code: i32,
        /// Its message.
        message: String,
    },
    /// Its record, or one without which it says nothing, cannot be read.
    Damaged {
        /// The store's error.
        message: String,
    },
}

impl Held {
    /// Waiting for `parent`. Pushes of `pending` and of what is newer speak of it.
    pub(crate) fn behind(parent: Row, owed: Owed, since_ms: i64, pending: &Pending) -> Self {
        let state = State::Behind {
            parent: key(parent),
        };
        Self {
            owed,
            since_ms: Some(since_ms),
            state,
            from_ticket: oldest_ticket(pending),
        }
    }

    /// New, in the log at `ticket`, and in the way of what refers to it until it is upstream.
    pub(crate) fn being_tried(since_ms: i64, ticket: u64) -> Self {
        let owed = Owed {
            first: true,
            ..Owed::default()
        };
        let state = State::BeingTried { after: None };
        Self {
            owed,
            since_ms: Some(since_ms),
            state,
            from_ticket: ticket,
        }
    }

    /// What stands for a damaged record. Nobody knows what of the document is not upstream, so it is all of it: what is
    /// there already stays as it is.
    fn of_damaged(error: &StoreError) -> Self {
        let message = error.to_string();
        let cause = Cause::Damaged { message };
        let after = Some(Failure { attempts: 1, cause });
        Self {
            owed: Owed {
                first: true,
                befores: vec![Vec::new()],
            },
            since_ms: None,
            state: State::BeingTried { after },
            from_ticket: 0,
        }
    }

    /// Whether what was pushed includes what is held. A document that is being tried is in the log as well: whoever has
    /// its ticket there was rendered after it was held.
    fn is_covered_by(&self, pushed: &Pending) -> bool {
        let ticket = match self.state {
            State::BeingTried { .. } => pushed.tickets.last().copied().unwrap_or(0),
            State::SetAside { .. } | State::Behind { .. } => oldest_ticket(pushed),
        };
        ticket >= self.from_ticket
    }

    /// What went wrong, if anything did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::SetAside { failure, .. } => Some(failure),
            State::BeingTried { after } => after.as_ref(),
            State::Behind { .. } => None,
        }
    }

    /// When it is tried again, milliseconds since the epoch; `None`: being tried now, or waiting for another.
    #[must_use]
    pub fn next_at_ms(&self) -> Option<i64> {
        match self.state {
            State::SetAside { next_at_ms, .. } => Some(next_at_ms),
            State::BeingTried { .. } | State::Behind { .. } => None,
        }
    }

    /// The document it waits for.
    #[must_use]
    pub fn parent(&self) -> Option<Row> {
        match self.state {
            State::Behind { parent } => Some(row(parent)),
            State::SetAside { .. } | State::BeingTried { .. } => None,
        }
    }

    fn attempts(&self) -> u32 {
        self.failure().map_or(0, |failure| failure.attempts)
    }
}

impl Cause {
    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } | Self::Damaged { message } => message,
        }
    }
}

impl Tables<'_> {
    /// Sets a refused document aside until its next try.
    pub(crate) fn refused(
        &mut self,
        pending: &Pending,
        code: i32,
        message: String,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let tries = self.held(pending.row)?.map_or(0, |held| held.attempts());
        let wait_ms = RETRY_AFTER_MS
            .get(tries as usize)
            .unwrap_or(&RETRY_DAILY_MS);
        let cause = Cause::Refused { code, message };
        self.set_aside(pending, cause, now_ms, *wait_ms)
    }

    /// Sets a document aside that cannot be read. The disk may be mended, or the record put back: it is tried daily.
    pub(crate) fn damaged(
        &mut self,
        pending: &Pending,
        message: String,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.set_aside(pending, Cause::Damaged { message }, now_ms, RETRY_DAILY_MS)
    }

    fn set_aside(
        &mut self,
        pending: &Pending,
        cause: Cause,
        now_ms: i64,
        wait_ms: i64,
    ) -> Result<(), StoreError> {
        let earlier = self.held(pending.row)?;
        let attempts = earlier.as_ref().map_or(0, Held::attempts) + 1;
        let mut owed = self.owed(pending)?;
        owed.first |= self.is_only_claimed(pending.row)?;
        let held = Held {
            owed,
            since_ms: earlier.and_then(|held| held.since_ms).or(Some(now_ms)),
            state: State::SetAside {
                failure: Failure { attempts, cause },
                next_at_ms: now_ms + wait_ms,
            },
            from_ticket: oldest_ticket(pending),
        };
        self.remove_tickets(std::iter::once(pending))?;
        self.hold(pending.row, &held)
    }

    /// Whether it was to become a document that is not upstream yet: what refers to it has to wait as for a new one.
    fn is_only_claimed(&self, row: Row) -> Result<bool, StoreError> {
        match self.document(row) {
            Ok(stored) => Ok(stored.adopted.is_some_and(|adopted| !adopted.seen)),
            Err(StoreError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
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
        let held = Held::behind(by, self.owed(pending)?, now_ms, pending);
        self.remove_tickets(std::iter::once(pending))?;
        self.hold(pending.row, &held)
    }

    /// Lets go what waited for a document that is upstream now, unless it has come to be held for something newer.
    pub(crate) fn pushed(&mut self, pending: &Pending) -> Result<(), StoreError> {
        let row = pending.row;
        let held = self.held(row)?;
        let Some(held) = held.filter(|held| held.is_covered_by(pending)) else {
            return Ok(());
        };
        self.unhold(row)?;
        self.release_blocked_by(row)?;
        if held.owed.first && Collection::of(row) == Collection::Contacts {
            self.offer_to_leads(row)?;
        }
        Ok(())
    }

    /// A document is erased: it is held no more, and what waited for it goes on without it (R38). Its tickets are left.
    pub(in crate::store) fn forget_held(&mut self, row: Row) -> Result<Option<Held>, StoreError> {
        let held = self.unhold(row)?;
        self.release_blocked_by(row)?;
        Ok(held)
    }

    /// Any lead of a contact that was held may have gone without it, be it in a batch whose outcome is not known yet:
    /// all are given the reference once more, which changes nothing where it is there (R36).
    fn offer_to_leads(&mut self, contact: Row) -> Result<(), StoreError> {
        let of_contact = (contact.number, 0)..=(contact.number, u64::MAX);
        let mut leads = Vec::new();
        for entry in self.families.range(of_contact)? {
            let (_, lead) = entry?.0.value();
            leads.push(Collection::Leads.row(lead));
        }
        leads
            .into_iter()
            .try_for_each(|lead| self.append_change(lead, Change::Again { before: &[] }))
    }

    /// Takes a document out of the log, in place of how it was held before.
    pub(crate) fn hold(&mut self, row: Row, held: &Held) -> Result<(), StoreError> {
        self.unhold(row)?;
        let record = codec::encode(held);
        self.held.insert(key(row), record.as_slice())?;
        let (collection, number) = key(row);
        match held.state {
            State::Behind { parent } => {
                self.blocked
                    .insert((parent.0, parent.1, collection, number), ())?;
            }
            State::SetAside { next_at_ms, .. } => {
                self.retries
                    .insert((due(next_at_ms), collection, number), ())?;
            }
            State::BeingTried { .. } => {}
        }
        Ok(())
    }

    /// No longer holds a document; how it was held is returned.
    fn unhold(&mut self, row: Row) -> Result<Option<Held>, StoreError> {
        let (collection, number) = key(row);
        let Some(record) = self.held.remove(key(row))? else {
            return Ok(None);
        };
        let read = codec::decode::<Held>(TABLE, record.value());
        drop(record);
        let held = match read {
            Ok(held) => held,
            Err(error) => {
                tracing::error!(%error, ?row, "all of a held document is pushed again");
                self.take_off_any_list(key(row))?;
                return Ok(Some(Held::of_damaged(&error)));
            }
        };
        match held.state {
            State::Behind { parent } => {
                self.blocked
                    .remove((parent.0, parent.1, collection, number))?;
            }
            State::SetAside { next_at_ms, .. } => {
                self.retries.remove((due(next_at_ms), collection, number))?;
            }
            State::BeingTried { .. } => {}
        }
        Ok(Some(held))
    }

    /// What a damaged record would have told: where its document is listed.
    fn take_off_any_list(&mut self, held: RowTuple) -> Result<(), StoreError> {
        self.blocked
            .retain(|(_, _, collection, number), ()| (collection, number) != held)?;
        self.retries
            .retain(|(_, collection, number), ()| (collection, number) != held)?;
        Ok(())
    }

    pub(crate) fn held(&self, row: Row) -> Result<Option<Held>, StoreError> {
        load(&self.held, row)
    }

    /// Puts held documents whose time has come back into the log; returns how many.
    pub(crate) fn release_due(&mut self, now_ms: i64) -> Result<usize, StoreError> {
        let until = (due(now_ms), u8::MAX, u64::MAX);
        let mut rows = Vec::new();
        for entry in self.retries.range(..=until)?.take(RELEASE_MAX) {
            let (entry, _) = entry?;
            let (_, collection, number) = entry.value();
            rows.push(row((collection, number)));
        }
        for row in &rows {
            if let Some(mut held) = self.held(*row)? {
                let after = held.failure().cloned();
                held.state = State::BeingTried { after };
                held.from_ticket = self.last_number("last_ticket")? + 1;
                self.hold(*row, &held)?;
                self.append_owed(*row, &held.owed)?;
            }
        }
        Ok(rows.len())
    }

    /// Everything that waits for `parent` goes back into the log, and what waits for that.
    fn release_blocked_by(&mut self, parent: Row) -> Result<(), StoreError> {
        let mut parents = vec![parent];
        while let Some(parent) = parents.pop() {
            for row in self.waiting_for(parent)? {
                if let Some(held) = self.unhold(row)? {
                    self.append_owed(row, &held.owed)?;
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
            rows.push(row((collection, number)));
        }
        Ok(rows)
    }
}

impl Snapshot {
    /// Whether the time of a held document's next try has come.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_due_retry(&self, now_ms: i64) -> Result<bool, StoreError> {
        let until = (due(now_ms), u8::MAX, u64::MAX);
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
            let (key, record) = entry?;
            found.push((row(key.value()), read(record.value())));
        }
        Ok(found)
    }

    pub(crate) fn held(&self, row: Row) -> Result<Option<Held>, StoreError> {
        load(&self.held, row)
    }
}

fn row((collection, number): RowTuple) -> Row {
    Row { collection, number }
}

/// Tickets ascend, and there is always one.
fn oldest_ticket(pending: &Pending) -> u64 {
    pending.tickets.first().copied().unwrap_or(0)
}

/// A time as the retries are ordered by.
fn due(at_ms: i64) -> u64 {
    at_ms.max(0).cast_unsigned()
}

fn load(
    held: &impl ReadableTable<RowTuple, &'static [u8]>,
    row: Row,
) -> Result<Option<Held>, StoreError> {
    let record = held.get(key(row))?;
    Ok(record.map(|record| read(record.value())))
}

fn read(record: &[u8]) -> Held {
    codec::decode(TABLE, record).unwrap_or_else(|error| Held::of_damaged(&error))
}
