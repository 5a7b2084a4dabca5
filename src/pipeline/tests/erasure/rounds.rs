//! When erasures hold the node and when they do not, what fails, and what is given up (R38).

use std::sync::atomic::{AtomicU32, Ordering};

use inlet_sync::ports::Rendered;

use super::*;
use crate::console::ConsoleError;
use crate::health::Health;
use crate::model::{Channel, Ended};
use crate::store::deliveries::Delivery;
use crate::store::erasures::{ErasedWebhook, TakenKey};
use crate::store::tests::disk::{Disk, Trouble};
use crate::store::{StoreError, Tables};
use crate::worker::{Step, Worker};

/// By another of her addresses it is hers, and gives none that is asked for.
const EVA_BY_PHONE: &str = r#"{"id": "e9", "Phone": "+12015550123"}"#;

impl Bench {
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.shared.store.write(work).await.unwrap()
    }

    fn is_erasing(&self) -> bool {
        self.shared.store.read().unwrap().is_erasing().unwrap()
    }

    fn eraser(&self) -> Eraser {
        let never = watch::channel(false).1;
        Eraser::new(Arc::clone(&self.shared.store), self.time(), never)
    }

    /// The message of an error that says that an erasure is not finished.
    async fn not_finished(&self, id: [u8; 12]) -> String {
        match self.console().finish(&id).await {
            Err(ConsoleError::Unfinished(told)) => told,
            other => panic!("it counts as finished: {other:?}"),
        }
    }

    async fn abandon(&self, id: &str) -> Result<serde_json::Value, String> {
        let answer = self.console().abandon(id).await;
        answer.map_err(|error| error.to_string())
    }

    /// Whether whatever waits can be pushed, and is.
    async fn pushes(&self) -> bool {
        if self.outbox().take(0, 100).is_err() {
            return false;
        }
        self.push().await;
        true
    }
}

#[tokio::test]
async fn while_a_round_is_under_way_nothing_is_made_pushed_or_sent() {
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    let delivery = bench.deliveries(seq)[0].0;
    let other = bench.receive(NAMESAKE).await;
    bench.begin("eva@example.com").await;
    bench
        .write(|tables| tables.begin_round(1, None).map(drop))
        .await;
    bench.work().await;
    assert_eq!(bench.outcome(other), None);
    assert!(bench.outbox().take(0, 100).is_err());
    let now_ms = bench.clock.now_ms();
    let begin =
        move |tables: &mut Tables<'_>| tables.begin_deliveries(&[(delivery, false)], now_ms);
    assert!(bench.write(begin).await.is_empty());
    // The process that had begun the round is gone: the next one goes on with it.
    bench.finish().await;
    assert!(bench.deliveries(seq).is_empty());
    bench.work().await;
    assert!(is_lead(bench.outcome(other)), "it goes on by itself");
    assert!(!bench.outbox().take(0, 100).unwrap().is_empty());
}

#[tokio::test]
async fn until_its_round_an_erasure_holds_nothing_and_what_is_made_by_then_goes_with_it() {
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    let delivery = bench.deliveries(seq)[0].0;
    let names_her = bench.receive(EVA_AGAIN).await;
    let by_phone = bench.receive(EVA_BY_PHONE).await;
    bench.begin("eva@example.com").await;
    let other = bench.lead(NAMESAKE).await;
    assert!(is_lead(bench.outcome(other)));
    assert!(is_lead(bench.outcome(by_phone)));
    assert!(
        is_lead(bench.outcome(names_her)),
        "the erasure may be given up"
    );
    assert!(bench.pushes().await);
    let now_ms = bench.clock.now_ms();
    let begin =
        move |tables: &mut Tables<'_>| tables.begin_deliveries(&[(delivery, false)], now_ms);
    assert_eq!(bench.write(begin).await, [delivery]);
    bench.finish().await;
    assert_eq!(bench.emails(), ["eva@example.org"]);
    assert_eq!((bench.webhooks(), bench.documents()), (vec![other], 6));
    let left = bench.shared.store.read().unwrap();
    let left = left.left_upstream(&[email_key("eva@example.com")]).unwrap();
    assert!(left.iter().all(|one| one.is_certain), "{left:?}");
    assert_eq!(
        left.len(),
        10,
        "with the leads that came meanwhile, and their messages"
    );
}

#[tokio::test]
async fn an_erasure_that_is_given_up_before_its_round_has_cost_no_lead() {
    let bench = Bench::with_campaign().await;
    let waited = bench.receive(EVA).await;
    let begun = bench.begin("eva@example.com").await;
    bench.work().await;
    assert!(is_lead(bench.outcome(waited)));
    bench.abandon(&hex::encode(begun.id)).await.unwrap();
    let again = bench.lead(EVA).await;
    assert!(is_duplicate(bench.outcome(again)));
    assert_eq!(bench.count("inbound.leads"), 1);
}

/// The contact stays with who is back; what it had from before goes, wherever it stands in the store.
#[tokio::test]
async fn what_waited_and_came_to_stand_behind_who_is_back_goes_all_the_same() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let by_phone = bench.receive(EVA_BY_PHONE).await;
    bench.begin("eva@example.com").await;
    let back = bench.receive(EVA_AGAIN).await;
    for seq in [back, by_phone] {
        bench.settle_draft(seq, bench.prepared(seq)).await;
    }
    bench.write(move |tables| tables.set_cursor(back)).await;
    assert_eq!(bench.count("inbound.leads"), 3);
    bench.finish().await;
    assert_eq!(bench.webhooks(), [back]);
    assert_eq!(bench.count("inbound.leads"), 1);
}

#[tokio::test]
async fn what_comes_between_the_record_and_its_round_is_of_somebody_who_is_back() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    bench.begin("eva@example.com").await;
    let back = bench.lead(EVA_AGAIN).await;
    assert!(is_lead(bench.outcome(back)));
    bench.finish().await;
    assert_eq!(bench.webhooks(), [back]);
    assert_eq!(bench.count("inbound.leads"), 1);
    assert_eq!(bench.emails(), ["eva@example.com"]);
}

#[tokio::test]
async fn a_restored_node_pushes_nothing_before_it_has_applied_what_others_were_asked_for() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let port = StoreErasures(Arc::clone(&bench.shared.store));
    bench.begin("ada@example.com").await;
    assert!(port.are_applied().unwrap(), "its own may wait");
    bench.clock.advance(Duration::from_secs(1));
    bench.learn(bench.erasure("eva@example.com")).await;
    assert!(!port.are_applied().unwrap());
    bench.work().await;
    bench.finish().await;
    assert!(port.are_applied().unwrap());
}

/// Its claims are known when it is done, and have to go before anybody reads the record.
#[tokio::test]
async fn a_record_is_not_pushed_before_its_erasure_is_finished_or_given_up() {
    let bench = Bench::with_campaign().await;
    let one = bench.begin("eva@example.com").await;
    let port = Arc::new(StoreErasures(Arc::clone(&bench.shared.store)));
    assert!(port.owed().unwrap().is_empty());
    bench.abandon(&hex::encode(one.id)).await.unwrap();
    assert_eq!(port.owed().unwrap().records.len(), 1);
    bench.begin("ada@example.com").await;
    assert_eq!(port.owed().unwrap().records.len(), 1);
    bench.finish().await;
    assert_eq!(port.owed().unwrap().records.len(), 2);
}

#[tokio::test]
async fn however_many_erasures_are_asked_for_the_node_has_its_turn_after_each_round() {
    let bench = Bench::notifying().await;
    let mut eraser = bench.eraser();
    bench.begin("nobody@example.com").await;
    for number in 0..5 {
        assert_eq!(eraser.step().await.unwrap(), Step::Busy);
        let waits = bench.begin("nobody@example.com").await;
        assert_eq!(eraser.step().await.unwrap(), Step::Idle, "it rests");
        let seq = bench
            .lead(&format!(
                r#"{{"id": {number}, "Email": "person{number}@example.com"}}"#
            ))
            .await;
        assert!(is_lead(bench.outcome(seq)));
        assert!(bench.pushes().await);
        let (delivery, now_ms) = (bench.deliveries(seq)[0].0, bench.clock.now_ms());
        let begin =
            move |tables: &mut Tables<'_>| tables.begin_deliveries(&[(delivery, false)], now_ms);
        assert_eq!(bench.write(begin).await, [delivery]);
        let snapshot = bench.shared.store.read().unwrap();
        assert!(snapshot.has_unfinished(&[waits.id]).unwrap());
        bench.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_search_that_fails_lets_the_node_go_on_and_is_tried_again_later() {
    let bench = Bench::with_campaign().await;
    let hers = bench.lead(EVA).await;
    let erasure = bench.begin("eva@example.com").await;
    let health = Arc::new(Health::default());
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let mut eraser = bench.eraser().telling(Arc::clone(&health));
    eraser = eraser.searching(move |store, erasures, stopped| {
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StoreError::Corrupt { table: "documents" }),
            1 => panic!("told to"),
            _ => find(store, erasures, stopped),
        }
    });
    for (tried, rest) in [(1, 30), (2, 60)] {
        assert_eq!(eraser.step().await.unwrap(), Step::Idle);
        assert_eq!(tries.load(Ordering::SeqCst), tried);
        assert!(!bench.is_erasing());
        assert!(health.trouble().is_some());
        let body = format!(r#"{{"id": {tried}, "Email": "ada@example.com"}}"#);
        let other = bench.lead(&body).await;
        assert!(is_lead(bench.outcome(other)), "the node goes on");
        assert!(bench.pushes().await);
        bench.clock.advance(Duration::from_secs(rest - 1));
        assert_eq!(eraser.step().await.unwrap(), Step::Idle);
        assert_eq!(tries.load(Ordering::SeqCst), tried, "it waits");
        bench.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(eraser.step().await.unwrap(), Step::Busy);
    assert_eq!(health.trouble(), None);
    assert!(!bench.webhooks().contains(&hers));
    assert_eq!(bench.emails(), ["ada@example.com"]);
    assert_eq!(
        bench
            .console()
            .finish(&erasure.id)
            .await
            .unwrap()
            .removed
            .leads,
        1
    );
}

#[tokio::test]
async fn an_erasure_that_cannot_be_carried_out_keeps_no_other_from_it_and_is_named() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let broken = bench.begin("nobody@example.com").await.id;
    let sound = bench.begin("eva@example.com").await.id;
    let health = Arc::new(Health::default());
    let mut eraser = bench.eraser().telling(Arc::clone(&health));
    eraser = eraser.searching(move |store, erasures, stopped| {
        match erasures.iter().any(|erasure| erasure.id == broken) {
            true => Err(StoreError::Panicked),
            false => find(store, erasures, stopped),
        }
    });
    let mut rounds = 0;
    while is_unfinished(&bench, sound) {
        assert!(rounds < 3, "all, and each of them alone");
        eraser.step().await.unwrap();
        bench.clock.advance(Duration::from_secs(3_600));
        rounds += 1;
    }
    assert_eq!(bench.documents(), 0);
    for _ in 0..2 {
        eraser.step().await.unwrap();
        bench.clock.advance(Duration::from_secs(3_600));
    }
    assert!(is_unfinished(&bench, broken));
    let told = health.trouble().unwrap().error;
    assert!(told.contains(&hex::encode(broken)), "{told}");
}

fn is_unfinished(bench: &Bench, id: [u8; 12]) -> bool {
    let snapshot = bench.shared.store.read().unwrap();
    snapshot.has_unfinished(&[id]).unwrap()
}

#[tokio::test]
async fn what_has_failed_is_tried_at_once_by_whoever_opens_the_store_next() {
    let bench = Bench::with_campaign().await;
    let erasure = bench.begin("eva@example.com").await;
    let health = Arc::new(Health::default());
    let failing = |_: &Store, _: &[Erasure], _: &dyn Fn() -> bool| Err(StoreError::Panicked);
    let mut eraser = bench
        .eraser()
        .telling(Arc::clone(&health))
        .searching(failing);
    eraser.step().await.unwrap();
    assert_eq!(health.trouble().unwrap().error, "a piece of work panicked");
    bench.console().finish(&erasure.id).await.unwrap();
}

/// Whatever step it is that fails: what was removed until then is removed whole.
#[tokio::test]
async fn a_disk_that_fails_in_the_middle_of_a_round_leaves_a_store_that_everybody_can_work_with() {
    let (from, to) = {
        let (disk, bench) = on_a_disk().await;
        let from = disk.operations();
        bench.eraser().step().await.unwrap();
        (from, disk.operations())
    };
    let mut failed = 0;
    for at in from..to {
        let (disk, bench) = on_a_disk().await;
        let health = Arc::new(Health::default());
        let mut eraser = bench.eraser().telling(Arc::clone(&health));
        disk.trouble(Trouble::once(at));
        let _ = eraser.step().await;
        while bench.shared.store.write(|_| Ok(())).await.is_err() {
            tokio::task::yield_now().await;
        }
        failed += u32::from(health.trouble().is_some());
        if health.trouble().is_some() {
            eraser.step().await.unwrap();
            assert!(!bench.is_erasing(), "operation {at}");
            let other = bench
                .lead(r#"{"id": "o1", "Email": "ada@example.com"}"#)
                .await;
            assert!(is_lead(bench.outcome(other)), "operation {at}");
            let outbox = bench.outbox();
            let pending = outbox.take(0, 100).unwrap();
            let rendered = outbox.render(&pending).unwrap();
            let is_damaged = |one: &Rendered| matches!(one, Rendered::Damaged { .. });
            assert!(
                !rendered.iter().any(is_damaged),
                "operation {at}: {rendered:?}"
            );
            bench.push().await;
            bench.finish().await;
            assert_eq!(bench.emails(), ["eva@example.org", "ada@example.com"]);
        } else {
            // The hold was never set, or the answer was lost: it is begun anew.
            bench.finish().await;
            assert_eq!(bench.emails(), ["eva@example.org"], "operation {at}");
        }
        assert!(!bench.is_erasing());
    }
    assert!(failed > 5, "{failed} of {} rounds have failed", to - from);
}

/// With a lead of hers, one of a namesake, and an erasure that waits.
async fn on_a_disk() -> (Disk, Bench) {
    let disk = Disk::default();
    let mut bench = Bench::new(true);
    let store = Store::open_with(disk.opener(), Some("bench")).unwrap();
    bench.shared = Arc::new(Shared {
        store: Arc::new(store),
        clock: bench.time(),
        freshness: Freshness::new(true),
        limits: bench.shared.limits.clone(),
        live_events: true,
    });
    bench.import(reference()).await;
    bench.lead(NAMESAKE).await;
    bench.lead(EVA).await;
    bench.lead(EVA_AGAIN).await;
    bench.begin("eva@example.com").await;
    (disk, bench)
}

#[tokio::test]
async fn an_erasure_that_is_given_up_is_over_here_and_told_to_others() {
    let bench = Bench::with_campaign().await;
    let before = bench.lead(EVA).await;
    let late = bench.receive(EVA_AGAIN).await;
    let erasure = bench.begin("eva@example.com").await;
    bench
        .write(|tables| tables.begin_round(1, None).map(drop))
        .await;
    let report = bench.abandon(&hex::encode(erasure.id)).await.unwrap();
    assert_eq!(report["abandoned"], true);
    assert_eq!(report["record"], "waiting");
    assert!(!bench.is_erasing(), "the node goes on");
    bench.work().await;
    assert!(
        is_lead(bench.outcome(late)),
        "nothing keeps it from being one"
    );
    bench.finish().await;
    assert_eq!(bench.webhooks(), [before, late]);
    let port = StoreErasures(Arc::clone(&bench.shared.store));
    assert_eq!(port.owed().unwrap().records.len(), 1);
    let told = bench.not_finished(erasure.id).await;
    assert!(told.contains("given up"), "{told}");
    // What is read of it upstream once more does not begin it again.
    let again = bench
        .write(move |tables| tables.learn_erasure(erasure))
        .await;
    assert!(!again);
}

#[tokio::test]
async fn what_cannot_be_given_up_is_said() {
    let bench = Bench::with_campaign().await;
    let unknown = bench.abandon(&"0".repeat(24)).await.unwrap_err();
    assert!(unknown.contains("there is no erasure"), "{unknown}");
    let no_id = bench.abandon("eva").await.unwrap_err();
    assert!(no_id.contains("no erasure's id"), "{no_id}");
    let one = bench.begin("eva@example.com").await;
    bench.finish().await;
    let finished = bench.abandon(&hex::encode(one.id)).await.unwrap_err();
    assert!(finished.contains("is finished"), "{finished}");
    let one = bench.begin("eva@example.com").await;
    bench.abandon(&hex::encode(one.id)).await.unwrap();
    let twice = bench.abandon(&hex::encode(one.id)).await.unwrap_err();
    assert!(twice.contains("given up before"), "{twice}");
}

/// Whoever gives up what is under way does not wait for the end of the search, and what it finds stays.
#[tokio::test]
async fn a_search_for_what_was_given_up_meanwhile_ends_and_removes_nothing() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let one = bench.begin("eva@example.com").await;
    let giving_up = Arc::clone(&bench.shared.store);
    let mut eraser = bench.eraser().searching(move |store, erasures, stopped| {
        assert!(!stopped());
        let found = find(store, erasures, stopped);
        giving_up
            .write_blocking(move |tables| tables.abandon_erasure(&one.id))
            .unwrap()
            .unwrap();
        assert!(stopped());
        found
    });
    eraser.step().await.unwrap();
    assert!(!bench.is_erasing());
    assert_eq!(bench.emails(), ["eva@example.com"]);
    assert_eq!(bench.documents(), 6);
}

/// What both concern is removed by one of them.
#[tokio::test]
async fn what_was_to_go_by_an_erasure_that_is_given_up_goes_by_another_one_that_concerns_it() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    let mut both = [
        bench.begin("eva@example.com").await.id,
        bench.begin("eva@example.com").await.id,
    ];
    both.sort_unstable();
    let [first, second] = both;
    let giving_up = Arc::clone(&bench.shared.store);
    let mut eraser = bench.eraser().searching(move |store, erasures, stopped| {
        let found = find(store, erasures, stopped);
        if erasures.len() == 2 {
            giving_up
                .write_blocking(move |tables| tables.abandon_erasure(&first))
                .unwrap()
                .unwrap();
        }
        found
    });
    eraser.step().await.unwrap();
    assert!(!bench.is_erasing());
    let snapshot = bench.shared.store.read().unwrap();
    assert!(snapshot.has_unfinished(&[second]).unwrap());
    bench.clock.advance(Duration::from_secs(1));
    eraser.step().await.unwrap();
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    bench.console().finish(&second).await.unwrap();
}

/// A report of nothing that is left would have been a promise.
#[tokio::test]
async fn an_erasure_whose_record_is_lost_does_not_count_as_finished() {
    let bench = Bench::with_campaign().await;
    bench.lead(EVA).await;
    for is_damaged in [true, false] {
        let id = bench.begin("eva@example.com").await.id;
        let lose = move |tables: &mut Tables<'_>| {
            if is_damaged {
                tables.erasures.insert(&id, &b"\x01nonsense"[..])?;
                return Ok(());
            }
            tables.forget_erasure(&id)
        };
        bench.write(lose).await;
        let told = bench.not_finished(id).await;
        assert!(told.contains("ask for it once more"), "{told}");
    }
    assert_eq!(bench.emails(), ["eva@example.com"]);
}

/// One Facebook webhook may have 100,000 changes.
#[tokio::test]
async fn a_webhook_with_thousands_of_tasks_goes_in_short_steps_and_is_resumed_after_a_crash() {
    const TASKS: u32 = 2_500;
    const STEP_MAX: usize = 1_000;
    let bench = Bench::notifying().await;
    let seq = bench.lead(EVA).await;
    let (lead, of) = (bench.deliveries(seq)[0].1.lead, bench.lead_of(seq));
    let end_much = move |tables: &mut Tables<'_>| {
        let ended = Ended {
            outcome: Outcome::Duplicate { of },
            attempts: 1,
            at_ms: NOW_MS,
        };
        for change in 1..TASKS {
            tables.end(TaskKey::change(seq, change), &ended)?;
            let delivery = Delivery::new(Channel::Email, (lead, seq), [7; 12], NOW_MS);
            tables.add_delivery(&delivery)?;
        }
        Ok(())
    };
    bench.write(end_much).await;
    let erasure = bench.begin("eva@example.com").await;
    let all = (0..TASKS).map(|change| TaskKey::change(seq, change));
    let keys = (0..TASKS).map(|number| {
        let mut key = [9; 12];
        key[..4].copy_from_slice(&number.to_be_bytes());
        TakenKey {
            lead: key,
            said: None,
        }
    });
    let webhooks = Arc::new(vec![ErasedWebhook {
        seq,
        tasks: all.collect(),
        keys: keys.collect(),
        ..ErasedWebhook::default()
    }]);
    let (mut place, mut steps, mut before) = (Some(Place::default()), 0, bench.records());
    while let Some(from) = place {
        let webhooks = Arc::clone(&webhooks);
        let step =
            move |tables: &mut Tables<'_>| tables.erase_webhooks(&erasure.id, &webhooks, from);
        place = bench.write(step).await;
        let now = bench.records();
        assert!(before.abs_diff(now) <= STEP_MAX, "{before} then {now}");
        (before, steps) = (now, steps + 1);
        if steps == 4 {
            // Here a crash: whoever comes next finds the rest by the lead.
            break;
        }
    }
    assert!(place.is_some() && bench.webhooks() == [seq]);
    bench.finish().await;
    assert_eq!((bench.webhooks(), bench.documents()), (vec![], 0));
    let snapshot = bench.shared.store.read().unwrap();
    assert_eq!(snapshot.outcomes.len().unwrap(), 0);
    assert_eq!(snapshot.deliveries.len().unwrap(), 0);
    let removed = snapshot.erasure(&erasure.id).unwrap().unwrap().removed;
    assert_eq!(removed.webhooks, 1);
}

impl Bench {
    /// Keys are added while tasks and deliveries go: a step may do as much of either.
    fn records(&self) -> usize {
        let snapshot = self.shared.store.read().unwrap();
        let lengths = [
            snapshot.outcomes.len().unwrap(),
            snapshot.deliveries.len().unwrap(),
        ];
        lengths.iter().sum::<u64>() as usize
    }
}
