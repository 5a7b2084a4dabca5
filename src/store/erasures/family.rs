//! The leads and contacts that an erasure removes, each with all that belongs to it (R38).
//!
//! Everything is read before anything is removed. What cannot be read costs itself: it goes without being named among
//! what is upstream, and the rest of its lead goes as ever.
//!
//! Derived keys stay, with nothing behind them: a resend is a duplicate of a lead that is nobody's any more.
//!
//! Must not know: whose they are.

use std::collections::{BTreeSet, HashMap};

use inlet_sync::ports::Row;
use redb::ReadableTable;

use super::{Scope, repeat_key};
use crate::model::{Erasure, Outcome, TaskKey};
use crate::store::documents::{Collection, Stored, key};
use crate::store::outbox::unsettled::claims_of;
use crate::store::tasks::Task;
use crate::store::{StoreError, Tables};

/// A lead that goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErasedLead {
    /// Its row.
    pub row: u64,
    /// What ended as it, or as a duplicate of it, and the erasure does not concern: it came since, and is worked
    /// through once more.
    pub again: Vec<Again>,
    /// Hashes of what the rest said: a resend of it stays one, whoever said the same since.
    pub said: BTreeSet<[u8; 32]>,
}

/// A task that is put back into the pipeline's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// The task.
    pub task: TaskKey,
    /// When its webhook arrived, milliseconds since the epoch.
    pub arrived_at_ms: i64,
    /// The hash of what it said, where its id names a person.
    pub said: Option<[u8; 32]>,
}

/// Documents that go, with their `_id`s upstream, as far as these can be told.
type Going = Vec<(Row, Option<[u8; 12]>)>;

/// A contact that goes with its conversation.
struct Owner {
    row: u64,
    documents: Going,
    /// What is known by it; nothing where it is damaged.
    contact: Option<OwnKeys>,
    is_theirs: bool,
}

struct OwnKeys {
    stored: Stored,
    hashes: Vec<[u8; 16]>,
    claims: Vec<[u8; 32]>,
}

impl Tables<'_> {
    pub(super) fn erase_lead(
        &mut self,
        erasure: &mut Erasure,
        lead: &ErasedLead,
        scope: &Scope,
    ) -> Result<(), StoreError> {
        let number = lead.row;
        let row = Collection::Leads.row(number);
        // What cannot be read is nobody's that anybody knows of.
        let Some(stored) = self.intact_document(row)? else {
            return Ok(());
        };
        let owner = stored.links.contact.unwrap_or(number);
        let family = self.families.get((owner, number))?;
        let (message, deal) = family.map_or((0, 0), |rows| rows.value());
        let is_last = self.is_last_lead(owner)?;
        let repeats = self.repeats_of(number)?;
        let messages = repeats.iter().copied().chain([message]);
        let messages = messages.filter(|message| *message != 0);
        let mut rows: Vec<Row> = messages.map(|row| Collection::Messages.row(row)).collect();
        rows.extend((deal != 0).then(|| Collection::Deals.row(deal)));
        rows.extend(self.conversation_rows(number)?);
        rows.push(row);
        let going = self.named(&rows)?;
        let news = self.said_since(&stored, &repeats, &lead.again)?;
        let (mut bound, mut owned) = (Vec::new(), None);
        if owner != number && is_last {
            owned = self.owner(owner, scope)?;
        } else if owner != number {
            bound = self.bound_documents(number, owner)?;
        }

        self.unbind(bound)?;
        self.remove_documents(erasure, going, Some(scope))?;
        self.leave_keys_of(erasure, &stored, lead, &news)?;
        for repeat in repeats {
            self.repeats.remove((number, repeat))?;
        }
        self.families.remove((owner, number))?;
        self.conversations.remove(number)?;
        if let Some(facts) = stored.lead {
            self.erase_deliveries(erasure, facts.task.seq, Some(number), usize::MAX)?;
        }
        self.put_back(&stored, &lead.again)?;
        owned.map_or(Ok(()), |owner| self.remove_owner(erasure, owner, scope))
    }

    /// A contact with its conversation, its keys and its claims.
    pub(super) fn erase_owner(
        &mut self,
        erasure: &mut Erasure,
        contact: u64,
        scope: &Scope,
    ) -> Result<(), StoreError> {
        match self.owner(contact, scope)? {
            Some(owner) => self.remove_owner(erasure, owner, scope),
            None => Ok(()),
        }
    }

    /// Removes documents to which nothing refers.
    pub(super) fn erase_rows(
        &mut self,
        erasure: &mut Erasure,
        rows: &[Row],
        scope: &Scope,
    ) -> Result<(), StoreError> {
        let going = self.named(rows)?;
        self.remove_documents(erasure, going, Some(scope))
    }

    /// The keys of what was said since the erasure, and not before: the messages of these go with the lead, so that the
    /// pipeline has to find them new.
    fn said_since(
        &self,
        lead: &Stored,
        repeats: &[u64],
        again: &[Again],
    ) -> Result<Vec<[u8; 12]>, StoreError> {
        if again.iter().all(|task| task.said.is_none()) {
            return Ok(Vec::new());
        }
        let mut first_said = HashMap::new();
        for repeat in repeats {
            let message = self.intact_document(Collection::Messages.row(*repeat))?;
            let said = message.and_then(|message| {
                let at = message.body().ok()?.get_datetime("created_at").ok()?;
                Some((message.own_id, at.timestamp_millis()))
            });
            first_said.extend(said);
        }
        let upstream = lead.settled_id().bytes();
        let news = again.iter().filter_map(|task| {
            let key = repeat_key(&upstream, &task.said?);
            let first = first_said.get(&key)?;
            (*first >= task.arrived_at_ms).then_some(key)
        });
        Ok(news.collect())
    }

    /// The lead's key is taken for ever, and so is that of what it said: where an id names a person, the same words are
    /// a resend, and others are news. Under which `_id` it is upstream stays known.
    fn leave_keys_of(
        &mut self,
        erasure: &Erasure,
        stored: &Stored,
        lead: &ErasedLead,
        news: &[[u8; 12]],
    ) -> Result<(), StoreError> {
        let upstream = stored.settled_id().bytes();
        self.leave_lead_key(&erasure.id, &stored.own_id)?;
        if upstream != stored.own_id {
            self.departed.insert(&stored.own_id, &upstream)?;
        }
        for key in news {
            self.keys.remove(key)?;
        }
        let own = stored.lead.filter(|facts| {
            let mut again = lead.again.iter();
            again.all(|again| again.task != facts.task)
        });
        let own = own.map(|facts| facts.fields_hash);
        let said = lead.said.iter().copied().chain(own);
        said.into_iter()
            .try_for_each(|said| self.remember_said(&stored.own_id, &said))
    }

    /// What came since the erasure is worked through again, unless it is gone meanwhile.
    fn put_back(&mut self, lead: &Stored, again: &[Again]) -> Result<(), StoreError> {
        let ids = [lead.own_id, lead.settled_id().bytes()];
        for Again { task, .. } in again {
            let ended = self.outcome(*task)?.map(|ended| ended.outcome);
            let (Some(Outcome::Lead { id }) | Some(Outcome::Duplicate { of: id })) = ended else {
                continue;
            };
            if ids.contains(&id) {
                self.forget_outcome(*task)?;
                let waits_for = task.queue();
                let task_anew = Task {
                    waits_for,
                    ..Task::default()
                };
                self.enqueue(*task, &task_anew, 0)?;
            }
        }
        Ok(())
    }

    /// What stays of an owner names a lead of his that goes: it needs it no more.
    fn unbind(&mut self, bound: Vec<(Row, Stored)>) -> Result<(), StoreError> {
        for (row, mut stored) in bound {
            stored.links.lead = None;
            self.put_document(row, &stored)?;
        }
        Ok(())
    }

    fn bound_documents(&self, lead: u64, owner: u64) -> Result<Vec<(Row, Stored)>, StoreError> {
        let mut bound = Vec::new();
        for row in self.bound_to(lead, owner)? {
            bound.extend(self.intact_document(row)?.map(|stored| (row, stored)));
        }
        Ok(bound)
    }

    fn owner(&self, contact: u64, scope: &Scope) -> Result<Option<Owner>, StoreError> {
        let row = Collection::Contacts.row(contact);
        if self.documents.get(key(row))?.is_none() {
            return Ok(None);
        }
        let mut rows = self.conversation_rows(contact)?;
        rows.push(row);
        let own_keys = self.intact_document(row)?.and_then(|stored| {
            let (hashes, claims) = (stored.contact_hashes().ok()?, claims_of(&stored).ok()?);
            Some(OwnKeys {
                stored,
                hashes,
                claims,
            })
        });
        Ok(Some(Owner {
            row: contact,
            documents: self.named(&rows)?,
            contact: own_keys,
            is_theirs: scope.contacts.contains(&contact),
        }))
    }

    fn remove_owner(
        &mut self,
        erasure: &mut Erasure,
        owner: Owner,
        scope: &Scope,
    ) -> Result<(), StoreError> {
        match &owner.contact {
            Some(contact) => {
                self.remove_contact_keys(owner.row, &contact.hashes)?;
                if owner.is_theirs {
                    self.remember_addresses(&erasure.id, &contact.stored)?;
                    self.void_claims_of(contact)?;
                }
            }
            // Keys that lead to nothing would stop every later lead that has them.
            None => self.contact_keys.retain(|_, row| row != owner.row)?,
        }
        let scope = Some(scope).filter(|_| owner.is_theirs);
        self.remove_documents(erasure, owner.documents, scope)?;
        self.conversations.remove(owner.row)?;
        Ok(())
    }

    fn void_claims_of(&mut self, contact: &OwnKeys) -> Result<(), StoreError> {
        let holders = [contact.stored.settled_id().bytes(), contact.stored.own_id];
        for claim in &contact.claims {
            for holder in &holders {
                self.void_claims.insert((claim, holder), ())?;
            }
        }
        Ok(())
    }

    /// Under which `_id`s documents are upstream; those that are gone are left out.
    fn named(&self, rows: &[Row]) -> Result<Going, StoreError> {
        let mut going = Vec::with_capacity(rows.len());
        for row in rows {
            if self.documents.get(key(*row))?.is_none() {
                continue;
            }
            let stored = self.document(*row);
            let id = match stored.and_then(|stored| self.upstream_id(*row, &stored)) {
                Ok(id) => Some(id.bytes()),
                Err(error @ StoreError::Corrupt { .. }) => {
                    let (collection, number) = (Collection::of(*row).name(), row.number);
                    tracing::error!(%error, collection, number, "erased, and nobody can say as what it is upstream");
                    None
                }
                Err(error) => return Err(error),
            };
            going.push((*row, id));
        }
        Ok(going)
    }

    /// Without a scope it is nobody's concern what is upstream.
    fn remove_documents(
        &mut self,
        erasure: &mut Erasure,
        going: Going,
        scope: Option<&Scope>,
    ) -> Result<(), StoreError> {
        for (row, id) in &going {
            self.documents.remove(key(*row))?;
            count(erasure, *row);
            erasure.removed.damaged += u64::from(id.is_none());
        }
        for (row, id) in going {
            let held = self.forget_held(row)?;
            let (Some(scope), Some(id)) = (scope, id) else {
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

fn count(erasure: &mut Erasure, row: Row) {
    let removed = &mut erasure.removed;
    match Collection::of(row) {
        Collection::Leads => removed.leads += 1,
        Collection::Contacts => removed.contacts += 1,
        _ => removed.other_documents += 1,
    }
}
