//! Erases people (R38): looks for everything that is theirs, and takes the steps that remove it.
//!
//! While an erasure is under way the pipeline, the push and the notifications rest, so that nothing is made of what is
//! about to go; webhooks are taken in all the same. Which erasures there are is in the store, so that one that was cut
//! short is gone on with by whoever opens the store next.
//!
//! Must not know: who asks for it, and MongoDB.

mod asked;
mod find;
mod recognise;

use std::sync::Arc;
use std::time::Duration;

use inlet_sync::ports::Row;
use tokio::sync::watch;

use crate::model::Erasure;
use crate::store::erasures::{ErasedLead, ErasedWebhook, Scope};
use crate::store::{Store, StoreError, Tables};
use crate::worker::{Step, StepError, Worker};
pub use asked::{Asked, Unreadable};
pub use find::{Found, find};

/// Webhooks, leads, contacts or logs removed in one transaction: webhooks that arrive wait for the same writer.
const STEP_MAX: usize = 32;
/// Erasures finished together, by one search.
const TOGETHER_MAX: usize = 1_000;
/// Tickets of the change log removed in one transaction.
const TICKETS_STEP_MAX: usize = 1_000;
/// How long the worker sleeps when nothing tells it to wake.
const POLL: Duration = Duration::from_secs(1);

/// Finishes erasures that have begun.
pub struct Eraser {
    store: Arc<Store>,
    stop: watch::Receiver<bool>,
}

impl Eraser {
    /// A worker over a store; what is not done when `stop` turns true is left for the next start.
    #[must_use]
    pub fn new(store: Arc<Store>, stop: watch::Receiver<bool>) -> Self {
        Self { store, stop }
    }

    /// One search for all of them: a store that was put back may learn of hundreds at once.
    async fn erase(&self, erasures: Vec<Erasure>) -> Result<(), StepError> {
        let (store, stop) = (Arc::clone(&self.store), self.stop.clone());
        let ids: Vec<_> = erasures.iter().map(|erasure| erasure.id).collect();
        let search = move || {
            let new = store.read()?.to_be_created()?;
            let found = find(&store, &erasures, &|| *stop.borrow())?;
            Ok::<_, StoreError>(found.map(|found| (found, new)))
        };
        let Some((found, new)) = tokio::task::spawn_blocking(search).await?? else {
            return Ok(());
        };
        let contacts = found.iter().flat_map(|found| &found.contacts);
        let contacts = contacts.copied().collect();
        let scope = Arc::new(Scope { contacts, new });
        for (id, found) in ids.iter().zip(found) {
            self.remove(*id, found, &scope).await?;
        }
        self.remove_tickets().await?;
        if !self.is_stopped() {
            self.finish(ids).await?;
        }
        Ok(())
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
        self.in_steps(webhooks, move |tables, some: &[ErasedWebhook]| {
            tables.erase_webhooks(&id, some)
        })
        .await
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

    async fn finish(&self, ids: Vec<[u8; 12]>) -> Result<(), StoreError> {
        let finished = ids.clone();
        self.store
            .write(move |tables| finished.iter().try_for_each(|id| tables.finish_erasure(id)))
            .await?;
        let snapshot = self.store.read()?;
        for id in ids {
            let removed = snapshot.erasure(&id)?.map(|erasure| erasure.removed);
            tracing::info!(erasure = hex::encode(id), ?removed, "somebody was erased");
        }
        let signals = self.store.signals();
        signals.pipeline.notify_one();
        signals.graph.notify_one();
        signals.push.notify_one();
        signals.wake_deliveries();
        Ok(())
    }

    /// The erasures to be finished. One whose record is damaged is forgotten: nobody knows any more whom it is about.
    async fn unfinished(&self) -> Result<Vec<Erasure>, StoreError> {
        let snapshot = self.store.read()?;
        let mut erasures = Vec::new();
        for id in snapshot.unfinished_erasures(TOGETHER_MAX)? {
            match snapshot.erasure(&id) {
                Ok(Some(erasure)) => erasures.push(erasure),
                Ok(None) | Err(StoreError::Corrupt { .. }) => {
                    tracing::error!(
                        erasure = hex::encode(id),
                        "an erasure's record is damaged: ask for it once more"
                    );
                    self.store
                        .write(move |tables| tables.forget_erasure(&id))
                        .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(erasures)
    }
}

impl Worker for Eraser {
    fn name(&self) -> &'static str {
        "erasure"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let erasures = self.unfinished().await?;
        if erasures.is_empty() || self.is_stopped() {
            return Ok(Step::Idle);
        }
        self.erase(erasures).await?;
        Ok(Step::Busy)
    }

    async fn wait(&mut self) {
        let woken = self.store.signals().erasures.notified();
        let _ = tokio::time::timeout(POLL, woken).await;
    }
}
