//! Everything in a store that is of one person: by contact, by lead and by webhook, each leading to the others.
//!
//! The whole store is read, page by page. Nobody else needs an index by address, and one that every webhook paid for
//! would be a list of addresses of its own.
//!
//! Must not know: how what is found is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::oid::ObjectId;
use inlet_sync::ports::Row;

use super::recognise::{Recognised, Recogniser};
use crate::model::{
    Campaign, Erasure, LeadChange, LeadId, Outcome, Reading, TaskKey, Webhook, WebhookId,
    derived_id,
};
use crate::pipeline::readings::Opened;
use crate::store::documents::{Collection, Stored};
use crate::store::erasures::ErasedWebhook;
use crate::store::{Snapshot, Store, StoreError};

/// Records read with one snapshot: it pins freed pages.
const PAGE: usize = 500;

/// What is a person's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Rows of contacts.
    pub contacts: BTreeSet<u64>,
    /// Rows of leads.
    pub leads: BTreeSet<u64>,
    /// Webhooks by their sequence numbers.
    pub webhooks: BTreeMap<u64, ErasedWebhook>,
    /// Retries of these webhooks, as documents.
    pub logs: Vec<Row>,
}

/// Looks for what an erasure concerns; `None` where `stopped` says so first.
///
/// # Errors
/// When the store cannot be read. What is damaged is nobody's that anybody knows of.
pub fn find(
    store: &Store,
    erasure: &Erasure,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Found>, StoreError> {
    let mut search = Search {
        store,
        erasure,
        stopped,
        recogniser: Recogniser::new(erasure, store.reference()),
        found: Found::default(),
        ids: HashMap::new(),
    };
    let passes = [
        Search::contacts,
        Search::leads,
        Search::webhooks,
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
    erasure: &'a Erasure,
    stopped: &'a dyn Fn() -> bool,
    recogniser: Recogniser<'a>,
    found: Found,
    /// Leads by the `_id`s that outcomes name, where these are not their own.
    ids: HashMap<[u8; 12], u64>,
}

impl Search<'_> {
    fn contacts(&mut self) -> Result<(), StoreError> {
        self.each_document(Collection::Contacts, |search, _, row, contact| {
            let made_at = contact.body()?.get_datetime("created_at").ok();
            let made_ms = made_at.map_or(0, |at| at.timestamp_millis());
            // Whose leads all came since is somebody who came back.
            if search.erasure.concerns(0, made_ms) && search.recogniser.is_contact(contact) {
                search.found.contacts.insert(row);
            }
            Ok(())
        })
    }

    /// Leads of these contacts, and those that name the person without a contact that does.
    fn leads(&mut self) -> Result<(), StoreError> {
        self.each_document(Collection::Leads, |search, snapshot, row, lead| {
            let upstream = lead.settled_id().bytes();
            if upstream != lead.own_id {
                search.ids.insert(upstream, row);
            }
            let Some(facts) = lead.lead else {
                return Ok(());
            };
            let contact = lead.links.contact;
            let is_contacts = contact.is_some_and(|row| search.found.contacts.contains(&row));
            if !search.erasure.concerns(facts.task.seq, facts.arrived_at_ms) {
                // The person came back, and was taken for the contact of before: it stays with what came since.
                if let Some(contact) = contact {
                    search.found.contacts.remove(&contact);
                }
                return Ok(());
            }
            if is_contacts || search.is_lead_alone(snapshot, lead, facts.task)? {
                search.take_lead(row, facts.task);
            }
            Ok(())
        })
    }

    /// What its webhook says is looked at with the webhook, unless that is gone or does not say it.
    fn is_lead_alone(
        &self,
        snapshot: &Snapshot,
        lead: &Stored,
        task: TaskKey,
    ) -> Result<bool, StoreError> {
        let is_read_later = task.campaign == [0; 12] && snapshot.has_webhook(task.seq)?;
        Ok(!is_read_later && self.recogniser.is_lead(lead))
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
        if !self.erasure.concerns(seq, arrived_at_ms) {
            return Ok(());
        }
        let Some(Recognised { taken }) = self.recogniser.webhook(seq, webhook) else {
            return Ok(());
        };
        let entry = self.found.webhooks.entry(seq).or_default();
        entry.seq = seq;
        entry.is_whole = true;
        if let Some(taken) = taken {
            entry.keys = taken.keys;
            entry.first_copy = taken.first_copy.map(|hash| (hash, arrived_at_ms));
        }
        // Its lead may not name the person: a later copy of it does.
        let ends = match snapshot.fate(seq) {
            Ok((_, ends)) => ends,
            Err(StoreError::Corrupt { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        for (_, ended) in ends {
            if let Outcome::Lead { id } | Outcome::Duplicate { of: id } = ended.outcome {
                self.lead_of(snapshot, id)?;
            }
        }
        Ok(())
    }

    fn lead_of(&mut self, snapshot: &Snapshot, id: [u8; 12]) -> Result<(), StoreError> {
        let known = self.ids.get(&id).copied();
        let Some(row) = known.map_or_else(|| snapshot.lead_row(id), |row| Ok(Some(row)))? else {
            return Ok(());
        };
        let lead = match snapshot.document(Collection::Leads.row(row)) {
            Err(StoreError::Corrupt { .. }) => return Ok(()),
            lead => lead?,
        };
        if let Some(facts) = lead.lead {
            self.take_lead(row, facts.task);
        }
        Ok(())
    }

    fn take_lead(&mut self, row: u64, task: TaskKey) {
        self.found.leads.insert(row);
        self.take_task(task);
    }

    fn take_task(&mut self, task: TaskKey) {
        let webhook = self.found.webhooks.entry(task.seq).or_default();
        webhook.seq = task.seq;
        webhook.tasks.insert(task);
        // One change is one person's: for whatever campaign of whichever account it is to be a lead.
        if task.campaign != [0; 12] && self.erasure.account.is_none() {
            webhook.changes.insert(task.change);
        }
    }

    /// Webhooks that ended as one of these leads, or as duplicates of them, whatever they say.
    fn outcomes(&mut self) -> Result<(), StoreError> {
        let ids = self.lead_ids()?;
        let mut after = Some(TaskKey::webhook(0));
        while let Some(from) = after.filter(|_| !ids.is_empty() && !(self.stopped)()) {
            let (page, next) = self.store.read()?.outcomes_after(from, PAGE)?;
            for (task, outcome) in page {
                let (Outcome::Lead { id } | Outcome::Duplicate { of: id }) = outcome else {
                    continue;
                };
                if ids.contains(&id) {
                    self.take_task(task);
                }
            }
            after = next;
        }
        Ok(())
    }

    /// Tasks of the same change for other campaigns, which wait for Graph or for a token, or ended without a lead:
    /// their keys are taken as if there had been one.
    fn siblings(&mut self) -> Result<(), StoreError> {
        let snapshot = self.store.read()?;
        let reference = self.store.reference();
        for (seq, webhook) in &mut self.found.webhooks {
            let tasks = match snapshot.fate(*seq) {
                Ok(_) if webhook.changes.is_empty() => continue,
                Ok((tasks, ends)) => {
                    let tasks = tasks.into_iter().map(|(key, _)| key);
                    tasks.chain(ends.into_iter().map(|(key, _)| key))
                }
                Err(StoreError::Corrupt { .. }) => continue,
                Err(error) => return Err(error),
            };
            let leads = leads_of(&snapshot, *seq)?;
            for task in tasks.filter(|task| webhook.changes.contains(&task.change)) {
                let campaign = reference.campaign_by_id(ObjectId::from_bytes(task.campaign));
                if let (Some(campaign), Some(lead)) = (campaign, leads.get(&task.change)) {
                    webhook.keys.push(lead_key(campaign, lead));
                }
            }
        }
        Ok(())
    }

    /// The `_id`s by which outcomes name the leads that go.
    fn lead_ids(&self) -> Result<BTreeSet<[u8; 12]>, StoreError> {
        let snapshot = self.store.read()?;
        let mut ids = BTreeSet::new();
        for row in &self.found.leads {
            match snapshot.document(Collection::Leads.row(*row)) {
                Ok(lead) => ids.extend([lead.own_id, lead.settled_id().bytes()]),
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ids)
    }

    fn logs(&mut self) -> Result<(), StoreError> {
        if self.found.webhooks.is_empty() {
            return Ok(());
        }
        let identity = self.store.identity().clone();
        self.each_document(Collection::Logs, |search, _, row, log| {
            let of = log.body()?.get_str("unique_id").ok();
            let of = of.and_then(|id| id.parse::<WebhookId>().ok());
            let is_theirs = of.is_some_and(|webhook| {
                identity.has_been(&webhook.node)
                    && webhook.epoch == identity.epoch
                    && search.found.webhooks.contains_key(&webhook.seq)
            });
            if is_theirs {
                search.found.logs.push(Collection::Logs.row(row));
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

fn lead_key(campaign: &Campaign, lead: &LeadId) -> [u8; 12] {
    let place = [campaign.account_id.bytes(), campaign.id.bytes()];
    derived_id("lead", &[&place[0], &place[1], lead.as_str().as_bytes()]).bytes()
}
