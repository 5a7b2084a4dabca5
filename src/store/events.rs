//! Live events on their way to listeners: what happened, in order, until it was told.
//!
//! An event is appended by the transaction that causes it, so that it is there exactly if its cause is. It names a row;
//! what it says is read when it is told. Events are numbered from 1, and removed from the front in batches.

use redb::ReadableTableMetadata;

use super::documents::Collection;
use super::{Snapshot, StoreError, Tables, codec};

/// Something that listeners are told.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Event {
    /// The campaign's `owner` as text: whose listeners are told.
    pub owner: String,
    /// What happened.
    pub kind: Kind,
    /// The row it happened to, in [`Kind::collection`].
    pub row: u64,
    /// When it was committed, milliseconds since the epoch.
    pub at_ms: i64,
}

/// What happened (documents.md, "Live events").
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Kind {
    /// A lead was made.
    LeadAdded,
    /// A room was opened.
    JoinRoom,
    /// A room that was there before got a message.
    Message,
}

impl Kind {
    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeadAdded => "leadadded",
            Self::JoinRoom => "joinRoom",
            Self::Message => "message",
        }
    }

    /// What the event's row is a row of.
    #[must_use]
    pub fn collection(self) -> Collection {
        match self {
            Self::LeadAdded => Collection::Leads,
            Self::JoinRoom => Collection::Rooms,
            Self::Message => Collection::Messages,
        }
    }
}

const TABLE: &str = "events";

impl Tables<'_> {
    /// Appends an event.
    pub(crate) fn append_event(&mut self, event: &Event) -> Result<(), StoreError> {
        let number = self.next_number("last_event")?;
        let record = codec::encode(event);
        self.events.insert(number, record.as_slice())?;
        Ok(())
    }

    /// Forgets events up to this number.
    pub(crate) fn remove_events(&mut self, last: u64) -> Result<(), StoreError> {
        self.events.retain_in(..=last, |_, _| false)?;
        Ok(())
    }
}

impl Snapshot {
    /// Events after this number, at most `limit`; `None` where one is damaged.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn events_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Option<Event>)>, StoreError> {
        let events = self.events.range(after + 1..)?.take(limit);
        let events = events.map(|entry| {
            let (number, record) = entry?;
            Ok((number.value(), codec::decode(TABLE, record.value()).ok()))
        });
        events.collect()
    }

    /// How many events were not told yet, or are not removed yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn event_count(&self) -> Result<u64, StoreError> {
        Ok(self.events.len()?)
    }
}
