//! Erasing a person, as an operator asks for it, and what is to be said of it (R38).

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Console, ConsoleError, Live};
use crate::erasure::{Asked, Eraser, Found, find};
use crate::health::Health;
use crate::model::Erasure;
use crate::model::erasure::Removed;
use crate::store::compaction::ErasedBytes;
use crate::store::documents::Collection;
use crate::store::erasures::{NotAbandoned, Progress};
use crate::store::{Snapshot, StoreError};
use crate::worker::{Step, Worker};

/// How often an erasure is looked after that the node's worker is busy with.
const STEP: Duration = Duration::from_millis(50);
/// How long one is waited for: a round and the rest before it are far shorter, but in a store of millions of webhooks.
const FINISH_MAX: Duration = Duration::from_secs(600);
/// Unfinished erasures named in the status.
const NAMED_MAX: usize = 100;
/// What is to be done about a round that fails.
const REMEDY: &str = "it is tried again by itself, after half a minute at first and after an hour at most, and at the \
    next start; look at the log and at the disk, or give the erasure up: `inlet erase --abandon ID`";
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
            is_abandoned: false,
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
        let told = async {
            let erased = self.finish(&erasure.id).await?;
            self.wait_for_record(&erased.id).await?;
            self.report(&erased)
        };
        told.await.map_err(|error| match error {
            ConsoleError::Store(error) => unfinished(&erasure.id, &error.to_string()),
            error => error,
        })
    }

    /// Gives an unfinished erasure up, here: what was removed stays removed, and other nodes apply it all the same.
    ///
    /// # Errors
    /// When there is none of this id, it is finished or given up, or the store cannot be read or written.
    pub async fn abandon(&self, id: &str) -> Result<Value, ConsoleError> {
        let invalid = |_| ConsoleError::Invalid(format!("`{id}` is no erasure's id"));
        let bytes = ObjectId::parse_str(id).map_err(invalid)?.bytes();
        let abandon = move |tables: &mut crate::store::Tables<'_>| tables.abandon_erasure(&bytes);
        match self.store.write(abandon).await? {
            Ok(()) => {}
            Err(NotAbandoned::Unknown) => {
                return Err(ConsoleError::NotFound(format!(
                    "there is no erasure `{id}` in this store; `inlet status` names those that are unfinished"
                )));
            }
            Err(NotAbandoned::Finished) => {
                return Err(ConsoleError::Invalid(format!(
                    "the erasure `{id}` is finished: there is nothing to give up"
                )));
            }
            Err(NotAbandoned::Already) => {
                return Err(ConsoleError::Invalid(format!(
                    "the erasure `{id}` was given up before"
                )));
            }
        }
        tracing::warn!(
            erasure = id,
            "an erasure was given up: it is not finished here"
        );
        let signals = self.store.signals();
        signals.erasures.notify_one();
        signals.push.notify_one();
        let Progress::Abandoned(erasure) = self.store.read()?.erasure_progress(&bytes)? else {
            return Err(lost());
        };
        let mut report = self.report(&erasure)?;
        report["abandoned"] = json!(true);
        Ok(report)
    }

    /// The `erasures` part of the status.
    pub(super) fn erasure_status(&self, snapshot: &Snapshot) -> Result<Value, StoreError> {
        let unpushed = snapshot.erasures_unpushed()?;
        let (waiting, under_way) = snapshot.erasures_to_do()?;
        let unfinished = snapshot.unfinished_erasures(NAMED_MAX)?;
        let unfinished: Vec<_> = unfinished.iter().map(hex::encode).collect();
        let health = self.live.as_ref().map(|live| &live.erasures);
        let trouble = health.and_then(|health| health.trouble());
        Ok(json!({
            "waiting": waiting,
            "under_way": under_way,
            "unfinished": unfinished,
            "trouble": trouble.map(|trouble| json!({
                "error": trouble.error,
                "since_ms": trouble.since_ms,
                "remedy": REMEDY,
            })),
            "unpushed": unpushed,
            "bytes": bytes(self.store.erased_bytes()?),
        }))
    }

    async fn would_erase(&self, mut erasure: Erasure) -> Result<Value, ConsoleError> {
        erasure.upto = self.store.levels().last_seq();
        let store = Arc::clone(&self.store);
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

    /// A running node's worker does it; otherwise it is done here. What became of it is looked up: whoever waits must
    /// not be told that somebody is gone who is not.
    pub(crate) async fn finish(&self, id: &[u8; 12]) -> Result<Erasure, ConsoleError> {
        match &self.live {
            Some(live) => self.wait_for_worker(id, live).await?,
            None => self.erase_here(id).await?,
        }
        match self.store.read()?.erasure_progress(id)? {
            Progress::Finished(erasure) => Ok(erasure),
            Progress::Abandoned(_) => Err(ConsoleError::Unfinished(format!(
                "the erasure {} was given up meanwhile; what was removed by then stays removed",
                hex::encode(id)
            ))),
            Progress::Lost => Err(lost()),
            Progress::Unfinished => Err(unfinished(id, "its round has ended without it")),
        }
    }

    async fn wait_for_worker(&self, id: &[u8; 12], live: &Live) -> Result<(), ConsoleError> {
        let deadline = Instant::now() + FINISH_MAX;
        while self.is_unfinished(id)? {
            if *live.stopping.borrow() {
                return Err(unfinished(id, "the node stops"));
            }
            fails(id, &live.erasures)?;
            if Instant::now() >= deadline {
                return Err(unfinished(id, "it takes long"));
            }
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }

    async fn erase_here(&self, id: &[u8; 12]) -> Result<(), ConsoleError> {
        let (_running, stop) = watch::channel(false);
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        let health = Arc::new(Health::default());
        let mut eraser = Eraser::new(store, clock, stop).telling(Arc::clone(&health));
        while self.is_unfinished(id)? {
            let step = eraser.step().await;
            let step = step.map_err(|error| unfinished(id, &error.to_string()))?;
            fails(id, &health)?;
            if step == Step::Idle {
                eraser.wait().await;
            }
        }
        Ok(())
    }

    fn is_unfinished(&self, id: &[u8; 12]) -> Result<bool, StoreError> {
        self.store.read()?.has_unfinished(std::slice::from_ref(id))
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
            "removed": erasure.removed,
            "upstream": left,
            "record": if snapshot.is_unpushed(&erasure.id)? { "waiting" } else { "upstream" },
            "bytes": bytes(self.store.erased_bytes()?),
        }))
    }
}

/// Why nobody waits for it any longer.
fn fails(id: &[u8; 12], health: &Health) -> Result<(), ConsoleError> {
    match health.trouble() {
        Some(trouble) => Err(unfinished(id, &trouble.error)),
        None => Ok(()),
    }
}

fn unfinished(id: &[u8; 12], why: &str) -> ConsoleError {
    ConsoleError::Unfinished(format!(
        "{why}; the erasure {} has begun and is not finished: it goes on by itself, also after a restart, and \
         `inlet status` names it until then",
        hex::encode(id)
    ))
}

fn lost() -> ConsoleError {
    let lost = "its record is gone or damaged, and nobody knows any more what is to be erased: ask for it once more";
    ConsoleError::Unfinished(lost.to_owned())
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
