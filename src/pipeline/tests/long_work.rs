//! Facts about long work: it is done in short transactions, and what was broken off is gone on with.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use bson::oid::ObjectId;
use inlet_sync::ports::ReplicaEvent;
use redb::ReadableTableMetadata;

use super::{ACCOUNT, ADA, Bench, NOW_MS, is_lead, put};
use crate::clock::Clock;
use crate::graph::{Graph, Options};
use crate::model::{Ended, Method, Outcome, Reason, Selection, TaskKey, Webhook};
use crate::pipeline::Pipeline;
use crate::pipeline::facebook::FacebookLeads;
use crate::store::tasks::{Task, WaitsFor};
use crate::store::{StoreError, Tables};
use crate::worker::{Step, Worker};

/// A Facebook webhook with changes that are none of ours.
async fn receive_changes(bench: &Bench, count: usize) -> u64 {
    let changes = vec![r#"{"field":"feed"}"#; count].join(",");
    let webhook = Webhook {
        platform: "facebook".to_owned(),
        account: None,
        campaign: None,
        method: Method::Post,
        query: String::new(),
        content_type: None,
        headers: Vec::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        arrived_at_ms: bench.clock.now_ms(),
        body: format!(r#"{{"entry":[{{"changes":[{changes}]}}]}}"#).into_bytes(),
    };
    bench.shared.store.receive(&webhook).await.unwrap()
}

#[tokio::test]
async fn a_long_replay_lets_others_write_after_every_thousand_tasks_and_is_whole_in_the_end() {
    let bench = Bench::new(true);
    let store = &bench.shared.store;
    let keys: Vec<_> = (1..=2_500).map(TaskKey::webhook).collect();
    let ended = Ended {
        outcome: Outcome::Ignored {
            reason: Reason::CampaignNotFound,
        },
        attempts: 1,
        at_ms: NOW_MS,
    };
    let end = {
        let keys = keys.clone();
        store.write(move |tables| keys.iter().try_for_each(|key| tables.end(*key, &ended)))
    };
    end.await.unwrap();
    let replay = store.replay(keys.clone(), NOW_MS);
    let begun_meanwhile = store.write(|tables| Ok(tables.tasks.len()?));
    let (replayed, begun_meanwhile) = tokio::join!(replay, begun_meanwhile);
    assert_eq!(
        (replayed.unwrap(), begun_meanwhile.unwrap()),
        (2_500, 1_000)
    );
    assert_eq!(store.replay(keys, NOW_MS).await.unwrap(), 0);
    let snapshot = store.read().unwrap();
    assert_eq!(snapshot.waiting().unwrap().timed, 2_500);
    assert_eq!(snapshot.counted("ignored").unwrap(), 0);
}

#[tokio::test]
async fn a_replay_by_pages_that_was_broken_off_is_gone_on_with_when_it_is_asked_for_again() {
    let bench = Bench::new(true);
    for id in 1..=5 {
        bench.receive(&format!(r#"{{"id": {id}}}"#)).await;
    }
    bench.work().await;
    let page = async |before| {
        let selection = Selection {
            reason: Some("campaign_not_found".to_owned()),
            before,
            limit: Some(2),
            ..Selection::default()
        };
        let answer = bench.console().replay_selected(selection).await.unwrap();
        let next = answer["next"].as_str().map(|next| next.parse().unwrap());
        (answer["replayed"].as_u64().unwrap(), next)
    };
    let all = async || {
        let (mut replayed, mut next) = page(None).await;
        while let Some(before) = next {
            let (more, then) = page(Some(before)).await;
            (replayed, next) = (replayed + more, then);
        }
        replayed
    };
    let (broken_off, _) = page(None).await;
    assert_eq!((broken_off, all().await, all().await), (2, 3, 0));
    assert_eq!(bench.counted("ignored"), 0);
    bench.work().await;
    assert_eq!(bench.counted("ignored"), 5);
}

#[tokio::test]
async fn a_batch_of_thousands_of_changes_is_settled_a_thousand_at_a_time_and_only_once() {
    let bench = Bench::with_campaign().await;
    let batch = receive_changes(&bench, 2_500).await;
    let behind = bench.receive(ADA).await;
    let step = async || {
        let mut pipeline = Pipeline::new(Arc::clone(&bench.shared));
        assert_eq!(pipeline.step().await.unwrap(), Step::Busy);
    };
    // Each step is the first of a node that was stopped after it: what is settled stays, and is not settled again.
    step().await;
    assert_eq!(bench.counted("ignored"), 1_000);
    assert_eq!(bench.shared.store.levels().cursor(), batch - 1);
    step().await;
    assert_eq!(bench.counted("ignored"), 1_000);
    bench.work().await;
    assert_eq!(bench.counted("ignored"), 2_500);
    assert_eq!(bench.counted("unsupported_event"), 2_500);
    let (tasks, ends) = bench.shared.store.read().unwrap().fate(batch).unwrap();
    assert_eq!((tasks.len(), ends.len()), (0, 2_500));
    assert!(is_lead(bench.outcome(behind)));
}

#[tokio::test]
async fn changes_that_are_replayed_end_once_more_and_leave_the_others_of_their_batch_alone() {
    let bench = Bench::new(true);
    let batch = receive_changes(&bench, 2_500).await;
    bench.work().await;
    bench.clock.advance(Duration::from_secs(1));
    let again = [0, 7, 2_499].map(|position| TaskKey::change(batch, position));
    let store = &bench.shared.store;
    let replayed = store.replay(again.to_vec(), bench.clock.now_ms()).await;
    assert_eq!(replayed.unwrap(), 3);
    bench.work().await;
    let (tasks, ends) = store.read().unwrap().fate(batch).unwrap();
    assert_eq!((tasks.len(), ends.len()), (0, 2_500));
    assert_eq!(bench.counted("ignored"), 2_500);
    let ended_again = ends.iter().filter(|(_, ended)| ended.at_ms > NOW_MS);
    let ended_again: Vec<_> = ended_again.map(|(key, _)| *key).collect();
    assert_eq!(ended_again, again);
}

#[tokio::test]
async fn a_new_token_wakes_all_that_is_parked_for_its_account_a_thousand_at_a_time_and_nothing_else()
 {
    let bench = Bench::new(true);
    let store = &bench.shared.store;
    let other = [0xa2; 12];
    let begun = store.write(move |tables| {
        for seq in 1..=2_500 {
            park(tables, seq, ACCOUNT.bytes())?;
        }
        park(tables, 2_501, other)
    });
    begun.await.unwrap();
    bench.import(vec![key_of(ACCOUNT)]).await;
    let waiting = || {
        let snapshot = store.read().unwrap();
        (
            snapshot.parked.len().unwrap(),
            snapshot.graph.len().unwrap(),
        )
    };
    assert_eq!(waiting(), (2_501, 0));
    let told = || store.read().unwrap().waiting().unwrap();
    assert_eq!(
        (told().parked, told().graph),
        (1, 2_500),
        "as good as woken"
    );
    let graph = Arc::new(Graph::new(Options::default()).unwrap());
    let mut leads = FacebookLeads::new(Arc::clone(&bench.shared), graph, Arc::default());
    leads.step().await.unwrap();
    assert_eq!(waiting(), (1_501, 1_000));
    // Parked again for want of another token yet: it stays, or it would be woken for ever.
    let parked_again = store.write(|tables| park(tables, 1, ACCOUNT.bytes()));
    parked_again.await.unwrap();
    leads.step().await.unwrap();
    assert_eq!(waiting(), (502, 1_999));
    assert_eq!((told().parked, told().graph), (2, 2_499));
    leads.step().await.unwrap();
    assert_eq!(waiting(), (2, 2_499));
    assert!(!store.read().unwrap().is_waking().unwrap());
}

fn park(tables: &mut Tables<'_>, seq: u64, account: [u8; 12]) -> Result<(), StoreError> {
    let task = Task {
        waits_for: WaitsFor::Token { account },
        ..Task::default()
    };
    tables.enqueue(TaskKey::webhook(seq), &task, 0)
}

fn key_of(account: ObjectId) -> ReplicaEvent {
    put(
        3,
        &doc! { "_id": ObjectId::new(), "account_id": account, "access_token": "new" },
    )
}
