//! The change log as the push engine sees it: which documents, in which order, under which `_id`, written how.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, RawBson, RawDocumentBuf, bson, doc, rawdoc};
use inlet_sync::ports::{
    Claim, Known, Lookup, Outbox, Pending, PortError, Rendered, Row, Settlement, Unsettled, Verdict,
};
use redb::ReadableTableMetadata;

use super::changes::{Held, Refusal};
use super::documents::{Adopted, Collection, ContactKeys, Stored};
use super::{Snapshot, Store, StoreError, Tables};
use crate::model::identity::derived_hash;
use crate::model::{Ended, Outcome};

mod contact_update;
mod renewal;

/// Pushes what a store's change log holds.
pub struct StoreOutbox {
    /// The store.
    pub store: Arc<Store>,
    /// Within this time of the first copy a submission without id is a resend (R10). Milliseconds.
    pub dedupe_window_ms: i64,
    /// The clock.
    pub clock: Arc<dyn crate::clock::Clock>,
}

/// Parents first: contacts and leads are what everything else refers to.
const STAGES: &[&[u8]] = &[
    &[Collection::Contacts as u8],
    &[Collection::Leads as u8],
    &[Collection::Conversations as u8],
    &[Collection::Rooms as u8],
    &[
        Collection::Messages as u8,
        Collection::Deals as u8,
        Collection::Logs as u8,
    ],
];

impl Outbox for StoreOutbox {
    fn collections(&self) -> &'static [&'static str] {
        &Collection::NAMES
    }

    fn stages(&self) -> &'static [&'static [u8]] {
        STAGES
    }

    fn take(&self, after: u64, limit: usize) -> Result<Vec<Pending>, PortError> {
        self.store
            .read()
            .and_then(|snapshot| snapshot.pending(after, limit))
            .map_err(port)
    }

    fn unsettled(&self, pending: &[Pending]) -> Result<Vec<Unsettled>, PortError> {
        let settle = Settle {
            snapshot: self.store.read().map_err(port)?,
            window_ms: self.dedupe_window_ms,
        };
        let found: Result<Vec<_>, _> = pending
            .iter()
            .filter_map(|one| settle.unsettled(one).transpose())
            .collect();
        found.map_err(port)
    }

    fn settle(&self, settled: Vec<(Row, Settlement)>) -> Result<(), PortError> {
        let changing: Vec<_> = settled
            .into_iter()
            .filter(|(_, settlement)| changes_anything(settlement))
            .collect();
        if changing.is_empty() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let work = move |tables: &mut Tables<'_>| {
            changing
                .iter()
                .try_for_each(|(row, settlement)| tables.settle(*row, settlement, now_ms))
        };
        self.store.write_blocking(work).map_err(port)
    }

    fn render(&self, pending: &[Pending]) -> Result<Vec<Rendered>, PortError> {
        let snapshot = self.store.read().map_err(port)?;
        let anything_held = !snapshot
            .held
            .is_empty()
            .map_err(|error| port(error.into()))?;
        let render = Render {
            snapshot,
            anything_held,
        };
        pending
            .iter()
            .map(|one| render.one(one))
            .collect::<Result<_, _>>()
            .map_err(port)
    }

    fn conclude(&self, mut verdicts: Vec<(Pending, Verdict)>) -> Result<(), PortError> {
        // Contacts last: a lead that went without its refused contact is put behind it before the contact, should it
        // have passed this time, lets go what waits for it.
        verdicts.sort_by_key(|(pending, _)| Collection::of(pending.row) == Collection::Contacts);
        let now_ms = self.clock.now_ms();
        let work = move |tables: &mut Tables<'_>| tables.conclude(&verdicts, now_ms);
        self.store.write_blocking(work).map_err(port)
    }
}

fn port(error: StoreError) -> PortError {
    PortError(Box::new(error))
}

fn changes_anything(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Adopted { .. } | Settlement::Gone)
}

struct Settle {
    snapshot: Snapshot,
    window_ms: i64,
}

impl Settle {
    fn unsettled(&self, pending: &Pending) -> Result<Option<Unsettled>, StoreError> {
        let row = pending.row;
        let stored = self.snapshot.document(row)?;
        if stored.withdrawn {
            return Ok(None);
        }
        match Collection::of(row) {
            Collection::Contacts => self.contact(pending, &stored).map(Some),
            Collection::Leads if self.snapshot.before(pending)?.is_none() => {
                self.lead(row, &stored).map(Some)
            }
            Collection::Conversations | Collection::Rooms => self.of_adopted(row, &stored),
            _ => Ok(None),
        }
    }

    /// Found by e-mail, else by phone, else claimed (R20, R31).
    fn contact(&self, pending: &Pending, stored: &Stored) -> Result<Unsettled, StoreError> {
        let body = stored.body()?;
        let account = body.get_object_id("account_id").map_err(|_| DAMAGED)?;
        let kind = body.get_str("type").map_err(|_| DAMAGED)?;
        let alive = doc! { "is_deleted": { "$ne": true } };
        let filter = doc! { "account_id": account, "type": kind, "is_deleted": { "$ne": true } };
        let at_ms = body
            .get_datetime("created_at")
            .map_or(0, bson::DateTime::timestamp_millis);
        let keys = stored.contact.clone().unwrap_or_default();
        let lookup = |field, value: &String| Lookup {
            filter: filter.clone(),
            field,
            value: Bson::String(value.clone()),
            ignore_case: field == "email",
        };
        let was_pushed = stored.adopted.is_some() || self.snapshot.before(pending)?.is_some();
        Ok(Unsettled {
            row: pending.row,
            own_id: stored.settled_id(),
            known: was_pushed
                .then(|| Known {
                    id: stored.settled_id(),
                    alive,
                })
                .filter(|_| stored.adopted.is_none_or(|adopted| adopted.seen)),
            lookups: key_list(&keys)
                .map(|(field, value)| lookup(field, value))
                .collect(),
            claims: key_list(&keys)
                .map(|(field, value)| Claim {
                    key: claim_key(field, account, kind, value),
                    window_ms: None,
                    at_ms,
                })
                .collect(),
        })
    }

    /// A lead with an id may have been written by the cloud service under another `_id`; one without an id by another
    /// node within the window (R10, R31).
    fn lead(&self, row: Row, stored: &Stored) -> Result<Unsettled, StoreError> {
        let body = stored.body()?;
        let id = |name| body.get_object_id(name).map_err(|_| DAMAGED);
        let (account, campaign) = (id("account_id")?, id("campaign_id")?);
        let lead_id = body.get_str("lead_id").map_err(|_| DAMAGED)?;
        let facts = stored.lead.ok_or(DAMAGED)?;
        let lookup = Lookup {
            filter: doc! { "account_id": account, "campaign_id": campaign },
            field: "lead_id",
            value: Bson::String(lead_id.to_owned()),
            ignore_case: false,
        };
        let claim = facts.without_id.then(|| Claim {
            key: hex::encode(derived_hash(
                "claim.lead",
                &[&account.bytes(), &campaign.bytes(), &facts.fields_hash],
            )),
            window_ms: Some(self.window_ms),
            at_ms: facts.arrived_at_ms,
        });
        Ok(Unsettled {
            row,
            own_id: stored.settled_id(),
            known: None,
            lookups: vec![lookup],
            claims: claim.into_iter().collect(),
        })
    }

    /// The conversation and the room of a contact that others know may exist already (R31).
    fn of_adopted(&self, row: Row, stored: &Stored) -> Result<Option<Unsettled>, StoreError> {
        let links = stored.links;
        let (parent, filter, field) = match Collection::of(row) {
            Collection::Conversations => {
                let account = stored
                    .body()?
                    .get_object_id("account_id")
                    .map_err(|_| DAMAGED)?;
                let parent = links.contact.map(|number| Collection::Contacts.row(number));
                (
                    parent,
                    doc! { "account_id": account, "origin": "inbound" },
                    "contact_id",
                )
            }
            _ => {
                let parent = links
                    .conversation
                    .map(|number| Collection::Conversations.row(number));
                (parent, doc! { "room_type": "inbound" }, "conversation_id")
            }
        };
        let Some(parent) = parent else {
            return Ok(None);
        };
        let parent = self.snapshot.document(parent)?;
        if stored.adopted.is_some() || parent.adopted.is_none() {
            return Ok(None);
        }
        let value = Bson::ObjectId(parent.settled_id());
        let own_id = self.snapshot.upstream_id(row, stored)?;
        let lookups = vec![Lookup {
            filter,
            field,
            value,
            ignore_case: false,
        }];
        Ok(Some(Unsettled {
            row,
            own_id,
            known: None,
            lookups,
            claims: Vec::new(),
        }))
    }
}

/// The keys of a contact in order of precedence.
fn key_list(keys: &ContactKeys) -> impl Iterator<Item = (&'static str, &String)> {
    let email = keys.email.as_ref().map(|value| ("email", value));
    let phone = keys.phone.as_ref().map(|value| ("phone", value));
    email.into_iter().chain(phone)
}

/// A hash: `inlet.claims` holds no personal data (R35).
fn claim_key(field: &str, account: ObjectId, kind: &str, value: &str) -> String {
    let tag = format!("claim.contact.{field}");
    hex::encode(derived_hash(
        &tag,
        &[&account.bytes(), kind.as_bytes(), value.as_bytes()],
    ))
}

const DAMAGED: StoreError = StoreError::Corrupt { table: "documents" };

impl Tables<'_> {
    fn settle(&mut self, row: Row, settlement: &Settlement, now_ms: i64) -> Result<(), StoreError> {
        match settlement {
            Settlement::Adopted { id, document } => {
                self.adopt(row, *id, document.is_some(), now_ms)
            }
            Settlement::Gone => self.renew_contact(row, now_ms),
            Settlement::Own | Settlement::Confirmed(_) => Ok(()),
        }
    }

    fn adopt(&mut self, row: Row, id: ObjectId, seen: bool, now_ms: i64) -> Result<(), StoreError> {
        let mut stored = self.document(row)?;
        if Collection::of(row) == Collection::Leads {
            self.yield_lead(&stored, id, now_ms)?;
            stored.withdrawn = true;
        }
        stored.adopted = Some(Adopted {
            id: id.bytes(),
            seen,
        });
        self.put_document(row, &stored)
    }

    /// The lead is upstream already, written by somebody else with all that belongs to it: ours is withdrawn. Without
    /// an id of its own it was the same submission at another node, so this webhook was a duplicate (R10).
    fn yield_lead(
        &mut self,
        stored: &Stored,
        upstream: ObjectId,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let facts = stored.lead.ok_or(DAMAGED)?;
        let of = upstream.bytes();
        let outcome = if facts.without_id {
            Outcome::Duplicate { of }
        } else {
            Outcome::Lead { id: of }
        };
        let attempts = self
            .forget_outcome(facts.task)?
            .map_or(1, |ended| ended.attempts);
        self.end(
            facts.task,
            &Ended {
                outcome,
                attempts,
                at_ms: now_ms,
            },
        )
    }

    fn conclude(&mut self, verdicts: &[(Pending, Verdict)], now_ms: i64) -> Result<(), StoreError> {
        let is_done = |(_, verdict): &&(Pending, Verdict)| *verdict == Verdict::Done;
        let done = || verdicts.iter().filter(is_done).map(|(pending, _)| pending);
        for pending in done() {
            self.seen(pending.row)?;
        }
        if !self.held.is_empty()? {
            for pending in done() {
                self.pushed(pending.row)?;
                self.owe_contact(pending.row, now_ms)?;
            }
        }
        self.remove_tickets(done())?;
        verdicts
            .iter()
            .try_for_each(|(pending, verdict)| self.set_aside(pending, verdict, now_ms))
    }

    fn set_aside(
        &mut self,
        pending: &Pending,
        verdict: &Verdict,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::AlreadyThere => self.merge_from_now_on(pending.row),
            Verdict::Refused { code, message } => {
                let refusal = Refusal {
                    code: *code,
                    message: message.clone(),
                };
                self.refused(pending, refusal, now_ms)
            }
            Verdict::Blocked { by } => self.blocked(pending, *by, now_ms),
        }
    }

    /// A lead that went without its refused contact gets the reference once the contact is mended (R36).
    fn owe_contact(&mut self, row: Row, now_ms: i64) -> Result<(), StoreError> {
        if Collection::of(row) != Collection::Leads {
            return Ok(());
        }
        let Some(contact) = self.document(row)?.links.contact else {
            return Ok(());
        };
        let contact = Collection::Contacts.row(contact);
        if self.held(contact)?.is_none() {
            return Ok(());
        }
        self.hold(row, &Held::behind(contact, false, now_ms))
    }

    /// Our `_id` is taken: by our own earlier push, or by a node that adopted it. Either way it is merged into.
    fn merge_from_now_on(&mut self, row: Row) -> Result<(), StoreError> {
        let mut stored = self.document(row)?;
        let id = stored.settled_id().bytes();
        stored.adopted = Some(Adopted { id, seen: true });
        self.put_document(row, &stored)
    }
}

struct Render {
    snapshot: Snapshot,
    anything_held: bool,
}

impl Render {
    fn one(&self, pending: &Pending) -> Result<Rendered, StoreError> {
        let row = pending.row;
        let stored = self.snapshot.document(row)?;
        if self.is_withdrawn(row, &stored)? {
            return Ok(Rendered::Nothing);
        }
        match Collection::of(row) {
            Collection::Contacts => self.contact(pending, &stored),
            Collection::Leads => self.lead(pending, &stored),
            _ => self.dependant(row, &stored),
        }
    }

    fn contact(&self, pending: &Pending, stored: &Stored) -> Result<Rendered, StoreError> {
        let before = match (self.snapshot.before(pending)?, stored.adopted) {
            // Whatever was pushed went to another document.
            (_, Some(adopted)) if !adopted.seen => Vec::new(),
            (Some(before), _) => before,
            (None, Some(_)) => Vec::new(),
            (None, None) => {
                return self
                    .snapshot
                    .assemble(pending.row, stored, true)
                    .map(Rendered::Create);
            }
        };
        if before == stored.body {
            return Ok(Rendered::Nothing);
        }
        let upsert = stored.adopted.is_some_and(|adopted| !adopted.seen);
        contact_update::render(stored, &before, upsert)
    }

    /// A lead never waits for a refused contact: it goes without, says so, and gets the reference later (R36).
    fn lead(&self, pending: &Pending, stored: &Stored) -> Result<Rendered, StoreError> {
        let contact = stored
            .links
            .contact
            .map(|number| Collection::Contacts.row(number));
        let held = match contact {
            Some(contact) if self.anything_held => self.snapshot.held(contact)?,
            _ => None,
        };
        if self.snapshot.before(pending)?.is_some() {
            return self.give_contact(pending.row, stored);
        }
        match held {
            None => self
                .snapshot
                .assemble(pending.row, stored, true)
                .map(Rendered::Append),
            Some(held) => {
                let whole = self.snapshot.assemble(pending.row, stored, false)?;
                without_contact(&whole, &held).map(Rendered::Append)
            }
        }
    }

    fn give_contact(&self, row: Row, stored: &Stored) -> Result<Rendered, StoreError> {
        let Some(number) = stored.links.contact else {
            return Ok(Rendered::Nothing);
        };
        let contact = self
            .snapshot
            .document(Collection::Contacts.row(number))?
            .settled_id();
        let id = self.snapshot.upstream_id(row, stored)?;
        let update = rawdoc! {
            "$set": { "contact_id": contact },
            "$pull": { "errors": { "type": "contactCreation" } },
        };
        Ok(Rendered::Update {
            filter: rawdoc! { "_id": id, "contact_id": { "$exists": false } },
            update: RawBson::Document(update),
            upsert: false,
        })
    }

    fn dependant(&self, row: Row, stored: &Stored) -> Result<Rendered, StoreError> {
        if let Some(by) = self.blocking(stored)? {
            return Ok(Rendered::Blocked { by });
        }
        let exists = stored.adopted.is_some() || self.opens_adopted_room(row, stored)?;
        if exists {
            return Ok(Rendered::Nothing);
        }
        self.snapshot
            .assemble(row, stored, true)
            .map(Rendered::Append)
    }

    /// A system message says that the conversation began: not when somebody else began it.
    fn opens_adopted_room(&self, row: Row, stored: &Stored) -> Result<bool, StoreError> {
        let (Collection::Messages, None, Some(room)) =
            (Collection::of(row), stored.links.lead, stored.links.room)
        else {
            return Ok(false);
        };
        Ok(self
            .snapshot
            .document(Collection::Rooms.row(room))?
            .adopted
            .is_some())
    }

    fn blocking(&self, stored: &Stored) -> Result<Option<Row>, StoreError> {
        if !self.anything_held {
            return Ok(None);
        }
        for parent in parents(stored) {
            // A lead that waits only for its contact's reference is upstream.
            let holds = |held: Held| held.first || held.refusal.is_some();
            if self.snapshot.held(parent)?.is_some_and(holds) {
                return Ok(Some(parent));
            }
        }
        Ok(None)
    }

    fn is_withdrawn(&self, row: Row, stored: &Stored) -> Result<bool, StoreError> {
        let lead = match (stored.links.lead, stored.links.conversation) {
            (Some(lead), _) => Some(lead),
            (None, Some(conversation)) if Collection::of(row) != Collection::Leads => {
                self.snapshot
                    .document(Collection::Conversations.row(conversation))?
                    .links
                    .lead
            }
            _ => None,
        };
        match lead {
            Some(lead) => Ok(self
                .snapshot
                .document(Collection::Leads.row(lead))?
                .withdrawn),
            None => Ok(stored.withdrawn),
        }
    }
}

fn parents(stored: &Stored) -> impl Iterator<Item = Row> {
    let links = stored.links;
    [
        links.contact.map(|number| Collection::Contacts.row(number)),
        links.lead.map(|number| Collection::Leads.row(number)),
        links
            .conversation
            .map(|number| Collection::Conversations.row(number)),
        links.room.map(|number| Collection::Rooms.row(number)),
    ]
    .into_iter()
    .flatten()
}

fn without_contact(whole: &RawDocumentBuf, held: &Held) -> Result<RawDocumentBuf, StoreError> {
    let mut lead = Document::try_from(whole.as_ref()).map_err(|_| DAMAGED)?;
    let message = held
        .refusal
        .as_ref()
        .map_or("the contact was refused", |refusal| {
            refusal.message.as_str()
        });
    let error = bson!({ "type": "contactCreation", "details": { "errorJson": message } });
    if let Ok(errors) = lead.get_array_mut("errors") {
        errors.push(error);
    } else {
        lead.insert("errors", vec![error]);
    }
    RawDocumentBuf::try_from(&lead).map_err(|_| DAMAGED)
}
