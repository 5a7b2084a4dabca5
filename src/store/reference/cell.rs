//! The reference data of now, and what pointed reads have said about it (R13).
//!
//! A pointed read is an optimistic transaction. What it found is taken over only if nothing else has changed accounts,
//! campaigns or keys since before it began, and it is fresh evidence only until something else changes them. A complete
//! reading or a change stream may be behind it or ahead of it, which no clock tells; so neither ever undoes the other
//! unnoticed, and a "no" never rests on data that somebody has meanwhile overwritten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use inlet_sync::ports::{PortError, ReplicaEvent};

use super::{Reference, StoreReplica, number, port, read};
use crate::store::tasks::Need;
use crate::store::{Snapshot, Store, StoreError, Tables};

/// Counts the changes of accounts, campaigns and keys.
pub(super) const GENERATION: &str = "reference_generation";
/// Pointed reads remembered at most; forgetting them costs another read.
const READS_MAX: usize = 1_000;

/// Holds the current [`Reference`].
pub(crate) struct ReferenceCell {
    current: ArcSwap<Reference>,
    /// Locked while a snapshot is read and swapped in, so that an older one never takes the place of a newer one.
    reads: Mutex<Reads>,
}

/// Pointed reads that nothing has overwritten.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads {
    generation: u64,
    /// When each began, milliseconds since the epoch.
    began_at_ms: Arc<HashMap<Need, i64>>,
}

/// Pointed reads to take over.
pub struct Pointed {
    /// What was asked.
    pub needs: Vec<Need>,
    /// What was found, and what was not.
    pub events: Vec<ReplicaEvent>,
    /// When the first of them began, milliseconds since the epoch.
    pub began_at_ms: i64,
    /// The reference data as it was then.
    pub as_of: Arc<Reference>,
}

impl ReferenceCell {
    pub(crate) fn load(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let reads = Reads {
            generation: generation(snapshot)?,
            ..Reads::default()
        };
        Ok(Self {
            current: ArcSwap::from_pointee(read(snapshot, reads.clone())?),
            reads: Mutex::new(reads),
        })
    }

    pub(crate) fn get(&self) -> Arc<Reference> {
        self.current.load_full()
    }

    /// Swaps in what is stored now.
    pub(crate) fn reload(
        &self,
        snapshot: impl FnOnce() -> Result<Snapshot, StoreError>,
    ) -> Result<(), StoreError> {
        self.reload_with(snapshot, |_| ())
    }

    fn reload_with(
        &self,
        snapshot: impl FnOnce() -> Result<Snapshot, StoreError>,
        note: impl FnOnce(&mut Reads),
    ) -> Result<(), StoreError> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut reads);
        let snapshot = snapshot()?;
        reads.become_of(generation(&snapshot)?);
        self.current
            .store(Arc::new(read(&snapshot, reads.clone())?));
        Ok(())
    }
}

impl Reads {
    /// Whether `need` was read after this time.
    pub(super) fn is_after(&self, need: &Need, at_ms: i64) -> bool {
        self.began_at_ms
            .get(need)
            .is_some_and(|began| *began > at_ms)
    }

    /// Forgets everything unless it is of this generation.
    fn become_of(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Self {
                generation,
                ..Self::default()
            };
        }
    }

    /// Reads that have taken the data from one generation to another, or left it as it was.
    fn add(&mut self, from: u64, to: u64, needs: Vec<Need>, began_at_ms: i64) {
        if self.generation == from {
            self.generation = to;
        }
        if self.generation != to {
            return;
        }
        let known = Arc::make_mut(&mut self.began_at_ms);
        if known.len() + needs.len() > READS_MAX {
            known.clear();
        }
        known.extend(needs.into_iter().map(|need| (need, began_at_ms)));
    }
}

impl StoreReplica {
    /// Takes over pointed reads, unless something else has changed the data since they began: then nothing is done, and
    /// false is returned.
    ///
    /// # Errors
    /// When the commit fails.
    pub fn apply_pointed(&self, pointed: Pointed) -> Result<bool, PortError> {
        let Pointed {
            needs,
            events,
            began_at_ms,
            as_of,
        } = pointed;
        let from = as_of.reads.generation;
        let work = move |tables: &mut Tables<'_>| tables.apply_if_of(from, &events);
        let Some(to) = self.store.write_blocking(work).map_err(port)? else {
            return Ok(false);
        };
        self.store
            .show_reference(|reads| reads.add(from, to, needs, began_at_ms))
            .map_err(port)?;
        Ok(true)
    }
}

impl Store {
    pub(crate) fn reload_reference(&self) -> Result<(), StoreError> {
        self.show_reference(|_| ())
    }

    fn show_reference(&self, note: impl FnOnce(&mut Reads)) -> Result<(), StoreError> {
        self.reference_cell().reload_with(|| self.read(), note)?;
        self.signals().pipeline.notify_one();
        self.signals().graph.notify_one();
        self.signals().tokens.notify_one();
        Ok(())
    }
}

impl Tables<'_> {
    /// Applies events to data of this generation; returns the one it is of then.
    fn apply_if_of(
        &mut self,
        generation: u64,
        events: &[ReplicaEvent],
    ) -> Result<Option<u64>, StoreError> {
        if self.last_number(GENERATION)? != generation {
            return Ok(None);
        }
        self.apply_reference(events)?;
        self.last_number(GENERATION).map(Some)
    }
}

fn generation(snapshot: &Snapshot) -> Result<u64, StoreError> {
    number(&snapshot.meta, GENERATION)
}
