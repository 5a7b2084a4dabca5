//! The change log as the push engine sees it: which documents, in which order, under which `_id`, written how.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::oid::ObjectId;
use inlet_sync::ports::{
    Outbox, Pending, PortError, Rendered, Row, Settlement, Unsettled, Verdict,
};
use redb::{ReadableTable, ReadableTableMetadata};

use super::changes::{Held, Owed};
use super::documents::{Adopted, Assembler, Collection, Stored, key};
use super::{Snapshot, Store, StoreError, Tables};
use crate::model::{Ended, Outcome};
use render::Render;
use unsettled::Settle;

mod contact_update;
mod lead_update;
mod reference;
mod render;
mod renewal;
#[cfg(test)]
mod tests;
pub(in crate::store) mod unsettled;

/// Pushes what a store's change log holds.
pub struct StoreOutbox {
    /// The store.
    pub store: Arc<Store>,
    /// Within this time of the first copy a submission without id is a resend (R10). Milliseconds.
    pub dedupe_window_ms: i64,
    /// The clock.
    pub clock: Arc<dyn crate::clock::Clock>,
    /// Of each contact that was settled and not rendered yet: the keys it had no value for then.
    lacking: Mutex<Lacking>,
    /// The `_id`s under which documents are being written that may be there or not.
    written: Mutex<Written>,
}

/// Nothing is pushed while a round of erasures is under way.
#[derive(Debug, thiserror::Error)]
#[error("an erasure is under way")]
pub struct ErasureUnderWay;

/// Fields that contacts had not, by row.
type Lacking = HashMap<Row, Vec<&'static str>>;

/// `_id`s by row and the oldest ticket, which tells batches apart that are on their way with the same row: a batch
/// behind may give the row another `_id`.
type Written = HashMap<(Row, u64), ObjectId>;

impl StoreOutbox {
    /// Pushes `store`'s change log. See the fields for the rest.
    pub fn new(
        store: Arc<Store>,
        dedupe_window_ms: i64,
        clock: Arc<dyn crate::clock::Clock>,
    ) -> Self {
        Self {
            store,
            dedupe_window_ms,
            clock,
            lacking: Mutex::default(),
            written: Mutex::default(),
        }
    }

    /// What is known of these contacts. Several batches are on their way at once: each takes out its own.
    fn take_lacking(&self, pending: &[Pending]) -> Lacking {
        let mut lacking = self.lacking();
        let rows = pending.iter().map(|pending| pending.row);
        rows.filter_map(|row| lacking.remove_entry(&row)).collect()
    }

    /// Remembers under which `_id`s documents are about to be there, if they were not. What gets no verdict is rendered
    /// again before it gets one.
    fn remember_written(&self, pending: &[Pending], rendered: &[Rendered]) {
        let ids = pending
            .iter()
            .zip(rendered)
            .filter_map(|(pending, rendered)| {
                let document = match rendered {
                    Rendered::Create(document) => document,
                    Rendered::Update {
                        filter,
                        upsert: true,
                        ..
                    } => filter,
                    _ => return None,
                };
                Some((place(pending), document.get_object_id("_id").ok()?))
            });
        self.written().extend(ids);
    }

    /// The `_id`s under which the verdicts' documents were written, in the verdicts' order.
    fn take_written(&self, verdicts: &[(Pending, Verdict)]) -> Vec<Option<ObjectId>> {
        let mut written = self.written();
        let ids = verdicts.iter();
        ids.map(|(pending, _)| written.remove(&place(pending)))
            .collect()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be pushed. While an erasure is under way that is nothing, and a pass that had begun ends (R38).
    fn readable(&self) -> Result<Snapshot, PortError> {
        let snapshot = self.store.read().map_err(port)?;
        match snapshot.is_erasing().map_err(port)? {
            true => Err(PortError(Box::new(ErasureUnderWay))),
            false => Ok(snapshot),
        }
    }

    fn lacking(&self) -> MutexGuard<'_, Lacking> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parents first: contacts and leads are what everything else refers to.
const STAGES: &[&[u8]] = &[
    &[Collection::Contacts as u8],
    &[Collection::Leads as u8],
    &[Collection::Conversations as u8],
    &[Collection::Rooms as u8],
    &[
        Collection::Messages as u8,
        Collection::Deals as u8,
        Collection::Logs as u8,
    ],
];

impl Outbox for StoreOutbox {
    fn collections(&self) -> &'static [&'static str] {
        &Collection::NAMES
    }

    fn stages(&self) -> &'static [&'static [u8]] {
        STAGES
    }

    fn take(&self, after: u64, limit: usize) -> Result<Vec<Pending>, PortError> {
        self.readable()?.pending(after, limit).map_err(port)
    }

    fn unsettled(&self, pending: &[Pending]) -> Result<Vec<Unsettled>, PortError> {
        let settle = Settle {
            snapshot: self.readable()?,
            window_ms: self.dedupe_window_ms,
        };
        self.lacking()
            .extend(settle.lacking(pending).map_err(port)?);
        let found: Result<Vec<_>, _> = pending
            .iter()
            .filter_map(|one| settle.unsettled(one).transpose())
            .collect();
        found.map_err(port)
    }

    fn settle(&self, settled: Vec<(Row, Settlement)>) -> Result<(), PortError> {
        let changing: Vec<_> = settled
            .into_iter()
            .filter(|(_, settlement)| changes_anything(settlement))
            .collect();
        if changing.is_empty() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let work = move |tables: &mut Tables<'_>| {
            if tables.is_erasing()? {
                return Ok(false);
            }
            for (row, settlement) in &changing {
                tables.settle(*row, settlement, now_ms)?;
            }
            Ok(true)
        };
        match self.store.write_blocking(work).map_err(port)? {
            true => Ok(()),
            false => Err(PortError(Box::new(ErasureUnderWay))),
        }
    }

    fn render(&self, pending: &[Pending]) -> Result<Vec<Rendered>, PortError> {
        let snapshot = self.readable()?;
        let anything_held = !snapshot
            .held
            .is_empty()
            .map_err(|error| port(error.into()))?;
        let render = Render {
            assembler: Assembler::new(&snapshot),
            snapshot: &snapshot,
            anything_held,
            lacking: self.take_lacking(pending),
        };
        let rendered: Result<Vec<_>, _> = pending.iter().map(|one| render.one(one)).collect();
        let rendered = rendered.map_err(port)?;
        self.remember_written(pending, &rendered);
        Ok(rendered)
    }

    fn conclude(&self, mut verdicts: Vec<(Pending, Verdict)>) -> Result<(), PortError> {
        // Contacts last: a lead that went without its refused contact is put behind it before the contact, should it
        // have passed this time, lets go what waits for it.
        verdicts.sort_by_key(|(pending, _)| Collection::of(pending.row) == Collection::Contacts);
        let now_ms = self.clock.now_ms();
        let written = self.take_written(&verdicts);
        let work = move |tables: &mut Tables<'_>| tables.conclude(&verdicts, &written, now_ms);
        self.store.write_blocking(work).map_err(port)
    }
}

fn place(pending: &Pending) -> (Row, u64) {
    (pending.row, pending.tickets.first().copied().unwrap_or(0))
}

fn port(error: StoreError) -> PortError {
    PortError(Box::new(error))
}

fn changes_anything(settlement: &Settlement) -> bool {
    !matches!(settlement, Settlement::Own | Settlement::Confirmed(_))
}

const DAMAGED: StoreError = StoreError::Corrupt { table: "documents" };

impl Tables<'_> {
    fn settle(&mut self, row: Row, settlement: &Settlement, now_ms: i64) -> Result<(), StoreError> {
        if !self.is_there(row)? {
            return Ok(());
        }
        match settlement {
            Settlement::Adopted { id, document } => {
                self.adopt(row, *id, document.is_some(), now_ms)
            }
            Settlement::Moved { id, document } => {
                self.refer_elsewhere(row)?;
                self.adopt(row, *id, document.is_some(), now_ms)?;
                self.renew_conversation(row, now_ms)
            }
            Settlement::Gone => self.renew_contact(row, now_ms),
            Settlement::Own | Settlement::Confirmed(_) => Ok(()),
        }
    }

    fn adopt(&mut self, row: Row, id: ObjectId, seen: bool, now_ms: i64) -> Result<(), StoreError> {
        let mut stored = self.document(row)?;
        match Collection::of(row) {
            Collection::Leads => {
                self.yield_lead(&stored, id, seen, now_ms)?;
                self.bind_contact(row, &stored, id)?;
                stored.withdrawn = seen;
            }
            Collection::Conversations if stored.own_id != [0; 12] => {
                stored.own_id = [0; 12];
                self.renew_room(&stored, now_ms)?;
            }
            _ => {}
        }
        stored.adopted = Some(Adopted {
            id: id.bytes(),
            seen,
        });
        self.put_document(row, &stored)
    }

    /// The lead is upstream already, written by somebody else with all that belongs to it: ours is withdrawn. Without
    /// an id of its own it was the same submission at another node, so this webhook was a duplicate (R10). A lead that
    /// another node has only claimed is pushed under the claimed `_id`: should that node never come back, nothing is
    /// lost, and should it come back, it finds its own documents there already.
    fn yield_lead(
        &mut self,
        stored: &Stored,
        upstream: ObjectId,
        seen: bool,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let facts = stored.lead.ok_or(DAMAGED)?;
        let of = upstream.bytes();
        let outcome = if facts.without_id && seen {
            Outcome::Duplicate { of }
        } else {
            Outcome::Lead { id: of }
        };
        let Some(Ended { attempts, .. }) = self.forget_outcome(facts.task)? else {
            // The webhook is no longer kept (R41), and neither is its outcome: what is left of it are the counters.
            self.count("lead", -1);
            self.count(outcome.name(), 1);
            return Ok(());
        };
        self.end(
            facts.task,
            &Ended {
                outcome,
                attempts,
                at_ms: now_ms,
            },
        )
    }

    /// A document may have been erased while it was on its way (R38): what is said of it concerns nobody.
    fn is_there(&self, row: Row) -> Result<bool, StoreError> {
        Ok(self.documents.get(key(row))?.is_some())
    }

    /// `written`: under which `_id` each was written, where it may have been there or not.
    fn conclude(
        &mut self,
        verdicts: &[(Pending, Verdict)],
        written: &[Option<ObjectId>],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let mut there = Vec::with_capacity(verdicts.len());
        for (one, id) in verdicts.iter().zip(written) {
            let (pending, verdict) = one;
            if !self.is_there(pending.row)? {
                self.remove_tickets(std::iter::once(pending))?;
                continue;
            }
            there.push(one);
            match (verdict, id) {
                (Verdict::Done, Some(id)) => self.seen(pending.row, *id)?,
                (Verdict::AlreadyThere, Some(id)) => self.merge_from_now_on(pending.row, *id)?,
                _ => {}
            }
        }
        let done = || {
            let done = there.iter().filter(|one| one.1 == Verdict::Done);
            done.map(|one| &one.0)
        };
        if !self.held.is_empty()? {
            for pending in done() {
                self.pushed(pending)?;
                self.owe_contact(pending, now_ms)?;
            }
        }
        self.remove_tickets(done())?;
        there
            .iter()
            .try_for_each(|one| self.judge(&one.0, &one.1, now_ms))
    }

    fn judge(
        &mut self,
        pending: &Pending,
        verdict: &Verdict,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        match verdict {
            Verdict::Done | Verdict::AlreadyThere => Ok(()),
            Verdict::Refused { code, message } => {
                self.refused(pending, *code, message.clone(), now_ms)
            }
            Verdict::Blocked { by } => self.blocked(pending, *by, now_ms),
            Verdict::Damaged { message } => self.damaged(pending, message.clone(), now_ms),
        }
    }

    /// A lead that went without its refused contact gets the reference once the contact is mended (R36).
    /// One that is held for something newer gets it with that.
    fn owe_contact(&mut self, pending: &Pending, now_ms: i64) -> Result<(), StoreError> {
        let row = pending.row;
        if Collection::of(row) != Collection::Leads || self.held(row)?.is_some() {
            return Ok(());
        }
        let Some(contact) = self.document(row)?.links.contact else {
            return Ok(());
        };
        let contact = Collection::Contacts.row(contact);
        if self.held(contact)?.is_none_or(|held| !held.owed.first) {
            return Ok(());
        }
        self.hold(
            row,
            &Held::behind(contact, Owed::default(), now_ms, pending),
        )
    }

    /// The `_id` we wrote is taken: by our own earlier push, or by a node that adopted it. Either way it is merged
    /// into, unless the document has another `_id` by now, under which it is still to be written.
    fn merge_from_now_on(&mut self, row: Row, written: ObjectId) -> Result<(), StoreError> {
        let mut stored = self.document(row)?;
        if self.upstream_id(row, &stored)? != written {
            return Ok(());
        }
        let id = written.bytes();
        stored.adopted = Some(Adopted { id, seen: true });
        self.put_document(row, &stored)
    }
}
