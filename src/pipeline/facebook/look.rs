//! What a Facebook task comes to before Graph is asked: its end, a wait, or a question and the key to ask it with.
//!
//! Must not know: how Graph answers. It reads one snapshot of the store and writes nothing.

use std::collections::HashSet;
use std::sync::Arc;

use bson::oid::ObjectId;

use super::super::Shared;
use super::super::prepare::{Desk, Prepared};
use super::super::readings::{Opened, Readings};
use super::pace::{Hindered, Hindrance, Pace};
use super::{Fetch, Found, Work};
use crate::model::{Campaign, LeadChange, LeadId, Outcome, Reading, TaskKey, derived_id};
use crate::store::tasks::Need;
use crate::store::{Snapshot, StoreError};

/// One pass over tasks that are due.
pub(super) struct Look<'a> {
    shared: &'a Shared,
    pace: &'a Pace,
    snapshot: Snapshot,
    desk: Desk<'a>,
    readings: Readings,
    /// Broken keys that one lead of this pass finds out about.
    probed: HashSet<ObjectId>,
    now_ms: i64,
}

/// A lead that is to be read.
struct Wanted {
    opened: Arc<Opened>,
    campaign: Arc<Campaign>,
    leadgen_id: LeadId,
    page: String,
}

impl<'a> Look<'a> {
    pub(super) fn new(shared: &'a Shared, pace: &'a Pace) -> Result<Self, StoreError> {
        Ok(Self {
            shared,
            pace,
            snapshot: shared.store.read()?,
            desk: Desk::new(shared),
            readings: Readings::default(),
            probed: HashSet::new(),
            now_ms: shared.clock.now_ms(),
        })
    }

    /// The tasks that are due, and what each comes to.
    pub(super) fn gather(mut self) -> Result<Vec<(TaskKey, Work)>, StoreError> {
        let limit = self.pace.requests_max();
        let keys = self.snapshot.due_for_graph(self.now_ms, limit)?;
        keys.into_iter()
            .map(|key| Ok((key, self.work(key)?)))
            .collect()
    }

    fn work(&mut self, key: TaskKey) -> Result<Work, StoreError> {
        let wanted = match self.wanted(key)? {
            Ok(wanted) => wanted,
            Err(end) => return Ok(Work::Found(Found::Settled(end))),
        };
        if let Some(wait) = self.pace.rest_of_page(&wanted.page, self.now_ms) {
            return Ok(Work::Found(Found::Later(Hindrance {
                of: Hindered::Page,
                error: "Graph throttles this page".to_owned(),
                wait,
            })));
        }
        self.with_key(wanted)
    }

    /// The lead that a task wants, or how the task ends without it.
    fn wanted(&mut self, key: TaskKey) -> Result<Result<Wanted, Prepared>, StoreError> {
        let opened = match self.readings.of(&self.snapshot, key)? {
            Ok(opened) => opened,
            Err(end) => return Ok(Err(end)),
        };
        let Some((leadgen_id, page, form)) = leadgen(&opened.reading, key.change) else {
            let gone = Prepared::dead(&"the change is no longer in the webhook");
            return Ok(Err(gone));
        };
        let need = Need::Form {
            page: page.clone(),
            form,
        };
        let id = ObjectId::from_bytes(key.campaign);
        let campaign = match self.desk.campaign_of_change(&opened.webhook, id, need) {
            Ok(campaign) => campaign,
            Err(end) => return Ok(Err(end)),
        };
        if let Some(of) = existing(&self.snapshot, &campaign, &leadgen_id)? {
            return Ok(Err(Prepared::End(Outcome::Duplicate { of })));
        }
        Ok(Ok(Wanted {
            opened,
            campaign,
            leadgen_id,
            page,
        }))
    }

    /// The first of the account's keys that is not known to be broken; without one the task is parked.
    fn with_key(&mut self, wanted: Wanted) -> Result<Work, StoreError> {
        let account = wanted.campaign.account_id;
        let (mut error, mut held) = (None, None);
        for key in self.desk.reference().keys(account, &wanted.page) {
            if let Some(hindrance) = self.pace.hindrance_of_key(key.id, self.now_ms) {
                held.get_or_insert(hindrance);
                continue;
            }
            let broken = self.snapshot.broken(key, &wanted.page)?;
            let is_probe = broken.is_some();
            if let Some(broken) = broken
                && !(broken.may_be_probed(self.now_ms) && self.probed.insert(key.id))
            {
                error.get_or_insert(broken.reason);
                continue;
            }
            if key.is_to_be_renewed(self.now_ms) {
                // It still works, so the lead does not wait for the new one (R33).
                self.shared.store.signals().tokens.notify_one();
            }
            let Wanted {
                opened,
                campaign,
                leadgen_id,
                page,
            } = wanted;
            return Ok(Work::Fetch(Box::new(Fetch {
                opened,
                campaign,
                leadgen_id,
                page,
                key: key.clone(),
                is_probe,
            })));
        }
        if let Some(hindrance) = held {
            return Ok(Work::Found(Found::Later(hindrance)));
        }
        let error =
            error.unwrap_or_else(|| "the account has no Facebook key for this page".to_owned());
        Ok(Work::Found(Found::Park {
            account,
            page: wanted.page,
            refused: None,
            error,
        }))
    }
}

fn leadgen(reading: &Reading, change: u32) -> Option<(LeadId, String, String)> {
    let Reading::Changes(changes) = reading else {
        return None;
    };
    match changes.get(change as usize)?.clone() {
        LeadChange::Leadgen {
            leadgen_id,
            page_id,
            form_id,
        } => Some((leadgen_id, page_id, form_id)),
        LeadChange::Ignored(_) => None,
    }
}

/// The lead, if it is there already: Graph need not be asked.
fn existing(
    snapshot: &Snapshot,
    campaign: &Campaign,
    id: &LeadId,
) -> Result<Option<[u8; 12]>, StoreError> {
    let (account, campaign) = (campaign.account_id.bytes(), campaign.id.bytes());
    let id = derived_id("lead", &[&account, &campaign, id.as_str().as_bytes()]).bytes();
    match snapshot.lead_made(id) {
        // That it was made is certain, whatever has become of its record.
        Err(StoreError::Corrupt { .. }) => Ok(Some(id)),
        made => made,
    }
}
