//! The steps of an erasure, each a transaction of bounded size (R38).
//!
//! A lead goes with its messages, its deal and its notifications, a contact with conversation, room and keys. What
//! leads to the rest goes last: webhooks before leads, but for those that give an address themselves, and leads before
//! contacts. So whatever a crash leaves can be found again from what is left.
//!
//! Derived keys stay, with nothing behind them: a resend is a duplicate of a lead that is nobody's any more.

use std::collections::{BTreeSet, HashSet};

use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::ERASED_ROW;
use crate::model::identity::derived_hash;
use crate::model::{Erasure, derived_id};
use crate::store::documents::{Collection, Stored, key};
use crate::store::outbox::unsettled::claims_of;
use crate::store::{Snapshot, StoreError, Tables};

/// Tickets beyond which nobody looks which documents are new upstream: everything then counts as not certain.
const TICKETS_MAX: usize = 1_000_000;
/// Tickets looked at with one snapshot.
const TICKETS_PAGE: usize = 10_000;

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
    fn has(&self, row: Row) -> bool {
        self.are_too_many || self.rows.contains(&row.number)
    }
}

impl Tables<'_> {
    /// Removes leads with all that belongs to them, and whoever they belong to with the last of them.
    pub(crate) fn erase_leads(
        &mut self,
        erasure: &[u8; 12],
        leads: &[u64],
        scope: &Scope,
    ) -> Result<(), StoreError> {
        self.erasing(erasure, |tables, erasure| {
            leads.iter().try_for_each(|lead| {
                let erased = tables.erase_lead(erasure, *lead, scope);
                as_far_as_readable(erased, erasure, "lead", *lead)
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
            tables.remove_rows(erasure, rows, Some(scope))
        })
    }

    /// Removes tickets of the change log: a contact's have its data in them.
    pub(crate) fn erase_tickets(&mut self, tickets: &[u64]) -> Result<(), StoreError> {
        for ticket in tickets {
            self.changes.remove(ticket)?;
        }
        Ok(())
    }

    /// Does some of an erasure, and keeps count in its record; nothing where it is finished or given up.
    pub(super) fn erasing<T: Default>(
        &mut self,
        id: &[u8; 12],
        work: impl FnOnce(&mut Self, &mut Erasure) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let is_unfinished = self.unfinished_erasures.get(id)?.is_some();
        let Some(mut erasure) = super::load(&self.erasures, id)?.filter(|_| is_unfinished) else {
            return Ok(T::default());
        };
        let done = work(self, &mut erasure)?;
        self.put_erasure(&erasure)?;
        Ok(done)
    }

    fn erase_lead(
        &mut self,
        erasure: &mut Erasure,
        lead: u64,
        scope: &Scope,
    ) -> Result<(), StoreError> {
        let row = Collection::Leads.row(lead);
        // What cannot be read is nobody's that anybody knows of.
        let Some(stored) = self.intact_document(row)? else {
            return Ok(());
        };
        let owner = stored.links.contact.unwrap_or(lead);
        let (message, deal) = self
            .families
            .get((owner, lead))?
            .map_or((0, 0), |rows| rows.value());
        let is_last = self.is_last_lead(owner)?;
        let repeats = self.repeats_of(lead)?;
        let messages = repeats.iter().copied().chain([message]);
        let mut rows: Vec<Row> = messages
            .filter(|number| *number != 0)
            .map(|number| Collection::Messages.row(number))
            .collect();
        rows.extend((deal != 0).then(|| Collection::Deals.row(deal)));
        rows.extend(self.conversation_rows(lead)?);
        rows.push(row);
        if !is_last && owner != lead {
            self.unbind(lead, owner)?;
        }
        self.remove_rows(erasure, &rows, Some(scope))?;
        self.leave_keys_of(&stored)?;
        for repeat in repeats {
            self.repeats.remove((lead, repeat))?;
        }
        self.families.remove((owner, lead))?;
        self.conversations.remove(lead)?;
        if let Some(facts) = stored.lead {
            self.erase_deliveries(erasure, facts.task.seq, Some(lead), usize::MAX)?;
        }
        if is_last && owner != lead {
            self.erase_owner(erasure, owner, scope)?;
        }
        Ok(())
    }

    /// The lead's key is taken for ever, and so is that of what it said: where an id names a person, the same words are
    /// a resend, and others are news. Under which `_id` it is upstream stays known.
    fn leave_keys_of(&mut self, lead: &Stored) -> Result<(), StoreError> {
        let upstream = lead.settled_id().bytes();
        self.keys.insert(&lead.own_id, ERASED_ROW)?;
        if let Some(facts) = lead.lead {
            let said = repeat_key(&upstream, &facts.fields_hash);
            self.keys.insert(&said, ERASED_ROW)?;
        }
        if upstream != lead.own_id {
            self.departed.insert(&lead.own_id, &upstream)?;
        }
        Ok(())
    }

    /// What stays of an owner names a lead of his that goes: it needs it no more.
    fn unbind(&mut self, lead: u64, owner: u64) -> Result<(), StoreError> {
        for row in self.bound_to(lead, owner)? {
            let mut stored = self.document(row)?;
            stored.links.lead = None;
            self.put_document(row, &stored)?;
        }
        Ok(())
    }

    /// A contact with its conversation, its keys and its claims.
    fn erase_owner(
        &mut self,
        erasure: &mut Erasure,
        contact: u64,
        scope: &Scope,
    ) -> Result<(), StoreError> {
        let row = Collection::Contacts.row(contact);
        if self.documents.get(key(row))?.is_none() {
            return Ok(());
        }
        // Read before anything goes: keys that lead to nothing would stop every later lead that has them.
        let stored = self.document(row)?;
        let (hashes, claims) = (stored.contact_hashes()?, claims_of(&stored)?);
        self.remove_contact_keys(contact, &hashes)?;
        let is_theirs = scope.contacts.contains(&contact);
        for claim in claims.iter().filter(|_| is_theirs) {
            let holders = [stored.settled_id().bytes(), stored.own_id];
            for holder in holders {
                self.void_claims.insert((claim, &holder), ())?;
            }
        }
        let mut rows = self.conversation_rows(contact)?;
        rows.push(row);
        self.remove_rows(erasure, &rows, Some(scope).filter(|_| is_theirs))?;
        self.conversations.remove(contact)?;
        Ok(())
    }

    /// Removes documents, children first or all at once: under which `_id`s they are upstream is read before. Without a
    /// scope that is nobody's concern.
    fn remove_rows(
        &mut self,
        erasure: &mut Erasure,
        rows: &[Row],
        scope: Option<&Scope>,
    ) -> Result<(), StoreError> {
        let mut left = Vec::with_capacity(rows.len());
        for row in rows {
            let id = match self.document(*row) {
                Ok(stored) => self.upstream_id(*row, &stored),
                Err(error) => Err(error),
            };
            match id {
                Ok(id) => left.push((*row, id.bytes())),
                // It is gone, or nobody can say what it is upstream.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for row in rows {
            if self.documents.remove(key(*row))?.is_some() {
                count(erasure, *row);
            }
        }
        for (row, id) in left {
            let held = self.forget_held(row)?;
            let Some(scope) = scope else {
                continue;
            };
            let is_new = scope.new.has(row) || held.is_some_and(|held| held.owed.first);
            self.left_upstream
                .insert((&erasure.id, row.collection, &id), u8::from(!is_new))?;
        }
        Ok(())
    }

    fn intact_document(&self, row: Row) -> Result<Option<Stored>, StoreError> {
        match self.document(row) {
            Ok(stored) => Ok(Some(stored)),
            Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
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

/// What tells apart the messages of a lead whose id names a person (R9): `upstream` is the lead's `_id`.
pub(crate) fn repeat_key(upstream: &[u8; 12], fields_hash: &[u8; 32]) -> [u8; 12] {
    derived_id("repeat", &[upstream, fields_hash]).bytes()
}

/// Under what a first copy of fields without an id is remembered (R10).
pub(crate) fn first_copy_key(
    account: &[u8; 12],
    campaign: &[u8; 12],
    fields_hash: &[u8; 32],
) -> [u8; 16] {
    let mut half = [0; 16];
    let hash = derived_hash("first_copy", &[account, campaign, fields_hash]);
    half.copy_from_slice(&hash[..16]);
    half
}

/// One damaged record must not keep everything else from being erased, nor the node from going on.
pub(super) fn as_far_as_readable(
    erased: Result<(), StoreError>,
    erasure: &mut Erasure,
    what: &str,
    number: u64,
) -> Result<(), StoreError> {
    match erased {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%error, what, number, "not all of it could be erased");
            erasure.removed.damaged += 1;
            Ok(())
        }
        erased => erased,
    }
}

fn count(erasure: &mut Erasure, row: Row) {
    let removed = &mut erasure.removed;
    match Collection::of(row) {
        Collection::Leads => removed.leads += 1,
        Collection::Contacts => removed.contacts += 1,
        _ => removed.other_documents += 1,
    }
}
