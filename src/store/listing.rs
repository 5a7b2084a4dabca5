//! Webhooks and what became of them, newest first, for people.

use bson::oid::ObjectId;

use super::tasks::Task;
use super::{Snapshot, StoreError, codec};
use crate::model::{Ended, Outcome, TaskKey, Webhook};

/// Webhooks looked at in one listing; a filter that matches rarely is continued from where it stopped.
const SCAN_MAX: usize = 20_000;

/// Which webhooks to list; everything given has to match.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// An outcome's name.
    pub outcome: Option<String>,
    /// An `ignored` outcome's reason.
    pub reason: Option<String>,
    /// A platform's slug.
    pub platform: Option<String>,
    /// The URL's account.
    pub account: Option<String>,
    /// The URL's campaign, or one that a Facebook change went to.
    pub campaign: Option<String>,
    /// Not before this time, milliseconds since the epoch.
    pub since: Option<i64>,
}

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
    /// Webhooks that match, newest first, from those before `before`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(
        &self,
        filter: &Filter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let newest_first = self.inbox.range(..before.unwrap_or(u64::MAX))?.rev();
        for (looked_at, entry) in newest_first.enumerate() {
            let (seq, record) = entry?;
            let seq = seq.value();
            if page.webhooks.len() == limit || looked_at == SCAN_MAX {
                page.next = Some(seq + 1);
                break;
            }
            let Ok(webhook) = codec::decode::<Webhook>("inbox", record.value()) else {
                // A damaged record says nothing that could be listed; the pipeline has made it a dead letter.
                continue;
            };
            if filter
                .since
                .is_some_and(|since| webhook.arrived_at_ms < since)
            {
                break;
            }
            page.webhooks.extend(self.listed(seq, webhook, filter)?);
        }
        Ok(page)
    }

    /// One webhook and what became of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn one(&self, seq: u64) -> Result<Option<Listed>, StoreError> {
        match self.webhook(seq)? {
            Some(webhook) => self.listed(seq, webhook, &Filter::default()),
            None => Ok(None),
        }
    }

    fn listed(
        &self,
        seq: u64,
        webhook: Webhook,
        filter: &Filter,
    ) -> Result<Option<Listed>, StoreError> {
        if !filter.wants(&webhook) {
            return Ok(None);
        }
        let (tasks, ends) = self.fate(seq)?;
        let listed = Listed {
            seq,
            webhook,
            tasks,
            ends,
        };
        Ok(Some(listed).filter(|listed| filter.wants_fate(listed)))
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

impl Filter {
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
