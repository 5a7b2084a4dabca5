//! What retention removes, what it leaves, and what is still known of what it removed (R41).

mod notified;
mod ties;
mod whole;

use bson::doc;
use inlet_sync::ports::{Outbox, Row, Settlement, Verdict};
use redb::ReadableTable;
use tokio::sync::watch;

use super::*;
use crate::schedule::{Policy, Retention, Stop};
use crate::store::documents::Collection;
use crate::store::outbox::StoreOutbox;

const DAY: Duration = Duration::from_secs(86_400);
pub(super) const KEPT: Duration = Duration::from_secs(30 * 86_400);
const WINDOW: Duration = Duration::from_secs(600);

pub(super) const CONNECTED: Policy = Policy {
    webhooks: KEPT,
    documents: Some(KEPT),
    dedupe_window: WINDOW,
};

impl Bench {
    pub(super) async fn purge(&self, policy: Policy) -> String {
        let (_running, stop) = watch::channel(false);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let retention = Retention::new(Arc::clone(&self.shared.store), clock, policy);
        let done = retention
            .without_rests()
            .run(Stop::when(stop))
            .await
            .unwrap();
        assert!(done.is_ok && done.is_whole);
        self.assert_whole();
        done.result
    }

    pub(super) fn outbox(&self) -> Arc<StoreOutbox> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Arc::new(StoreOutbox::new(
            Arc::clone(&self.shared.store),
            600_000,
            clock,
        ))
    }

    /// As the push does: what is `refused` is held, the rest is upstream.
    async fn push_but(&self, refused: impl Fn(Row) -> bool + Send + 'static) {
        let outbox = self.outbox();
        let push = move || loop {
            let pending = outbox.take(0, 7_000).unwrap();
            if pending.is_empty() {
                return;
            }
            let verdict = |row| match refused(row) {
                false => Verdict::Done,
                true => Verdict::Refused {
                    code: 121,
                    message: "validation".to_owned(),
                },
            };
            let verdicts = pending
                .into_iter()
                .map(|one| (one.clone(), verdict(one.row)));
            outbox.conclude(verdicts.collect()).unwrap();
        };
        tokio::task::spawn_blocking(push).await.unwrap();
    }

    pub(super) async fn push(&self) {
        self.push_but(|_| false).await;
    }

    pub(super) async fn settle(&self, row: Row, settlement: Settlement) {
        let outbox = self.outbox();
        let settled = vec![(row, settlement)];
        let settle = move || outbox.settle(settled);
        tokio::task::spawn_blocking(settle).await.unwrap().unwrap();
    }

    pub(super) fn rows(&self, collection: Collection) -> Vec<Row> {
        let snapshot = self.shared.store.read().unwrap();
        let rows = snapshot
            .documents
            .range((collection as u8, 0)..(collection as u8 + 1, 0))
            .unwrap();
        rows.map(|entry| collection.row(entry.unwrap().0.value().1))
            .collect()
    }

    pub(super) fn whole(&self, row: Row) -> Document {
        let snapshot = self.shared.store.read().unwrap();
        Document::try_from(snapshot.whole(row).unwrap().as_ref()).unwrap()
    }

    pub(super) fn documents(&self) -> usize {
        Collection::ALL
            .into_iter()
            .map(|collection| self.rows(collection).len())
            .sum()
    }

    pub(super) fn webhooks(&self) -> Vec<u64> {
        let snapshot = self.shared.store.read().unwrap();
        let inbox = snapshot.inbox.range::<u64>(..).unwrap();
        inbox.map(|entry| entry.unwrap().0.value()).collect()
    }

    pub(super) fn lead_of(&self, seq: u64) -> [u8; 12] {
        match self.outcome(seq) {
            Some(Outcome::Lead { id } | Outcome::Duplicate { of: id }) => id,
            other => panic!("webhook {seq} ended as {other:?}"),
        }
    }

    pub(super) async fn lead(&self, body: &str) -> u64 {
        let seq = self.receive(body).await;
        self.work().await;
        seq
    }
}

pub(super) const EVA: &str =
    r#"{"id": "e1", "Name": "Eva", "Email": "eva@example.com", "Phone": "+12015550123"}"#;
pub(super) const EVA_AGAIN: &str = r#"{"id": "e2", "Name": "Eva", "Email": "eva@example.com"}"#;

#[tokio::test]
async fn what_is_done_and_upstream_goes_when_its_time_has_come_and_not_before() {
    let bench = Bench::with_campaign().await;
    let old = bench.lead(EVA).await;
    bench.push().await;
    bench.clock.advance(KEPT - Duration::from_millis(1));
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![old], 6));
    bench.clock.advance(Duration::from_millis(1));
    let result = bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    assert_eq!(result, "removed 1 webhooks, 6 documents, 0 hashes");
    let counted = bench.shared.store.read().unwrap().counted("lead").unwrap();
    assert_eq!(
        counted, 1,
        "the counters tell of everything that ever happened"
    );
}

#[tokio::test]
async fn a_stand_alone_node_removes_webhooks_and_no_documents() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.clock.advance(10 * KEPT);
    let stand_alone = Policy {
        documents: None,
        ..CONNECTED
    };
    bench.purge(stand_alone).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 6));
}

#[tokio::test]
async fn what_mongodb_has_not_acknowledged_or_has_refused_stays_with_all_it_refers_to() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 6, "nothing of it was ever pushed");
    bench
        .push_but(|row| row.collection == Collection::Messages as u8)
        .await;
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 6, "two messages are held");
}

#[tokio::test]
async fn a_contact_stays_with_its_conversation_until_its_last_lead_goes() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.clock.advance(20 * DAY);
    let second = bench.lead(EVA_AGAIN).await;
    bench.push().await;
    bench.clock.advance(20 * DAY);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.webhooks(), [second]);
    let left = |name| bench.count(name);
    assert_eq!((left("inbound.leads"), left("crm.contacts")), (1, 1));
    assert_eq!((left("support.rooms"), left("support.messages")), (1, 2));
    bench.clock.advance(20 * DAY);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
}

#[tokio::test]
async fn a_contact_that_was_purged_is_made_anew_by_its_next_lead() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    let next = bench.lead(EVA_AGAIN).await;
    assert!(is_lead(bench.outcome(next)));
    assert_eq!(
        (bench.count("crm.contacts"), bench.count("support.rooms")),
        (1, 1)
    );
    bench.assert_whole();
}

#[tokio::test]
async fn a_duplicate_of_a_purged_lead_is_one_and_what_it_says_goes_to_the_contact() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(EVA).await;
    let id = bench.lead_of(first);
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    let news =
        r#"{"id": "e1", "Name": "Eva Moss", "Email": "eva@example.com", "Phone": "+12015550123"}"#;
    let resent = bench.lead(news).await;
    assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of: id }));
    let contacts = bench.rows(Collection::Contacts);
    assert_eq!(contacts.len(), 1);
    assert_eq!(
        bench.whole(contacts[0]).get_str("name").unwrap(),
        "Eva Moss"
    );
    let pending = bench.outbox().take(0, 100).unwrap();
    let pushed: Vec<_> = pending.iter().map(|one| one.row).collect();
    assert_eq!(
        pushed, contacts,
        "the lead is upstream and is not pushed again"
    );
    // What it says is known from now on, so that saying it once more says nothing.
    let again = bench.lead(news).await;
    assert_eq!(bench.outcome(again), Some(Outcome::Duplicate { of: id }));
    assert_eq!(bench.outbox().take(0, 100).unwrap().len(), 1);
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    let last = bench.lead(EVA).await;
    assert_eq!(bench.lead_of(last), id);
}

#[tokio::test]
async fn a_person_who_comes_back_after_the_purge_gets_a_message_in_the_same_room_upstream() {
    let bench = Bench::with_campaign().await;
    let said = |text: &str| {
        format!(
            r#"{{"id": "77", "name": "Eva", "email": "eva@example.com", "last_input_text": "{text}"}}"#
        )
    };
    let first = bench.receive_from("manychat", &said("hello")).await;
    bench.work().await;
    bench.push().await;
    let contact = bench.whole(bench.rows(Collection::Contacts)[0]);
    let room = bench.whole(bench.rows(Collection::Rooms)[0]);
    let id = bench.lead_of(first);
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    let again = bench.receive_from("manychat", &said("I am back")).await;
    bench.work().await;
    assert_eq!(bench.outcome(again), Some(Outcome::Duplicate { of: id }));
    bench.assert_whole();
    // The contact is found upstream by its e-mail, as it is when it is pushed.
    let adopted = Settlement::Adopted {
        id: contact.get_object_id("_id").unwrap(),
        document: Some(RawDocumentBuf::try_from(&contact).unwrap()),
    };
    bench
        .settle(bench.rows(Collection::Contacts)[0], adopted)
        .await;
    let message = bench
        .rows(Collection::Messages)
        .into_iter()
        .map(|row| bench.whole(row));
    let message = message.filter(|message| {
        message
            .get_str("message_type")
            .is_ok_and(|kind| kind == "lead")
    });
    let message: Vec<_> = message.collect();
    assert_eq!(message.len(), 1);
    assert_eq!(message[0].get("room_id"), room.get("_id"));
    let metadata = message[0].get_document("metadata").unwrap();
    let response = metadata.get_document("webhook_response").unwrap();
    assert_eq!(response.get_str("last_input_text").unwrap(), "I am back");
    assert_eq!(metadata.get("contact_id"), contact.get("_id"));
}

/// The lead was remembered anew for a repetition that brings no message, and so without a room. The next one, which
/// does bring a message, found none, failed, and was tried for ever before everything behind it.
#[tokio::test]
async fn a_message_for_a_lead_that_was_remembered_without_a_room_opens_one() {
    let bench = Bench::with_campaign().await;
    let event = |kind: &str, name: &str| {
        let data = format!(
            r#"{{"id": "90412277", "first_name": "{name}", "email_address": "eva@example.com"}}"#
        );
        format!(r#"{{"event_id": "e", "event_type": "{kind}", "data": {data}}}"#)
    };
    let form = "form_submission.created";
    bench
        .receive_from("clickfunnels", &event(form, "Eva"))
        .await;
    bench.work().await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    for (kind, name) in [(form, "Evi"), ("contact.updated", "Ewa")] {
        let seq = bench.receive_from("clickfunnels", &event(kind, name)).await;
        bench.work().await;
        let outcome = bench.outcome(seq);
        assert!(
            matches!(outcome, Some(Outcome::Duplicate { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(bench.rows(Collection::Rooms).len(), 1);
    bench.assert_whole();
}

#[tokio::test]
async fn of_a_lead_that_is_upstream_under_another_id_that_id_is_remembered() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(EVA).await;
    let theirs = ObjectId::new();
    let own = bench.lead_of(first);
    let adopted = Settlement::Adopted {
        id: theirs,
        document: Some(RawDocumentBuf::try_from(&doc! { "_id": theirs }).unwrap()),
    };
    bench
        .settle(bench.rows(Collection::Leads)[0], adopted)
        .await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    let again = bench.lead(EVA).await;
    assert_eq!(bench.lead_of(again), theirs.bytes());
    assert_ne!(own, theirs.bytes());
    let made = bench.shared.store.read().unwrap().lead_made(own).unwrap();
    assert_eq!(made, Some(theirs.bytes()), "and so for Facebook's leads");
}

#[tokio::test]
async fn a_lead_found_to_be_another_nodes_after_its_webhook_went_changes_the_counters_only() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(ADA).await;
    bench.clock.advance(2 * KEPT);
    bench.purge(CONNECTED).await;
    assert!(bench.webhooks().is_empty());
    let theirs = ObjectId::new();
    let adopted = Settlement::Adopted {
        id: theirs,
        document: Some(RawDocumentBuf::try_from(&doc! { "_id": theirs }).unwrap()),
    };
    bench
        .settle(bench.rows(Collection::Leads)[0], adopted)
        .await;
    assert_eq!(bench.outcome(first), None, "no outcome without a webhook");
    let counted = |name| bench.shared.store.read().unwrap().counted(name).unwrap();
    assert_eq!((counted("lead"), counted("duplicate")), (0, 1));
}

#[tokio::test]
async fn dead_letters_and_what_waits_stay_and_go_once_they_have_ended() {
    let mut bench = Bench::new(false);
    let dead = bench.receive(EVA).await;
    let waiting = bench.receive(EVA_AGAIN).await;
    bench.work().await;
    let die = move |tables: &mut crate::store::Tables<'_>| {
        let outcome = Outcome::DeadLetter {
            error: "a test".to_owned(),
        };
        let ended = crate::model::Ended {
            outcome,
            attempts: 3,
            at_ms: NOW_MS,
        };
        tables.end(TaskKey::webhook(dead), &ended)
    };
    bench.shared.store.write(die).await.unwrap();
    bench.clock.advance(10 * KEPT);
    bench.purge(CONNECTED).await;
    assert_eq!(bench.webhooks(), [dead, waiting]);
    let mark = bench.shared.store.read().unwrap().retention_mark().unwrap();
    assert_eq!(mark, waiting, "they are not looked at again by each run");
    bench.upstream = reference();
    bench.look_and_work().await;
    let replay = bench
        .shared
        .store
        .replay(vec![TaskKey::webhook(dead)], bench.clock.now_ms());
    assert_eq!(replay.await.unwrap(), 1);
    bench.look_and_work().await;
    assert!(is_lead(bench.outcome(dead)) && is_lead(bench.outcome(waiting)));
    bench.purge(CONNECTED).await;
    assert_eq!(
        bench.webhooks(),
        [dead, waiting],
        "they have only just ended"
    );
    bench.clock.advance(KEPT);
    bench.purge(CONNECTED).await;
    assert!(bench.webhooks().is_empty());
}

#[tokio::test]
async fn a_resend_without_an_id_is_one_however_late_it_is_worked_through() {
    let bench = Bench::with_campaign().await;
    let first = bench.lead(ADA).await;
    let id = bench.lead_of(first);
    // It arrives within the window, and is worked through when everything but its own record could be gone.
    let resent = bench.receive(ADA).await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    let result = bench.purge(CONNECTED).await;
    assert_eq!(result, "removed 1 webhooks, 6 documents, 0 hashes");
    bench.work().await;
    assert_eq!(bench.outcome(resent), Some(Outcome::Duplicate { of: id }));
    bench.clock.advance(2 * KEPT);
    let result = bench.purge(CONNECTED).await;
    assert!(
        result.starts_with("removed 1 webhooks") && result.ends_with("1 hashes"),
        "{result}"
    );
}

/// The promise of issue 3 in small; `benches/README.md` has it at full size, with intake's latencies.
#[tokio::test]
async fn a_store_of_old_and_fresh_leads_shrinks_to_the_fresh_and_knows_the_old_ones_still() {
    const OLD: usize = 3_000;
    const FRESH: usize = 100;
    let bench = Bench::with_campaign().await;
    let body = |id: usize| format!(r#"{{"id": "n{id}", "Email": "p{id}@example.com"}}"#);
    let submit = async |ids: std::ops::Range<usize>| {
        let bodies: Vec<_> = ids.map(body).collect();
        let received = bodies.iter().map(|body| bench.receive(body));
        let seqs = futures_util::future::join_all(received).await;
        bench.work().await;
        seqs
    };
    submit(0..OLD).await;
    bench.push().await;
    bench.clock.advance(KEPT);
    let fresh = submit(OLD..OLD + FRESH).await;
    bench.push().await;
    bench.purge(CONNECTED).await;
    assert_eq!(bench.webhooks(), fresh);
    assert_eq!(bench.documents(), FRESH * 6);
    let made = |bench: &Bench| bench.shared.store.read().unwrap().counted("lead").unwrap();
    let before = made(&bench);
    for seq in submit(0..500).await {
        assert!(is_duplicate(bench.outcome(seq)));
    }
    assert_eq!(made(&bench), before);
}

impl Bench {
    /// The node after a kill: on the file as it is between two commits, with nothing that was only in memory.
    fn killed(self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = self.shared.store.path().unwrap().to_owned();
        std::fs::copy(from, folder.path().join("inlet.redb")).unwrap();
        let shared = Self::open(folder.path(), &self.clock, true);
        let killed = Self {
            shared,
            clock: self.clock,
            upstream: Vec::new(),
            _folder: folder,
        };
        killed.assert_whole();
        killed
    }
}

#[tokio::test]
async fn a_kill_between_any_two_steps_leaves_a_whole_store_and_the_next_run_ends_the_purge() {
    let mut bench = Bench::with_campaign().await;
    for id in 0..300 {
        let body = format!(r#"{{"id": "n{id}", "Email": "p{}@example.com"}}"#, id % 100);
        bench.receive(&body).await;
    }
    bench.work().await;
    bench.push().await;
    bench.clock.advance(KEPT);
    let fresh = bench.lead(EVA).await;
    bench.push().await;
    let mut place = Some(0);
    while let Some(after) = place {
        let step = bench
            .shared
            .store
            .write(move |tables| tables.purge_webhooks(after, NOW_MS));
        place = step.await.unwrap().next;
        bench = bench.killed();
    }
    // Of the leads, a run that is killed after each of its first three steps.
    for _ in 0..3 {
        let before = bench.documents();
        let mut unacknowledged = {
            let snapshot = bench.shared.store.read().unwrap();
            snapshot.unacknowledged().unwrap().unwrap()
        };
        let step = bench
            .shared
            .store
            .write(move |tables| tables.purge_leads(0, NOW_MS, &mut unacknowledged));
        let swept = step.await.unwrap();
        bench = bench.killed();
        assert_eq!(before - bench.documents(), swept.purged as usize);
    }
    assert!(bench.documents() > 6, "there is something left to do");
    bench.purge(CONNECTED).await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![fresh], 6));
    let again = bench
        .lead(r#"{"id": "n0", "Email": "p0@example.com"}"#)
        .await;
    assert!(is_duplicate(bench.outcome(again)));
}

#[tokio::test]
async fn a_run_stops_when_the_node_does_and_says_that_it_is_not_through() {
    let bench = Bench::with_campaign().await;
    let seq = bench.lead(EVA).await;
    bench.clock.advance(2 * KEPT);
    let (_shutdown, stop) = watch::channel(true);
    let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
    let retention = Retention::new(Arc::clone(&bench.shared.store), clock, CONNECTED);
    let done = retention.run(Stop::when(stop)).await.unwrap();
    assert!(!done.is_whole);
    assert_eq!(bench.webhooks(), [seq]);
}

#[tokio::test]
async fn a_lead_that_arrives_during_a_run_keeps_the_contact_it_found() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    let mut unacknowledged = {
        let snapshot = bench.shared.store.read().unwrap();
        snapshot.unacknowledged().unwrap().unwrap()
    };
    let until_ms = bench.clock.now_ms() - 1;
    // Beyond what the run has read of the change log; its contact is not changed by it, but has news to push.
    bench.lead(EVA_AGAIN).await;
    let step = bench
        .shared
        .store
        .write(move |tables| tables.purge_leads(0, until_ms, &mut unacknowledged));
    step.await.unwrap();
    bench.assert_whole();
    assert_eq!(bench.count("crm.contacts"), 1);
    bench.push().await;
}

#[tokio::test]
async fn a_change_made_during_a_run_keeps_what_it_is_about() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.push().await;
    bench.clock.advance(2 * KEPT);
    let mut unacknowledged = {
        let snapshot = bench.shared.store.read().unwrap();
        snapshot.unacknowledged().unwrap().unwrap()
    };
    let until_ms = bench.clock.now_ms() - 1;
    // Nothing of it is new to the contact, which is as old as before, and has a ticket.
    let told = EVA.replace('}', r#", "Message": "call me"}"#);
    let again = bench.lead(&told).await;
    assert!(is_duplicate(bench.outcome(again)));
    assert_eq!(bench.outbox().take(0, 10).unwrap().len(), 1);
    let step = bench
        .shared
        .store
        .write(move |tables| tables.purge_leads(0, until_ms, &mut unacknowledged));
    assert_eq!(step.await.unwrap().purged, 0);
    bench.push().await;
    bench.purge(CONNECTED).await;
    assert_eq!(bench.documents(), 0);
}
