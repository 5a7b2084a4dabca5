//! Facts about renewed and broken tokens over a real store.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use std::sync::Arc;

use bson::{RawDocumentBuf, doc};
use inlet_sync::ports::{Replica, ReplicaEvent};
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::model::TaskKey;
use crate::store::Store;
use crate::store::reference::StoreReplica;
use crate::store::tasks::{Task, WaitsFor};

const NOW_MS: i64 = 1_767_950_401_000;
const LATER_MS: i64 = NOW_MS + 5_184_000_000;
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
const KEY: ObjectId = ObjectId::from_bytes([0xf1; 12]);
const KEYS: usize = 3;
const PAGE: &str = "104822739105512";

/// A store with one key, and whoever reads upstream for it.
struct Bench {
    store: Arc<Store>,
    replica: StoreReplica,
    folder: TempDir,
}

fn document(id: ObjectId, page: Option<&str>, token: &str) -> Document {
    let mut document =
        doc! { "_id": id, "account_id": ACCOUNT, "token": { "access_token": token } };
    document.extend(page.map(|page| ("page_id".to_owned(), page.into())));
    document
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self::open(folder);
        bench.reads(&document(KEY, None, "old"));
        bench
    }

    fn open(folder: TempDir) -> Self {
        let store = Store::open(folder.path().join("inlet.redb"), Some("bench")).unwrap();
        let store = Arc::new(store);
        let replica = StoreReplica {
            store: Arc::clone(&store),
            clock: Arc::new(ManualClock::at(NOW_MS)) as Arc<dyn Clock>,
        };
        Self {
            store,
            replica,
            folder,
        }
    }

    fn reopened(self) -> Self {
        drop(self.replica);
        drop(self.store);
        Self::open(self.folder)
    }

    /// Upstream shows this document.
    fn reads(&self, document: &Document) {
        let put = ReplicaEvent::Put {
            collection: KEYS,
            document: RawDocumentBuf::try_from(document).unwrap(),
        };
        self.replica.apply(vec![put], None, None).unwrap();
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        let written = self.store.write_blocking(work).unwrap();
        self.store.reload_reference().unwrap();
        written
    }

    fn key(&self) -> FacebookKey {
        let reference = self.store.reference();
        reference
            .all_keys()
            .find(|key| key.id == KEY)
            .unwrap()
            .clone()
    }

    /// The token of [`KEY`] that is used.
    fn token(&self) -> String {
        self.key().access_token
    }

    fn renew(&self, used: &FacebookKey, token: &str) -> bool {
        let (used, token) = (used.clone(), token.to_owned());
        self.write(move |tables| tables.renew_token(&used, token, Some(LATER_MS), NOW_MS))
    }

    fn unwritten(&self) -> usize {
        self.store.read().unwrap().tokens_to_write().unwrap().len()
    }

    fn refuse(&self, place: Place, key: &FacebookKey) {
        let broken = Broken {
            token: Some(key.fingerprint()),
            since_ms: NOW_MS,
            asked_ms: NOW_MS,
            reason: "code 190".to_owned(),
        };
        self.write(move |tables| {
            let keys = tables.facebook_keys(ACCOUNT)?;
            tables.note_broken(&place, &broken, &keys)
        });
    }

    fn is_broken(&self, key: &FacebookKey, page: &str) -> bool {
        self.store
            .read()
            .unwrap()
            .broken(key, page)
            .unwrap()
            .is_some()
    }

    fn count_broken(&self) -> usize {
        self.store.read().unwrap().broken_tokens().unwrap().len()
    }
}

#[test]
fn a_renewed_token_is_used_at_once_and_after_a_restart() {
    let bench = Bench::new();
    assert!(bench.renew(&bench.key(), "new"));
    assert_eq!(bench.token(), "new");
    let bench = bench.reopened();
    assert_eq!(bench.token(), "new");
    assert_eq!(bench.key().expires_at_ms, Some(LATER_MS));
    assert_eq!(bench.unwritten(), 1);
}

#[test]
fn a_reading_of_the_old_document_does_not_undo_a_renewal() {
    let bench = Bench::new();
    bench.renew(&bench.key(), "new");
    let mut touched = document(KEY, None, "old");
    touched.insert("name", "somebody's edit");
    bench.reads(&touched);
    assert_eq!((bench.token().as_str(), bench.unwritten()), ("new", 1));
    // Nor one that was under way while the new token was written.
    bench.reads(&document(KEY, None, "new"));
    assert_eq!((bench.token().as_str(), bench.unwritten()), ("new", 0));
    bench.reads(&document(KEY, None, "old"));
    assert_eq!((bench.token().as_str(), bench.unwritten()), ("new", 0));
}

#[test]
fn somebody_else_s_newer_token_wins() {
    let bench = Bench::new();
    bench.renew(&bench.key(), "new");
    bench.reads(&document(KEY, None, "theirs"));
    assert_eq!((bench.token().as_str(), bench.unwritten()), ("theirs", 0));
    // And one that came while the exchange was under way.
    let mut stale = bench.key();
    stale.access_token = "old".to_owned();
    assert!(!bench.renew(&stale, "ours"));
    assert_eq!(bench.token(), "theirs");
}

#[test]
fn a_token_renewed_twice_before_it_could_be_written_still_replaces_the_first() {
    let bench = Bench::new();
    bench.renew(&bench.key(), "new");
    assert!(bench.renew(&bench.key(), "newer"));
    assert_eq!(bench.token(), "newer");
    let waiting = bench.store.read().unwrap().tokens_to_write().unwrap();
    let (document, renewed) = &waiting[0];
    let there = document.get_document("token").unwrap();
    assert_eq!(there.get_str("access_token").unwrap(), "old");
    assert_eq!(renewed.access_token, "newer");
}

#[test]
fn a_token_that_was_only_prolonged_keeps_its_new_end() {
    let bench = Bench::new();
    bench.renew(&bench.key(), "old");
    assert_eq!(bench.key().expires_at_ms, Some(LATER_MS));
    assert_eq!(bench.unwritten(), 1);
    let mut prolonged = document(KEY, None, "old");
    let token = doc! { "access_token": "old", "expires_in": LATER_MS + 1 };
    prolonged.insert("token", token);
    bench.reads(&prolonged);
    assert_eq!(bench.key().expires_at_ms, Some(LATER_MS + 1));
}

#[test]
fn what_was_written_upstream_is_not_written_again_unless_it_is_renewed_again() {
    let bench = Bench::new();
    bench.renew(&bench.key(), "new");
    let (_, written) = bench
        .store
        .read()
        .unwrap()
        .tokens_to_write()
        .unwrap()
        .remove(0);
    let earlier = written.clone();
    bench.write(move |tables| tables.token_is_upstream(KEY, &written));
    assert_eq!((bench.token().as_str(), bench.unwritten()), ("new", 0));
    bench.renew(&bench.key(), "newer");
    bench.write(move |tables| tables.token_is_upstream(KEY, &earlier));
    assert_eq!((bench.token().as_str(), bench.unwritten()), ("newer", 1));
}

#[test]
fn a_key_that_is_gone_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.renew(&bench.key(), "new");
    bench.refuse(Place::of_key(&bench.key()), &bench.key());
    assert_eq!(bench.count_broken(), 1);
    let gone = ReplicaEvent::Delete {
        collection: KEYS,
        id: bson::Bson::ObjectId(KEY),
    };
    bench.replica.apply(vec![gone], None, None).unwrap();
    assert_eq!((bench.unwritten(), bench.count_broken()), (0, 0));
    bench.reads(&document(KEY, None, "old"));
    assert_eq!(bench.token(), "old");
}

#[test]
fn a_broken_token_is_broken_until_another_comes_by_reading_or_renewal() {
    let bench = Bench::new();
    let old = bench.key();
    bench.refuse(Place::of_key(&old), &old);
    assert!(bench.is_broken(&old, PAGE));
    let mut touched = document(KEY, None, "old");
    touched.insert("name", "somebody's edit");
    bench.reads(&touched);
    assert!(bench.is_broken(&old, PAGE), "the token is the same");
    bench.reads(&document(KEY, None, "theirs"));
    assert!(!bench.is_broken(&bench.key(), PAGE));
    assert_eq!(bench.count_broken(), 0);
    let theirs = bench.key();
    bench.refuse(Place::of_key(&theirs), &theirs);
    bench.renew(&theirs, "ours");
    assert!(!bench.is_broken(&bench.key(), PAGE));
    assert_eq!(bench.count_broken(), 0);
    // An answer that was on its way meanwhile says nothing about the new token.
    bench.refuse(Place::of_key(&theirs), &theirs);
    assert_eq!(bench.count_broken(), 0);
    let counted = bench.store.read().unwrap().counted(BROKEN_COUNT).unwrap();
    assert_eq!(counted, 2);
}

#[test]
fn a_missing_permission_breaks_a_key_for_that_page_only() {
    let bench = Bench::new();
    let key = bench.key();
    bench.refuse(Place::on_page(&key, PAGE), &key);
    assert!(bench.is_broken(&key, PAGE));
    assert!(!bench.is_broken(&key, "another page"));
}

#[test]
fn a_key_that_serves_a_page_again_is_not_broken_there_any_more() {
    let bench = Bench::new();
    let key = bench.key();
    bench.refuse(Place::of_key(&key), &key);
    bench.refuse(Place::on_page(&key, PAGE), &key);
    bench.refuse(Place::on_page(&key, "8"), &key);
    let works = key.clone();
    bench.write(move |tables| tables.token_works(&works, PAGE));
    assert!(!bench.is_broken(&key, PAGE));
    assert!(bench.is_broken(&key, "8"));
}

#[test]
fn another_key_of_the_account_serves_where_one_is_broken() {
    let bench = Bench::new();
    let key = bench.key();
    bench.refuse(Place::of_key(&key), &key);
    let has_working_key = || {
        bench.write(|tables| {
            let keys = tables.facebook_keys(ACCOUNT)?;
            tables.has_working_key(&keys, PAGE)
        })
    };
    assert!(!has_working_key());
    bench.reads(&document(
        ObjectId::from_bytes([0xf2; 12]),
        Some("8"),
        "other",
    ));
    assert!(!has_working_key(), "another page's key is of no use");
    bench.reads(&document(
        ObjectId::from_bytes([0xf3; 12]),
        Some(PAGE),
        "own",
    ));
    assert!(has_working_key());
}

#[test]
fn a_new_token_wakes_its_account_s_work_and_nobody_else_s() {
    let bench = Bench::new();
    let park = |seq: u64, account: [u8; 12]| {
        let task = Task {
            waits_for: WaitsFor::Token { account },
            ..Task::default()
        };
        bench.write(move |tables| tables.enqueue(TaskKey::webhook(seq), &task, NOW_MS));
    };
    park(1, ACCOUNT.bytes());
    park(2, [0xee; 12]);
    bench.renew(&bench.key(), "new");
    assert!(bench.store.read().unwrap().is_waking().unwrap());
    bench.write(|tables| tables.wake_parked(10, NOW_MS).map(drop));
    let snapshot = bench.store.read().unwrap();
    assert!(!snapshot.has_parked(ACCOUNT).unwrap());
    assert!(
        snapshot
            .has_parked(ObjectId::from_bytes([0xee; 12]))
            .unwrap()
    );
    let due = snapshot.due_for_graph(NOW_MS, 10).unwrap();
    assert_eq!(due, [TaskKey::webhook(1)]);
}

/// One damaged key failed the transaction that writes down what a pass has found, for all accounts and for ever.
#[test]
fn a_damaged_key_is_left_out_and_keeps_no_other_from_being_used() {
    const OTHER: ObjectId = ObjectId::from_bytes([0xf2; 12]);
    let bench = Bench::new();
    bench.reads(&document(OTHER, None, "other"));
    assert!(bench.renew(&bench.key(), "new"));
    bench.refuse(Place::of_key(&bench.key()), &bench.key());
    bench.write(|tables| {
        let id = bson::RawDocumentBuf::try_from(&doc! { "_id": OTHER }).unwrap();
        let key = (3, id.as_bytes());
        let mut record = tables.reference.get(key)?.unwrap().value().to_vec();
        record[10] ^= 1;
        tables.reference.insert(key, record.as_slice())?;
        Ok(())
    });
    let keys = bench.write(|tables| {
        tables.mend(ACCOUNT)?;
        assert_eq!(tables.facebook_key(OTHER)?, None);
        tables.facebook_keys(ACCOUNT)
    });
    let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
    assert_eq!(ids, [KEY]);
    assert_eq!(bench.unwritten(), 1);
    bench.reads(&document(OTHER, None, "other"));
    let keys = bench.write(|tables| tables.facebook_keys(ACCOUNT));
    assert_eq!(keys.len(), 2, "it was read again");
}

#[test]
fn a_renewed_token_whose_key_is_damaged_is_not_told_to_be_written() {
    let bench = Bench::new();
    assert!(bench.renew(&bench.key(), "new"));
    bench.write(|tables| {
        let id = bson::RawDocumentBuf::try_from(&doc! { "_id": KEY }).unwrap();
        let record: &[u8] = b"junk";
        tables.reference.insert((3, id.as_bytes()), record)?;
        Ok(())
    });
    assert_eq!(bench.unwritten(), 0);
    bench.reads(&document(KEY, None, "old"));
    assert_eq!((bench.unwritten(), bench.token()), (1, "new".to_owned()));
}
