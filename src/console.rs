//! What an operator can see and do, over a store that is open here: behind the admin API of a running node, and
//! behind the command line where no node runs.
//!
//! Answers are JSON values: this is the one place that gives them their shape (interface.md).

mod deliveries;
mod erasure;
mod held;
mod jobs;
mod metrics;
mod silent;
mod tokens;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bson::{Bson, Document, RawDocumentBuf};
use inlet_sync::{PullMode, State, Upstream};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::events::Events;
use crate::health::Health;
use crate::intake::Intake;
use crate::intake::limits::Refusal;
use crate::model::{Outcome, Reason, Selection, TaskKey, WebhookId};
use crate::notify::Watched;
use crate::schedule::Latest;
use crate::store::documents::Collection;
use crate::store::listing::Listed;
use crate::store::reference::COLLECTIONS;
use crate::store::tasks::Task;
use crate::store::{Snapshot, Store, StoreError};
use crate::tokens::Renewer;

/// Webhooks in one answer, unless asked otherwise, and at most.
const PAGE: usize = 50;
const LIST_MAX: usize = 1_000;
/// How long `sync now` waits for the change log to empty, and how often it looks.
const SYNC_NOW_MAX: Duration = Duration::from_secs(30);
const SYNC_NOW_STEP: Duration = Duration::from_millis(50);
/// Documents read in one go while exporting.
const EXPORT_PAGE: usize = 500;

/// An operator's view of a node.
pub struct Console {
    /// The store.
    pub store: Arc<Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The rest of the node, where it runs.
    pub live: Option<Live>,
}

/// What only a running node can tell.
pub struct Live {
    /// The intake.
    pub intake: Arc<Intake>,
    /// Who listens to live events, where anybody can.
    pub events: Option<Arc<Events>>,
    /// The connection to MongoDB, unless stand-alone.
    pub upstream: Option<Arc<Upstream>>,
    /// How Graph is doing.
    pub graph: Arc<Health>,
    /// Renews Facebook tokens.
    pub tokens: Arc<Renewer>,
    /// How the ways to notify by are doing.
    pub channels: Vec<Watched>,
    /// Asks for a complete pull.
    pub pull: Option<inlet_sync::PullNow>,
    /// The last sign of life upstream, unless stand-alone.
    pub heartbeat: Option<Arc<Latest>>,
    /// Why the last round of erasures failed, as long as that matters.
    pub erasures: Arc<Health>,
    /// When the node started, milliseconds since the epoch.
    pub started_at_ms: i64,
    /// Turns true when the node drains: nobody is to be waited for any more.
    pub stopping: watch::Receiver<bool>,
}

/// Why an operator's request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The request names something that is not there.
    #[error("{0}")]
    NotFound(String),
    /// The request cannot be understood.
    #[error("{0}")]
    Invalid(String),
    /// An erasure has begun and is not finished; the text says what becomes of it.
    #[error("nothing says that everything is gone: {0}")]
    Unfinished(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Console {
    /// `status`: backlog, outcomes, sync, reference data, dependencies.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn status(&self) -> Result<Value, ConsoleError> {
        // Before the snapshot: a webhook worked through in between counts twice, and not in neither.
        let unread = self.store.levels().unread();
        let snapshot = self.store.read()?;
        let waiting = snapshot.waiting()?;
        let identity = self.store.identity();
        let oldest = self.oldest_unread_ms(&snapshot)?;
        let ready = unread + waiting.timed + waiting.graph;
        let sizes = self.store.reference();
        let sizes = COLLECTIONS
            .iter()
            .zip(sizes.sizes())
            .map(|(name, size)| ((*name).to_owned(), json!(size)));
        let mut reference: Map<String, Value> = sizes.collect();
        reference.insert(
            "complete_at_ms".to_owned(),
            json!(self.store.reference().complete_at_ms()),
        );
        Ok(json!({
            "node": identity.node,
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": identity.epoch,
            "started_at": self.live.as_ref().map(|live| live.started_at_ms),
            "backlog": {
                "ready": ready,
                "waiting": waiting.reference,
                "parked": waiting.parked,
                "oldest_age_ms": oldest.map(|at_ms| self.clock.now_ms() - at_ms),
            },
            "outcomes": counted(&snapshot, Outcome::NAMES.into_iter())?,
            "reasons": counted(&snapshot, Reason::ALL.iter().map(|reason| reason.name()))?,
            "deliveries": self.delivery_status(&snapshot)?,
            "sync": self.sync(&snapshot)?,
            "reference": reference,
            "store": self.file(snapshot.needed_bytes()?),
            "erasures": self.erasure_status(&snapshot)?,
            "silent": silent::shown(&silent::campaigns(&self.store, &snapshot, self.clock.now_ms())?),
            "jobs": jobs::shown(jobs::all(&snapshot, self.live.as_ref())?),
            "refused": self.live.as_ref().map(refused),
            "events": self.live_events(&snapshot)?,
            "dependencies": self.live.as_ref().map(dependencies),
            "facebook": self.tokens(&snapshot)?,
        }))
    }

    /// When the oldest webhook arrived that the pipeline has not looked at.
    fn oldest_unread_ms(&self, snapshot: &Snapshot) -> Result<Option<i64>, StoreError> {
        let oldest = snapshot.webhooks_after(self.store.levels().cursor(), 1)?;
        let mut intact = oldest.into_iter().filter_map(|(_, webhook)| webhook.ok());
        Ok(intact.next().map(|webhook| webhook.arrived_at_ms))
    }

    /// `null` where live events are off.
    fn live_events(&self, snapshot: &Snapshot) -> Result<Value, StoreError> {
        let events = self.live.as_ref().and_then(|live| live.events.as_ref());
        Ok(match events {
            Some(events) => {
                json!({ "clients": events.clients(), "waiting": snapshot.event_count()? })
            }
            None => Value::Null,
        })
    }

    /// The file is sparse: what counts is the space it takes, not its length.
    fn file_bytes(&self) -> Option<u64> {
        let file = self.store.path()?.metadata().ok()?;
        Some(file.blocks() * 512)
    }

    /// What the store's records need is known from the last self-check.
    fn file(&self, needed_bytes: u64) -> Value {
        json!({
            "path": self.store.path(),
            "bytes": self.file_bytes(),
            "needed_bytes": Some(needed_bytes).filter(|bytes| *bytes > 0),
            "available": self.store.is_available(),
        })
    }

    /// The sync part of [`Console::status`] and the documents that are held back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sync_status(&self) -> Result<Value, ConsoleError> {
        let snapshot = self.store.read()?;
        let mut status = self.sync(&snapshot)?;
        let held = snapshot.held_documents(LIST_MAX)?;
        let held: Result<Vec<_>, StoreError> = held
            .iter()
            .map(|(row, held)| held::describe(&snapshot, *row, held))
            .collect();
        status["held_documents"] = Value::Array(held?);
        Ok(status)
    }

    fn sync(&self, snapshot: &Snapshot) -> Result<Value, StoreError> {
        let upstream = self.live.as_ref().and_then(|live| live.upstream.as_ref());
        let health = upstream.map(|upstream| upstream.health());
        let mode = match health
            .as_ref()
            .map(|health| (health.state, health.pull_mode))
        {
            None => "stand_alone",
            Some((State::NeverConnected, _) | (_, PullMode::None)) => "connecting",
            Some((_, PullMode::Stream)) => "stream",
            Some((_, PullMode::Poll)) => "poll",
        };
        let oldest = snapshot.oldest_pending_ms()?;
        let since_epoch = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .ok()
                .map(|at| at.as_millis() as u64)
        };
        Ok(json!({
            "mode": mode,
            "reachable": health.as_ref().is_some_and(|health| health.state == State::Connected),
            "pending": snapshot.pending_count()?,
            "held": snapshot.held_count()?,
            "lag_ms": oldest.map(|at_ms| (self.clock.now_ms() - at_ms).max(0)),
            "last_error": health.as_ref().and_then(|health| health.last_error.clone()),
            "last_success_ms": health.as_ref().and_then(|health| health.last_success).and_then(since_epoch),
            "skew_ms": health.as_ref().and_then(|health| health.skew_ms),
            "mongodb_version": health.as_ref().and_then(|health| health.version.clone()),
        }))
    }

    /// One page of webhooks, newest first; `next` is where to go on before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn webhooks(&self, selection: &Selection) -> Result<Value, ConsoleError> {
        let limit = selection.limit.unwrap_or(PAGE).min(LIST_MAX);
        let page = self.store.read()?.list(selection, limit)?;
        let webhooks: Vec<_> = page
            .webhooks
            .iter()
            .map(|listed| self.summary(listed))
            .collect();
        Ok(json!({ "webhooks": webhooks, "next": page.next.map(|seq| seq.to_string()) }))
    }

    /// One webhook, whole.
    ///
    /// # Errors
    /// When there is none of this id, or the store cannot be read.
    pub fn webhook(&self, id: &str) -> Result<Value, ConsoleError> {
        let seq = self.seq(id)?;
        let snapshot = self.store.read()?;
        let listed = snapshot.one(seq)?.ok_or_else(|| no_webhook(id))?;
        let mut whole = self.summary(&listed);
        whole["deliveries"] = json!(self.deliveries_of(&snapshot, seq)?);
        let webhook = &listed.webhook;
        whole["content_type"] = json!(webhook.content_type);
        whole["query"] = json!(webhook.query);
        whole["peer"] = json!(webhook.peer);
        whole["headers"] = webhook
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        whole["body"] = json!(String::from_utf8_lossy(&webhook.body));
        Ok(whole)
    }

    /// Runs one webhook's tasks again that ended without a lead.
    ///
    /// # Errors
    /// When there is none of this id, or the store cannot be written.
    pub async fn replay(&self, id: &str) -> Result<Value, ConsoleError> {
        let seq = self.seq(id)?;
        let listed = self.store.read()?.one(seq)?.ok_or_else(|| no_webhook(id))?;
        let keys = listed.ends.iter().map(|(key, _)| *key).collect();
        Ok(json!({ "replayed": self.store.replay(keys, self.clock.now_ms()).await? }))
    }

    /// Runs the tasks of one page of webhooks again that ended without a lead; `next` is where to go on before, so that
    /// no request takes long, however many are selected. What was replayed has no outcome until it
    /// ends again: a replay that was interrupted is gone on with by asking for it again.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn replay_selected(&self, selection: Selection) -> Result<Value, ConsoleError> {
        let store = Arc::clone(&self.store);
        // A page reads many records: not on the threads that serve webhooks.
        let selected = tokio::task::spawn_blocking(move || selected(&store, &selection)).await;
        let (keys, next) = selected.unwrap_or(Err(StoreError::Panicked))?;
        let replayed = self.store.replay(keys, self.clock.now_ms()).await?;
        Ok(json!({ "replayed": replayed, "next": next.map(|seq| seq.to_string()) }))
    }

    /// How many documents a collection holds here.
    ///
    /// # Errors
    /// When there is no such collection, or the store cannot be read.
    pub fn count(&self, collection: &str) -> Result<u64, ConsoleError> {
        let snapshot = self.store.read()?;
        Ok(match source(collection)? {
            Source::Reference(number) => snapshot.reference_documents(number)?.len() as u64,
            Source::Documents(collection) => {
                let rows = snapshot
                    .documents
                    .range((collection as u8, 0)..(collection as u8 + 1, 0));
                rows.map_err(StoreError::from)?.count() as u64
            }
        })
    }

    /// Documents of a collection as lines of relaxed Extended JSON, page by page: `after` is the row to go on after.
    /// The next page's `after` is returned, `None` at the end.
    ///
    /// # Errors
    /// When there is no such collection, or the store cannot be read.
    pub fn export(
        &self,
        collection: &str,
        after: u64,
    ) -> Result<(Vec<String>, Option<u64>), ConsoleError> {
        let snapshot = self.store.read()?;
        match source(collection)? {
            Source::Reference(number) => {
                let documents = snapshot.reference_documents(number)?;
                Ok((documents.into_iter().map(extended_json).collect(), None))
            }
            Source::Documents(collection) => Ok(export_page(&snapshot, collection, after)?),
        }
    }

    /// Loads reference data for a stand-alone node: `{"accounts": [...], ...}` in Extended JSON.
    ///
    /// # Errors
    /// When the file is not of that shape, or the store cannot be written.
    pub async fn import(&self, file: &Value) -> Result<Value, ConsoleError> {
        let documents = read_import(file)?;
        let counts = COLLECTIONS
            .iter()
            .zip(&documents)
            .map(|(name, list)| ((*name).to_owned(), json!(list.len())));
        let counts: Map<String, Value> = counts.collect();
        self.store.import(documents).await?;
        Ok(Value::Object(counts))
    }

    /// Pushes and pulls now, and waits for the change log to empty, but not for ever.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sync_now(&self) -> Result<Value, ConsoleError> {
        if let Some(pull) = self.live.as_ref().and_then(|live| live.pull.as_ref()) {
            pull.now();
        }
        self.store.signals().push.notify_one();
        let before = self.pending()?;
        let deadline = tokio::time::Instant::now() + SYNC_NOW_MAX;
        let has_upstream = self
            .live
            .as_ref()
            .is_some_and(|live| live.upstream.is_some());
        while has_upstream && self.pending()? > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(SYNC_NOW_STEP).await;
        }
        let left = self.pending()?;
        Ok(json!({ "pushed": before.saturating_sub(left), "left": left }))
    }

    fn pending(&self) -> Result<u64, StoreError> {
        self.store.read()?.pending_count()
    }

    fn summary(&self, listed: &Listed) -> Value {
        let webhook = &listed.webhook;
        json!({
            "id": self.id(listed.seq),
            "platform": webhook.platform,
            "account": webhook.account,
            "campaign": webhook.campaign,
            "arrived_at_ms": webhook.arrived_at_ms,
            "state": listed.state(self.store.levels().cursor()),
            "outcomes": listed.ends.iter().map(|(key, ended)| outcome(*key, ended)).collect::<Vec<_>>(),
            "tasks": listed.tasks.iter().map(|(key, task)| waiting(*key, task)).collect::<Vec<_>>(),
        })
    }

    fn id(&self, seq: u64) -> String {
        let identity = self.store.identity();
        WebhookId {
            node: identity.node.clone(),
            epoch: identity.epoch,
            seq,
        }
        .to_string()
    }

    fn seq(&self, id: &str) -> Result<u64, ConsoleError> {
        let parsed: WebhookId = id
            .parse()
            .map_err(|error| ConsoleError::Invalid(format!("{error}")))?;
        let identity = self.store.identity();
        let here = identity.has_been(&parsed.node) && parsed.epoch == identity.epoch;
        if here {
            Ok(parsed.seq)
        } else {
            Err(no_webhook(id))
        }
    }
}

/// The ended tasks of a page of webhooks, and where the next page begins.
fn selected(
    store: &Store,
    selection: &Selection,
) -> Result<(Vec<TaskKey>, Option<u64>), StoreError> {
    let limit = selection.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
    let page = store.read()?.list(selection, limit)?;
    let ends = page.webhooks.iter().flat_map(|listed| &listed.ends);
    let wanted = ends.filter(|(_, ended)| selection.wants_end(ended));
    Ok((wanted.map(|(key, _)| *key).collect(), page.next))
}

fn no_webhook(id: &str) -> ConsoleError {
    ConsoleError::NotFound(format!("there is no webhook `{id}` in this store"))
}

fn counted<'a>(
    snapshot: &Snapshot,
    names: impl Iterator<Item = &'a str>,
) -> Result<Map<String, Value>, StoreError> {
    names
        .map(|name| Ok((name.to_owned(), json!(snapshot.counted(name)?))))
        .collect()
}

fn refused(live: &Live) -> Map<String, Value> {
    let count = |refusal: &Refusal| {
        (
            refusal.name().to_owned(),
            json!(live.intake.refusals().get(*refusal)),
        )
    };
    Refusal::ALL.iter().map(count).collect()
}

fn dependencies(live: &Live) -> Value {
    let graph = match live.graph.trouble() {
        None => json!({ "state": "ok" }),
        Some(trouble) => {
            json!({ "state": "waiting", "last_error": trouble.error, "since_ms": trouble.since_ms })
        }
    };
    json!({ "graph": graph })
}

fn campaign_of(key: TaskKey) -> Option<String> {
    (key.campaign != [0; 12]).then(|| hex::encode(key.campaign))
}

fn outcome(key: TaskKey, ended: &crate::model::Ended) -> Value {
    let mut value = json!({
        "change": key.change,
        "campaign": campaign_of(key),
        "outcome": ended.outcome.name(),
        "attempts": ended.attempts,
        "at_ms": ended.at_ms,
    });
    match &ended.outcome {
        Outcome::Lead { id } | Outcome::Duplicate { of: id } => {
            value["lead"] = json!(hex::encode(id))
        }
        Outcome::Ignored { reason } => value["reason"] = json!(reason.name()),
        Outcome::DeadLetter { error } => value["error"] = json!(error),
    }
    value
}

fn waiting(key: TaskKey, task: &Task) -> Value {
    use crate::store::tasks::WaitsFor;
    let waits_for = match task.waits_for {
        WaitsFor::Time => "time",
        WaitsFor::Graph => "graph",
        WaitsFor::Reference { .. } => "reference",
        WaitsFor::Token { .. } => "token",
    };
    json!({
        "change": key.change,
        "campaign": campaign_of(key),
        "waits_for": waits_for,
        "attempts": task.attempts,
        "last_error": task.last_error,
    })
}

enum Source {
    Documents(Collection),
    Reference(u8),
}

fn source(name: &str) -> Result<Source, ConsoleError> {
    if let Some(collection) = Collection::ALL
        .into_iter()
        .find(|collection| collection.name() == name)
    {
        return Ok(Source::Documents(collection));
    }
    let place = COLLECTIONS.iter().position(|known| *known == name);
    place
        .and_then(|place| u8::try_from(place).ok())
        .map(Source::Reference)
        .ok_or_else(|| {
            let known: Vec<_> = Collection::NAMES
                .iter()
                .chain(&COLLECTIONS)
                .copied()
                .collect();
            ConsoleError::NotFound(format!(
                "there is no collection `{name}`; there are {}",
                known.join(", ")
            ))
        })
}

fn export_page(
    snapshot: &Snapshot,
    collection: Collection,
    after: u64,
) -> Result<(Vec<String>, Option<u64>), StoreError> {
    let mut lines = Vec::new();
    let mut last = None;
    let rows = snapshot
        .documents
        .range((collection as u8, after + 1)..(collection as u8 + 1, 0))?;
    for entry in rows.take(EXPORT_PAGE) {
        let (_, number) = entry?.0.value();
        let whole = snapshot.whole(collection.row(number))?;
        let document = Document::try_from(whole.as_ref())
            .map_err(|_| StoreError::Corrupt { table: "documents" })?;
        lines.push(extended_json(document));
        last = Some(number);
    }
    let more = last.filter(|_| lines.len() == EXPORT_PAGE);
    Ok((lines, more))
}

fn extended_json(document: Document) -> String {
    Bson::Document(document).into_relaxed_extjson().to_string()
}

fn read_import(file: &Value) -> Result<Vec<Vec<RawDocumentBuf>>, ConsoleError> {
    let shape = || format!("expected an object of lists: {}", COLLECTIONS.join(", "));
    let file = file
        .as_object()
        .ok_or_else(|| ConsoleError::Invalid(shape()))?;
    if let Some(unknown) = file
        .keys()
        .find(|name| !COLLECTIONS.contains(&name.as_str()))
    {
        return Err(ConsoleError::Invalid(format!(
            "`{unknown}` cannot be imported; {}",
            shape()
        )));
    }
    COLLECTIONS
        .iter()
        .map(|name| read_collection(name, file.get(*name)))
        .collect()
}

fn read_collection(name: &str, list: Option<&Value>) -> Result<Vec<RawDocumentBuf>, ConsoleError> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let list = list
        .as_array()
        .ok_or_else(|| ConsoleError::Invalid(format!("`{name}` is no list")))?;
    let read = |(place, value): (usize, &Value)| {
        read_document(value).ok_or_else(|| {
            ConsoleError::Invalid(format!(
                "{name}[{place}] is no document in Extended JSON with an `_id`"
            ))
        })
    };
    list.iter().enumerate().map(read).collect()
}

fn read_document(value: &Value) -> Option<RawDocumentBuf> {
    let Bson::Document(document) = Bson::try_from(value.clone()).ok()? else {
        return None;
    };
    document
        .contains_key("_id")
        .then(|| RawDocumentBuf::try_from(&document).ok())?
}
