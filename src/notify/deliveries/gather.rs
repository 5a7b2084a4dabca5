//! What is due: worked out to a message each, or to the reason why none will be sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bson::oid::ObjectId;

use super::judge::{Judge, USER_WAIT_MS};
use crate::notify::facts::{Missing, Sources};
use crate::notify::{Way, claims};
use crate::store::deliveries::{Delivery, Verdict};
use crate::store::documents::{Collection, Stored};
use crate::store::reference::Reference;
use crate::store::{Snapshot, Store, StoreError};

/// Deliveries looked at in one step: those that end without being sent, or wait for MongoDB's word, are many at times.
const LOOK_MAX: usize = 256;
/// A message that could not be sent for this long says nothing new any more.
const TOO_LATE_MS: i64 = 3 * 24 * 60 * 60 * 1000;
/// How long MongoDB may take to say whose lead it is (R26).
const SETTLING_MAX_MS: i64 = 5_000;
/// Between two looks for a user that is not known yet.
const USER_POLL_MS: i64 = 15_000;

/// Looks at what is due, at one moment.
pub(super) struct Look<W> {
    pub(super) store: Arc<Store>,
    pub(super) way: Arc<W>,
    pub(super) now_ms: i64,
    /// Whether other nodes can be asked.
    pub(super) agrees: bool,
    /// Whether nobody ever can be: what is cached is all there is.
    pub(super) is_alone: bool,
    pub(super) judge: Judge,
}

/// What is to be done now.
pub(super) struct Gathered<M> {
    pub(super) sends: Vec<Send<M>>,
    /// What ends, or waits, without being sent.
    pub(super) ends: Vec<(u64, Verdict)>,
    /// Something due waits for MongoDB's word.
    pub(super) settling: bool,
}

/// A message to send.
pub(super) struct Send<M> {
    pub(super) number: u64,
    pub(super) delivery: Delivery,
    pub(super) message: M,
    /// What other nodes are to be asked first.
    pub(super) claim: Option<String>,
    /// Whether this node has the claim.
    pub(super) claimed: bool,
}

enum Seen<M> {
    Send(Box<Send<M>>),
    End(Verdict),
    Settling,
}

impl<M> Gathered<M> {
    pub(super) fn is_empty(&self) -> bool {
        self.sends.is_empty() && self.ends.is_empty()
    }
}

impl<W: Way> Look<W> {
    /// At most `limit` messages, longest due first.
    pub(super) fn gather(&self, limit: usize) -> Result<Gathered<W::Message>, StoreError> {
        let mut gathered = Gathered {
            sends: Vec::new(),
            ends: Vec::new(),
            settling: false,
        };
        let snapshot = self.store.read()?;
        let reference = self.store.reference();
        let project = self.way.project();
        let sources = Sources {
            snapshot: &snapshot,
            reference: &reference,
            identity: self.store.identity(),
            project: project.as_deref(),
        };
        for (number, delivery) in
            snapshot.due_deliveries(self.way.channel(), self.now_ms, LOOK_MAX)?
        {
            if gathered.sends.len() == limit {
                break;
            }
            match self.see(&sources, number, delivery)? {
                Seen::Send(one) => gathered.sends.push(*one),
                Seen::End(verdict) => gathered.ends.push((number, verdict)),
                Seen::Settling => gathered.settling = true,
            }
        }
        Ok(gathered)
    }

    fn see(
        &self,
        sources: &Sources<'_>,
        number: u64,
        delivery: Result<Delivery, StoreError>,
    ) -> Result<Seen<W::Message>, StoreError> {
        let delivery = match delivery {
            Ok(delivery) => delivery,
            Err(error @ StoreError::Corrupt { .. }) => return Ok(failed(error.to_string())),
            Err(error) => return Err(error),
        };
        if self.now_ms - delivery.wanted_at_ms >= TOO_LATE_MS {
            return Ok(failed(too_late(&delivery)));
        }
        let lead = match sources
            .snapshot
            .document(Collection::Leads.row(delivery.lead))
        {
            Ok(lead) => lead,
            Err(StoreError::Corrupt { .. }) => {
                return Ok(failed("the lead is no longer stored".to_owned()));
            }
            Err(error) => return Err(error),
        };
        if lead.withdrawn && !delivery.claimed {
            return Ok(Seen::End(Verdict::Elsewhere));
        }
        if self.is_settling(sources.snapshot, &delivery)? {
            return Ok(Seen::Settling);
        }
        self.prepare(sources, number, delivery, &lead)
    }

    /// Whether MongoDB may say any moment that the lead is another node's: only of leads without an id of their own
    /// (R10), only while it can be reached, and not for long.
    fn is_settling(&self, snapshot: &Snapshot, delivery: &Delivery) -> Result<bool, StoreError> {
        let Some(ticket) = delivery.settled_by.filter(|_| self.agrees) else {
            return Ok(false);
        };
        let patience = self.now_ms - delivery.created_at_ms < SETTLING_MAX_MS;
        Ok(patience && !snapshot.is_ticket_done(ticket)?)
    }

    /// Foreign text goes into a message: should that panic, it is this delivery's fault alone.
    fn prepare(
        &self,
        sources: &Sources<'_>,
        number: u64,
        delivery: Delivery,
        lead: &Stored,
    ) -> Result<Seen<W::Message>, StoreError> {
        let prepared = AssertUnwindSafe(|| {
            let facts = match sources.facts(number, &delivery, lead) {
                Ok(Ok(facts)) => facts,
                Ok(Err(missing)) => {
                    let is_certain = self.is_certain(sources.reference, &delivery);
                    return Ok(Err(self.without(missing, &delivery, is_certain)));
                }
                Err(StoreError::Corrupt { .. }) => {
                    return Ok(Err(failed_verdict("the lead is damaged".to_owned())));
                }
                Err(error) => return Err(error),
            };
            Ok(self.way.render(&facts).map_err(failed_verdict))
        });
        let message = match catch_unwind(prepared) {
            Ok(Ok(Ok(message))) => message,
            Ok(Ok(Err(verdict))) => return Ok(Seen::End(verdict)),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(Seen::End(self.judge.fault(&delivery, self.now_ms))),
        };
        let claim = (self.agrees && !delivery.claimed)
            .then(|| claims::key(agreed_id(lead), delivery.channel));
        Ok(Seen::Send(Box::new(Send {
            number,
            delivery,
            message,
            claim,
            claimed: false,
        })))
    }

    /// Users come with the next pull, campaigns at once: what is missing may have been made a moment ago. Until it is
    /// certain that it is not there, it is waited for, however long MongoDB is away (R13).
    fn without(&self, missing: Missing, delivery: &Delivery, is_certain: bool) -> Verdict {
        let is_soon = self.now_ms - delivery.wanted_at_ms < USER_WAIT_MS;
        match missing {
            Missing::NotYet(what) if is_soon || !is_certain => Verdict::Postponed {
                error: Some(what.to_owned()),
                due_ms: self.now_ms + USER_POLL_MS,
            },
            Missing::NotYet(what) | Missing::Gone(what) => failed_verdict(what.to_owned()),
        }
    }

    /// Whether everything was read upstream since the delivery was asked for; a stand-alone node has nothing to read.
    fn is_certain(&self, reference: &Reference, delivery: &Delivery) -> bool {
        let complete_at_ms = reference.complete_at_ms();
        self.is_alone || complete_at_ms.is_some_and(|at_ms| at_ms > delivery.wanted_at_ms)
    }
}

/// The `_id` by which other nodes know a lead too. By its platform's id all derive the same one, whichever of them has
/// heard that the lead was upstream under another; without such an id, it is the one that they settled on (R10).
fn agreed_id(lead: &Stored) -> ObjectId {
    match lead.lead {
        Some(facts) if !facts.without_id => ObjectId::from_bytes(lead.own_id),
        _ => lead.settled_id(),
    }
}

fn failed<M>(error: String) -> Seen<M> {
    Seen::End(failed_verdict(error))
}

fn failed_verdict(error: String) -> Verdict {
    Verdict::Failed { error }
}

fn too_late(delivery: &Delivery) -> String {
    match &delivery.last_error {
        Some(error) => format!("too late: {error}"),
        None => "too late".to_owned(),
    }
}
