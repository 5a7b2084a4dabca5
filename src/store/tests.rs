//! What a store keeps when the power fails at any moment, and what it says while its disk is ill (R1, R2, R29).

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

pub(crate) mod disk;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bson::rawdoc;
use redb::ReadableTableMetadata;

use super::changes::Change;
use super::documents::{Collection, Stored};
use super::{Store, StoreError, Tables, codec, cursor};
use crate::model::{Method, Selection, Webhook};
use disk::{Disk, Trouble};

/// Times that the power is cut in one run of the model, spread over its writes and syncs.
const CUTS: u64 = 40;
/// Images of the disk made from each cut: which unsynced sectors made it is chance.
const IMAGES: u64 = 3;
const SEEDS: u64 = 3;
const ROUNDS: usize = 4;

fn open(disk: &Disk) -> Store {
    Store::open_with(disk.opener(), Some("edge-1")).unwrap()
}

fn webhook(body: &str) -> Webhook {
    Webhook {
        platform: "generic".to_owned(),
        account: None,
        campaign: None,
        method: Method::Post,
        query: String::new(),
        content_type: None,
        headers: Vec::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        arrived_at_ms: 0,
        body: body.as_bytes().to_vec(),
    }
}

/// What a model run was promised.
#[derive(Debug, Default)]
struct Promises {
    webhooks: BTreeMap<u64, String>,
    /// Batches of the pipeline that were answered as committed.
    batches: u64,
}

impl Promises {
    /// Receives webhooks in groups and works through them like the pipeline, as far as the disk lets it.
    async fn make(&mut self, store: &Store, chance: &mut fastrand::Rng) {
        for _ in 0..ROUNDS {
            let bodies: Vec<_> = (0..chance.usize(1..6))
                .map(|_| "x".repeat(chance.usize(1..3_000)) + &chance.u64(..).to_string())
                .collect();
            let webhooks: Vec<_> = bodies.iter().map(|body| webhook(body)).collect();
            let received =
                futures_util::future::join_all(webhooks.iter().map(|one| store.receive(one)));
            for (seq, body) in received.await.into_iter().zip(bodies) {
                let Ok(seq) = seq else { continue };
                let reused = self.webhooks.insert(seq, body);
                assert_eq!(reused, None, "sequence number {seq} was promised twice");
            }
            let upto = store.levels().last_seq();
            if store
                .write(move |tables| settle_batch(tables, upto))
                .await
                .is_ok()
            {
                self.batches += 1;
            }
        }
    }

    fn assert_kept(&self, store: &Store, place: &str) {
        let snapshot = store.read().unwrap();
        for (seq, body) in &self.webhooks {
            let kept = snapshot.webhook(*seq).unwrap();
            let kept = kept.unwrap_or_else(|| panic!("webhook {seq} is lost, {place}"));
            assert!(
                kept.body == body.as_bytes(),
                "webhook {seq} is another one, {place}"
            );
        }
        let documents = snapshot.documents.len().unwrap();
        assert_eq!(
            documents,
            snapshot.pending_count().unwrap(),
            "half a batch, {place}"
        );
        assert!(documents >= self.batches, "a batch is lost, {place}");
        assert!(
            store.levels().cursor() <= store.levels().last_seq(),
            "{place}"
        );
    }
}

/// A document, a change and the cursor, all or nothing.
fn settle_batch(tables: &mut Tables<'_>, upto: u64) -> Result<(), StoreError> {
    let lead = Stored::new([7; 12], &rawdoc! { "name": "Ada" });
    let row = tables.add_document(Collection::Leads, &lead)?;
    tables.append_change(row, Change::First)?;
    tables.set_number("cursor", upto)
}

#[tokio::test]
async fn a_power_cut_at_any_write_or_sync_loses_no_promise() {
    let mut images = 0;
    for seed in 0..SEEDS {
        let whole = Disk::default();
        let begun = {
            let store = open(&whole);
            let begun = whole.operations();
            Promises::default()
                .make(&store, &mut fastrand::Rng::with_seed(seed))
                .await;
            begun
        };
        let operations = whole.operations();
        assert!(
            operations - begun > CUTS,
            "{begun} of {operations} operations"
        );
        for cut in 0..CUTS {
            let at = begun + (operations - begun) * cut / CUTS;
            images += cut_power(seed, at).await;
        }
    }
    assert_eq!(images, SEEDS * CUTS * IMAGES);
}

/// Runs the model until the power fails at operation `at`, and looks at what the disk may hold then.
async fn cut_power(seed: u64, at: u64) -> u64 {
    let disk = Disk::default();
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut promises = Promises::default();
    {
        let store = open(&disk);
        disk.trouble(Trouble::from(at));
        promises.make(&store, &mut chance).await;
    }
    for image in 0..IMAGES {
        let place = format!("seed {seed}, operation {at}, image {image}");
        let store = open(&disk.image_after_power_cut(&mut chance));
        promises.assert_kept(&store, &place);
        let mut later = Promises {
            webhooks: promises.webhooks.clone(),
            batches: promises.batches,
        };
        later.make(&store, &mut chance).await;
        later.assert_kept(&store, &place);
    }
    IMAGES
}

#[tokio::test]
async fn a_disk_that_fails_once_at_any_write_or_sync_costs_no_promise_and_is_recovered_from() {
    let whole = Disk::default();
    let begun = {
        let store = open(&whole);
        let begun = whole.operations();
        Promises::default()
            .make(&store, &mut fastrand::Rng::with_seed(1))
            .await;
        begun
    };
    for at in (begun..whole.operations()).step_by(3) {
        let disk = Disk::default();
        let mut chance = fastrand::Rng::with_seed(1);
        let mut promises = Promises::default();
        let store = open(&disk);
        disk.trouble(Trouble::once(at));
        promises.make(&store, &mut chance).await;
        accepts_again(&store).await;
        promises.make(&store, &mut chance).await;
        // How webhooks are grouped is chance, so that the operation may be one of the last and the store still closed.
        accepts_again(&store).await;
        promises.assert_kept(&store, &format!("operation {at} failed"));
        let cut = disk.image_after_power_cut(&mut chance);
        promises.assert_kept(
            &open(&cut),
            &format!("operation {at} failed, then the power"),
        );
        drop(store);
        promises.assert_kept(&open(&disk), &format!("operation {at} failed, reopened"));
    }
}

#[tokio::test]
async fn while_the_disk_is_ill_nothing_is_promised_and_afterwards_the_store_comes_back_by_itself() {
    let disk = Disk::default();
    let store = open(&disk);
    let first = store.receive(&webhook("before")).await.unwrap();
    disk.trouble(Trouble::from(disk.operations()));
    store.receive(&webhook("meanwhile")).await.unwrap_err();
    store.receive(&webhook("meanwhile")).await.unwrap_err();
    store.write(|_| Ok(())).await.unwrap_err();
    disk.heal();
    let last = accepts_again(&store).await;
    let snapshot = store.read().unwrap();
    assert_eq!(snapshot.webhook(first).unwrap().unwrap().body, b"before");
    assert_eq!(snapshot.webhook(last).unwrap().unwrap().body, b"again");
}

#[tokio::test]
async fn a_store_whose_disk_is_ill_closes_without_waiting_for_it() {
    let disk = Disk::default();
    let store = open(&disk);
    disk.trouble(Trouble::from(disk.operations()));
    store.receive(&webhook("meanwhile")).await.unwrap_err();
    let begun = Instant::now();
    drop(store);
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn work_that_panics_takes_neither_intake_nor_later_work_with_it() {
    let store = open(&Disk::default());
    let faulty = store.write(|tables| {
        tables.set_number("cursor", 9)?;
        assert_eq!(cursor(&tables.meta)?, 0, "a fault of the program");
        Ok(())
    });
    let beside = webhook("beside");
    let (faulty, received) = tokio::join!(faulty, store.receive(&beside));
    faulty.unwrap_err();
    received.unwrap();
    assert_eq!(store.levels().cursor(), 0);
    store
        .write(|tables| tables.set_number("cursor", 1))
        .await
        .unwrap();
    assert_eq!(store.levels().cursor(), 1);
}

#[tokio::test]
async fn a_store_whose_making_was_cut_short_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inlet.redb");
    for unfinished in [0, 2, 4096, 1024 * 1024] {
        std::fs::write(&path, vec![0; unfinished]).unwrap();
        let store = Store::open(path.clone(), None).unwrap();
        store.receive(&webhook("first")).await.unwrap();
        drop(store);
        let store = Store::open(path.clone(), None).unwrap();
        assert_eq!(store.levels().last_seq(), 1);
    }
}

#[tokio::test]
async fn a_file_that_does_not_begin_like_a_store_is_set_aside_and_not_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inlet.redb");
    let damaged = [&[0; 4], &b"what a failing disk left"[..]].concat();
    for times in 1..=2 {
        std::fs::write(&path, &damaged).unwrap();
        drop(Store::open(path.clone(), None).unwrap());
        let set_aside: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("inlet.redb.unfinished-"))
            .collect();
        assert_eq!(set_aside.len(), times, "{set_aside:?}");
        for path in set_aside {
            assert_eq!(std::fs::read(path).unwrap(), damaged);
        }
    }
}

/// A store with a webhook for each of these times of arrival, in milliseconds since the epoch.
async fn store_of(arrivals: impl Iterator<Item = i64> + Send + 'static) -> Store {
    let store = open(&Disk::default());
    let fill = store.write(move |tables| {
        for (seq, arrived_at_ms) in (1..).zip(arrivals) {
            let webhook = Webhook {
                arrived_at_ms,
                ..webhook("listed")
            };
            tables
                .inbox
                .insert(seq, codec::encode(&webhook).as_slice())?;
        }
        Ok(())
    });
    fill.await.unwrap();
    store
}

fn listed_since(store: &Store, since: i64) -> (Vec<u64>, Option<u64>) {
    let selection = Selection {
        since: Some(since),
        ..Selection::default()
    };
    let page = store.read().unwrap().list(&selection, 10).unwrap();
    let seqs = page.webhooks.iter().map(|listed| listed.seq).collect();
    (seqs, page.next)
}

#[tokio::test]
async fn a_listing_since_a_time_looks_past_those_that_came_while_the_clock_was_behind() {
    let store = store_of([1_000, 2_000, 5, 6, 3_000].into_iter()).await;
    assert_eq!(listed_since(&store, 1_500), (vec![5, 2], None));
}

#[tokio::test]
async fn a_listing_since_a_time_does_not_read_the_whole_inbox() {
    let much_older = std::iter::repeat_n(5, 10_001);
    let store = store_of(std::iter::once(2_000).chain(much_older).chain([3_000])).await;
    assert_eq!(listed_since(&store, 1_500), (vec![10_003], None));
}

#[test]
fn a_renamed_node_knows_its_earlier_names_and_no_others() {
    let disk = Disk::default();
    for name in ["edge-1", "edge-2", "edge-1", "edge-3"] {
        let store = Store::open_with(disk.opener(), Some(name)).unwrap();
        assert!(store.identity().has_been(name));
    }
    let store = Store::open_with(disk.opener(), None).unwrap();
    let identity = store.identity();
    assert_eq!(identity.node, "edge-3");
    assert_eq!(identity.earlier_names, ["edge-1", "edge-2"]);
    assert!(identity.has_been("edge-1") && !identity.has_been("edge-4"));
}

/// Sends until one is accepted; its sequence number.
async fn accepts_again(store: &Store) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match store.receive(&webhook("again")).await {
            Ok(seq) => return seq,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
