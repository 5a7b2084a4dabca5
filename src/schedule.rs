//! What runs by the clock: retention, self-check, and whatever else is added where the node is composed.
//!
//! Must not know: what its jobs do. The scheduler's tick is a hint; that a job is due, that it is not running already,
//! and that a run was missed is decided here, over records that survive the process. A run that is cut short stays due.
//! What is due is looked for from the start on and every few minutes, and caught up once, however many runs were
//! missed: the scheduler goes by the machine's clock, and stands still for as long as that was set back.

mod check;
mod renewal;
mod retention;
mod rhythm;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_cron_scheduler::{JobScheduler, JobSchedulerError};

pub use check::check_sample;
pub use renewal::renew_tokens;
pub use retention::{Policy, Retention};
pub use rhythm::Rhythm;

use crate::clock::Clock;
use crate::store::compaction::Advice;
use crate::store::jobs::{JobRecord, JobRun};
use crate::store::{Store, StoreError};
use crate::worker::{StepError, jittered};

/// What was missed is caught up this long after the start at most, and half of it at least: the backlog goes first, and
/// a fleet that is started at once does not act at once.
const CATCH_UP_AFTER: Duration = Duration::from_secs(30);
/// How often what was missed is looked for afterwards, at most: half of it at least.
const CATCH_UP_EVERY: Duration = Duration::from_secs(5 * 60);
/// The name under which compactions are recorded. They have no rhythm: see `store::compaction`.
const COMPACTION: &str = "compaction";
const MIB: u64 = 1024 * 1024;

/// The jobs of a node.
pub struct Schedule {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    jobs: Vec<Job>,
    stop: watch::Receiver<bool>,
}

/// Something that runs by the clock.
pub struct Job {
    name: &'static str,
    rhythm: Rhythm,
    work: Work,
    running: tokio::sync::Mutex<()>,
}

type Work = Box<dyn Fn(Stop) -> BoxFuture<'static, Result<Done, StepError>> + Send + Sync>;

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// In words, for people.
    pub result: String,
    /// False where somebody should look at the result.
    pub is_ok: bool,
    /// False where it was told to stop before it was through: it stays due.
    pub is_whole: bool,
}

/// Tells a run that the node is shutting down; it stops at its next step.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The last run of something that keeps its own time.
#[derive(Debug, Default)]
pub struct Latest(Mutex<Option<JobRun>>);

impl Schedule {
    /// A schedule without jobs. `stop` turns true when the node shuts down.
    #[must_use]
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, stop: watch::Receiver<bool>) -> Self {
        Self {
            store,
            clock,
            jobs: Vec::new(),
            stop,
        }
    }

    /// Adds a job. Its name is shown to people and kept in the store; where in its period it runs depends on the node,
    /// so that a fleet does not act in step.
    #[must_use]
    pub fn with<F>(
        mut self,
        name: &'static str,
        every: fn(&str, &str) -> Rhythm,
        work: impl Fn(Stop) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Done, StepError>> + Send + 'static,
    {
        let rhythm = every(&self.store.identity().node, name);
        self.jobs.push(Job {
            name,
            rhythm,
            work: Box::new(move |stop| work(stop).boxed()),
            running: tokio::sync::Mutex::default(),
        });
        self
    }

    /// Runs until the node shuts down, then waits for the runs under way.
    pub async fn run(self) {
        let this = Arc::new(self);
        match this.timetable().await {
            Ok(mut timetable) => {
                this.work_by(&timetable).await;
                if let Err(error) = timetable.shutdown().await {
                    tracing::error!(%error, "the scheduler does not stop");
                }
            }
            Err(error) => tracing::error!(%error, "nothing runs by the clock: no scheduler"),
        }
        for job in &this.jobs {
            drop(job.running.lock().await);
        }
        this.plan_compaction().await;
    }

    async fn work_by(&self, timetable: &JobScheduler) {
        if let Err(error) = self.register().await {
            tracing::error!(%error, "what is due cannot be told");
        }
        if let Err(error) = timetable.start().await {
            tracing::error!(%error, "nothing runs by the clock: the scheduler does not start");
        }
        self.keep_up(CATCH_UP_AFTER, CATCH_UP_EVERY).await;
    }

    /// Catches up on what was missed until the node shuts down: `after` this time at most, and then `every` so often.
    async fn keep_up(&self, after: Duration, every: Duration) {
        let mut stop = Stop(self.stop.clone());
        stop.rest(jittered(after)).await;
        while !stop.is_set() {
            if let Err(error) = self.catch_up().await {
                tracing::error!(%error, "what was missed cannot be told");
            }
            stop.rest(jittered(every)).await;
        }
    }

    /// The library's jobs hold no strong reference: it never lets go of them.
    async fn timetable(self: &Arc<Self>) -> Result<JobScheduler, JobSchedulerError> {
        let mut timetable = JobScheduler::new().await?;
        timetable.init().await?;
        for (place, job) in self.jobs.iter().enumerate() {
            let schedule = Arc::downgrade(self);
            let tick = move |_, _| {
                let schedule = schedule.upgrade();
                async move {
                    if let Some(schedule) = schedule {
                        schedule.tick(&schedule.jobs[place]).await;
                    }
                }
                .boxed()
            };
            let cron = job.rhythm.cron();
            timetable
                .add(tokio_cron_scheduler::Job::new_async(cron, tick)?)
                .await?;
        }
        Ok(timetable)
    }

    /// Notes when jobs that were never heard of are due first, and what came of compacting the store.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn register(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        for job in &self.jobs {
            if self.store.read()?.job(job.name)?.is_none() {
                let record = JobRecord {
                    last: None,
                    due_ms: Some(job.rhythm.next_after(now_ms)),
                };
                self.keep(job.name, record).await?;
            }
        }
        let Some(compacted) = self.store.compacted() else {
            return Ok(());
        };
        let took_ms = i64::try_from(compacted.took.as_millis()).unwrap_or(i64::MAX);
        let given_back = compacted.before_bytes.saturating_sub(compacted.after_bytes);
        let run = JobRun {
            started_ms: now_ms - took_ms,
            ended_ms: now_ms,
            is_ok: true,
            result: format!(
                "gave back {} of {} MiB",
                given_back / MIB,
                compacted.before_bytes / MIB
            ),
        };
        self.keep_last(COMPACTION, run).await
    }

    async fn tick(&self, job: &Job) {
        if let Err(error) = self.run_if_due(job).await {
            tracing::error!(job = job.name, %error, "whether a job is due cannot be told");
        }
    }

    /// Runs what is due, each job once; returns how many ran.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn catch_up(&self) -> Result<usize, StoreError> {
        let mut ran = 0;
        for job in &self.jobs {
            if *self.stop.borrow() {
                break;
            }
            ran += usize::from(self.run_if_due(job).await?);
        }
        Ok(ran)
    }

    /// Whether it ran: it is due, and not running already.
    async fn run_if_due(&self, job: &Job) -> Result<bool, StoreError> {
        let Ok(_running) = job.running.try_lock() else {
            return Ok(false);
        };
        let now_ms = self.clock.now_ms();
        let record = self.store.read()?.job(job.name)?.unwrap_or_default();
        let next_ms = job.rhythm.next_after(now_ms);
        match record.due_ms {
            Some(due_ms) if due_ms <= now_ms => {
                self.run_job(job).await;
                Ok(true)
            }
            Some(due_ms) if due_ms <= next_ms => Ok(false),
            // Never heard of, or noted while the clock was fast: nothing is due later than at its next time.
            _ => {
                let due_ms = Some(next_ms);
                self.keep(job.name, JobRecord { due_ms, ..record }).await?;
                Ok(false)
            }
        }
    }

    /// Runs a job now, whether it is due or not; false where it is running already, or there is none of that name.
    pub async fn run_now(&self, name: &str) -> bool {
        let Some(job) = self.jobs.iter().find(|job| job.name == name) else {
            return false;
        };
        let Ok(_running) = job.running.try_lock() else {
            return false;
        };
        self.run_job(job).await;
        true
    }

    /// Runs never overlap: whoever calls this holds the job's lock, or drops the run.
    async fn run_job(&self, job: &Job) {
        let started_ms = self.clock.now_ms();
        let work = AssertUnwindSafe((job.work)(Stop(self.stop.clone()))).catch_unwind();
        let done = work
            .await
            .unwrap_or_else(|_| Err("the job panicked".into()))
            .unwrap_or_else(|error| Done {
                result: error.to_string(),
                is_ok: false,
                is_whole: true,
            });
        if done.is_ok {
            tracing::info!(job = job.name, result = done.result, "a job ran");
        } else {
            tracing::error!(job = job.name, result = done.result, "a job went wrong");
        }
        if let Err(error) = self.note(job, started_ms, done).await {
            tracing::error!(job = job.name, %error, "a job's run cannot be noted; it stays due");
        }
    }

    async fn note(&self, job: &Job, started_ms: i64, done: Done) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let due_ms = match done.is_whole {
            true => job.rhythm.next_after(now_ms),
            false => started_ms,
        };
        let record = JobRecord {
            last: Some(JobRun {
                started_ms,
                ended_ms: now_ms,
                is_ok: done.is_ok,
                result: done.result,
            }),
            due_ms: Some(due_ms),
        };
        self.keep(job.name, record).await
    }

    /// Said once more where it is not done unasked: the store stays as large as it ever was.
    async fn plan_compaction(&self) {
        let now_ms = self.clock.now_ms();
        let noted = match self.store.plan_compaction().await {
            Ok(Advice::TooLarge { gain, needed }) => {
                let result = format!(
                    "would give back {} MiB, but {} MiB would have to be copied at the start: left as it is",
                    gain / MIB,
                    needed / MIB
                );
                let run = JobRun {
                    started_ms: now_ms,
                    ended_ms: now_ms,
                    is_ok: true,
                    result,
                };
                self.keep_last(COMPACTION, run).await
            }
            Ok(Advice::Leave | Advice::Compact { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "whether to compact the store at the next start was not noted");
        }
    }

    async fn keep_last(&self, name: &'static str, run: JobRun) -> Result<(), StoreError> {
        let record = JobRecord {
            last: Some(run),
            due_ms: None,
        };
        self.keep(name, record).await
    }

    async fn keep(&self, name: &'static str, record: JobRecord) -> Result<(), StoreError> {
        self.store
            .write(move |tables| tables.put_job(name, &record))
            .await
    }
}

impl Done {
    /// All went well, to the end.
    #[must_use]
    pub fn well(result: impl Into<String>) -> Self {
        Self {
            result: result.into(),
            is_ok: true,
            is_whole: true,
        }
    }
}

impl Stop {
    /// Stops when this turns true.
    #[must_use]
    pub fn when(shutdown: watch::Receiver<bool>) -> Self {
        Self(shutdown)
    }

    /// Whether to stop now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits, but not on when it is time to stop.
    pub async fn rest(&mut self, duration: Duration) {
        let _ = tokio::time::timeout(duration, self.wait()).await;
    }

    /// Waits until it is time to stop.
    async fn wait(&mut self) {
        // An error means that nobody is left to work for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

impl Latest {
    /// Notes a run.
    pub fn note(&self, run: JobRun) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    }

    /// The last run, if there was one since the start.
    #[must_use]
    pub fn get(&self) -> Option<JobRun> {
        let run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        run.clone()
    }
}
