//! Writes down what Facebook tasks have come to: their end, a time to wait for, or a token.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bson::oid::ObjectId;

use super::super::settle::Settling;
use super::Found;
use super::pace::{Hindrance, millis};
use crate::model::{FacebookKey, Outcome, TaskKey};
use crate::store::tasks::{Task, WaitsFor};
use crate::store::tokens::{Broken, Place};
use crate::store::{StoreError, Tables};

/// A lead that Graph does not show is asked for again over this time (R28).
const MISSING_FOR_MS: i64 = 24 * 60 * 60 * 1000;
/// Between two such questions, at first and at most.
const MISSING_BACKOFF_MS: (i64, i64) = (60_000, 3_600_000);
/// The longest wait that a lead's own failing leads to.
const LATER_MAX_MS: i64 = 60_000;

/// The keys of accounts as one transaction sees them: looked up once for all of its tasks.
#[derive(Default)]
struct Keys(HashMap<ObjectId, Vec<FacebookKey>>);

impl Keys {
    fn of(&mut self, tables: &Tables<'_>, account: ObjectId) -> Result<&[FacebookKey], StoreError> {
        Ok(match self.0.entry(account) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(tables.facebook_keys(account)?),
        })
    }
}

impl Settling {
    /// Settles what a pass has found. `healed` are keys that were broken and have served a page.
    pub(super) fn all_found(
        &self,
        tables: &mut Tables<'_>,
        found: Vec<(TaskKey, Found)>,
        healed: &[(FacebookKey, String)],
    ) -> Result<(), StoreError> {
        if tables.is_erasing()? {
            // What was fetched may be of what goes: it is fetched once more (R38).
            return Ok(());
        }
        for (key, page) in healed {
            tables.token_works(key, page)?;
        }
        let mut keys = Keys::default();
        for (key, found) in found {
            // A commit whose outcome was unknown may have settled it already.
            if tables.task(key)?.is_some() {
                self.found(tables, &mut keys, key, found)?;
            }
        }
        Ok(())
    }

    fn found(
        &self,
        tables: &mut Tables<'_>,
        keys: &mut Keys,
        key: TaskKey,
        found: Found,
    ) -> Result<(), StoreError> {
        match found {
            Found::Settled(prepared) => self.settle(tables, key, prepared),
            Found::Missing { error } => self.missing(tables, key, error),
            Found::Later(hindrance) => self.later(tables, key, hindrance),
            Found::Park {
                account,
                page,
                refused,
                error,
            } => {
                let keys = keys.of(tables, account)?;
                self.note_broken(tables, keys, (account, &page), refused, &error)?;
                let task = match tables.has_working_key(keys, &page)? {
                    true => WaitsFor::Graph,
                    false => WaitsFor::Token {
                        account: account.bytes(),
                    },
                };
                self.park(tables, key, task, error)
            }
        }
    }

    /// Waits without using up an attempt (R28), nor any of the time in which the lead may appear. The longer this very
    /// lead has been failing, the longer: it may be Graph's trouble with one object, which must not be asked for every
    /// second for ever.
    fn later(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        hindrance: Hindrance,
    ) -> Result<(), StoreError> {
        let mut task = tables.task(key)?.unwrap_or_default();
        let failing_ms = self.now_ms - *task.failing_since_ms.get_or_insert(self.now_ms);
        task.last_error = Some(hindrance.error);
        task.waits_for = WaitsFor::Graph;
        let wait_ms = millis(hindrance.wait).max((failing_ms / 4).min(LATER_MAX_MS));
        tables.enqueue(key, &task, self.now_ms.saturating_add(wait_ms))
    }

    /// Remembers what keeps an account's leads from being read: a refused token, or the want of one.
    fn note_broken(
        &self,
        tables: &mut Tables<'_>,
        keys: &[FacebookKey],
        (account, page): (ObjectId, &str),
        refused: Option<Box<(Place, FacebookKey)>>,
        error: &str,
    ) -> Result<(), StoreError> {
        let (place, token) = match refused.map(|it| *it) {
            Some((place, key)) => (place, Some(key.fingerprint())),
            None => (Place::without_key(account, page), None),
        };
        let broken = Broken {
            token,
            since_ms: self.now_ms,
            asked_ms: self.now_ms,
            reason: error.to_owned(),
        };
        tables.note_broken(&place, &broken, keys)
    }

    /// Parks a task until its account's key changes; if it changed meanwhile, or the account has another one, the task
    /// goes on at once.
    fn park(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        waits_for: WaitsFor,
        error: String,
    ) -> Result<(), StoreError> {
        let mut task = tables.task(key)?.unwrap_or_default();
        task.failing_since_ms = None;
        task.missing_for_ms = 0;
        task.last_error = Some(error);
        task.waits_for = waits_for;
        tables.enqueue(key, &task, self.now_ms)
    }

    /// Counts the waits between such answers, and not the time since the first of them: an outage in between, or a
    /// node that was off, is no time in which the lead was looked for.
    fn missing(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        error: String,
    ) -> Result<(), StoreError> {
        let mut task: Task = tables.task(key)?.unwrap_or_default();
        if task.missing_for_ms >= MISSING_FOR_MS {
            return self.end(tables, key, Outcome::DeadLetter { error });
        }
        let wait_ms = task
            .missing_for_ms
            .clamp(MISSING_BACKOFF_MS.0, MISSING_BACKOFF_MS.1);
        task.missing_for_ms += wait_ms;
        task.failing_since_ms = None;
        task.last_error = Some(error);
        task.waits_for = WaitsFor::Graph;
        tables.enqueue(key, &task, self.now_ms + wait_ms)
    }
}
