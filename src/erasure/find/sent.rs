//! What was sent for leads that go: before the erasure, and since.
//!
//! Must not know: whose a webhook is by what it says itself.

use std::collections::{BTreeSet, HashMap};

use super::{PAGE, Search};
use crate::model::{Outcome, Reading, TaskKey};
use crate::pipeline::readings::Opened;
use crate::pipeline::taken::said_by;
use crate::store::documents::Collection;
use crate::store::erasures::Again;
use crate::store::{Snapshot, StoreError};

/// What was sent for a lead that goes: what came after the erasure, and what is not to be mistaken for that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Since {
    /// To be worked through again.
    pub again: Vec<Again>,
    /// Hashes of what had been said before.
    pub said: BTreeSet<[u8; 32]>,
}

/// What a webhook tells of itself.
#[derive(Clone, Copy)]
pub(super) struct Told {
    arrived_at_ms: i64,
    /// The hash of what it says, where its id names a person.
    said: Option<[u8; 32]>,
}

impl Search<'_> {
    /// Leads that are somebody's only by what was sent for them later (R9), in webhooks that may not be kept any more.
    pub(super) fn messages(&mut self) -> Result<(), StoreError> {
        self.each_document(Collection::Messages, |search, snapshot, _, message| {
            let (Some(payload), Some(row)) = (&message.payload, message.links.lead) else {
                return Ok(());
            };
            let lead = snapshot.document(Collection::Leads.row(row))?;
            let places = search.recogniser.repetition(&lead, payload);
            let said_at = message.body()?.get_datetime("created_at").ok();
            let said_at_ms = said_at.map_or(0, |at| at.timestamp_millis());
            let Some(facts) = lead.lead else {
                return Ok(());
            };
            // What was said for a lead came before or after it, and is concerned no more than it if after.
            let was_older = said_at_ms <= facts.arrived_at_ms;
            let concerned = search.newest(&places, |one| {
                let may_be = was_older || one.concerns(facts.task.seq, facts.arrived_at_ms);
                may_be && one.concerns_words_of(said_at_ms)
            });
            if let Some(place) = concerned {
                search.take_lead(place, row, &facts);
            }
            Ok(())
        })
    }

    /// Webhooks that ended as one of these leads, or as duplicates of them, whatever they say.
    pub(super) fn outcomes(&mut self) -> Result<(), StoreError> {
        let ids = self.lead_ids()?;
        let mut after = Some(TaskKey::webhook(0));
        while let Some(from) = after.filter(|_| !ids.is_empty() && !(self.stopped)()) {
            let snapshot = self.store.read()?;
            let (page, next) = snapshot.outcomes_after(from, PAGE)?;
            for (task, outcome) in page {
                if let Outcome::Lead { id } | Outcome::Duplicate { of: id } = outcome
                    && let Some((place, lead)) = ids.get(&id)
                {
                    self.outcome(&snapshot, *place, *lead, task)?;
                }
            }
            after = next;
        }
        Ok(())
    }

    /// What the erasure does not concern came since, be it to a node that had not learnt of it: it stays, and is worked
    /// through again without the lead.
    fn outcome(
        &mut self,
        snapshot: &Snapshot,
        place: usize,
        lead: u64,
        task: TaskKey,
    ) -> Result<(), StoreError> {
        let told = self.told(snapshot, task.seq)?;
        let arrived_at_ms = told.map_or(i64::MIN, |told| told.arrived_at_ms);
        let said = told.and_then(|told| told.said);
        if told.is_some() && !self.erasures[place].concerns(task.seq, arrived_at_ms) {
            let again = Again {
                task,
                arrived_at_ms,
                said,
            };
            let since = self.found[place].since.entry(lead).or_default();
            since.again.push(again);
            return Ok(());
        }
        self.take_task(place, task);
        if let Some(said) = said {
            let since = self.found[place].since.entry(lead).or_default();
            since.said.insert(said);
        }
        Ok(())
    }

    fn told(&mut self, snapshot: &Snapshot, seq: u64) -> Result<Option<Told>, StoreError> {
        if let Some((last, told)) = &self.told
            && *last == seq
        {
            return Ok(*told);
        }
        let webhook = match snapshot.webhook(seq) {
            Err(StoreError::Corrupt { .. }) => None,
            webhook => webhook?,
        };
        let told = webhook.map(|webhook| {
            let arrived_at_ms = webhook.arrived_at_ms;
            let said = match Opened::read(seq, webhook).map(|opened| opened.reading) {
                Ok(Reading::Submission(submission)) => said_by(&submission),
                _ => None,
            };
            Told {
                arrived_at_ms,
                said,
            }
        });
        self.told = Some((seq, told));
        Ok(told)
    }

    /// The `_id`s by which outcomes name the leads that go, with the erasure by which they do, and their rows.
    fn lead_ids(&self) -> Result<HashMap<[u8; 12], (usize, u64)>, StoreError> {
        let snapshot = self.store.read()?;
        let mut ids = HashMap::new();
        for (place, found) in self.found.iter().enumerate() {
            for row in &found.leads {
                match snapshot.document(Collection::Leads.row(*row)) {
                    Ok(lead) => {
                        ids.insert(lead.own_id, (place, *row));
                        ids.insert(lead.settled_id().bytes(), (place, *row));
                    }
                    Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(ids)
    }
}
