//! The steps of an erasure, each a transaction of bounded size (R38).
//!
//! A lead goes with its messages, its deal and its notifications, a contact with conversation, room and keys
//! (`family`). What leads to the rest goes last: webhooks before leads, but for those that give an address themselves,
//! and leads before contacts. So whatever a crash leaves can be found again from what is left.

use std::collections::{BTreeSet, HashSet};

use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::{ErasedLead, TakenKey};
use crate::model::{Erasure, Outcome, TaskKey, Webhook};
use crate::store::{Snapshot, StoreError, Tables};

/// Tickets beyond which nobody looks which documents are new upstream: everything then counts as not certain.
const TICKETS_MAX: usize = 1_000_000;
/// Tickets looked at with one snapshot.
const TICKETS_PAGE: usize = 10_000;

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

impl ErasedWebhook {
    fn takes(&self, task: &TaskKey) -> bool {
        self.is_whole || self.tasks.contains(task) || self.changes.contains(&task.change)
    }
}

/// What has to be known of everything that goes, to say what of it is upstream.
#[derive(Debug, Default)]
pub struct Scope {
    /// The rows of the contacts that are theirs. Others go with the last of their leads, and are somebody else's
    /// upstream.
    pub contacts: BTreeSet<u64>,
    /// The documents that are to be created upstream by what the change log holds.
    pub new: Unacknowledged,
}

/// The documents that are new upstream, as far as tickets tell.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    rows: HashSet<u64>,
    are_too_many: bool,
}

impl Unacknowledged {
    pub(super) fn has(&self, row: Row) -> bool {
        self.are_too_many || self.rows.contains(&row.number)
    }
}

impl Tables<'_> {
    /// Removes webhooks with their tasks, outcomes and notifications.
    pub(crate) fn erase_webhooks(
        &mut self,
        erasure: &[u8; 12],
        webhooks: &[ErasedWebhook],
    ) -> Result<(), StoreError> {
        self.erasing(erasure, |tables, erasure| {
            webhooks.iter().try_for_each(|webhook| {
                let erased = tables.erase_webhook(erasure, webhook);
                as_far_as_readable(erased, erasure, "webhook", webhook.seq)
            })
        })
    }

    /// Removes leads with all that belongs to them, and whoever they belong to with the last of them.
    pub(crate) fn erase_leads(
        &mut self,
        erasure: &[u8; 12],
        leads: &[ErasedLead],
        scope: &Scope,
    ) -> Result<(), StoreError> {
        self.erasing(erasure, |tables, erasure| {
            leads.iter().try_for_each(|lead| {
                let erased = tables.erase_lead(erasure, lead, scope);
                as_far_as_readable(erased, erasure, "lead", lead.row)
            })
        })
    }

    /// Removes contacts that have no leads, be it any more.
    pub(crate) fn erase_contacts(
        &mut self,
        erasure: &[u8; 12],
        contacts: &[u64],
        scope: &Scope,
    ) -> Result<(), StoreError> {
        self.erasing(erasure, |tables, erasure| {
            for contact in contacts {
                let of_contact = (*contact, 0)..=(*contact, u64::MAX);
                if tables.families.range(of_contact)?.next().is_none() {
                    let erased = tables.erase_owner(erasure, *contact, scope);
                    as_far_as_readable(erased, erasure, "contact", *contact)?;
                }
            }
            Ok(())
        })
    }

    /// Removes documents to which nothing refers.
    pub(crate) fn erase_documents(
        &mut self,
        erasure: &[u8; 12],
        rows: &[Row],
        scope: &Scope,
    ) -> Result<(), StoreError> {
        self.erasing(erasure, |tables, erasure| {
            tables.erase_rows(erasure, rows, scope)
        })
    }

    /// Removes tickets of the change log: a contact's have its data in them.
    pub(crate) fn erase_tickets(&mut self, tickets: &[u64]) -> Result<(), StoreError> {
        for ticket in tickets {
            self.changes.remove(ticket)?;
        }
        Ok(())
    }

    /// Does some of an erasure, and keeps count in its record; nothing where it is finished already.
    fn erasing(
        &mut self,
        id: &[u8; 12],
        work: impl FnOnce(&mut Self, &mut Erasure) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(mut erasure) = super::load(&self.erasures, id)? else {
            return Ok(());
        };
        work(self, &mut erasure)?;
        self.put_erasure(&erasure)
    }

    fn erase_webhook(
        &mut self,
        erasure: &mut Erasure,
        webhook: &ErasedWebhook,
    ) -> Result<(), StoreError> {
        let seq = webhook.seq;
        for key in &webhook.keys {
            self.leave_key(&erasure.id, key)?;
        }
        if let Some((hash, arrived_at_ms)) = &webhook.first_copy {
            self.leave_first_copy(hash, *arrived_at_ms)?;
        }
        let all = self.tasks_of(seq)?;
        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|task| webhook.takes(task));
        for task in &gone {
            self.erase_task(*task)?;
        }
        // Changes that the pipeline has not come to are in no table yet, and may be other people's.
        let is_settled = webhook.is_whole || seq <= self.cursor()?;
        if !kept.is_empty() || !is_settled {
            erasure.removed.tasks += gone.len() as u64;
            return Ok(());
        }
        self.erase_deliveries(erasure, seq, None)?;
        self.erase_from_inbox(erasure, seq)
    }

    /// The begun and the ended tasks of a webhook.
    fn tasks_of(&self, seq: u64) -> Result<BTreeSet<TaskKey>, StoreError> {
        let whole = || (seq, 0, &[0; 12])..=(seq, u32::MAX, &[0xff; 12]);
        let mut keys = BTreeSet::new();
        for entry in self.tasks.range(whole())? {
            keys.insert(task_key(entry?.0.value()));
        }
        for entry in self.outcomes.range(whole())? {
            keys.insert(task_key(entry?.0.value()));
        }
        Ok(keys)
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
        let blank = crate::store::codec::encode(&Webhook::erased(erasure.at_ms));
        self.inbox.insert(seq, blank.as_slice())?;
        Ok(())
    }

    pub(super) fn erase_deliveries(
        &mut self,
        erasure: &mut Erasure,
        seq: u64,
        lead: Option<u64>,
    ) -> Result<(), StoreError> {
        let under_way = self.deliveries_under_way(seq, lead)?;
        let removed = self.remove_deliveries(seq, lead, usize::MAX)?;
        erasure.removed.deliveries += removed as u64;
        erasure.removed.deliveries_under_way += under_way;
        Ok(())
    }
}

impl Snapshot {
    /// The documents that are to be created upstream by what the change log holds.
    pub(crate) fn to_be_created(&self) -> Result<Unacknowledged, StoreError> {
        let mut unacknowledged = Unacknowledged::default();
        for (looked_at, entry) in self.changes.range::<u64>(..)?.enumerate() {
            if looked_at == TICKETS_MAX {
                unacknowledged.are_too_many = true;
                break;
            }
            let (_, change) = entry?;
            let (_, number, kind, _) = change.value();
            if kind == crate::store::changes::FIRST {
                unacknowledged.rows.insert(number);
            }
        }
        Ok(unacknowledged)
    }

    /// Tickets after `after` whose documents are gone, from one page of the change log; and where the next page begins.
    pub(crate) fn tickets_of_nothing(
        &self,
        after: u64,
    ) -> Result<(Vec<u64>, Option<u64>), StoreError> {
        let (mut tickets, mut last, mut looked_at) = (Vec::new(), None, 0);
        for entry in self.changes.range(after + 1..)?.take(TICKETS_PAGE) {
            let (ticket, change) = entry?;
            let (collection, number, _, _) = change.value();
            if self.documents.get((collection, number))?.is_none() {
                tickets.push(ticket.value());
            }
            (last, looked_at) = (Some(ticket.value()), looked_at + 1);
        }
        Ok((tickets, last.filter(|_| looked_at == TICKETS_PAGE)))
    }
}

/// One damaged record must not keep everything else from being erased, nor the node from going on. Everything is read
/// before anything is removed, so that no half of anything is committed.
fn as_far_as_readable(
    erased: Result<(), StoreError>,
    erasure: &mut Erasure,
    what: &str,
    number: u64,
) -> Result<(), StoreError> {
    match erased {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%error, what, number, "it could not be erased");
            erasure.removed.damaged += 1;
            Ok(())
        }
        erased => erased,
    }
}

fn task_key((seq, change, campaign): (u64, u32, &[u8; 12])) -> TaskKey {
    TaskKey {
        seq,
        change,
        campaign: *campaign,
    }
}
