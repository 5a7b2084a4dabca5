//! Erases people (R38): looks for everything that is theirs, and takes the steps that remove it.
//!
//! Erasures that were asked for wait for a round: one search for all of them, then the removals. Only while a round is
//! under way do pipeline, push, notifications and live events rest, so that nothing is made of what is about to go;
//! webhooks are taken in all the same. Between two rounds the node goes on with all else, and a round that fails lets
//! it go on, too. Which erasures there are, and whether a round holds the node, is in the store, so that one that was
//! cut short is gone on with by whoever opens the store next.
//!
//! Must not know: who asks for it, and MongoDB.

mod asked;
mod find;
mod pace;
mod recognise;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use inlet_sync::ports::Row;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::health::Health;
use crate::model::Erasure;
use crate::store::erasures::{ErasedLead, ErasedWebhook, Place, Progress, Scope};
use crate::store::{Store, StoreError, Tables};
use crate::worker::{Step, StepError, Worker};
pub use asked::{Asked, Unreadable};
pub use find::{Found, find};
use pace::Pace;

/// Leads, contacts or logs removed in one transaction: webhooks that arrive wait for the same writer.
const STEP_MAX: usize = 32;
/// Erasures finished together, by one search.
const TOGETHER_MAX: usize = 1_000;
/// Tickets of the change log removed in one transaction.
const TICKETS_STEP_MAX: usize = 1_000;
/// How long the worker sleeps when nothing tells it to wake.
const POLL: Duration = Duration::from_secs(1);

/// How everything of some erasures is looked for; see [`find()`].
type Search = dyn Fn(&Store, &[Erasure], &dyn Fn() -> bool) -> Result<Option<Vec<Found>>, StoreError>
    + Send
    + Sync;

/// Carries out the erasures that were asked for.
pub struct Eraser {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    stop: watch::Receiver<bool>,
    health: Arc<Health>,
    search: Arc<Search>,
    pace: Pace,
    /// The first erasure of the last round, where that failed: the next round has one alone, and begins behind it.
    failed: Option<[u8; 12]>,
}

impl Eraser {
    /// A worker over a store; what is not done when `stop` turns true is left for the next start.
    #[must_use]
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, stop: watch::Receiver<bool>) -> Self {
        Self {
            store,
            clock,
            stop,
            health: Arc::default(),
            search: Arc::new(find),
            pace: Pace::default(),
            failed: None,
        }
    }

    /// The same, which says there why the last round failed, as long as that matters.
    #[must_use]
    pub fn telling(mut self, health: Arc<Health>) -> Self {
        self.health = health;
        self
    }

    #[cfg(test)]
    pub(crate) fn searching(
        mut self,
        search: impl Fn(&Store, &[Erasure], &dyn Fn() -> bool) -> Result<Option<Vec<Found>>, StoreError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.search = Arc::new(search);
        self
    }

    /// From the hold to the end of it.
    async fn round(&mut self) -> Result<Step, StepError> {
        let began_ms = self.clock.now_ms();
        let after = self.failed;
        // One that cannot be carried out is not to keep all the others from it.
        let limit = if after.is_some() { 1 } else { TOGETHER_MAX };
        let mut first = after;
        let work = async {
            let begin = move |tables: &mut Tables<'_>| tables.begin_round(limit, after);
            let erasures = self.store.write(begin).await?;
            first = erasures.first().map(|erasure| erasure.id);
            self.erase(erasures).await
        };
        let erased = AssertUnwindSafe(work).catch_unwind().await;
        match erased.unwrap_or_else(|_| Err("a step of it panicked".into())) {
            Ok(()) => {
                self.failed = None;
                self.pace.went_well(began_ms, self.clock.now_ms());
                self.health.well();
                Ok(Step::Busy)
            }
            Err(error) => {
                self.failed = first;
                self.pace.failed(began_ms, self.clock.now_ms());
                let alone = first.filter(|_| limit == 1).map(hex::encode);
                let of = alone.map_or_else(String::new, |id| format!(" (erasure {id})"));
                self.health.ill(format!("{error}{of}"), self.clock.now_ms());
                tracing::error!(
                    %error,
                    "erasing has failed: the node goes on, and it is tried again from time to time"
                );
                self.let_go().await?;
                Ok(Step::Idle)
            }
        }
    }

    /// One search for all of them: a store that was put back may learn of hundreds at once. A node that is to stop
    /// keeps the hold: the next start goes on with the round.
    async fn erase(&self, erasures: Vec<Erasure>) -> Result<(), StepError> {
        let ids: Vec<_> = erasures.iter().map(|erasure| erasure.id).collect();
        let Some((found, scope)) = self.search(erasures, ids.clone()).await? else {
            return Ok(self.end_unless_stopped(Vec::new()).await?);
        };
        let scope = Arc::new(scope);
        for (id, found) in ids.iter().zip(found) {
            self.remove(*id, found, &scope).await?;
        }
        self.remove_tickets().await?;
        Ok(self.end_unless_stopped(ids).await?)
    }

    /// `None`: the node is to stop, or all of these erasures were given up.
    async fn search(
        &self,
        erasures: Vec<Erasure>,
        ids: Vec<[u8; 12]>,
    ) -> Result<Option<(Vec<Found>, Scope)>, StepError> {
        let (store, stop) = (Arc::clone(&self.store), self.stop.clone());
        let search = Arc::clone(&self.search);
        let search = move || {
            let new = store.read()?.to_be_created()?;
            let is_wanted = || {
                let unfinished = store.read().and_then(|now| now.has_unfinished(&ids));
                // What cannot be read is the search's to tell.
                unfinished.unwrap_or(true)
            };
            let found = search(&store, &erasures, &|| *stop.borrow() || !is_wanted())?;
            Ok::<_, StoreError>(found.map(|found| (found, new)))
        };
        let Some((found, new)) = tokio::task::spawn_blocking(search).await?? else {
            return Ok(None);
        };
        let contacts = found.iter().flat_map(|found| &found.contacts);
        let contacts = contacts.copied().collect();
        Ok(Some((found, Scope { contacts, new })))
    }

    async fn end_unless_stopped(&self, ids: Vec<[u8; 12]>) -> Result<(), StoreError> {
        match self.is_stopped() {
            true => Ok(()),
            false => self.end(ids).await,
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// What leads to the rest goes last.
    async fn remove(
        &self,
        id: [u8; 12],
        found: Found,
        scope: &Arc<Scope>,
    ) -> Result<(), StoreError> {
        let of = Arc::clone(scope);
        let leads = found.erased_leads();
        self.in_steps(found.logs, move |tables, rows: &[Row]| {
            tables.erase_documents(&id, rows, &of)
        })
        .await?;
        let webhooks = found.webhooks.into_values();
        let (telling, others) = webhooks.partition(|webhook| webhook.is_telling);
        self.remove_webhooks(id, others).await?;
        let of = Arc::clone(scope);
        self.in_steps(leads, move |tables, some: &[ErasedLead]| {
            tables.erase_leads(&id, some, &of)
        })
        .await?;
        self.remove_webhooks(id, telling).await?;
        let of = Arc::clone(scope);
        let contacts = found.contacts.into_iter().collect();
        self.in_steps(contacts, move |tables, some: &[u64]| {
            tables.erase_contacts(&id, some, &of)
        })
        .await
    }

    async fn remove_webhooks(
        &self,
        id: [u8; 12],
        webhooks: Vec<ErasedWebhook>,
    ) -> Result<(), StoreError> {
        let webhooks = Arc::new(webhooks);
        let mut next = (!webhooks.is_empty()).then(Place::default);
        while let Some(from) = next.filter(|_| !self.is_stopped()) {
            let webhooks = Arc::clone(&webhooks);
            next = self
                .store
                .write(move |tables| tables.erase_webhooks(&id, &webhooks, from))
                .await?;
        }
        Ok(())
    }

    async fn in_steps<T: Clone + Send + 'static>(
        &self,
        all: Vec<T>,
        step: impl Fn(&mut Tables<'_>, &[T]) -> Result<(), StoreError> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let step = Arc::new(step);
        for some in all.chunks(STEP_MAX) {
            if self.is_stopped() {
                break;
            }
            let (some, step) = (some.to_vec(), Arc::clone(&step));
            self.store.write(move |tables| step(tables, &some)).await?;
        }
        Ok(())
    }

    /// Tickets of documents that are gone: those of contacts have their data in them.
    async fn remove_tickets(&self) -> Result<(), StepError> {
        let mut after = Some(0);
        while let Some(from) = after.filter(|_| !self.is_stopped()) {
            let store = Arc::clone(&self.store);
            let page = move || store.read()?.tickets_of_nothing(from);
            let (tickets, next) = tokio::task::spawn_blocking(page).await??;
            for some in tickets.chunks(TICKETS_STEP_MAX) {
                let some = some.to_vec();
                self.store
                    .write(move |tables| tables.erase_tickets(&some))
                    .await?;
            }
            after = next;
        }
        Ok(())
    }

    async fn end(&self, ids: Vec<[u8; 12]>) -> Result<(), StoreError> {
        let ended = ids.clone();
        self.store
            .write(move |tables| tables.end_round(&ended))
            .await?;
        self.wake_all();
        let snapshot = self.store.read()?;
        for id in ids {
            if let Progress::Finished(erasure) = snapshot.erasure_progress(&id)? {
                let removed = erasure.removed;
                tracing::info!(erasure = hex::encode(id), ?removed, "somebody was erased");
            }
        }
        Ok(())
    }

    /// The node goes on, after a round that failed.
    async fn let_go(&self) -> Result<(), StoreError> {
        if self.store.read()?.is_erasing()? {
            self.store.write(|tables| tables.let_go()).await?;
            self.wake_all();
        }
        Ok(())
    }

    fn wake_all(&self) {
        let signals = self.store.signals();
        signals.pipeline.notify_one();
        signals.graph.notify_one();
        signals.push.notify_one();
        signals.events.notify_one();
        signals.wake_deliveries();
    }
}

impl Worker for Eraser {
    fn name(&self) -> &'static str {
        "erasure"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        if self.is_stopped() {
            return Ok(Step::Idle);
        }
        let (waiting, under_way) = self.store.read()?.erasures_to_do()?;
        if waiting + under_way == 0 {
            self.pace.forget_failures();
            self.health.well();
        }
        if self.pace.rest(self.clock.now_ms()).is_some() || waiting + under_way == 0 {
            // A hold that could not be let go of when its round failed.
            self.let_go().await?;
            return Ok(Step::Idle);
        }
        self.round().await
    }

    async fn wait(&mut self) {
        let rest = self.pace.rest(self.clock.now_ms()).unwrap_or(POLL);
        let woken = self.store.signals().erasures.notified();
        let _ = tokio::time::timeout(rest.min(POLL), woken).await;
    }
}
