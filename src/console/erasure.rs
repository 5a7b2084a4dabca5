//! Erasing a person, as an operator asks for it, and what is to be said of it (R38).

use std::time::Duration;

use bson::oid::ObjectId;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Console, ConsoleError};
use crate::erasure::{Asked, Eraser, Found, find};
use crate::model::Erasure;
use crate::model::erasure::Removed;
use crate::store::compaction::ErasedBytes;
use crate::store::documents::Collection;
use crate::store::{Snapshot, StoreError};
use crate::worker::run_until_idle;

/// How often an erasure is looked after that the node's worker is busy with.
const STEP: Duration = Duration::from_millis(50);
/// How long a record is waited for on its way upstream, where MongoDB can be reached.
const PUSH_MAX: Duration = Duration::from_secs(5);

impl Console {
    /// Erases a person, or tells what would go. What was begun and cannot be finished now is finished later.
    ///
    /// # Errors
    /// When what is asked for cannot be read, or the store cannot be read or written.
    pub async fn erase(&self, asked: &Asked) -> Result<Value, ConsoleError> {
        let invalid = |error| ConsoleError::Invalid(format!("{error}"));
        let account = asked.account_id().map_err(invalid)?;
        let erasure = Erasure {
            id: ObjectId::new().bytes(),
            account: account.map(|account| account.bytes()),
            keys: asked.keys().map_err(invalid)?,
            at_ms: self.clock.now_ms(),
            node: self.store.identity().node.clone(),
            upto: 0,
            is_elsewheres: false,
            removed: Removed::default(),
        };
        if asked.dry_run {
            return self.would_erase(erasure).await;
        }
        let begun = erasure.clone();
        self.store
            .write(move |tables| tables.begin_erasure(begun))
            .await?;
        self.store.signals().erasures.notify_one();
        self.finish(&erasure).await?;
        self.wait_for_record(&erasure.id).await?;
        self.report(&erasure)
    }

    /// The `erasures` part of the status.
    pub(super) fn erasure_status(&self, snapshot: &Snapshot) -> Result<Value, StoreError> {
        let (under_way, unpushed) = snapshot.erasures_left()?;
        Ok(json!({
            "under_way": under_way,
            "unpushed": unpushed,
            "bytes": bytes(self.store.erased_bytes()?),
        }))
    }

    async fn would_erase(&self, mut erasure: Erasure) -> Result<Value, ConsoleError> {
        erasure.upto = self.store.levels().last_seq();
        let store = std::sync::Arc::clone(&self.store);
        let search = move || find(&store, &[erasure], &|| false);
        let found = tokio::task::spawn_blocking(search).await;
        let found = found.unwrap_or(Err(StoreError::Panicked))?;
        let found = found.into_iter().flatten().next().unwrap_or_default();
        let snapshot = self.store.read()?;
        let webhooks: Vec<_> = found.webhooks.keys().map(|seq| self.id(*seq)).collect();
        Ok(json!({
            "dry_run": true,
            "webhooks": webhooks,
            "leads": ids(&snapshot, Collection::Leads, &found)?,
            "contacts": ids(&snapshot, Collection::Contacts, &found)?,
        }))
    }

    /// A running node's worker does it; otherwise it is done here.
    async fn finish(&self, erasure: &Erasure) -> Result<(), ConsoleError> {
        let Some(live) = &self.live else {
            let (_running, stop) = watch::channel(false);
            let mut eraser = Eraser::new(std::sync::Arc::clone(&self.store), stop);
            let erased = run_until_idle(&mut eraser).await;
            return erased.map_err(|error| ConsoleError::Unfinished(error.to_string()));
        };
        while self.store.read()?.is_unfinished(&erasure.id)? {
            if *live.stopping.borrow() {
                let stopping = "the node stops, and goes on with it at its next start";
                return Err(ConsoleError::Unfinished(stopping.to_owned()));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }

    async fn wait_for_record(&self, id: &[u8; 12]) -> Result<(), ConsoleError> {
        let deadline = Instant::now() + PUSH_MAX;
        self.store.signals().push.notify_one();
        while self.is_connected() && Instant::now() < deadline {
            if !self.store.read()?.is_unpushed(id)? {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }

    fn is_connected(&self) -> bool {
        let upstream = self.live.as_ref().and_then(|live| live.upstream.as_ref());
        upstream.is_some_and(|upstream| !upstream.health().breaker_open)
    }

    fn report(&self, erasure: &Erasure) -> Result<Value, ConsoleError> {
        let snapshot = self.store.read()?;
        let removed = snapshot
            .erasure(&erasure.id)?
            .map_or(Removed::default(), |erasure| erasure.removed);
        let left = snapshot.left_upstream(&erasure.keys)?;
        let left: Vec<_> = left
            .iter()
            .map(|one| {
                json!({
                    "collection": one.collection.name(),
                    "id": one.id.to_hex(),
                    "acknowledged": one.is_certain,
                })
            })
            .collect();
        Ok(json!({
            "erasure": hex::encode(erasure.id),
            "at_ms": erasure.at_ms,
            "removed": removed,
            "upstream": left,
            "record": if snapshot.is_unpushed(&erasure.id)? { "waiting" } else { "upstream" },
            "bytes": bytes(self.store.erased_bytes()?),
        }))
    }
}

fn bytes(erased: ErasedBytes) -> &'static str {
    match erased {
        ErasedBytes::Gone => "gone",
        ErasedBytes::UntilNextStart => "until_next_start",
        ErasedBytes::UntilRewritten => "until_rewritten",
    }
}

fn ids(
    snapshot: &Snapshot,
    collection: Collection,
    found: &Found,
) -> Result<Vec<String>, StoreError> {
    let rows = match collection {
        Collection::Leads => &found.leads,
        _ => &found.contacts,
    };
    let mut ids = Vec::new();
    for row in rows {
        match snapshot.document(collection.row(*row)) {
            Ok(stored) => ids.push(stored.settled_id().to_hex()),
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ids)
}
