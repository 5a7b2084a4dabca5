//! Everything in a store that is of some people: by contact, by lead and by webhook, each leading to the others.
//!
//! The whole store is read, page by page, once for all erasures at hand. Nobody else needs an index by address, and one
//! that every webhook paid for would be a list of addresses of its own.
//!
//! Must not know: how what is found is removed.

mod sent;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::oid::ObjectId;
use inlet_sync::ports::Row;

use sent::{Since, Told};

use super::recognise::{Places, Recognised, Recogniser};
use crate::model::{Erasure, LeadChange, LeadId, Outcome, Reading, TaskKey, Webhook, WebhookId};
use crate::pipeline::readings::Opened;
use crate::pipeline::taken::taken_by_lead;
use crate::store::documents::{Collection, LeadFacts, Stored};
use crate::store::erasures::{ErasedLead, ErasedWebhook};
use crate::store::{Snapshot, Store, StoreError};

/// Records read with one snapshot: it pins freed pages.
const PAGE: usize = 500;

/// What goes by one erasure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Rows of contacts.
    pub contacts: BTreeSet<u64>,
    /// Rows of leads.
    pub leads: BTreeSet<u64>,
    /// What led to these and is not concerned, by the lead's row.
    pub since: BTreeMap<u64, Since>,
    /// Webhooks by their sequence numbers.
    pub webhooks: BTreeMap<u64, ErasedWebhook>,
    /// Retries of these webhooks, as documents.
    pub logs: Vec<Row>,
}

impl Found {
    /// The leads, each with what was sent for it since.
    #[must_use]
    pub fn erased_leads(&self) -> Vec<ErasedLead> {
        let leads = self.leads.iter().map(|row| {
            let Since { again, said } = self.since.get(row).cloned().unwrap_or_default();
            ErasedLead {
                row: *row,
                again,
                said,
            }
        });
        leads.collect()
    }
}

/// Looks for what erasures concern, one answer for each, in order; `None` where `stopped` says so first.
///
/// # Errors
/// When the store cannot be read. What is damaged is nobody's that anybody knows of.
pub fn find(
    store: &Store,
    erasures: &[Erasure],
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Vec<Found>>, StoreError> {
    let mut search = Search {
        store,
        erasures,
        stopped,
        recogniser: Recogniser::new(erasures, store.reference()),
        found: vec![Found::default(); erasures.len()],
        contacts: HashMap::new(),
        kept: BTreeSet::new(),
        adopted: HashMap::new(),
        taken: HashMap::new(),
        told: None,
    };
    let passes = [
        Search::contacts,
        Search::neighbours,
        Search::leads,
        Search::webhooks,
        Search::messages,
        Search::outcomes,
        Search::siblings,
        Search::logs,
    ];
    for pass in passes {
        pass(&mut search)?;
        if stopped() {
            return Ok(None);
        }
    }
    Ok(Some(search.found))
}

struct Search<'a> {
    store: &'a Store,
    erasures: &'a [Erasure],
    stopped: &'a dyn Fn() -> bool,
    recogniser: Recogniser<'a>,
    /// By erasure.
    found: Vec<Found>,
    /// Whose contacts are, by their rows.
    contacts: HashMap<u64, Places>,
    /// Contacts of theirs that stay all the same.
    kept: BTreeSet<u64>,
    /// Leads by the `_id`s that outcomes name, where these are not their own.
    adopted: HashMap<[u8; 12], u64>,
    /// By which erasure leads go.
    taken: HashMap<u64, usize>,
    /// The webhook that was opened last: one may have many tasks.
    told: Option<(u64, Option<Told>)>,
}

impl Search<'_> {
    fn contacts(&mut self) -> Result<(), StoreError> {
        self.each_document(Collection::Contacts, |search, _, row, contact| {
            let mut places = search.recogniser.contact(contact);
            let made_at = contact.body()?.get_datetime("created_at").ok();
            let made_ms = made_at.map_or(0, |at| at.timestamp_millis());
            // One that was made since is of somebody who came back.
            places.retain(|place| search.erasures[*place].concerns(0, made_ms));
            for place in &places {
                search.found[*place].contacts.insert(row);
            }
            if !places.is_empty() {
                search.recogniser.remember(contact, &places);
                search.contacts.insert(row, places);
            }
            Ok(())
        })
    }

    /// An address that somebody else's contact is found by, too, does not make a webhook theirs.
    fn neighbours(&mut self) -> Result<(), StoreError> {
        if self.contacts.is_empty() {
            return Ok(());
        }
        self.each_document(Collection::Contacts, |search, _, row, contact| {
            let is_theirs = search.contacts.contains_key(&row)
                || !search.recogniser.contact(contact).is_empty();
            if !is_theirs {
                search.recogniser.forget(contact);
            }
            Ok(())
        })
    }

    /// Leads of these contacts, and those that name somebody without a contact that does.
    fn leads(&mut self) -> Result<(), StoreError> {
        self.each_lead()?;
        // Only now: leads of the same contact that are theirs stand before and behind.
        for row in std::mem::take(&mut self.kept) {
            for place in self.contacts.remove(&row).into_iter().flatten() {
                self.found[place].contacts.remove(&row);
            }
        }
        Ok(())
    }

    fn each_lead(&mut self) -> Result<(), StoreError> {
        self.each_document(Collection::Leads, |search, snapshot, row, lead| {
            let upstream = lead.settled_id().bytes();
            if upstream != lead.own_id {
                search.adopted.insert(upstream, row);
            }
            let Some(facts) = lead.lead else {
                return Ok(());
            };
            let contact = lead.links.contact;
            let of_contact = contact.and_then(|contact| search.contacts.get(&contact));
            let places = match of_contact {
                Some(places) => places.clone(),
                None => search.whose_alone(snapshot, lead, facts.task)?,
            };
            match search.concerned(&places, facts.task.seq, facts.arrived_at_ms) {
                Some(place) => search.take_lead(place, row, &facts),
                // The person came back, and was taken for the contact of before: it stays with what came since.
                None => search.kept.extend(contact),
            }
            Ok(())
        })
    }

    /// What its webhook says is looked at with the webhook, unless that is gone or does not say it.
    fn whose_alone(
        &self,
        snapshot: &Snapshot,
        lead: &Stored,
        task: TaskKey,
    ) -> Result<Places, StoreError> {
        let is_read_later = task.campaign == [0; 12] && snapshot.has_webhook(task.seq)?;
        Ok(match is_read_later {
            true => Places::new(),
            false => self.recogniser.lead(lead),
        })
    }

    /// The newest of these erasures that concerns what came with this webhook: of somebody who came back between two
    /// of them there may be leads upstream that the older one knows the ids of.
    fn concerned(&self, places: &Places, seq: u64, arrived_at_ms: i64) -> Option<usize> {
        self.newest(places, |erasure| erasure.concerns(seq, arrived_at_ms))
    }

    fn newest(&self, places: &Places, concerns: impl Fn(&Erasure) -> bool) -> Option<usize> {
        let places = places.iter().copied();
        places
            .filter(|place| concerns(&self.erasures[*place]))
            .max_by_key(|place| (self.erasures[*place].at_ms, self.erasures[*place].id))
    }

    fn webhooks(&mut self) -> Result<(), StoreError> {
        let mut after = 0;
        while !(self.stopped)() {
            let snapshot = self.store.read()?;
            let page = snapshot.webhooks_after(after, PAGE)?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = *last;
            for (seq, webhook) in page {
                if let Ok(webhook) = webhook {
                    self.webhook(&snapshot, seq, webhook)?;
                }
            }
        }
        Ok(())
    }

    fn webhook(
        &mut self,
        snapshot: &Snapshot,
        seq: u64,
        webhook: Webhook,
    ) -> Result<(), StoreError> {
        let arrived_at_ms = webhook.arrived_at_ms;
        let Some(recognised) = self.recogniser.webhook(seq, webhook) else {
            return Ok(());
        };
        let Recognised {
            places,
            is_by_contact,
            taken,
        } = recognised;
        let leads = leads_made(snapshot, seq)?;
        if is_by_contact && !leads.is_empty() {
            // Whose it is its lead says.
            return Ok(());
        }
        let Some(place) = self.concerned(&places, seq, arrived_at_ms) else {
            return Ok(());
        };
        let entry = self.found[place].webhooks.entry(seq).or_default();
        entry.seq = seq;
        entry.is_whole = true;
        entry.is_telling = !is_by_contact;
        if let Some(taken) = taken {
            entry.keys = vec![taken.key];
            entry.first_copy = taken.first_copy.map(|hash| (hash, arrived_at_ms));
        }
        // Its lead may not name the person: a later copy of it does.
        leads
            .into_iter()
            .try_for_each(|id| self.lead_of(snapshot, place, id))
    }

    fn lead_of(
        &mut self,
        snapshot: &Snapshot,
        place: usize,
        id: [u8; 12],
    ) -> Result<(), StoreError> {
        let known = self.adopted.get(&id).copied();
        let Some(row) = known.map_or_else(|| snapshot.lead_row(id), |row| Ok(Some(row)))? else {
            return Ok(());
        };
        let lead = match snapshot.document(Collection::Leads.row(row)) {
            Err(StoreError::Corrupt { .. }) => return Ok(()),
            lead => lead?,
        };
        if let Some(facts) = lead.lead {
            self.take_lead(place, row, &facts);
        }
        Ok(())
    }

    /// A lead goes with whatever was sent for it, by one erasure, the newest that asks for it; what came since is
    /// worked through again.
    fn take_lead(&mut self, place: usize, row: u64, facts: &LeadFacts) {
        let earlier = self.taken.get(&row).copied().unwrap_or(place);
        let newest = self.newest(&Places::from([earlier, place]), |_| true);
        let place = newest.unwrap_or(place);
        self.found[earlier].leads.remove(&row);
        self.found[place].leads.insert(row);
        self.taken.insert(row, place);
        if self.erasures[place].concerns(facts.task.seq, facts.arrived_at_ms) {
            self.take_task(place, facts.task);
        }
    }

    fn take_task(&mut self, place: usize, task: TaskKey) {
        let is_everybodys = self.erasures[place].account.is_none();
        let webhook = self.found[place].webhooks.entry(task.seq).or_default();
        webhook.seq = task.seq;
        webhook.tasks.insert(task);
        // One change is one person's: for whatever campaign of whichever account it is to be a lead.
        if task.campaign != [0; 12] && is_everybodys {
            webhook.changes.insert(task.change);
        }
    }

    /// Tasks of the same change for other campaigns, which wait for Graph or for a token, or ended without a lead:
    /// their keys are taken as if there had been one.
    fn siblings(&mut self) -> Result<(), StoreError> {
        let snapshot = self.store.read()?;
        let reference = self.store.reference();
        let webhooks = self.found.iter_mut().flat_map(|found| &mut found.webhooks);
        for (seq, webhook) in webhooks.filter(|(_, webhook)| !webhook.changes.is_empty()) {
            let (tasks, ends) = match snapshot.fate(*seq) {
                Err(StoreError::Corrupt { .. }) => continue,
                fate => fate?,
            };
            let tasks = tasks.into_iter().map(|(key, _)| key);
            let tasks = tasks.chain(ends.into_iter().map(|(key, _)| key));
            let leads = leads_of(&snapshot, *seq)?;
            for task in tasks.filter(|task| webhook.changes.contains(&task.change)) {
                let campaign = reference.campaign_by_id(ObjectId::from_bytes(task.campaign));
                if let (Some(campaign), Some(lead)) = (campaign, leads.get(&task.change)) {
                    webhook.keys.push(taken_by_lead(campaign, lead));
                }
            }
        }
        Ok(())
    }

    fn logs(&mut self) -> Result<(), StoreError> {
        let webhooks = |(place, found): (usize, &Found)| {
            let seqs: Vec<_> = found.webhooks.keys().copied().collect();
            seqs.into_iter().map(move |seq| (seq, place))
        };
        let whose: HashMap<u64, usize> = self.found.iter().enumerate().flat_map(webhooks).collect();
        if whose.is_empty() {
            return Ok(());
        }
        let identity = self.store.identity().clone();
        self.each_document(Collection::Logs, |search, _, row, log| {
            let of = log.body()?.get_str("unique_id").ok();
            let of = of.and_then(|id| id.parse::<WebhookId>().ok());
            let of = of.filter(|id| identity.has_been(&id.node) && id.epoch == identity.epoch);
            if let Some(place) = of.and_then(|id| whose.get(&id.seq)) {
                search.found[*place].logs.push(Collection::Logs.row(row));
            }
            Ok(())
        })
    }

    /// Looks at every document of a collection that can be read.
    fn each_document(
        &mut self,
        collection: Collection,
        look: impl Fn(&mut Self, &Snapshot, u64, &Stored) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut after = 0;
        while !(self.stopped)() {
            let snapshot = self.store.read()?;
            let page = snapshot.documents_after(collection, after, PAGE)?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = *last;
            for (row, stored) in page {
                let looked = stored.and_then(|stored| look(self, &snapshot, row, &stored));
                match looked {
                    Ok(()) | Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The `_id`s of the leads that a webhook led to, or repeated.
fn leads_made(snapshot: &Snapshot, seq: u64) -> Result<Vec<[u8; 12]>, StoreError> {
    let ends = match snapshot.fate(seq) {
        Ok((_, ends)) => ends,
        Err(StoreError::Corrupt { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let leads = ends
        .into_iter()
        .filter_map(|(_, ended)| match ended.outcome {
            Outcome::Lead { id } | Outcome::Duplicate { of: id } => Some(id),
            _ => None,
        });
    Ok(leads.collect())
}

/// The platform's ids of the leads that a batch names, by change.
fn leads_of(snapshot: &Snapshot, seq: u64) -> Result<HashMap<u32, LeadId>, StoreError> {
    let webhook = match snapshot.webhook(seq) {
        Ok(Some(webhook)) => webhook,
        Ok(None) | Err(StoreError::Corrupt { .. }) => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let Ok(Reading::Changes(changes)) = Opened::read(seq, webhook).map(|opened| opened.reading)
    else {
        return Ok(HashMap::new());
    };
    let named = (0..)
        .zip(changes)
        .filter_map(|(place, change)| match change {
            LeadChange::Leadgen { leadgen_id, .. } => Some((place, leadgen_id)),
            LeadChange::Ignored(_) => None,
        });
    Ok(named.collect())
}
