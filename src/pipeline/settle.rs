//! Writes down what a prepared task has come to: an outcome, a queue to wait in, or a lead with all that belongs to it.

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{DateTime, RawDocumentBuf};
use redb::ReadableTable;

use super::prepare::Prepared;
use super::{Shared, apply};
use crate::model::{Ended, Outcome, Reason, TaskKey, WebhookId, derived_id};
use crate::store::changes::Change;
use crate::store::documents::{Collection, Stored};
use crate::store::reference::Reference;
use crate::store::tasks::{Need, Task, WaitsFor};
use crate::store::{Identity, StoreError, Tables};
use crate::worker::jittered;

/// Bounds and retries of the pipeline (configuration `[pipeline]` and `[intake]`).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Attempts before a dead letter (R27).
    pub max_attempts: u32,
    /// Wait after the first failed attempt; doubles with each.
    pub backoff: Duration,
    /// Longest wait between attempts.
    pub backoff_max: Duration,
    /// Within this time of the first copy the same fields without id are a resend (R10).
    pub dedupe_window: Duration,
    /// Tasks of one account that may wait for reference data (R13).
    pub max_waiting_per_account: u64,
    /// Tasks of unknown accounts that may wait for reference data (R13).
    pub max_waiting_unknown: u64,
}

/// What settling needs besides the tables.
pub struct Settling {
    pub(super) now_ms: i64,
    pub(super) limits: Limits,
    pub(super) identity: Identity,
    pub(super) live_events: bool,
    reference: Arc<Reference>,
}

/// The account group of tasks whose account nobody knows.
const UNKNOWN: [u8; 12] = [0; 12];

impl Settling {
    /// As of now.
    #[must_use]
    pub fn new(shared: &Shared) -> Self {
        Self {
            now_ms: shared.clock.now_ms(),
            limits: shared.limits.clone(),
            identity: shared.store.identity().clone(),
            live_events: shared.live_events,
            reference: shared.store.reference(),
        }
    }

    pub(super) fn settle(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        prepared: Prepared,
    ) -> Result<(), StoreError> {
        match prepared {
            Prepared::End(outcome) => self.end(tables, key, outcome),
            Prepared::Lead(draft) => {
                let outcome = apply::lead(tables, key, &draft, self)?;
                self.end(tables, key, outcome)
            }
            Prepared::Await(need) => self.await_reference(tables, key, need),
            Prepared::Campaigns {
                ids,
                arrived_at_ms,
                late,
            } => self.campaigns(tables, key, &ids, arrived_at_ms, late),
            Prepared::Fail(error) => self.fail(tables, key, error),
        }
    }

    pub(super) fn end(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        if self.has_gone_to_campaigns(tables, key, &outcome)? {
            return tables.dequeue(key).map(drop);
        }
        let attempts = tables.dequeue(key)?.map_or(0, |task| task.attempts) + 1;
        tables.end(
            key,
            &Ended {
                outcome,
                attempts,
                at_ms: self.now_ms,
            },
        )
    }

    /// A Facebook change that some campaigns got has their outcomes: it is not itself without a campaign, even if its
    /// last look found none any more, or had to be left out.
    fn has_gone_to_campaigns(
        &self,
        tables: &Tables<'_>,
        key: TaskKey,
        outcome: &Outcome,
    ) -> Result<bool, StoreError> {
        let not_found = Outcome::Ignored {
            reason: Reason::CampaignNotFound,
        };
        Ok(*outcome == not_found && key.campaign == [0; 12] && tables.has_campaign_tasks(key)?)
    }

    /// Every campaign is a task of its own; the change itself has no outcome once one of them has it.
    fn campaigns(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        ids: &[ObjectId],
        arrived_at_ms: i64,
        late: Option<Need>,
    ) -> Result<(), StoreError> {
        for id in ids {
            let key = TaskKey {
                campaign: id.bytes(),
                ..key
            };
            let tuple = (key.seq, key.change, &key.campaign);
            if tables.tasks.get(tuple)?.is_none() && tables.outcomes.get(tuple)?.is_none() {
                let task = Task {
                    waits_for: WaitsFor::Graph,
                    ..Task::default()
                };
                tables.enqueue(key, &task, self.now_ms)?;
                tables.heard(key.campaign, arrived_at_ms);
            }
        }
        match late {
            Some(need) => self.await_reference(tables, key, need),
            None => tables.dequeue(key).map(drop),
        }
    }

    /// Waits for reference data, bounded per account; past the bound the one that waited longest ends (R13).
    fn await_reference(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        need: Need,
    ) -> Result<(), StoreError> {
        let mut task = tables.dequeue(key)?.unwrap_or_default();
        let (account, bound) = self.waiting_room(&need);
        task.waits_for = WaitsFor::Reference { need, account };
        if tables.awaiting_count(&account)? >= bound
            && let Some(oldest) = tables.oldest_awaiting(&account)?
        {
            self.end(
                tables,
                oldest,
                Outcome::Ignored {
                    reason: Reason::CampaignNotFound,
                },
            )?;
        }
        tables.enqueue(key, &task, self.now_ms)
    }

    fn waiting_room(&self, need: &Need) -> ([u8; 12], u64) {
        let account = match need {
            Need::Campaign { account, .. } => self
                .reference
                .account(ObjectId::from_bytes(*account))
                .map(|account| account.id.bytes()),
            Need::Form { page, form } => self
                .reference
                .campaigns_of_form(page, form)
                .first()
                .map(|campaign| campaign.account_id.bytes()),
        };
        match account {
            Some(account) => (account, self.limits.max_waiting_per_account),
            None => (UNKNOWN, self.limits.max_waiting_unknown),
        }
    }

    /// Uses up an attempt: tried again after a backoff, or a dead letter (R27).
    pub(super) fn fail(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        error: String,
    ) -> Result<(), StoreError> {
        let mut task = tables.task(key)?.unwrap_or_default();
        if task.attempts + 1 >= self.limits.max_attempts {
            return self.end(tables, key, Outcome::DeadLetter { error });
        }
        task.attempts += 1;
        task.waits_for = key.queue();
        self.log_retry(tables, key, &task, &error)?;
        task.last_error = Some(error);
        tables.enqueue(key, &task, self.now_ms + self.backoff_ms(task.attempts))
    }

    /// Milliseconds to wait after this many failed attempts.
    fn backoff_ms(&self, attempts: u32) -> i64 {
        let doubled = self
            .limits
            .backoff
            .saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let wait = jittered(doubled.min(self.limits.backoff_max));
        i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
    }

    /// Each retry is visible upstream; the cloud service counts `inbound`, not `inbound_edge` (R27).
    fn log_retry(
        &self,
        tables: &mut Tables<'_>,
        key: TaskKey,
        task: &Task,
        error: &str,
    ) -> Result<(), StoreError> {
        let Identity { node, epoch, .. } = &self.identity;
        let webhook = WebhookId {
            node: node.clone(),
            epoch: *epoch,
            seq: key.seq,
        }
        .to_string();
        let mut body = RawDocumentBuf::new();
        body.append(cstr!("type"), "inbound_edge");
        body.append(cstr!("unique_id"), webhook.as_str());
        body.append(
            cstr!("count"),
            i32::try_from(task.attempts).unwrap_or(i32::MAX),
        );
        body.append(cstr!("error"), error);
        body.append(cstr!("created_at"), DateTime::from_millis(self.now_ms));
        body.append(cstr!("node"), node.as_str());
        let count = task.attempts.to_be_bytes();
        let change = key.change.to_be_bytes();
        let id = derived_id("log", &[webhook.as_bytes(), &change, &key.campaign, &count]);
        let row = tables.add_document(Collection::Logs, &Stored::new(id.bytes(), &body))?;
        tables.append_change(row, Change::First)
    }
}
