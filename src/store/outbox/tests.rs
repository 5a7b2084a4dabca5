//! What the push engine is told to write, batch by batch, without an engine and without MongoDB.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{DateTime, RawBson, RawDocument, rawdoc};
use inlet_sync::ports::{Outbox, Pending, Rendered, Row, Settlement, Verdict};
use redb::ReadableTable;
use tempfile::TempDir;

use super::StoreOutbox;
use crate::clock::{Clock, ManualClock};
use crate::console::Console;
use crate::model::{Ended, Outcome, TaskKey};
use crate::store::changes::Change;
use crate::store::documents::{Collection, ContactKeys, LeadFacts, Links, Stored, key};
use crate::store::{Store, StoreError, Tables};

mod damaged;
mod offered;
mod overlap;
mod unknown;

const NOW_MS: i64 = 1_700_000_000_000;
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
const DAY: Duration = Duration::from_secs(86_400);

/// A store, and the outbox over it.
struct Desk {
    store: Arc<Store>,
    outbox: StoreOutbox,
    clock: Arc<ManualClock>,
    _folder: TempDir,
}

/// The rows of one submission.
#[derive(Debug, Clone, Copy)]
struct Rows {
    contact: Row,
    lead: Row,
    deal: Row,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path().join("inlet.redb"), Some("desk")).unwrap());
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let outbox = StoreOutbox::new(
            Arc::clone(&store),
            600_000,
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        Self {
            store,
            outbox,
            clock,
            _folder: folder,
        }
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.write_blocking(work).unwrap()
    }

    /// A contact with a phone, its lead and deal, all new.
    fn submission(&self, number: u8) -> Rows {
        self.write(move |tables| add_submission(tables, number))
    }

    fn pending(&self, row: Row) -> Pending {
        let all = self.outbox.take(0, 1_000).unwrap();
        all.into_iter().find(|one| one.row == row).unwrap()
    }

    /// Goes through the change log once, as the engine does; MongoDB takes everything. What it was given is returned.
    fn pass(&self) -> Vec<(Row, Rendered)> {
        let mut pending = self.outbox.take(0, 1_000).unwrap();
        let mut written = Vec::new();
        for stage in self.outbox.stages() {
            let rows: Vec<_> = pending
                .extract_if(.., |one| stage.contains(&one.row.collection))
                .collect();
            self.outbox.unsettled(&rows).unwrap();
            let rendered = self.outbox.render(&rows).unwrap();
            let verdicts = rows.iter().cloned().zip(rendered.iter().map(verdict));
            self.outbox.conclude(verdicts.collect()).unwrap();
            written.extend(rows.iter().map(|one| one.row).zip(rendered));
        }
        written
    }

    /// Flips a bit of a document's record; returns the record as it was.
    fn damage(&self, row: Row) -> Vec<u8> {
        self.write(move |tables| {
            let record = tables.documents.get(key(row))?.unwrap().value().to_vec();
            let mut damaged = record.clone();
            damaged[20] ^= 1;
            tables.documents.insert(key(row), damaged.as_slice())?;
            Ok(record)
        })
    }

    fn held(&self) -> Vec<serde_json::Value> {
        let console = Console {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            live: None,
        };
        let status = console.sync_status().unwrap();
        status["held_documents"].as_array().unwrap().clone()
    }
}

fn verdict(rendered: &Rendered) -> Verdict {
    match rendered {
        Rendered::Blocked { by } => Verdict::Blocked { by: *by },
        Rendered::Damaged { message } => Verdict::Damaged {
            message: message.clone(),
        },
        _ => Verdict::Done,
    }
}

fn add(
    tables: &mut Tables<'_>,
    collection: Collection,
    stored: &Stored,
) -> Result<Row, StoreError> {
    let row = tables.add_document(collection, stored)?;
    tables.append_change(row, Change::First)?;
    Ok(row)
}

fn add_submission(tables: &mut Tables<'_>, number: u8) -> Result<Rows, StoreError> {
    let at = DateTime::from_millis(NOW_MS);
    let phone = format!("+4670123456{number}");
    let body = rawdoc! { "account_id": ACCOUNT, "type": "person", "phone": phone.as_str(), "updated_at": at };
    let mut contact = Stored::new([0xc0 + number; 12], &body);
    contact.contact = Some(ContactKeys {
        email: None,
        phone: Some(phone),
    });
    let contact = add(tables, Collection::Contacts, &contact)?;
    let body =
        rawdoc! { "account_id": ACCOUNT, "campaign_id": ACCOUNT, "lead_id": "1", "created_at": at };
    let links = Links {
        contact: Some(contact.number),
        ..Links::default()
    };
    let mut lead = Stored::new([0x10 + number; 12], &body).with_links(links);
    lead.lead = Some(LeadFacts {
        task: TaskKey::webhook(u64::from(number)),
        fields_hash: [number; 32],
        without_id: true,
        arrived_at_ms: NOW_MS,
        is_return: false,
    });
    let lead = add(tables, Collection::Leads, &lead)?;
    let links = Links {
        lead: Some(lead.number),
        ..links
    };
    let body = rawdoc! { "account_id": ACCOUNT, "created_at": at };
    let deal = Stored::new([0; 12], &body).with_links(links);
    let deal = add(tables, Collection::Deals, &deal)?;
    Ok(Rows {
        contact,
        lead,
        deal,
    })
}

fn inserted(rendered: &Rendered) -> &RawDocument {
    match rendered {
        Rendered::Append(document) | Rendered::Create(document) => document,
        other => panic!("it is not inserted: {other:?}"),
    }
}

fn id(document: &RawDocument) -> ObjectId {
    document.get_object_id("_id").unwrap()
}

/// Whether an update has this text in it.
fn says(rendered: &Rendered, text: &str) -> bool {
    let Rendered::Update {
        update: RawBson::Array(pipeline),
        ..
    } = rendered
    else {
        return false;
    };
    let mut bytes = pipeline.as_bytes().windows(text.len());
    bytes.any(|bytes| bytes == text.as_bytes())
}

/// Batches follow each other a stage apart: the second asked which keys its contacts had not, and what the first had
/// been told was forgotten. An address that arrived in between was pushed without being claimed.
#[test]
fn an_address_that_comes_between_settling_and_rendering_is_left_for_the_next_pass() {
    let desk = Desk::new();
    let (one, other) = (desk.submission(1), desk.submission(2));
    let [first, second] = [one, other].map(|rows| vec![desk.pending(rows.contact)]);
    desk.outbox.unsettled(&first).unwrap();
    desk.outbox.unsettled(&second).unwrap();
    desk.write(move |tables| {
        let mut stored = tables.document(one.contact)?;
        let mut body = stored.body()?.to_owned();
        body.append(bson::raw::cstr!("email"), "ada@example.se");
        let before = std::mem::replace(&mut stored.body, body.into_bytes());
        tables.put_document(one.contact, &stored)?;
        tables.append_change(one.contact, Change::Again { before: &before })
    });
    let rendered = desk.outbox.render(&first).unwrap();
    let document = inserted(&rendered[0]);
    assert_eq!(document.get_str("phone").unwrap(), "+46701234561");
    assert!(document.get("email").unwrap().is_none(), "{document:?}");

    desk.outbox
        .conclude(vec![(first[0].clone(), Verdict::Done)])
        .unwrap();
    let next = vec![desk.pending(one.contact)];
    desk.outbox.unsettled(&next).unwrap();
    let rendered = desk.outbox.render(&next).unwrap();
    assert!(says(&rendered[0], "ada@example.se"), "{rendered:?}");
}

/// Another node has claimed this submission and not pushed it yet. Should it never come back, nothing is lost; should
/// it come back, it finds its own `_id`s taken.
#[test]
fn a_lead_that_another_node_has_only_claimed_is_pushed_under_the_claimed_id() {
    let desk = Desk::new();
    let rows = desk.submission(1);
    let task = TaskKey::webhook(1);
    desk.write(move |tables| {
        let ended = Ended {
            outcome: Outcome::Lead { id: [0x11; 12] },
            attempts: 1,
            at_ms: NOW_MS,
        };
        tables.end(task, &ended)
    });
    let claimed = ObjectId::from_bytes([0xee; 12]);
    let settlement = |document| Settlement::Adopted {
        id: claimed,
        document,
    };
    desk.outbox
        .settle(vec![(rows.lead, settlement(None))])
        .unwrap();
    let written = desk.pass();
    let of = |row| inserted(&written.iter().find(|(one, _)| *one == row).unwrap().1);
    assert_eq!(id(of(rows.lead)), claimed);
    assert_eq!(of(rows.deal).get_object_id("lead").unwrap(), claimed);
    let (_, ends) = desk.store.read().unwrap().fate(1).unwrap();
    assert_eq!(
        ends[0].1.outcome,
        Outcome::Lead {
            id: claimed.bytes()
        }
    );
}

/// A damaged record was asked for, and logged, at every pass, and was never shown.
#[test]
fn a_damaged_document_is_shown_and_tried_daily_and_holds_up_nothing_else() {
    let desk = Desk::new();
    let (damaged, intact) = (desk.submission(1), desk.submission(2));
    let record = desk.damage(damaged.lead);
    let written = desk.pass();
    for row in [damaged.contact, intact.contact, intact.lead, intact.deal] {
        let (_, rendered) = written.iter().find(|(one, _)| *one == row).unwrap();
        inserted(rendered);
    }
    assert!(
        desk.outbox.take(0, 1_000).unwrap().is_empty(),
        "nothing is asked for again"
    );
    let held = desk.held();
    let [lead, deal] = held.as_slice() else {
        panic!("the lead and its deal are held: {held:#?}")
    };
    assert_eq!(
        (&lead["collection"], &lead["reason"]),
        (&"inbound.leads".into(), &"damaged".into())
    );
    assert_eq!(lead["next_at_ms"], NOW_MS + 86_400_000);
    assert_eq!(
        (&deal["collection"], &deal["reason"]),
        (&"crm.deals".into(), &"waiting".into())
    );

    desk.clock.advance(DAY - Duration::from_millis(1));
    let release = || {
        let now_ms = desk.clock.now_ms();
        desk.write(move |tables| tables.release_due(now_ms))
    };
    assert_eq!(release(), 0);
    desk.clock.advance(Duration::from_millis(1));
    assert_eq!(release(), 1);
    desk.write(move |tables| {
        tables
            .documents
            .insert(key(damaged.lead), record.as_slice())?;
        Ok(())
    });
    let written = desk.pass();
    assert_eq!(
        id(inserted(&written[0].1)),
        ObjectId::from_bytes([0x11; 12])
    );
    let written = desk.pass();
    assert_eq!(written[0].0, damaged.deal, "it has come free");
    assert!(desk.held().is_empty());
}

/// The contact's change log entry said what this node had pushed; after a refusal that was forgotten, and the next try
/// took a person's edit for a gap to be filled.
#[test]
fn a_refused_change_is_still_compared_with_what_was_pushed_before_it() {
    let desk = Desk::new();
    let rows = desk.submission(1);
    desk.pass();
    let before = desk.write(move |tables| {
        let mut stored = tables.document(rows.contact)?;
        let mut body = stored.body()?.to_owned();
        body.append(bson::raw::cstr!("name"), "Ada");
        let before = std::mem::replace(&mut stored.body, body.into_bytes());
        tables.put_document(rows.contact, &stored)?;
        tables.append_change(rows.contact, Change::Again { before: &before })?;
        Ok(before)
    });
    let pending = desk.pending(rows.contact);
    let refused = Verdict::Refused {
        code: 121,
        message: "no".to_owned(),
    };
    desk.outbox.conclude(vec![(pending, refused)]).unwrap();
    desk.clock.advance(Duration::from_secs(1));
    let now_ms = desk.clock.now_ms();
    assert_eq!(desk.write(move |tables| tables.release_due(now_ms)), 1);
    let again = desk.pending(rows.contact);
    let owed = desk.store.read().unwrap().owed(&again).unwrap();
    assert_eq!(owed.before(), Some(before.as_slice()));
}

/// The lead's turn comes in an earlier batch than that of the contact it was given afterwards.
#[test]
fn a_document_is_not_pushed_with_a_contact_that_may_not_be_upstream_yet() {
    let desk = Desk::new();
    let rows = desk.submission(1);
    desk.pass();
    let late = desk.submission(2);
    let lead = desk.write(move |tables| {
        let mut lead = tables.document(late.lead)?;
        lead.links.contact = None;
        lead.own_id = [0x33; 12];
        let row = add(tables, Collection::Leads, &lead)?;
        let contact = tables.document(rows.contact)?;
        let contact = add(tables, Collection::Contacts, &contact)?;
        lead.links.contact = Some(contact.number);
        tables.put_document(row, &lead)?;
        tables.append_change(row, Change::Again { before: &[] })?;
        Ok(row)
    });
    let whole = desk.pending(lead);
    let [first, again] = whole.tickets.as_slice() else {
        panic!("it is new, and has a contact: {whole:?}")
    };
    let render = |tickets: &[u64]| {
        let pending = Pending {
            row: lead,
            tickets: tickets.to_vec(),
        };
        desk.outbox.render(&[pending]).unwrap().remove(0)
    };
    let without = render(&[*first]);
    assert!(inserted(&without).get("contact_id").unwrap().is_none());
    assert!(matches!(render(&[*again]), Rendered::Update { .. }));
    let both = render(&whole.tickets);
    assert!(inserted(&both).get("contact_id").unwrap().is_some());
}
