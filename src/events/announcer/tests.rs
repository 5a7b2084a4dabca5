//! Facts about which events are told, kept and forgotten.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use bson::oid::ObjectId;
use bson::{DateTime, rawdoc};
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::events::door::Member;
use crate::jwt::SharedKey;
use crate::store::documents::{Collection, Links, Stored};
use crate::store::events::Kind;

const NOW_MS: i64 = 1_700_000_000_000;
const SECRET: &[u8] = b"a secret that tokens are signed with";
const LEAD: ObjectId = ObjectId::from_bytes([0x1e; 12]);
const CONTACT: ObjectId = ObjectId::from_bytes([0xc0; 12]);
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);

struct Bench {
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    events: Arc<Events>,
    _folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("inlet.redb"), Some("bench")).unwrap();
        let clock = Arc::new(ManualClock::at(NOW_MS));
        Self {
            store: Arc::new(store),
            events: Events::new(SECRET, Arc::clone(&clock) as Arc<dyn Clock>),
            clock,
            _folder: folder,
        }
    }

    /// One that waits for no owner to come back, and removes at once.
    fn announcer(&self, return_max: Duration) -> Announcer {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (events, store) = (Arc::clone(&self.events), Arc::clone(&self.store));
        Announcer::new(events, store, clock, return_max)
    }

    fn somebody(&self, owner: &str) -> Member {
        let claims = serde_json::json!({ "sub": owner, "exp": NOW_MS / 1_000 + 3_600 });
        let token = SharedKey::new(SECRET).sign(&claims).unwrap();
        self.events.door.examine(&token).unwrap()
    }

    /// A lead with a contact, of the owner `o`; its row.
    async fn lead(&self) -> u64 {
        let added = self.store.write(|tables| {
            let contact = Stored::new(CONTACT.bytes(), &rawdoc! { "account_id": ACCOUNT });
            let contact = tables.add_document(Collection::Contacts, &contact)?;
            let body = rawdoc! {
                "account_id": ACCOUNT,
                "campaign_id": ACCOUNT,
                "integration": "instapage",
                "created_at": DateTime::from_millis(NOW_MS),
            };
            let lead = Stored::new(LEAD.bytes(), &body).with_links(Links {
                contact: Some(contact.number),
                ..Links::default()
            });
            Ok(tables.add_document(Collection::Leads, &lead)?.number)
        });
        added.await.unwrap()
    }

    async fn happens(&self, owner: &str, row: u64) {
        let event = Event {
            owner: owner.to_owned(),
            kind: Kind::LeadAdded,
            row,
            at_ms: self.clock.now_ms(),
        };
        let append = move |tables: &mut crate::store::Tables<'_>| tables.append_event(&event);
        self.store.write(append).await.unwrap();
    }

    fn waiting(&self) -> u64 {
        self.store.read().unwrap().event_count().unwrap()
    }
}

/// As if the pause since the last removal were over.
fn pause_is_over(announcer: &mut Announcer) {
    announcer.removed_at = Instant::now().checked_sub(REMOVAL_PAUSE).unwrap();
}

#[tokio::test]
async fn what_nobody_listens_to_is_removed_without_being_read() {
    let bench = Bench::new();
    // Reading this row would fail: there is none.
    bench.happens("o", 99).await;
    let mut announcer = bench.announcer(Duration::ZERO);
    assert_eq!(announcer.gather().batch().unwrap().news, []);
    announcer.step().await.unwrap();
    assert_eq!(
        bench.waiting(),
        1,
        "removals are put off, to be done together"
    );
    bench.happens("o", 100).await;
    pause_is_over(&mut announcer);
    announcer.step().await.unwrap();
    assert_eq!(bench.waiting(), 0);
}

#[tokio::test]
async fn a_listener_is_told_of_its_owner_with_ids_as_hex_and_times_as_text() {
    let bench = Bench::new();
    let row = bench.lead().await;
    bench.happens("somebody else", row).await;
    bench.happens("o", row).await;
    let _listener = bench.somebody("o");
    let batch = bench.announcer(Duration::ZERO).gather().batch().unwrap();
    let told: Vec<_> = batch
        .news
        .iter()
        .map(|(event, _)| event.owner.as_str())
        .collect();
    assert_eq!((told, batch.last), (vec!["o"], 2));
    let payload = serde_json::to_value(&batch.news[0].1).unwrap();
    let expected = serde_json::json!({
        "lead_id": LEAD.to_hex(),
        "account_id": ACCOUNT.to_hex(),
        "campaign_id": ACCOUNT.to_hex(),
        "contact_id": CONTACT.to_hex(),
        "integration": "instapage",
        "created_at": "2023-11-14T22:13:20Z",
    });
    assert_eq!(payload, expected);
}

#[tokio::test]
async fn after_a_start_an_owner_is_waited_for_and_a_minute_old_event_is_not_told() {
    let bench = Bench::new();
    let row = bench.lead().await;
    bench.happens("o", row).await;
    bench.clock.advance(Duration::from_millis(60_001));
    bench.happens("o", row).await;
    let mut announcer = bench.announcer(Duration::from_secs(3_600));
    announcer.step().await.unwrap();
    assert_eq!(
        announcer.told, 1,
        "the old one is forgotten, the new one kept"
    );
    assert!(announcer.is_waiting_for_return);
    let _listener = bench.somebody("o");
    let batch = announcer.gather().batch().unwrap();
    assert_eq!((batch.news.len(), batch.last), (1, 2));
}

#[tokio::test]
async fn what_was_told_and_not_removed_before_a_crash_is_told_again() {
    let bench = Bench::new();
    let row = bench.lead().await;
    bench.happens("o", row).await;
    let _listener = bench.somebody("o");
    bench.announcer(Duration::ZERO).step().await.unwrap();
    let batch = bench.announcer(Duration::ZERO).gather().batch().unwrap();
    assert_eq!(batch.news.len(), 1);
}

#[tokio::test]
async fn while_the_node_drains_nothing_is_lost_on_those_who_were_sent_away() {
    let bench = Bench::new();
    let row = bench.lead().await;
    bench.events.close().await;
    bench.happens("o", row).await;
    let mut announcer = bench.announcer(Duration::ZERO);
    pause_is_over(&mut announcer);
    announcer.step().await.unwrap();
    assert_eq!(bench.waiting(), 1);
}

#[tokio::test]
async fn a_lead_that_is_gone_or_withdrawn_holds_up_no_other() {
    let bench = Bench::new();
    let row = bench.lead().await;
    let withdrawn = bench.lead().await;
    let withdraw = move |tables: &mut crate::store::Tables<'_>| {
        let row = Collection::Leads.row(withdrawn);
        let mut lead = tables.document(row)?;
        lead.withdrawn = true;
        tables.put_document(row, &lead)
    };
    bench.store.write(withdraw).await.unwrap();
    for row in [99, withdrawn, row] {
        bench.happens("o", row).await;
    }
    let _listener = bench.somebody("o");
    let batch = bench.announcer(Duration::ZERO).gather().batch().unwrap();
    let told: Vec<_> = batch.news.iter().map(|(event, _)| event.row).collect();
    assert_eq!((told, batch.last), (vec![row], 3));
}
