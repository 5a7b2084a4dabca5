//! Facts about preparing the next batch while one is being settled.

use std::sync::Arc;

use super::{ADA, Bench, NOW_MS, is_lead};
use crate::model::TaskKey;
use crate::pipeline::Settling;
use crate::pipeline::batch::{Batch, Part, Underway};

fn gather(bench: &Bench, underway: &Underway) -> Option<Part> {
    let mut batch = Batch::gather(&bench.shared, underway).unwrap();
    let part = batch.next_part();
    assert!(batch.is_empty(), "one transaction settles it");
    part
}

async fn settle(bench: &Bench, part: Part) {
    let settling = Settling::new(&bench.shared);
    let store = Arc::clone(&bench.shared.store);
    let settled = store.write(move |tables| part.settle(tables, &settling));
    settled.await.unwrap();
}

#[tokio::test]
async fn webhooks_that_are_underway_are_not_prepared_again_and_later_ones_are() {
    let bench = Bench::with_campaign().await;
    let first = bench
        .receive(r#"{"id": 1, "Email": "ada@example.com"}"#)
        .await;
    let part = gather(&bench, &Underway::default()).unwrap();
    let underway = part.underway();
    assert!(gather(&bench, &underway).is_none());
    let second = bench
        .receive(r#"{"id": 2, "Email": "bo@example.com"}"#)
        .await;
    let ahead = gather(&bench, &underway).unwrap();
    settle(&bench, part).await;
    assert_eq!(bench.outcome(second), None);
    settle(&bench, ahead).await;
    assert!(is_lead(bench.outcome(first)));
    assert!(is_lead(bench.outcome(second)));
    bench.work().await;
    assert_eq!(bench.count("inbound.leads"), 2);
}

#[tokio::test]
async fn a_due_task_that_is_underway_is_not_tried_a_second_time() {
    let bench = Bench::new(true);
    let seq = bench.receive(ADA).await;
    bench.work().await;
    let key = TaskKey::webhook(seq);
    let replayed = bench.shared.store.replay(vec![key], NOW_MS).await;
    assert_eq!(replayed.unwrap(), 1);
    let part = gather(&bench, &Underway::default()).unwrap();
    assert!(gather(&bench, &part.underway()).is_none());
    settle(&bench, part).await;
    assert_eq!(bench.counted("ignored"), 1);
}
