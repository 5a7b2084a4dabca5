//! Rounds: when erasures are carried out, and what holds the node still meanwhile (R38).
//!
//! A round begins with a transaction that sets the hold and ends with one that lets go of it. In between nothing is
//! made of webhooks, pushed or told: what is to go is looked for in a store to which nothing is added but webhooks. A
//! hold that is found at a start was left by a process that died: its round is begun anew before anything else is done.
//! A round that fails lets go of it as well, whatever it has removed by then: each of its transactions leaves a store
//! as retention might, where leads are without their webhooks, contacts without leads, and tickets without documents.
//!
//! Must not know: what a round looks for, and when one is worth trying.

use std::ops::Bound;

use redb::{ReadableTable, ReadableTableMetadata};

use crate::model::Erasure;
use crate::model::erasure::Removed;
use crate::store::{Snapshot, StoreError, Tables, number};

/// How many erasures the round has that holds the node; 0: none does.
const HOLD: &str = "erasure_hold";

/// How an erasure stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a round, or is under way in one.
    Unfinished,
    /// Everything that was found is removed.
    Finished(Erasure),
    /// It was given up here.
    Abandoned(Erasure),
    /// There is no record of it, or a damaged one: nobody knows whom it is about.
    Lost,
}

/// Why an erasure was not given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAbandoned {
    /// It is finished.
    Finished,
    /// It was given up before.
    Already,
    /// There is none, or its record is damaged.
    Unknown,
}

impl Tables<'_> {
    /// Whether a round is under way: nothing else may be done with what is stored.
    pub(crate) fn is_erasing(&self) -> Result<bool, StoreError> {
        Ok(number(&self.meta, HOLD)? > 0)
    }

    /// Begins a round of at most `limit` erasures, which are returned; without any there is no round, nor a hold. Those
    /// behind `after` come first. One whose record is damaged is forgotten: nobody knows any more whom it is about.
    pub(crate) fn begin_round(
        &mut self,
        limit: usize,
        after: Option<[u8; 12]>,
    ) -> Result<Vec<Erasure>, StoreError> {
        let after = after.unwrap_or_default();
        let behind = self
            .unfinished_erasures
            .range::<&[u8; 12]>((Bound::Excluded(&after), Bound::Unbounded))?;
        let before = self.unfinished_erasures.range::<&[u8; 12]>(..=&after)?;
        let unfinished = behind.chain(before).take(limit);
        let ids: Result<Vec<_>, StoreError> =
            unfinished.map(|entry| Ok(*entry?.0.value())).collect();
        let mut erasures = Vec::new();
        for id in ids? {
            match super::load(&self.erasures, &id) {
                Ok(Some(erasure)) => erasures.push(erasure),
                Ok(None) | Err(StoreError::Corrupt { .. }) => {
                    tracing::error!(
                        erasure = hex::encode(id),
                        "an erasure's record is damaged: ask for it once more"
                    );
                    self.forget_erasure(&id)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.set_number(HOLD, erasures.len() as u64)?;
        Ok(erasures)
    }

    /// Everything of these erasures is removed: the node goes on. The file is written anew when that can be done. Where
    /// one of them was given up meanwhile the others wait for another round: what was to go by that one may be theirs.
    pub(crate) fn end_round(&mut self, ids: &[[u8; 12]]) -> Result<(), StoreError> {
        self.let_go()?;
        for id in ids {
            if self.unfinished_erasures.get(id)?.is_none() {
                return Ok(());
            }
        }
        for id in ids {
            self.unfinished_erasures.remove(id)?;
            self.want_rewrite()?;
        }
        Ok(())
    }

    /// The node goes on, whatever is left to be erased.
    pub(crate) fn let_go(&mut self) -> Result<(), StoreError> {
        self.set_number(HOLD, 0)
    }

    /// Gives an erasure up here: what was removed stays removed, and its record is pushed all the same, since other
    /// nodes may do better. With the last one that is unfinished the hold goes, too.
    pub(crate) fn abandon_erasure(
        &mut self,
        id: &[u8; 12],
    ) -> Result<Result<(), NotAbandoned>, StoreError> {
        let known = match super::load(&self.erasures, id) {
            Err(StoreError::Corrupt { .. }) => None,
            known => known?,
        };
        let Some(mut erasure) = known else {
            return Ok(Err(NotAbandoned::Unknown));
        };
        if self.unfinished_erasures.remove(id)?.is_none() {
            return Ok(Err(match erasure.is_abandoned {
                true => NotAbandoned::Already,
                false => NotAbandoned::Finished,
            }));
        }
        erasure.is_abandoned = true;
        self.put_erasure(&erasure)?;
        if erasure.removed != Removed::default() {
            self.want_rewrite()?;
        }
        if self.unfinished_erasures.is_empty()? {
            self.let_go()?;
        }
        Ok(Ok(()))
    }
}

impl Snapshot {
    /// Whether a round of erasures is under way: nothing else may be done with what is stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_erasing(&self) -> Result<bool, StoreError> {
        Ok(number(&self.meta, HOLD)? > 0)
    }

    /// Whether an erasure is unfinished that another node was asked for: until it is applied nothing is pushed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn owes_others_an_erasure(&self) -> Result<bool, StoreError> {
        for entry in self.unfinished_erasures.iter()? {
            if entry?.1.value() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many erasures wait for a round, and how many are under way in one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn erasures_to_do(&self) -> Result<(u64, u64), StoreError> {
        let unfinished = self.unfinished_erasures.len()?;
        let under_way = number(&self.meta, HOLD)?.min(unfinished);
        Ok((unfinished - under_way, under_way))
    }

    /// Whether any of these erasures is unfinished.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_unfinished(&self, ids: &[[u8; 12]]) -> Result<bool, StoreError> {
        for id in ids {
            if self.unfinished_erasures.get(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How an erasure stands.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn erasure_progress(&self, id: &[u8; 12]) -> Result<Progress, StoreError> {
        if self.has_unfinished(std::slice::from_ref(id))? {
            return Ok(Progress::Unfinished);
        }
        match self.erasure(id) {
            Ok(Some(erasure)) if erasure.is_abandoned => Ok(Progress::Abandoned(erasure)),
            Ok(Some(erasure)) => Ok(Progress::Finished(erasure)),
            Ok(None) | Err(StoreError::Corrupt { .. }) => Ok(Progress::Lost),
            Err(error) => Err(error),
        }
    }
}
