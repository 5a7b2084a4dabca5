//! The steps of an erasure, each a transaction of bounded size (R38).
//!
//! A lead goes with its messages, its deal and its notifications, a contact with conversation, room and keys
//! (`family`). What leads to the rest goes last: webhooks before leads, but for those that give an address themselves,
//! and leads before contacts. So whatever a crash leaves can be found again from what is left.

use std::collections::{BTreeSet, HashSet};

use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::ErasedLead;
use crate::model::Erasure;
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
    pub(super) fn has(&self, row: Row) -> bool {
        self.are_too_many || self.rows.contains(&row.number)
    }
}

impl Tables<'_> {
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
pub(super) fn as_far_as_readable(
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
