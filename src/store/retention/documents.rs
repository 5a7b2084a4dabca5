//! Documents that are upstream, with all that refers to them (R41).
//!
//! A lead goes with its messages and its deal, and with the notifications that tell of it; whoever it belongs to goes
//! with the last of its leads, and takes its conversation and its keys along. So nothing that stays refers to what is
//! gone. The lead's own key stays for ever: a resend is a duplicate whatever became of the lead here.

use std::collections::HashSet;

use inlet_sync::ports::Row;
use redb::{ReadableTable, ReadableTableMetadata};

use super::{Budget, Swept, Verdict, intact};
use crate::store::documents::{Collection, Stored, key};
use crate::store::{Snapshot, StoreError, Tables};

/// Leads looked at in one step: each may have some seven documents.
const LEADS_MAX: usize = 32;
/// Logs looked at in one step.
const LOGS_MAX: usize = 128;
/// Tickets beyond which nothing is removed: a node so far behind has other worries, and their rows are held in memory.
const TICKETS_MAX: u64 = 1_000_000;

/// The documents that MongoDB has not acknowledged: what has a ticket. Those whose tickets go meanwhile stay on the
/// list, and in the store until the next run.
#[derive(Debug, Default)]
pub struct Unacknowledged {
    rows: HashSet<u64>,
    /// The last ticket that was read.
    upto: u64,
}

/// A lead that goes, with all that goes along.
struct Family {
    lead: u64,
    /// The webhook it came with.
    seq: u64,
    /// Its contact's row, else its own.
    owner: u64,
    /// What its `_id` upstream is, where that is not its own.
    departed: Option<([u8; 12], [u8; 12])>,
    /// Every document, the lead's included.
    rows: Vec<Row>,
    repeats: Vec<u64>,
    /// What stays and was bound to it: a contact, a conversation.
    bound: Vec<Row>,
    /// With the last of its leads, the owner: the hashes it is found by.
    owner_keys: Option<Vec<[u8; 16]>>,
}

impl Tables<'_> {
    /// Looks at leads after row `after` and removes those that arrived by `until_ms`.
    pub(crate) fn purge_leads(
        &mut self,
        after: u64,
        until_ms: i64,
        unacknowledged: &mut Unacknowledged,
    ) -> Result<Swept<u64>, StoreError> {
        self.bring_up_to_date(unacknowledged)?;
        let budget = Budget::begin();
        let leads = self.rows_after(Collection::Leads, after, LEADS_MAX)?;
        self.sweep(&budget, leads, |tables, lead| {
            match tables.lead_verdict(lead, until_ms, unacknowledged)? {
                Verdict::Goes(family) => {
                    tables.remove_family(&family)?;
                    Ok(Some(family.rows.len() as u64))
                }
                Verdict::Stays => Ok(Some(0)),
                Verdict::TooYoung => Ok(None),
            }
        })
    }

    /// Looks at logs after row `after` and removes those made by `until_ms`.
    pub(crate) fn purge_logs(
        &mut self,
        after: u64,
        until_ms: i64,
        unacknowledged: &mut Unacknowledged,
    ) -> Result<Swept<u64>, StoreError> {
        self.bring_up_to_date(unacknowledged)?;
        let budget = Budget::begin();
        let logs = self.rows_after(Collection::Logs, after, LOGS_MAX)?;
        self.sweep(&budget, logs, |tables, number| {
            let row = Collection::Logs.row(number);
            let log = intact(tables.document(row))?;
            let Some(log) = log.filter(|_| tables.is_acknowledged(row, unacknowledged)) else {
                return Ok(Some(0));
            };
            if !is_from_before(&log, "created_at", until_ms) {
                return Ok(None);
            }
            tables.documents.remove(key(row))?;
            Ok(Some(1))
        })
    }

    /// Looks at one row after the other while the step lasts. `look` removes what is to go and says how much that was;
    /// `None` where the row is too young: whatever follows was made later.
    fn sweep(
        &mut self,
        budget: &Budget,
        rows: Vec<u64>,
        mut look: impl FnMut(&mut Self, u64) -> Result<Option<u64>, StoreError>,
    ) -> Result<Swept<u64>, StoreError> {
        let mut swept = Swept {
            purged: 0,
            next: None,
        };
        for row in rows {
            let Some(purged) = look(self, row)? else {
                swept.next = None;
                break;
            };
            swept.purged += purged;
            swept.next = Some(row);
            if budget.is_used_up() {
                break;
            }
        }
        Ok(swept)
    }

    /// Adds what was changed since.
    fn bring_up_to_date(&self, unacknowledged: &mut Unacknowledged) -> Result<(), StoreError> {
        for entry in self.changes.range(unacknowledged.upto + 1..)? {
            let (ticket, change) = entry?;
            unacknowledged.rows.insert(change.value().1);
            unacknowledged.upto = ticket.value();
        }
        Ok(())
    }

    fn rows_after(
        &self,
        collection: Collection,
        after: u64,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let rows = (collection as u8, after + 1)..(collection as u8 + 1, 0);
        let entries = self.documents.range(rows)?.take(limit);
        entries.map(|entry| Ok(entry?.0.value().1)).collect()
    }

    fn lead_verdict(
        &self,
        lead: u64,
        until_ms: i64,
        unacknowledged: &Unacknowledged,
    ) -> Result<Verdict<Family>, StoreError> {
        let stored = intact(self.document(Collection::Leads.row(lead)))?;
        let Some((stored, facts)) =
            stored.and_then(|stored| stored.lead.map(|facts| (stored, facts)))
        else {
            return Ok(Verdict::Stays);
        };
        if facts.arrived_at_ms > until_ms {
            return Ok(Verdict::TooYoung);
        }
        let seq = facts.task.seq;
        if !intact(self.was_told_by(lead, seq, until_ms))?.unwrap_or(false) {
            return Ok(Verdict::Stays);
        }
        let Some(family) = intact(self.family(lead, seq, &stored, until_ms))?.flatten() else {
            return Ok(Verdict::Stays);
        };
        let mut rows = family.rows.iter();
        Ok(
            match rows.all(|row| self.is_acknowledged(*row, unacknowledged)) {
                true => Verdict::Goes(family),
                false => Verdict::Stays,
            },
        )
    }

    /// Whether the notifications that tell of a lead had ended by then.
    fn was_told_by(&self, lead: u64, seq: u64, until_ms: i64) -> Result<bool, StoreError> {
        let deliveries = self.deliveries_of(seq, Some(lead))?;
        let mut states = deliveries.iter().map(|delivery| &delivery.state);
        Ok(states.all(|state| !state.is_live() && state.at_ms() <= until_ms))
    }

    /// What goes with a lead; nothing where some of it is too young.
    fn family(
        &self,
        lead: u64,
        seq: u64,
        stored: &Stored,
        until_ms: i64,
    ) -> Result<Option<Family>, StoreError> {
        let owner = stored.links.contact.unwrap_or(lead);
        let Some(own) = self.families.get((owner, lead))?.map(|rows| rows.value()) else {
            return Ok(None);
        };
        let (message, deal) = own;
        let repeats = self.repeats_of(lead)?;
        for repeat in &repeats {
            let message = self.document(Collection::Messages.row(*repeat))?;
            if !is_from_before(&message, "created_at", until_ms) {
                return Ok(None);
            }
        }
        let messages = repeats.iter().copied().chain([message]);
        let mut rows = vec![Collection::Leads.row(lead)];
        rows.extend(
            messages
                .filter(|row| *row != 0)
                .map(|row| Collection::Messages.row(row)),
        );
        rows.extend((deal != 0).then(|| Collection::Deals.row(deal)));
        if owner != lead {
            // From before it had a contact, which has another one.
            rows.extend(self.conversation_rows(lead)?);
        }
        let mut owner_keys = None;
        let mut bound = Vec::new();
        if self.is_last_lead(owner)? {
            owner_keys = Some(Vec::new());
            rows.extend(self.conversation_rows(owner)?);
            if let Some(contact) = stored.links.contact {
                let row = Collection::Contacts.row(contact);
                let contact = self.document(row)?;
                if !is_from_before(&contact, "updated_at", until_ms) {
                    return Ok(None);
                }
                rows.push(row);
                owner_keys = Some(contact.contact_hashes()?);
            }
        } else {
            bound = self.bound_to(lead, owner)?;
        }
        let upstream = stored.settled_id().bytes();
        Ok(Some(Family {
            lead,
            seq,
            owner,
            departed: (upstream != stored.own_id).then_some((stored.own_id, upstream)),
            rows,
            repeats,
            bound,
            owner_keys,
        }))
    }

    /// A contact of whom only the name was known, and a conversation that was opened for it or for the lead alone, name
    /// the lead they came with. Neither needs it any more where the contact has other leads.
    pub(in crate::store) fn bound_to(
        &self,
        lead: u64,
        contact: u64,
    ) -> Result<Vec<Row>, StoreError> {
        let conversation = self.conversation_rows(contact)?.into_iter().next();
        let rows = conversation
            .into_iter()
            .chain([Collection::Contacts.row(contact)]);
        let mut bound = Vec::new();
        for row in rows {
            let stored = intact(self.document(row))?;
            bound.extend(
                stored
                    .is_some_and(|stored| stored.links.lead == Some(lead))
                    .then_some(row),
            );
        }
        Ok(bound)
    }

    pub(in crate::store) fn is_last_lead(&self, owner: u64) -> Result<bool, StoreError> {
        let leads = self.families.range((owner, 0)..=(owner, u64::MAX))?;
        Ok(leads.take(2).count() == 1)
    }

    pub(in crate::store) fn conversation_rows(&self, owner: u64) -> Result<Vec<Row>, StoreError> {
        let rows = self.conversations.get(owner)?.map(|rows| rows.value());
        Ok(rows.map_or_else(Vec::new, |(conversation, room, message)| {
            vec![
                Collection::Conversations.row(conversation),
                Collection::Rooms.row(room),
                Collection::Messages.row(message),
            ]
        }))
    }

    /// Neither pending nor held. What cannot be read is neither.
    fn is_acknowledged(&self, row: Row, unacknowledged: &Unacknowledged) -> bool {
        let is_held = || self.held.get(key(row)).map_or(true, |held| held.is_some());
        !unacknowledged.rows.contains(&row.number) && !is_held()
    }

    fn remove_family(&mut self, family: &Family) -> Result<(), StoreError> {
        for row in &family.rows {
            self.documents.remove(key(*row))?;
        }
        for repeat in &family.repeats {
            self.repeats.remove((family.lead, *repeat))?;
        }
        self.families.remove((family.owner, family.lead))?;
        self.conversations.remove(family.lead)?;
        self.remove_deliveries(family.seq, Some(family.lead), usize::MAX)?;
        for row in &family.bound {
            let mut stored = self.document(*row)?;
            stored.links.lead = None;
            self.put_document(*row, &stored)?;
        }
        if let Some((own, upstream)) = &family.departed {
            self.departed.insert(own, upstream)?;
        }
        let Some(keys) = &family.owner_keys else {
            return Ok(());
        };
        self.conversations.remove(family.owner)?;
        self.remove_contact_keys(family.owner, keys)
    }

    /// A contact is found by these hashes no more.
    pub(in crate::store) fn remove_contact_keys(
        &mut self,
        contact: u64,
        hashes: &[[u8; 16]],
    ) -> Result<(), StoreError> {
        for hash in hashes {
            // The oldest contact keeps a key: it may be somebody else's.
            let is_own = self
                .contact_keys
                .get(hash)?
                .is_some_and(|row| row.value() == contact);
            if is_own {
                self.contact_keys.remove(hash)?;
            }
        }
        Ok(())
    }
}

impl Snapshot {
    /// What waits to be pushed; `None` where that is too much to hold in memory.
    pub(crate) fn unacknowledged(&self) -> Result<Option<Unacknowledged>, StoreError> {
        if self.changes.len()? > TICKETS_MAX {
            return Ok(None);
        }
        let mut unacknowledged = Unacknowledged::default();
        for entry in self.changes.range::<u64>(..)? {
            let (ticket, change) = entry?;
            unacknowledged.rows.insert(change.value().1);
            unacknowledged.upto = ticket.value();
        }
        Ok(Some(unacknowledged))
    }

    /// Whether the next lead after row `after` arrived by `until_ms`: if not, none behind it is to go.
    pub(crate) fn has_aged_lead(&self, after: u64, until_ms: i64) -> Result<bool, StoreError> {
        self.next_is(Collection::Leads, after, |lead| {
            lead.lead
                .is_some_and(|facts| facts.arrived_at_ms <= until_ms)
        })
    }

    /// Whether the next log after row `after` was made by `until_ms`.
    pub(crate) fn has_aged_log(&self, after: u64, until_ms: i64) -> Result<bool, StoreError> {
        self.next_is(Collection::Logs, after, |log| {
            is_from_before(log, "created_at", until_ms)
        })
    }

    fn next_is(
        &self,
        collection: Collection,
        after: u64,
        aged: impl Fn(&Stored) -> bool,
    ) -> Result<bool, StoreError> {
        let rows = (collection as u8, after + 1)..(collection as u8 + 1, 0);
        let Some(next) = self.documents.range(rows)?.next() else {
            return Ok(false);
        };
        let row = collection.row(next?.0.value().1);
        // What is damaged is passed over by the step.
        Ok(intact(self.document(row))?.is_none_or(|stored| aged(&stored)))
    }
}

fn is_from_before(stored: &Stored, field: &str, until_ms: i64) -> bool {
    let body = stored.body().ok();
    let at = body.and_then(|body| body.get_datetime(field).ok());
    at.is_some_and(|at| at.timestamp_millis() <= until_ms)
}
