//! Reads reference data for tasks that must not be decided on a stale cache (R13).
//!
//! Pointed reads are coalesced by what they ask for, a few at a time, and not repeated within seconds.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures_util::future::join_all;
use inlet_sync::ports::ReplicaEvent;

use super::Shared;
use crate::model::TaskKey;
use crate::store::reference::{Pointed, Reference, StoreReplica};
use crate::store::tasks::{Need, WaitsFor};
use crate::store::{StoreError, Tables};
use crate::worker::{Step, StepError, Worker};

/// Tasks of one account looked at in one step.
const LOOK_MAX: usize = 256;
/// Tasks woken in one transaction: intake that arrives meanwhile waits for no more of them.
const WAKE_MAX: usize = 1_000;
/// Pointed reads under way at once.
const READS_MAX: usize = 16;
const POLL: Duration = Duration::from_millis(100);
/// How long nothing is asked after a read that failed: the push notices first when MongoDB is back.
const POLL_UNREACHABLE: Duration = Duration::from_secs(1);

/// Whoever can be asked for reference data.
pub trait PointedRead: Send + Sync + 'static {
    /// Reads what `need` names, and the cached campaigns `cached` that claim to match it, as they are now.
    fn read(
        &self,
        need: &Need,
        cached: Vec<ObjectId>,
    ) -> impl Future<Output = Result<Vec<ReplicaEvent>, StepError>> + Send;
}

/// The worker.
pub struct Lookout<R> {
    shared: Arc<Shared>,
    replica: Arc<StoreReplica>,
    upstream: R,
    pause: Duration,
}

/// What tasks that wait come to.
#[derive(Default)]
struct Look {
    ready: Vec<TaskKey>,
    needs: HashSet<Need>,
}

impl<R: PointedRead> Lookout<R> {
    /// A lookout that asks `upstream`.
    pub fn new(shared: Arc<Shared>, replica: Arc<StoreReplica>, upstream: R) -> Self {
        Self {
            shared,
            replica,
            upstream,
            pause: POLL,
        }
    }

    fn look(&self, reference: &Reference) -> Result<Look, StoreError> {
        let snapshot = self.shared.store.read()?;
        let now_ms = self.shared.clock.now_ms();
        let freshness = &self.shared.freshness;
        let mut look = Look::default();
        for (key, since) in snapshot.awaiting(LOOK_MAX)? {
            let Some(task) = snapshot.task(key)? else {
                continue;
            };
            let WaitsFor::Reference { need, .. } = task.waits_for else {
                // Its record is damaged: what it needs is found out by preparing it anew.
                look.ready.push(key);
                continue;
            };
            if freshness.may_decide(reference, &need, since.cast_signed()) {
                look.ready.push(key);
            } else if look.needs.len() < READS_MAX && freshness.may_read(&need, now_ms) {
                look.needs.insert(need);
            }
        }
        Ok(look)
    }

    async fn read(
        &self,
        need: &Need,
        reference: &Reference,
    ) -> Result<(Need, Vec<ReplicaEvent>), StepError> {
        let cached = match need {
            Need::Campaign { campaign, .. } => vec![ObjectId::from_bytes(*campaign)],
            Need::Form { page, form } => reference
                .campaigns_of_form(page, form)
                .iter()
                .map(|campaign| campaign.id)
                .collect(),
        };
        Ok((need.clone(), self.upstream.read(need, cached).await?))
    }

    /// What could be read is taken over, whatever became of the reads beside it. Where something else has changed the
    /// data meanwhile, the next step reads again.
    async fn refresh(
        &self,
        needs: HashSet<Need>,
        reference: Arc<Reference>,
    ) -> Result<(), StepError> {
        let began_at_ms = self.shared.clock.now_ms();
        let answers = join_all(needs.iter().map(|need| self.read(need, &reference))).await;
        let (mut needs, mut events, mut failure) = (Vec::new(), Vec::new(), None);
        for answer in answers {
            match answer {
                Ok((need, read)) => {
                    needs.push(need);
                    events.extend(read);
                }
                Err(error) => failure = Some(error),
            }
        }
        let (replica, read) = (Arc::clone(&self.replica), needs.clone());
        let pointed = Pointed {
            needs,
            events,
            began_at_ms,
            as_of: reference,
        };
        if tokio::task::spawn_blocking(move || replica.apply_pointed(pointed)).await?? {
            self.shared.freshness.were_read(&read, began_at_ms);
        }
        failure.map_or(Ok(()), Err)
    }

    async fn wake(&self, ready: &[TaskKey]) -> Result<(), StoreError> {
        let now_ms = self.shared.clock.now_ms();
        for some in ready.chunks(WAKE_MAX) {
            let some = some.to_vec();
            let wake = self
                .shared
                .store
                .write(move |tables| some.iter().try_for_each(|key| wake(tables, *key, now_ms)));
            wake.await?;
            self.shared.store.signals().pipeline.notify_one();
            self.shared.store.signals().graph.notify_one();
        }
        Ok(())
    }
}

impl<R: PointedRead> Worker for Lookout<R> {
    fn name(&self) -> &'static str {
        "lookout"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        let reference = self.shared.store.reference();
        let look = self.look(&reference)?;
        let idle = look.ready.is_empty() && look.needs.is_empty();
        self.pause = POLL;
        if !look.ready.is_empty() {
            self.wake(&look.ready).await?;
        }
        if !look.needs.is_empty()
            && let Err(error) = self.refresh(look.needs, reference).await
        {
            tracing::debug!(%error, "reference data cannot be read now; the webhooks wait");
            self.pause = POLL_UNREACHABLE;
            return Ok(Step::Idle);
        }
        Ok(if idle { Step::Idle } else { Step::Busy })
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
    }
}

fn wake(tables: &mut Tables<'_>, key: TaskKey, now_ms: i64) -> Result<(), StoreError> {
    let Some(mut task) = tables.dequeue(key)? else {
        return Ok(());
    };
    task.waits_for = key.queue();
    tables.enqueue(key, &task, now_ms)
}
