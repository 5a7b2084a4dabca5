//! The steps of an erasure that remove webhooks, with their tasks, outcomes and notifications (R38).
//!
//! A webhook may have 100,000 changes: a step ends after so many records, wherever that is, and the next one goes on
//! from there. Derived keys are taken before the tasks go that show which they are, so that a crash in between leaves
//! what they are found by.

use std::collections::BTreeSet;

use redb::ReadableTable;

use super::TakenKey;
use super::removal::as_far_as_readable;
use crate::model::{Erasure, Outcome, TaskKey, Webhook};
use crate::store::{StoreError, Tables, codec};

/// Webhooks removed in one transaction: those that arrive wait for the same writer.
const WEBHOOKS_STEP_MAX: usize = 32;
/// Keys, tasks and notifications of webhooks looked at in one transaction.
const RECORDS_STEP_MAX: usize = 1_000;

/// A webhook that goes, or the tasks of it that do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErasedWebhook {
    /// Its sequence number.
    pub seq: u64,
    /// All of it; if not, only these tasks, and the webhook with the last of its tasks.
    pub is_whole: bool,
    /// It gives an address itself, so that it is found whatever else is gone: it goes after what it leads to.
    pub is_telling: bool,
    /// Tasks that led to leads that go.
    pub tasks: BTreeSet<TaskKey>,
    /// Changes of a batch of which everything goes: whatever a lead of theirs is to become for other campaigns.
    pub changes: BTreeSet<u32>,
    /// Derived keys that it would have taken: they are taken from now on.
    pub keys: Vec<TakenKey>,
    /// Of a submission without an id: its hash, and when it arrived. A resend within the window is one of it (R10).
    pub first_copy: Option<([u8; 16], i64)>,
}

/// How far some webhooks have been removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Of these webhooks, how many are done.
    webhooks: usize,
    /// Of the next one: how many of its keys are taken,
    keys: usize,
    /// from which task on it is to be looked through, `None`: from the first,
    task: Option<TaskKey>,
    /// and how many of its tasks are gone.
    gone: u64,
}

impl ErasedWebhook {
    fn takes(&self, task: &TaskKey) -> bool {
        self.is_whole || self.tasks.contains(task) || self.changes.contains(&task.change)
    }
}

impl Tables<'_> {
    /// Removes some of these webhooks, from a place on, and returns the next place; `None`: all are done.
    pub(crate) fn erase_webhooks(
        &mut self,
        erasure: &[u8; 12],
        webhooks: &[ErasedWebhook],
        from: Place,
    ) -> Result<Option<Place>, StoreError> {
        let upto = webhooks.len().min(from.webhooks + WEBHOOKS_STEP_MAX);
        self.erasing(erasure, |tables, erasure| {
            let (mut place, mut room) = (from, RECORDS_STEP_MAX);
            while let Some(webhook) = webhooks[..upto].get(place.webhooks) {
                let mut is_done = true;
                let erased = tables.erase_webhook(erasure, webhook, &mut place, &mut room);
                let erased = erased.map(|done| is_done = done);
                as_far_as_readable(erased, erasure, "webhook", webhook.seq)?;
                if !is_done {
                    return Ok(Some(place));
                }
                place = Place {
                    webhooks: place.webhooks + 1,
                    ..Place::default()
                };
            }
            Ok(Some(place).filter(|place| place.webhooks < webhooks.len()))
        })
    }

    /// Whether it is done; if not, there was no room for more.
    fn erase_webhook(
        &mut self,
        erasure: &mut Erasure,
        webhook: &ErasedWebhook,
        place: &mut Place,
        room: &mut usize,
    ) -> Result<bool, StoreError> {
        let seq = webhook.seq;
        self.take_keys_of(&erasure.id, webhook, place, room)?;
        if *room == 0 {
            return Ok(false);
        }
        self.erase_tasks(webhook, place, room)?;
        if *room == 0 {
            return Ok(false);
        }
        // Changes that the pipeline has not come to are in no table yet, and may be other people's.
        let is_settled = webhook.is_whole || seq <= self.cursor()?;
        if !is_settled || self.has_tasks(seq)? {
            erasure.removed.tasks += place.gone;
            return Ok(true);
        }
        *room -= self.erase_deliveries(erasure, seq, None, *room)?;
        if *room == 0 {
            return Ok(false);
        }
        self.erase_from_inbox(erasure, seq)?;
        Ok(true)
    }

    fn take_keys_of(
        &mut self,
        erasure: &[u8; 12],
        webhook: &ErasedWebhook,
        place: &mut Place,
        room: &mut usize,
    ) -> Result<(), StoreError> {
        for key in webhook.keys[place.keys..].iter().take(*room) {
            self.leave_key(erasure, key)?;
            place.keys += 1;
            *room -= 1;
        }
        if let Some((hash, arrived_at_ms)) = &webhook.first_copy {
            self.leave_first_copy(hash, *arrived_at_ms)?;
        }
        Ok(())
    }

    fn erase_tasks(
        &mut self,
        webhook: &ErasedWebhook,
        place: &mut Place,
        room: &mut usize,
    ) -> Result<(), StoreError> {
        for task in self.tasks_of(webhook.seq, place.task, *room)? {
            if webhook.takes(&task) {
                self.erase_task(task)?;
                place.gone += 1;
            }
            place.task = Some(task);
            *room -= 1;
        }
        Ok(())
    }

    /// The begun and the ended tasks of a webhook behind `after`, in order, at most `limit`.
    fn tasks_of(
        &self,
        seq: u64,
        after: Option<TaskKey>,
        limit: usize,
    ) -> Result<Vec<TaskKey>, StoreError> {
        let from = after.unwrap_or(TaskKey::webhook(seq));
        let range = || (seq, from.change, &from.campaign)..=(seq, u32::MAX, &[0xff; 12]);
        let mut keys = BTreeSet::new();
        // One more, since the first may be the one that was looked at last.
        for entry in self.tasks.range(range())?.take(limit + 1) {
            keys.insert(task_key(entry?.0.value()));
        }
        for entry in self.outcomes.range(range())?.take(limit + 1) {
            keys.insert(task_key(entry?.0.value()));
        }
        let keys = keys.into_iter().filter(|key| Some(*key) != after);
        Ok(keys.take(limit).collect())
    }

    fn has_tasks(&self, seq: u64) -> Result<bool, StoreError> {
        Ok(!self.tasks_of(seq, None, 1)?.is_empty())
    }

    /// Counters tell of everything that ever happened, but for dead letters: these are counted while they wait for
    /// somebody.
    fn erase_task(&mut self, task: TaskKey) -> Result<(), StoreError> {
        self.dequeue(task)?;
        let ended = self.outcome(task)?;
        if ended.is_some_and(|ended| matches!(ended.outcome, Outcome::DeadLetter { .. })) {
            self.forget_outcome(task)?;
        } else {
            self.outcomes
                .remove((task.seq, task.change, &task.campaign))?;
        }
        Ok(())
    }

    /// A webhook that the pipeline has not come to keeps its place, and nothing else: sequence numbers are given out
    /// behind the last one, and never twice.
    fn erase_from_inbox(&mut self, erasure: &mut Erasure, seq: u64) -> Result<(), StoreError> {
        if self.inbox.get(seq)?.is_none() {
            return Ok(());
        }
        erasure.removed.webhooks += 1;
        if seq <= self.cursor()? {
            self.inbox.remove(seq)?;
            return Ok(());
        }
        let blank = codec::encode(&Webhook::erased(erasure.at_ms));
        self.inbox.insert(seq, blank.as_slice())?;
        Ok(())
    }

    /// At most `limit` notifications of a webhook, those of one lead if given; returns how many.
    pub(super) fn erase_deliveries(
        &mut self,
        erasure: &mut Erasure,
        seq: u64,
        lead: Option<u64>,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let under_way = self.deliveries_under_way(seq, lead, limit)?;
        let removed = self.remove_deliveries(seq, lead, limit)?;
        erasure.removed.deliveries += removed as u64;
        erasure.removed.deliveries_under_way += under_way;
        Ok(removed)
    }
}

fn task_key((seq, change, campaign): (u64, u32, &[u8; 12])) -> TaskKey {
    TaskKey {
        seq,
        change,
        campaign: *campaign,
    }
}
