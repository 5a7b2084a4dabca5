//! Webhooks that are done, with their outcomes and deliveries (R41). Dead letters, parked and waiting ones stay, and so
//! do those whose notifications are not all sent or given up.
//!
//! What stays would be looked at again by each run, for ever. So a mark is kept: every webhook up to it is gone, or
//! stays until something happens to it. That something is the end of a task or a delivery, which moves the mark back.

use redb::ReadableTable;

use super::{Budget, Swept, Verdict, intact};
use crate::model::{Ended, Outcome, TaskKey, Webhook};
use crate::store::{Snapshot, StoreError, Tables, codec, number};

/// Webhooks looked at in one step.
const STEP_MAX: usize = 128;
/// Outcomes and deliveries of one webhook removed in one step: a Facebook batch may have tens of thousands.
const RECORDS_MAX: usize = 256;
const MARK: &str = "retention_mark";

impl Tables<'_> {
    /// Looks at webhooks after `after` and removes those that were done by `until_ms`.
    pub(crate) fn purge_webhooks(
        &mut self,
        after: u64,
        until_ms: i64,
    ) -> Result<Swept<u64>, StoreError> {
        let budget = Budget::begin();
        let begins_at_mark = number(&self.meta, MARK)? == after;
        // Where the mark may go: before the first that only time keeps.
        let mut mark = None;
        let (mut purged, mut last) = (0, None);
        for seq in self.webhooks_from(after)? {
            match self.fate_of(seq, until_ms)? {
                Verdict::Goes(tasks) => {
                    if !self.remove_webhook(seq, &tasks)? {
                        last = Some(seq - 1);
                        break;
                    }
                    purged += 1;
                }
                Verdict::Stays => {}
                Verdict::TooYoung => {
                    mark.get_or_insert(seq - 1);
                    if self.arrived_after(seq, until_ms)? {
                        // Whatever follows arrived later, and ended later still.
                        last = None;
                        break;
                    }
                }
            }
            last = Some(seq);
            if budget.is_used_up() {
                break;
            }
        }
        let reached = mark.or(last).filter(|seq| begins_at_mark && *seq > after);
        if let Some(seq) = reached {
            self.set_number(MARK, seq)?;
        }
        Ok(Swept { purged, next: last })
    }

    /// A task or a delivery of this webhook ended: it is looked at again, from the end of this transaction on.
    pub(in crate::store) fn may_be_done(&mut self, seq: u64) {
        let oldest_end = self.tally.oldest_end.map_or(seq, |other| other.min(seq));
        self.tally.oldest_end = Some(oldest_end);
    }

    /// Moves the mark back before this webhook.
    pub(in crate::store) fn look_again_at(&mut self, seq: u64) -> Result<(), StoreError> {
        if seq <= number(&self.meta, MARK)? {
            self.set_number(MARK, seq - 1)?;
        }
        Ok(())
    }

    fn webhooks_from(&self, after: u64) -> Result<Vec<u64>, StoreError> {
        let looked_at = after + 1..=self.cursor()?;
        if looked_at.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.inbox.range(looked_at)?.take(STEP_MAX);
        entries.map(|entry| Ok(entry?.0.value())).collect()
    }

    /// The tasks of a webhook that goes.
    fn fate_of(&self, seq: u64, until_ms: i64) -> Result<Verdict<Vec<TaskKey>>, StoreError> {
        let whole = || (seq, 0, &[0; 12])..=(seq, u32::MAX, &[0xff; 12]);
        if self.tasks.range(whole())?.next().is_some() {
            return Ok(Verdict::Stays);
        }
        let mut tasks = Vec::new();
        let mut ended_ms = i64::MIN;
        for entry in self.outcomes.range(whole())? {
            let (key, record) = entry?;
            let Some(ended): Option<Ended> = intact(codec::decode("outcomes", record.value()))?
            else {
                return Ok(Verdict::Stays);
            };
            if matches!(ended.outcome, Outcome::DeadLetter { .. }) {
                return Ok(Verdict::Stays);
            }
            ended_ms = ended_ms.max(ended.at_ms);
            let (seq, change, campaign) = key.value();
            tasks.push(TaskKey {
                seq,
                change,
                campaign: *campaign,
            });
        }
        let Some(deliveries) = intact(self.deliveries_of(seq, None))? else {
            return Ok(Verdict::Stays);
        };
        if deliveries.iter().any(|delivery| delivery.state.is_live()) {
            return Ok(Verdict::Stays);
        }
        let told_ms = deliveries.iter().map(|delivery| delivery.state.at_ms());
        ended_ms = told_ms.fold(ended_ms, i64::max);
        Ok(match () {
            () if tasks.is_empty() => Verdict::Stays,
            () if ended_ms > until_ms => Verdict::TooYoung,
            () => Verdict::Goes(tasks),
        })
    }

    /// A webhook that cannot be read says nothing of those behind it.
    fn arrived_after(&self, seq: u64, ms: i64) -> Result<bool, StoreError> {
        let Some(record) = self.inbox.get(seq)? else {
            return Ok(false);
        };
        let webhook = intact(codec::decode::<Webhook>("inbox", record.value()))?;
        Ok(webhook.is_some_and(|webhook| webhook.arrived_at_ms > ms))
    }

    /// Removes a webhook with what it led to, as far as that may go in one step; false where the rest, and the webhook
    /// itself, is left for the next one. The counters of outcomes stay: they tell of everything that ever happened.
    fn remove_webhook(&mut self, seq: u64, tasks: &[TaskKey]) -> Result<bool, StoreError> {
        let removed = self.remove_deliveries(seq, None, RECORDS_MAX)?;
        let room = RECORDS_MAX - removed;
        for task in tasks.iter().take(room) {
            self.outcomes
                .remove((task.seq, task.change, &task.campaign))?;
        }
        let is_whole = tasks.len() <= room;
        if is_whole {
            self.inbox.remove(seq)?;
        }
        Ok(is_whole)
    }
}

impl Snapshot {
    /// Where a run of retention begins.
    pub(crate) fn retention_mark(&self) -> Result<u64, StoreError> {
        number(&self.meta, MARK)
    }

    /// Whether the next webhook after `after` has been looked at by the pipeline and arrived by `until_ms`: if not,
    /// none behind it is to go.
    pub(crate) fn has_aged_webhook(&self, after: u64, until_ms: i64) -> Result<bool, StoreError> {
        let looked_at = after + 1..=self.cursor()?;
        if looked_at.is_empty() {
            return Ok(false);
        }
        let Some(next) = self.inbox.range(looked_at)?.next() else {
            return Ok(false);
        };
        let webhook: Option<Webhook> = intact(codec::decode("inbox", next?.1.value()))?;
        Ok(webhook.is_none_or(|webhook| webhook.arrived_at_ms <= until_ms))
    }
}
