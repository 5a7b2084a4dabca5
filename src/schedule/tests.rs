//! When jobs run, and what is kept of it.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;
use crate::clock::ManualClock;
use crate::model::{Method, Webhook};

const NOW_MS: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

struct Bench {
    folder: TempDir,
    clock: Arc<ManualClock>,
    ran: Arc<AtomicUsize>,
    shutdown: watch::Sender<bool>,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::at(NOW_MS)),
            ran: Arc::default(),
            shutdown: watch::Sender::new(false),
        }
    }

    fn store(&self) -> Arc<Store> {
        let path = self.folder.path().join("inlet.redb");
        Arc::new(Store::open(path, Some("edge-1")).unwrap())
    }

    fn schedule(&self) -> Schedule {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Schedule::new(self.store(), clock, self.shutdown.subscribe())
    }

    /// With a job that counts its runs and ends as told.
    fn counting(&self, done: Result<Done, &'static str>) -> Schedule {
        let ran = Arc::clone(&self.ran);
        self.schedule().with("count", Rhythm::hourly, move |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            let done = done.clone();
            async move { done.map_err(StepError::from) }
        })
    }

    fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }
}

fn record(schedule: &Schedule) -> JobRecord {
    schedule
        .store
        .read()
        .unwrap()
        .job("count")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_new_job_is_not_due_at_once_and_its_next_run_is_known() {
    let bench = Bench::new();
    let schedule = bench.counting(Ok(Done::well("counted")));
    schedule.register().await.unwrap();
    assert_eq!(schedule.catch_up().await.unwrap(), 0);
    let due_ms = Rhythm::hourly("edge-1", "count").next_after(NOW_MS);
    let expected = JobRecord {
        last: None,
        due_ms: Some(due_ms),
    };
    assert_eq!(record(&schedule), expected);
}

#[tokio::test]
async fn runs_that_were_missed_are_caught_up_once_at_the_next_start() {
    let bench = Bench::new();
    let schedule = bench.counting(Ok(Done::well("counted")));
    schedule.register().await.unwrap();
    drop(schedule);
    bench.clock.advance(100 * HOUR);
    let schedule = bench.counting(Ok(Done::well("counted")));
    schedule.register().await.unwrap();
    assert_eq!(schedule.catch_up().await.unwrap(), 1);
    assert_eq!(schedule.catch_up().await.unwrap(), 0, "once");
    assert_eq!(bench.ran(), 1);
    let now_ms = bench.clock.now_ms();
    let kept = record(&schedule);
    let last = kept.last.unwrap();
    assert_eq!((last.started_ms, last.is_ok), (now_ms, true));
    assert_eq!(last.result, "counted");
    assert!(kept.due_ms.unwrap() > now_ms);
}

/// The next run was noted by a clock that was fast by months: nothing ran for as long.
#[tokio::test]
async fn a_clock_that_was_fast_and_is_set_right_keeps_no_job_from_running() {
    let bench = Bench::new();
    bench.clock.advance(1_000 * HOUR);
    let schedule = bench.counting(Ok(Done::well("counted")));
    schedule.register().await.unwrap();
    bench.clock.set_back(1_000 * HOUR);
    assert_eq!(schedule.catch_up().await.unwrap(), 0);
    let due_ms = Rhythm::hourly("edge-1", "count").next_after(NOW_MS);
    assert_eq!(record(&schedule).due_ms, Some(due_ms), "as status shows it");
    bench.clock.advance(HOUR);
    assert_eq!(schedule.catch_up().await.unwrap(), 1);
}

/// What was due was looked for once, after the start, and then left to a scheduler that waits for a time which the
/// machine's clock, being set back, reaches much later.
#[tokio::test]
async fn what_is_missed_while_the_node_runs_is_caught_up_without_a_tick_and_once() {
    let bench = Bench::new();
    let schedule = Arc::new(bench.counting(Ok(Done::well("counted"))));
    schedule.register().await.unwrap();
    let keeping_up = Arc::clone(&schedule);
    let soon = Duration::from_millis(1);
    let running = tokio::spawn(async move { keeping_up.keep_up(soon, soon).await });
    for run in 1..=3 {
        let due_ms = record(&schedule).due_ms;
        bench.clock.advance(HOUR);
        while record(&schedule).due_ms == due_ms {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.ran(), run);
    }
    bench.shutdown.send(true).unwrap();
    running.await.unwrap();
    assert_eq!(bench.ran(), 3);
}

#[tokio::test]
async fn a_tick_of_a_job_that_is_not_due_is_dropped() {
    let bench = Bench::new();
    let schedule = bench.counting(Ok(Done::well("counted")));
    schedule.register().await.unwrap();
    schedule.tick(&schedule.jobs[0]).await;
    assert_eq!(bench.ran(), 0);
    bench.clock.advance(HOUR);
    schedule.tick(&schedule.jobs[0]).await;
    schedule.tick(&schedule.jobs[0]).await;
    assert_eq!(bench.ran(), 1);
}

#[tokio::test]
async fn a_run_that_was_cut_short_is_due_at_the_next_start() {
    let bench = Bench::new();
    let cut_short = Done {
        is_whole: false,
        ..Done::well("half of it")
    };
    let schedule = bench.counting(Ok(cut_short));
    schedule.register().await.unwrap();
    assert!(schedule.run_now("count").await);
    drop(schedule);
    let schedule = bench.counting(Ok(Done::well("all of it")));
    schedule.register().await.unwrap();
    assert_eq!(schedule.catch_up().await.unwrap(), 1);
    assert_eq!(record(&schedule).last.unwrap().result, "all of it");
}

#[tokio::test]
async fn a_run_that_fails_or_panics_is_shown_and_waits_for_its_next_turn() {
    let bench = Bench::new();
    let schedule = bench.counting(Err("the disk is gone"));
    assert!(schedule.run_now("count").await);
    let kept = record(&schedule);
    let last = kept.last.unwrap();
    assert_eq!(
        (last.is_ok, last.result.as_str()),
        (false, "the disk is gone")
    );
    assert!(kept.due_ms.unwrap() > NOW_MS);
    drop(schedule);
    let panicking = bench
        .schedule()
        .with("count", Rhythm::daily, |_| async { panic!("a test") });
    assert!(panicking.run_now("count").await);
    assert!(!record(&panicking).last.unwrap().is_ok);
}

#[tokio::test]
async fn a_job_is_not_begun_while_it_runs() {
    let bench = Bench::new();
    let gate = Arc::new(Semaphore::new(0));
    let (ran, closed) = (Arc::clone(&bench.ran), Arc::clone(&gate));
    let schedule = bench.schedule().with("count", Rhythm::hourly, move |_| {
        ran.fetch_add(1, Ordering::Relaxed);
        let closed = Arc::clone(&closed);
        async move {
            closed.acquire().await?.forget();
            Ok(Done::well("through"))
        }
    });
    let schedule = Arc::new(schedule);
    let first = {
        let schedule = Arc::clone(&schedule);
        tokio::spawn(async move { schedule.run_now("count").await })
    };
    while bench.ran() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!schedule.run_now("count").await, "it is running");
    gate.add_permits(2);
    assert!(first.await.unwrap());
    assert!(schedule.run_now("count").await);
    assert_eq!(bench.ran(), 2);
}

#[tokio::test]
async fn a_schedule_ends_with_the_node_and_lets_go_of_the_store() {
    let bench = Bench::new();
    let schedule = bench.counting(Ok(Done::well("counted")));
    let running = tokio::spawn(schedule.run());
    tokio::task::yield_now().await;
    bench.shutdown.send(true).unwrap();
    running.await.unwrap();
    drop(bench.store());
}

fn webhook(body: Vec<u8>) -> Webhook {
    Webhook {
        platform: "generic".to_owned(),
        account: None,
        campaign: None,
        method: Method::Post,
        query: String::new(),
        content_type: None,
        headers: Vec::new(),
        peer: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        arrived_at_ms: NOW_MS,
        body,
    }
}

#[tokio::test]
async fn the_self_check_names_a_record_in_which_a_bit_is_flipped() {
    let bench = Bench::new();
    let store = bench.store();
    for n in 0..10 {
        store.receive(&webhook(vec![n; 300])).await.unwrap();
    }
    let sound = check_sample(Arc::clone(&store)).await.unwrap();
    assert_eq!(sound, Done::well("10 records are sound"));
    let flip = |tables: &mut crate::store::Tables<'_>| {
        let mut record = tables.inbox.remove(4)?.unwrap().value().to_vec();
        record[100] ^= 1;
        tables.inbox.insert(4, record.as_slice())?;
        Ok(())
    };
    store.write(flip).await.unwrap();
    let found = check_sample(Arc::clone(&store)).await.unwrap();
    assert!(!found.is_ok);
    assert_eq!(found.result, "1 of 10 records are damaged: webhook 4");
}

#[tokio::test]
async fn the_self_check_looks_at_whatever_is_framed() {
    let bench = Bench::new();
    let store = bench.store();
    let damage = |tables: &mut crate::store::Tables<'_>| {
        let junk: &[u8] = b"junk";
        tables.deliveries.insert(1, junk)?;
        tables.events.insert(1, junk)?;
        tables.renewed_tokens.insert(&[1; 12], junk)?;
        tables
            .broken_tokens
            .insert((&[1; 12], &[2; 12], "page"), junk)?;
        Ok(())
    };
    store.write(damage).await.unwrap();
    let found = check_sample(Arc::clone(&store)).await.unwrap();
    let tables = ["deliveries", "events", "renewed_tokens", "broken_tokens"];
    let named = tables.map(|table| format!("a record of {table}"));
    let expected = format!("4 of 4 records are damaged: {}", named.join(", "));
    assert_eq!(found.result, expected);
}

/// A store of this many webhooks of a mebibyte, and then of only the last few, as a sample sees it.
async fn shrunk(store: &Arc<Store>, webhooks: u64, left: u64) {
    for _ in 0..webhooks {
        store.receive(&webhook(vec![7; 1_000_000])).await.unwrap();
    }
    let remove = move |tables: &mut crate::store::Tables<'_>| {
        let gone = 1..=webhooks - left;
        tables.inbox.retain_in(gone, |_, _| false)?;
        Ok(())
    };
    store.write(remove).await.unwrap();
    check_sample(Arc::clone(store)).await.unwrap();
}

fn taken(store: &Store) -> u64 {
    use std::os::unix::fs::MetadataExt;
    store.path().unwrap().metadata().unwrap().blocks() * 512 / MIB
}

#[tokio::test]
async fn a_store_that_was_much_larger_is_compacted_when_it_is_opened_after_a_clean_stop() {
    let bench = Bench::new();
    let store = bench.store();
    shrunk(&store, 100, 3).await;
    let before = taken(&store);
    assert!(before >= 100);
    drop(store);
    let store = bench.store();
    assert_eq!(store.compacted(), None, "it was not closed in good order");
    let advice = store.plan_compaction().await.unwrap();
    assert!(matches!(advice, Advice::Compact { .. }), "{advice:?}");
    drop(store);
    // What a compaction left that was killed.
    let unfinished = bench.folder.path().join("inlet.redb.compacting");
    std::fs::write(&unfinished, b"half of a store").unwrap();
    let store = bench.store();
    assert!(store.compacted().is_some());
    assert!(taken(&store) < 16, "{} MiB", taken(&store));
    assert!(!unfinished.exists());
    let kept = store.read().unwrap().webhooks_after(0, 10).unwrap();
    assert_eq!(kept.len(), 3);
    assert!(
        kept.iter()
            .all(|(_, webhook)| webhook.as_ref().unwrap().body.len() == 1_000_000)
    );
    assert_eq!(store.receive(&webhook(vec![1])).await.unwrap(), 101);
    let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
    let schedule = Schedule::new(Arc::clone(&store), clock, bench.shutdown.subscribe());
    schedule.register().await.unwrap();
    let run = store
        .read()
        .unwrap()
        .job(COMPACTION)
        .unwrap()
        .unwrap()
        .last
        .unwrap();
    assert!(run.result.starts_with("gave back "), "{}", run.result);
    drop((schedule, store));
    assert_eq!(bench.store().compacted(), None, "once");
}

#[tokio::test]
async fn a_compaction_that_cannot_be_done_leaves_the_store_as_it_is() {
    let bench = Bench::new();
    let store = bench.store();
    shrunk(&store, 100, 3).await;
    store.plan_compaction().await.unwrap();
    drop(store);
    // In the way of the new file, and not to be removed like one.
    let unfinished = bench.folder.path().join("inlet.redb.compacting");
    std::fs::create_dir(&unfinished).unwrap();
    let store = bench.store();
    assert_eq!(store.compacted(), None);
    assert_eq!(
        store.read().unwrap().webhooks_after(0, 10).unwrap().len(),
        3
    );
}
