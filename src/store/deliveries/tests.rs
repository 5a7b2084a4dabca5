//! Facts about the records of deliveries, their queues and their counters.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use redb::ReadableTableMetadata;
use tempfile::TempDir;

use super::{Delivery, Filter, NotResent, State, Verdict};
use crate::model::Channel;
use crate::store::{Store, Tables};

const NOW_MS: i64 = 1_700_000_000_000;
const WEBHOOK: u64 = 3;

fn open() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("inlet.redb"), Some("bench")).unwrap();
    (folder, store)
}

async fn write<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T, crate::store::StoreError> + Send + 'static,
) -> T {
    store.write(work).await.unwrap()
}

async fn add(store: &Store, channel: Channel, lead: u64) -> u64 {
    let delivery = Delivery::new(channel, (lead, WEBHOOK), [7; 12], NOW_MS);
    write(store, move |tables| tables.add_delivery(&delivery)).await
}

async fn begin(store: &Store, number: u64) -> Vec<u64> {
    write(store, move |tables| {
        tables.begin_deliveries(&[(number, true)], NOW_MS)
    })
    .await
}

async fn settle(store: &Store, number: u64, verdict: Verdict) {
    let identity = store.identity().clone();
    write(store, move |tables| {
        tables.settle_delivery(number, verdict, &identity, NOW_MS)
    })
    .await;
}

fn counts(store: &Store, channel: Channel) -> [u64; 6] {
    store.read().unwrap().delivery_counts(channel).unwrap()
}

fn state(store: &Store, number: u64) -> &'static str {
    let delivery = store.read().unwrap().delivery(number).unwrap().unwrap();
    delivery.state.name()
}

fn sent() -> Verdict {
    Verdict::Sent { receipt: None }
}

#[tokio::test]
async fn every_state_is_counted_once_and_queued_in_one_place() {
    let (_folder, store) = open();
    let one = add(&store, Channel::Push, 1).await;
    assert_eq!(counts(&store, Channel::Push), [1, 0, 0, 0, 0, 0]);
    assert_eq!(begin(&store, one).await, [one]);
    assert_eq!(counts(&store, Channel::Push), [0, 1, 0, 0, 0, 0]);
    let again = begin(&store, one).await;
    assert!(again.is_empty(), "it is being sent already");
    settle(&store, one, sent()).await;
    assert_eq!(counts(&store, Channel::Push), [0, 0, 1, 0, 0, 0]);
    let snapshot = store.read().unwrap();
    let queued =
        snapshot.due_deliveries.len().unwrap() + snapshot.sending_deliveries.len().unwrap();
    assert_eq!(queued, 0);
    assert_eq!(counts(&store, Channel::Sms), [0; 6]);
}

#[tokio::test]
async fn what_has_ended_is_not_settled_again() {
    let (_folder, store) = open();
    let one = add(&store, Channel::Push, 1).await;
    begin(&store, one).await;
    settle(&store, one, sent()).await;
    let unavailable = Verdict::Unavailable {
        error: "late news".to_owned(),
        due_ms: NOW_MS,
    };
    settle(&store, one, unavailable).await;
    assert_eq!(state(&store, one), "sent");
}

/// The answer of a commit may be lost: what it was to write down is written down once more.
#[tokio::test]
async fn what_was_settled_by_a_commit_whose_answer_was_lost_is_not_settled_once_more() {
    let (_folder, store) = open();
    let one = add(&store, Channel::Email, 1).await;
    let settle = async |verdict: Verdict| {
        let identity = store.identity().clone();
        write(&store, move |tables| {
            tables.settle_marked(one, verdict, &identity, NOW_MS)
        })
        .await;
        store.read().unwrap().delivery(one).unwrap().unwrap()
    };
    let (error, due_ms) = ("no answer".to_owned(), NOW_MS);
    let again = Verdict::Again {
        error: error.clone(),
        due_ms,
    };
    let unavailable = Verdict::Unavailable { error, due_ms };
    for (verdict, attempts, refusals) in [(again, 1, 0), (unavailable, 1, 1), (sent(), 1, 1)] {
        begin(&store, one).await;
        let once = settle(verdict.clone()).await;
        assert_eq!((once.attempts, once.refusals), (attempts, refusals));
        assert_eq!(settle(verdict).await, once);
    }
    write(&store, move |tables| {
        tables.resend_delivery(one, true, NOW_MS)
    })
    .await
    .unwrap();
    let asked_for_again = settle(sent()).await;
    assert_eq!(asked_for_again.state.name(), "waiting");
}

#[tokio::test]
async fn only_what_did_not_go_out_is_sent_once_more_unless_it_is_forced() {
    let (_folder, store) = open();
    let resend = async |number, force| {
        write(&store, move |tables| {
            tables.resend_delivery(number, force, NOW_MS)
        })
        .await
    };
    assert_eq!(resend(9, false).await, Err(NotResent::Absent));
    let one = add(&store, Channel::Push, 1).await;
    begin(&store, one).await;
    assert_eq!(resend(one, true).await, Err(NotResent::UnderWay));
    let error = "x".to_owned();
    settle(&store, one, Verdict::Unknown { error }).await;
    assert_eq!(resend(one, false).await, Ok(()));
    assert_eq!(state(&store, one), "waiting");
    begin(&store, one).await;
    settle(&store, one, sent()).await;
    assert_eq!(resend(one, false).await, Err(NotResent::Sent));
    assert_eq!(resend(one, true).await, Ok(()));
    let delivery = store.read().unwrap().delivery(one).unwrap().unwrap();
    assert_eq!(
        (delivery.copies, delivery.attempts),
        (1, 0),
        "another message"
    );
}

#[tokio::test]
async fn a_damaged_delivery_is_taken_out_of_the_queues_and_holds_up_no_other() {
    let (_folder, store) = open();
    let (damaged, sound) = (
        add(&store, Channel::Sms, 1).await,
        add(&store, Channel::Sms, 2).await,
    );
    write(&store, move |tables| {
        tables.deliveries.insert(damaged, &b"\x01nonsense"[..])?;
        Ok(())
    })
    .await;
    let begun = write(&store, move |tables| {
        tables.begin_deliveries(&[(damaged, false), (sound, false)], NOW_MS)
    })
    .await;
    assert_eq!(begun, [sound]);
    let due = store.read().unwrap();
    assert!(
        due.due_deliveries(Channel::Sms, NOW_MS, 10)
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_leads_deliveries_go_with_it_and_leave_nothing_behind() {
    let (_folder, store) = open();
    for (channel, lead) in [(Channel::Email, 1), (Channel::Push, 1), (Channel::Push, 2)] {
        add(&store, channel, lead).await;
    }
    let removed = write(&store, |tables| {
        tables.remove_deliveries(WEBHOOK, Some(1), usize::MAX)
    })
    .await;
    assert_eq!(removed, 2);
    assert_eq!(counts(&store, Channel::Email), [0; 6]);
    let of_webhook = store.read().unwrap().deliveries_of(WEBHOOK).unwrap();
    assert_eq!(of_webhook.len(), 1);
    assert_eq!(of_webhook[0].1.lead, 2);
}

#[tokio::test]
async fn a_listing_is_newest_first_filtered_and_continued() {
    let (_folder, store) = open();
    for lead in 1..=3 {
        add(&store, Channel::Email, lead).await;
        add(&store, Channel::Sms, lead).await;
    }
    begin(&store, 3).await;
    let list = |channel: &str, state: Option<&str>, before, limit| {
        let filter = Filter {
            channel: Some(channel.to_owned()),
            state: state.map(str::to_owned),
            since: Some(NOW_MS),
        };
        let page = store
            .read()
            .unwrap()
            .list_deliveries(&filter, before, limit);
        let page = page.unwrap();
        let numbers: Vec<_> = page.deliveries.iter().map(|(number, _)| *number).collect();
        (numbers, page.next)
    };
    let (first, next) = list("email", None, None, 2);
    assert_eq!(first, [5, 3]);
    assert_eq!(list("email", None, next, 2).0, [1]);
    assert_eq!(list("email", Some("sending"), None, 9), (vec![3], None));
    let newest = State::Waiting { due_ms: NOW_MS };
    assert_eq!(
        store.read().unwrap().delivery(6).unwrap().unwrap().state,
        newest
    );
}
