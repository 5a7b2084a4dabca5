//! Webhooks and what became of them, newest first, for people.

use bson::oid::ObjectId;

use super::tasks::Task;
use super::{Snapshot, StoreError, codec};
use crate::model::{Ended, Outcome, Selection, TaskKey, Webhook};

/// Webhooks looked at for one page; a selection that matches rarely is continued from where it stopped.
const SCAN_MAX: usize = 20_000;
/// Bytes of webhooks looked at for one page, give or take a webhook: bodies may be large, and are in memory while the
/// page is.
const SCAN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Webhooks in a row that arrived too early, after which a listing ends. Arrival times rise with few exceptions: a
/// node that started with a clock behind, and had it set since, has some earlier times above later ones. This many of
/// them are looked past.
const EARLY_MAX: usize = SCAN_MAX / 2;

/// A webhook and what became of it.
#[derive(Debug)]
pub struct Listed {
    /// Its sequence number.
    pub seq: u64,
    /// The webhook.
    pub webhook: Webhook,
    /// Tasks that have not ended.
    pub tasks: Vec<(TaskKey, Task)>,
    /// How tasks ended.
    pub ends: Vec<(TaskKey, Ended)>,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Newest first.
    pub webhooks: Vec<Listed>,
    /// Where to go on, if there may be more: list those before this sequence number.
    pub next: Option<u64>,
}

impl Snapshot {
    /// A page of the webhooks selected, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self, selection: &Selection, limit: usize) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut scan = Scan::default();
        let newest_first = self
            .inbox
            .range(..selection.before.unwrap_or(u64::MAX))?
            .rev();
        for entry in newest_first {
            let (seq, record) = entry?;
            let seq = seq.value();
            if scan.early_in_a_row == EARLY_MAX {
                break;
            }
            if page.webhooks.len() == limit || scan.is_full() {
                page.next = Some(seq + 1);
                break;
            }
            scan.looked_at(record.value());
            let Ok(webhook) = codec::decode::<Webhook>("inbox", record.value()) else {
                // A damaged record says nothing that could be listed; the pipeline has made it a dead letter.
                continue;
            };
            if scan.is_early(&webhook, selection) {
                continue;
            }
            page.webhooks.extend(self.listed(seq, webhook, selection)?);
        }
        Ok(page)
    }

    /// One webhook and what became of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn one(&self, seq: u64) -> Result<Option<Listed>, StoreError> {
        match self.webhook(seq)? {
            Some(webhook) => self.listed(seq, webhook, &Selection::default()),
            None => Ok(None),
        }
    }

    fn listed(
        &self,
        seq: u64,
        webhook: Webhook,
        selection: &Selection,
    ) -> Result<Option<Listed>, StoreError> {
        if !selection.wants(&webhook) {
            return Ok(None);
        }
        let (tasks, ends) = self.fate(seq)?;
        let listed = Listed {
            seq,
            webhook,
            tasks,
            ends,
        };
        Ok(Some(listed).filter(|listed| selection.wants_fate(listed)))
    }
}

/// What was looked at for a page.
#[derive(Default)]
struct Scan {
    webhooks: usize,
    bytes: usize,
    early_in_a_row: usize,
}

impl Scan {
    fn is_full(&self) -> bool {
        self.webhooks == SCAN_MAX || self.bytes > SCAN_BYTES_MAX
    }

    fn looked_at(&mut self, record: &[u8]) {
        self.webhooks += 1;
        self.bytes += record.len();
    }

    fn is_early(&mut self, webhook: &Webhook, selection: &Selection) -> bool {
        let is_early = selection
            .since
            .is_some_and(|since| webhook.arrived_at_ms < since);
        self.early_in_a_row = if is_early { self.early_in_a_row + 1 } else { 0 };
        is_early
    }
}

impl Listed {
    /// `ready`, `waiting`, `parked` or `done`. `cursor`: how far the pipeline has come.
    #[must_use]
    pub fn state(&self, cursor: u64) -> &'static str {
        use super::tasks::WaitsFor;
        let parked = |(_, task): &(TaskKey, Task)| matches!(task.waits_for, WaitsFor::Token { .. });
        match () {
            () if self.seq > cursor => "ready",
            () if self.tasks.is_empty() => "done",
            () if self.tasks.iter().all(parked) => "parked",
            () => "waiting",
        }
    }
}

impl Selection {
    fn wants(&self, webhook: &Webhook) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        let by_url =
            webhook.campaign.is_none() || same(&self.campaign, webhook.campaign.as_deref());
        same(&self.platform, Some(&webhook.platform))
            && same(&self.account, webhook.account.as_deref())
            && by_url
    }

    fn wants_fate(&self, listed: &Listed) -> bool {
        let outcome = |wanted: &String| {
            listed
                .ends
                .iter()
                .any(|(_, ended)| ended.outcome.name() == wanted)
        };
        let reason = |wanted: &String| {
            let is = |ended: &Ended| matches!(ended.outcome, Outcome::Ignored { reason } if reason.name() == wanted);
            listed.ends.iter().any(|(_, ended)| is(ended))
        };
        self.outcome.as_ref().is_none_or(outcome)
            && self.reason.as_ref().is_none_or(reason)
            && self
                .campaign
                .as_ref()
                .is_none_or(|wanted| listed.goes_to(wanted))
    }

    /// Whether a task that ended so is meant (replay).
    #[must_use]
    pub fn wants_end(&self, ended: &Ended) -> bool {
        let reason = match ended.outcome {
            Outcome::Ignored { reason } => Some(reason.name()),
            _ => None,
        };
        self.outcome
            .as_ref()
            .is_none_or(|wanted| ended.outcome.name() == wanted)
            && self
                .reason
                .as_ref()
                .is_none_or(|wanted| reason == Some(wanted.as_str()))
    }
}

impl Listed {
    fn goes_to(&self, campaign: &str) -> bool {
        let keys = self
            .tasks
            .iter()
            .map(|(key, _)| key)
            .chain(self.ends.iter().map(|(key, _)| key));
        let by_change = |key: &TaskKey| ObjectId::from_bytes(key.campaign).to_hex() == campaign;
        self.webhook.campaign.as_deref() == Some(campaign) || keys.into_iter().any(by_change)
    }
}
