//! Damaged records of tasks and outcomes stop nobody, and no webhook is lost by them.
//!
//! Each of them used to stop the worker that met it, for good: what could not be read was an error, and the next step
//! met it again.

use std::time::Duration;

use redb::ReadableTable;

use super::{ADA, Bench, CAMPAIGN, is_duplicate, is_lead, reference};
use crate::model::{Ended, Outcome, Selection, TaskKey, WebhookId};
use crate::pipeline::Settling;
use crate::store::tasks::{Task, Waiting, WaitsFor};
use crate::store::{Identity, Store, Tables};

/// Flips a bit of the one record of a task that waits.
pub(crate) async fn damage_task(store: &Store, key: TaskKey) {
    let damage = move |tables: &mut Tables<'_>| {
        let key = (key.seq, key.change, &key.campaign);
        let mut record = tables.tasks.get(key)?.unwrap().value().to_vec();
        record[6] ^= 1;
        tables.tasks.insert(key, record.as_slice())?;
        Ok(())
    };
    store.write(damage).await.unwrap();
}

async fn damage_outcome(store: &Store, seq: u64) {
    let damage = move |tables: &mut Tables<'_>| {
        let key = (seq, 0, &[0; 12]);
        let mut record = tables.outcomes.get(key)?.unwrap().value().to_vec();
        record[6] ^= 1;
        tables.outcomes.insert(key, record.as_slice())?;
        Ok(())
    };
    store.write(damage).await.unwrap();
}

fn id(bench: &Bench, seq: u64) -> String {
    let Identity { node, epoch, .. } = bench.shared.store.identity().clone();
    WebhookId { node, epoch, seq }.to_string()
}

/// Whether no queue holds anything.
fn is_at_rest(bench: &Bench) -> bool {
    let snapshot = bench.shared.store.read().unwrap();
    let nothing = Waiting {
        timed: 0,
        reference: 0,
        graph: 0,
        parked: 0,
    };
    snapshot.waiting().unwrap() == nothing && snapshot.awaiting(1).unwrap().is_empty()
}

/// A webhook that has failed once and waits for its second attempt.
async fn failed_once(bench: &Bench) -> u64 {
    let seq = bench.receive(ADA).await;
    let settling = Settling::new(&bench.shared);
    let fail = move |tables: &mut Tables<'_>| {
        settling.fail(tables, TaskKey::webhook(seq), "it failed".to_owned())?;
        tables.set_cursor(seq)
    };
    bench.shared.store.write(fail).await.unwrap();
    seq
}

#[tokio::test]
async fn a_damaged_task_that_is_due_begins_anew_and_those_behind_it_are_worked_through() {
    let bench = Bench::with_campaign().await;
    let damaged = failed_once(&bench).await;
    damage_task(&bench.shared.store, TaskKey::webhook(damaged)).await;
    let behind = bench.receive(r#"{"Email": "grace@example.ng"}"#).await;
    let listed = bench.console().webhook(&id(&bench, damaged)).unwrap();
    assert_eq!(
        listed["tasks"][0]["last_error"],
        "a record of tasks is damaged"
    );
    bench.clock.advance(Duration::from_secs(600));
    bench.work().await;
    assert!(is_lead(bench.outcome(damaged)) && is_lead(bench.outcome(behind)));
    assert!(is_at_rest(&bench), "no queue holds it any more");
}

#[tokio::test]
async fn a_damaged_task_that_waits_for_reference_data_is_looked_at_anew() {
    let mut bench = Bench::new(false);
    let damaged = bench.receive(ADA).await;
    let beside = bench.receive(r#"{"Email": "grace@example.ng"}"#).await;
    bench.work().await;
    damage_task(&bench.shared.store, TaskKey::webhook(damaged)).await;
    bench.clock.advance(Duration::from_secs(5));
    bench.upstream = reference();
    bench.look_and_work().await;
    bench.look_and_work().await;
    assert!(is_lead(bench.outcome(damaged)) && is_lead(bench.outcome(beside)));
    assert!(is_at_rest(&bench), "no account has a task that waits");
}

#[tokio::test]
async fn a_damaged_outcome_is_shown_as_a_dead_letter_and_a_replay_finds_its_lead() {
    let bench = Bench::with_campaign().await;
    let seq = bench.receive(ADA).await;
    bench.work().await;
    damage_outcome(&bench.shared.store, seq).await;
    let page = bench.console().webhooks(&Selection::default()).unwrap();
    let outcome = &page["webhooks"][0]["outcomes"][0];
    assert_eq!(outcome["outcome"], "dead_letter");
    assert_eq!(outcome["error"], "a record of outcomes is damaged");

    let replayed = bench.console().replay(&id(&bench, seq)).await.unwrap();
    assert_eq!(replayed["replayed"], 1);
    bench.work().await;
    assert!(is_duplicate(bench.outcome(seq)));
    assert_eq!(bench.count("inbound.leads"), 1);
}

/// Upstream the lead turns out to be another node's: the outcome is written anew, whatever it said.
#[tokio::test]
async fn a_damaged_outcome_does_not_stop_the_push_that_changes_it() {
    let bench = Bench::with_campaign().await;
    let seq = bench.receive(ADA).await;
    bench.work().await;
    damage_outcome(&bench.shared.store, seq).await;
    let task = TaskKey::webhook(seq);
    let change = move |tables: &mut Tables<'_>| {
        let earlier = tables.forget_outcome(task)?;
        assert!(earlier.is_some());
        let outcome = Outcome::Duplicate { of: [7; 12] };
        let ended = Ended {
            outcome,
            attempts: 1,
            at_ms: 0,
        };
        tables.end(task, &ended)
    };
    bench.shared.store.write(change).await.unwrap();
    assert!(is_duplicate(bench.outcome(seq)));
}

/// Wherever it waits, it is found there.
#[tokio::test]
async fn a_damaged_task_is_taken_out_of_whichever_queue_it_is_in() {
    let bench = Bench::with_campaign().await;
    let account = [0xa1; 12];
    for waits_for in [WaitsFor::Time, WaitsFor::Graph, WaitsFor::Token { account }] {
        let key = TaskKey {
            campaign: CAMPAIGN.bytes(),
            ..TaskKey::webhook(1)
        };
        let task = Task {
            waits_for,
            ..Task::default()
        };
        let enqueue = move |tables: &mut Tables<'_>| tables.enqueue(key, &task, 1);
        bench.shared.store.write(enqueue).await.unwrap();
        damage_task(&bench.shared.store, key).await;
        let dequeue = move |tables: &mut Tables<'_>| tables.dequeue(key);
        assert!(bench.shared.store.write(dequeue).await.unwrap().is_some());
        assert!(is_at_rest(&bench));
    }
}
