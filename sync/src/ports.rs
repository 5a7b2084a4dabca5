//! What this crate asks of its host: an outbox to push from and a replica to pull into.
//!
//! The methods block (they read and commit a local store); the engine calls them on a blocking thread.

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf};

/// A host's store failed; the pass ends and is tried again. Nothing is lost by it: what was not concluded stays.
#[derive(Debug, thiserror::Error)]
#[error("the local store failed")]
pub struct PortError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A document in the host's store, before and after it has an `_id` upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Index into [`Outbox::collections`].
    pub collection: u8,
    /// The host's number for the document within that collection.
    pub number: u64,
}

/// A document with changes that are not upstream yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Which document.
    pub row: Row,
    /// The change log entries it stands for, ascending, never empty: the newest state covers them all.
    pub tickets: Vec<u64>,
}

/// A document whose `_id` upstream is not known yet, or has to be confirmed, before it and whatever refers to it is
/// pushed (R31, R34).
#[derive(Debug, Clone, PartialEq)]
pub struct Unsettled {
    /// Which document.
    pub row: Row,
    /// The `_id` it has here and gets upstream if it is new there.
    pub own_id: ObjectId,
    /// The document is upstream under this `_id` as far as is known: confirm that it still exists, and only if
    /// it does not go on with `lookups`.
    pub known: Option<Known>,
    /// Where it may already be, in order of precedence; the first that finds something wins.
    pub lookups: Vec<Lookup>,
    /// Keys to claim if no lookup found it, in order of precedence. Where there are several lookups, each has its
    /// claim at the same place.
    pub claims: Vec<Claim>,
}

/// An upstream `_id` that has to be confirmed.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The `_id`.
    pub id: ObjectId,
    /// What must hold of the document besides its `_id`: `{is_deleted: {$ne: true}}`.
    pub alive: Document,
    /// How many of its keys, the strongest, it had not yet when it was confirmed last: by now they may be another
    /// document's.
    pub gained: usize,
}

/// A search for an existing document: all of `filter`, and `field` equal to `value`.
///
/// Lookups of one batch with the same filter, field and case rule are sent as one `find` with `$in`.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// The equality and operator conditions shared by many lookups.
    pub filter: Document,
    /// The field that differs.
    pub field: &'static str,
    /// Its value: a string or an ObjectId.
    pub value: bson::Bson,
    /// Compare text without regard to case (collation `en`, strength 2).
    pub ignore_case: bool,
}

/// A key in `inlet.claims` that only one document may hold (R31, R35). The key is a hash: no personal data.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// `_id` in `inlet.claims`.
    pub key: String,
    /// Holds for submissions within this many milliseconds of the holder's `at` only (R10); `None`: for ever.
    pub window_ms: Option<i64>,
    /// When the claiming document came to be, milliseconds since the epoch.
    pub at_ms: i64,
}

/// What became of an [`Unsettled`] document.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// It is new upstream, or there under its own `_id`: it keeps [`Unsettled::own_id`].
    Own,
    /// The [`Known`] document is still there, as it is upstream now.
    Confirmed(RawDocumentBuf),
    /// It was not upstream before, and somebody else's document is the one: found upstream, or claimed by another node
    /// that has not pushed it yet (`document` absent).
    Adopted {
        /// Its `_id`.
        id: ObjectId,
        /// The document as it is upstream now.
        document: Option<RawDocumentBuf>,
    },
    /// It was upstream as [`Known`], and another document is the one from now on: the known one is gone, or a key it
    /// has gained is another's. `id` and `document` as in [`Settlement::Adopted`].
    Moved {
        /// Its `_id`.
        id: ObjectId,
        /// The document as it is upstream now.
        document: Option<RawDocumentBuf>,
    },
    /// The [`Known`] document is gone, and nothing else was found or claimed: the host gives it a new `_id` and the
    /// engine asks again in the next pass.
    Gone,
}

/// A pending document, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Rendered {
    /// Append-only: insert it; code 11000 on `_id` means already there and is [`Verdict::Done`] (R30).
    Append(RawDocumentBuf),
    /// As [`Rendered::Append`], but an existing `_id` is [`Verdict::AlreadyThere`]: the host merges instead.
    Create(RawDocumentBuf),
    /// One statement of an `update` command.
    Update {
        /// `q`.
        filter: RawDocumentBuf,
        /// `u`: a document of operators, or a pipeline.
        update: bson::RawBson,
        /// `upsert`.
        upsert: bool,
    },
    /// Nothing to write (withdrawn, or already there): [`Verdict::Done`] without a word to MongoDB.
    Nothing,
    /// It has to wait for another document: [`Verdict::Blocked`].
    Blocked {
        /// The document it waits for.
        by: Row,
    },
    /// The host cannot read it: [`Verdict::Damaged`] without a word to MongoDB.
    Damaged {
        /// The host's error.
        message: String,
    },
}

/// How the push of one pending document ended. Documents whose fate is unknown (connection lost, write concern
/// failed) get no verdict: they stay pending and are pushed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Upstream, majority-committed and journaled.
    Done,
    /// A [`Rendered::Create`] found its `_id` taken: pending still, as an update.
    AlreadyThere,
    /// MongoDB refused it for a reason of its own (R36).
    Refused {
        /// MongoDB's code.
        code: i32,
        /// MongoDB's message.
        message: String,
    },
    /// It waits for another document.
    Blocked {
        /// The document it waits for.
        by: Row,
    },
    /// The host could not read it.
    Damaged {
        /// The host's error.
        message: String,
    },
}

/// Documents waiting to go upstream, in the order in which they changed.
pub trait Outbox: Send + Sync + 'static {
    /// The collections' names; [`Row::collection`] is an index into this.
    fn collections(&self) -> &'static [&'static str];

    /// Groups of collections in push order, parents first. A group is pushed after every verdict on the groups
    /// before it is known; collections within a group may be pushed at the same time.
    fn stages(&self) -> &'static [&'static [u8]];

    /// The oldest pending documents with tickets above `after`, at most `limit` tickets of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn take(&self, after: u64, limit: usize) -> Result<Vec<Pending>, PortError>;

    /// Those of `pending` whose identity upstream must be settled first. Asked once per stage, just before
    /// [`Outbox::render`], so that parents are settled before their children are asked about.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn unsettled(&self, pending: &[Pending]) -> Result<Vec<Unsettled>, PortError>;

    /// Takes note of settlements, durably where they change anything. Called before anything that depends on them
    /// is pushed.
    ///
    /// # Errors
    /// When the commit fails; the pass ends.
    fn settle(&self, settled: Vec<(Row, Settlement)>) -> Result<(), PortError>;

    /// The documents as they are to be written now, one answer for each of `pending`, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn render(&self, pending: &[Pending]) -> Result<Vec<Rendered>, PortError>;

    /// Records verdicts in one durable commit. Called after each stage for verdicts other than [`Verdict::Done`], so
    /// that children see them, and at the end of a batch for the rest.
    ///
    /// # Errors
    /// When the commit fails; the documents stay pending and are pushed again, which changes nothing upstream.
    fn conclude(&self, verdicts: Vec<(Pending, Verdict)>) -> Result<(), PortError>;
}

/// One change of reference data.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplicaEvent {
    /// The document as it is upstream now.
    Put {
        /// Index into [`Replica::collections`].
        collection: usize,
        /// The document, with its `_id`.
        document: RawDocumentBuf,
    },
    /// The document is gone.
    Delete {
        /// Index into [`Replica::collections`].
        collection: usize,
        /// Its `_id`.
        id: bson::Bson,
    },
}

/// The local copy of reference data.
pub trait Replica: Send + Sync + 'static {
    /// Names of the collections to pull.
    fn collections(&self) -> &'static [&'static str];

    /// The resume token stored with the last applied events; `None` asks for a snapshot.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn resume_token(&self) -> Result<Option<RawDocumentBuf>, PortError>;

    /// Replaces everything by a complete copy, atomically; what is not in it is gone. `documents` is parallel to
    /// [`Replica::collections`]. `began_at_ms` is when reading began, by [`Replica::now_ms`].
    ///
    /// # Errors
    /// When the commit fails; the old copy stays.
    fn replace(
        &self,
        documents: Vec<Vec<RawDocumentBuf>>,
        resume_token: Option<RawDocumentBuf>,
        began_at_ms: i64,
    ) -> Result<(), PortError>;

    /// Applies changes and stores the token to resume after them, in one transaction. `resume_token: None` keeps the
    /// stored one. `complete_at_ms`: the replica now holds everything that was committed upstream
    /// before this time (by [`Replica::now_ms`]); `None` where the events say nothing about completeness.
    ///
    /// # Errors
    /// When the commit fails; the events are delivered again.
    fn apply(
        &self,
        events: Vec<ReplicaEvent>,
        resume_token: Option<RawDocumentBuf>,
        complete_at_ms: Option<i64>,
    ) -> Result<(), PortError>;

    /// Forgets the resume token: the next pull starts with a snapshot.
    ///
    /// # Errors
    /// When the commit fails.
    fn forget_resume_token(&self) -> Result<(), PortError>;

    /// The host's clock: milliseconds since the epoch.
    fn now_ms(&self) -> i64;
}

/// What a host still has to do upstream for its erasures (R38).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OwedErasures {
    /// Records for `inlet.erasures`, with their `_id`s: no personal data.
    pub records: Vec<Document>,
    /// Claims that would lead a person who comes back to a contact that was erased.
    pub claims: Vec<VoidClaim>,
}

impl OwedErasures {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.claims.is_empty()
    }
}

/// A claim in `inlet.claims` that is to go, if this document still holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct VoidClaim {
    /// Its `_id`.
    pub key: String,
    /// Its `ref`.
    pub holder: ObjectId,
}

/// People who are to be forgotten, as the host knows of them (R38).
pub trait Erasures: Send + Sync + 'static {
    /// How far the host has read, by MongoDB's clock; `None` before the first reading.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn bookmark(&self) -> Result<Option<bson::DateTime>, PortError>;

    /// Takes note, durably, of what `inlet.erasures` holds up to `read_to`. Records may be known already: a reading
    /// begins well before the bookmark.
    ///
    /// # Errors
    /// When the commit fails; the records are read again.
    fn learn(&self, records: Vec<RawDocumentBuf>, read_to: bson::DateTime)
    -> Result<(), PortError>;

    /// Whether everything that was learnt has been applied, and nothing is being applied: until then nothing is pushed.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn are_applied(&self) -> Result<bool, PortError>;

    /// What is to be done upstream, a bounded part of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn owed(&self) -> Result<OwedErasures, PortError>;

    /// This part of it is done, majority-committed and journaled.
    ///
    /// # Errors
    /// When the commit fails; it is done again, which changes nothing.
    fn paid(&self, paid: OwedErasures) -> Result<(), PortError>;
}
