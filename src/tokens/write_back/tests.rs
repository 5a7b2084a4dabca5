//! What is written back over a real store, to a MongoDB that is never asked.

#![allow(clippy::unwrap_used, reason = "a test that fails says so loudly")]

use bson::RawDocumentBuf;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::graph::{Graph, Options};
use crate::schedule::{Stop, renew_tokens};
use crate::store::Store;

const NOW_MS: i64 = 1_767_950_401_000;
const ACCOUNT: ObjectId = ObjectId::from_bytes([0xa1; 12]);
const KEYS: u8 = 101;

fn put(id: u8, token: Document) -> ReplicaEvent {
    let id = ObjectId::from_bytes([id; 12]);
    let document = doc! { "_id": id, "account_id": ACCOUNT, "token": token };
    ReplicaEvent::Put {
        collection: FACEBOOK_KEYS,
        document: RawDocumentBuf::try_from(&document).unwrap(),
    }
}

/// More tokens than fit into a round, none of which can be written, made rounds without a pause, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_cannot_be_written_make_no_round_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path().join("inlet.redb"), Some("bench")).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_MS));
    let replica = StoreReplica {
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
    };
    let renewed_then_without = Arc::clone(&store);
    let prepare = move || {
        let old = |id: u8| put(id, doc! { "access_token": format!("old {id}") });
        replica
            .apply((1..=KEYS).map(old).collect(), None, None)
            .unwrap();
        let keys: Vec<_> = renewed_then_without
            .reference()
            .all_keys()
            .cloned()
            .collect();
        for key in keys {
            let renew = move |tables: &mut crate::store::Tables<'_>| {
                tables.renew_token(&key, "new".to_owned(), None, NOW_MS)
            };
            assert!(renewed_then_without.write_blocking(renew).unwrap());
        }
        // Somebody took the tokens out of the documents: there is no place to write to.
        let without = (1..=KEYS).map(|id| put(id, doc! {}));
        replica.apply(without.collect(), None, None).unwrap();
    };
    tokio::task::spawn_blocking(prepare).await.unwrap();
    let options = inlet_sync::Options::new("mongodb://127.0.0.1:1", "inlet", "bench");
    let graph = Arc::new(Graph::new(Options::default()).unwrap());
    let upstream = Some(Upstream::new(options));
    let renewer = Arc::new(Renewer::new(Arc::clone(&store), clock, graph, upstream));
    let round = renewer.round().await.unwrap();
    assert_eq!((round.refused, round.written), (WRITES_MAX, 0));
    assert!(!round.more);
    let stop = tokio::sync::watch::Sender::new(false);
    let done = renew_tokens(renewer, Stop::when(stop.subscribe()));
    let done = done.await.unwrap();
    assert!(done.is_whole && !done.is_ok, "{}", done.result);
}
