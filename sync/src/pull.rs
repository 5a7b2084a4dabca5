//! Keeps the replica of reference data: a snapshot and a change stream where MongoDB has them, else a full reading
//! at intervals.
//!
//! Only full readings say how complete the replica is (`complete_at_ms`): they begin after a moment and read all. A
//! stream's silence is no such proof. It shows what is majority-committed up to some cluster time, and that time is
//! in an opaque token, not in this node's clock. Where the host must know that something is *not* there (R13), it
//! asks by [`Upstream::find`], one round trip, or by [`PullNow::now`].
//!
//! A snapshot notes the cluster's time first and reads then, from the primary, what is there at that time or later;
//! the stream begins right after the noted time. Whatever happens in between comes twice, never not at all.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp, doc, rawdoc};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::{Query, Upstream};
use crate::error::{Error, PassError};
use crate::health::PullMode;
use crate::ports::{PortError, Replica, ReplicaEvent};
use crate::push::{Step, blocking};
use crate::stream::{Feed, Start, Word};

/// A stream that died this often within [`DEATHS_WITHIN`] gives way to polling for [`POLL_INSTEAD`].
const DEATHS_MAX: usize = 3;
const DEATHS_WITHIN: Duration = Duration::from_secs(600);
const POLL_INSTEAD: Duration = Duration::from_secs(3600);

/// How often a token is stored while nothing happens, so that it does not fall out of the server's history.
const QUIET_TOKEN_INTERVAL: Duration = Duration::from_secs(10);

/// A whole collection may take this many deadlines to read.
const READING_DEADLINES: u32 = 4;

/// Pulls reference data, a batch of changes or a full reading a step.
pub struct PullEngine {
    upstream: Arc<Upstream>,
    replica: Arc<dyn Replica>,
    forced: Arc<Notify>,
    feed: Option<Feed>,
    /// When everything was read last, and what it hashed to.
    read: Option<(Instant, u64)>,
    token_stored_at: Option<Instant>,
    deaths: VecDeque<Instant>,
    poll_until: Option<Instant>,
}

/// Asks the engine for a full reading at once.
#[derive(Debug, Clone)]
pub struct PullNow(Arc<Notify>);

impl PullNow {
    /// Everything is read anew in the next step, and a wait in [`PullEngine::idle`] ends.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// Everything, and when it was read.
struct Reading {
    documents: Vec<Vec<RawDocumentBuf>>,
    began_at_ms: i64,
    /// The cluster's time before reading began; `None` on a standalone.
    cluster_time: Option<Timestamp>,
    hash: u64,
}

impl PullEngine {
    /// An engine that pulls into `replica`.
    pub fn new(upstream: Arc<Upstream>, replica: Arc<dyn Replica>) -> Self {
        Self {
            upstream,
            replica,
            forced: Arc::default(),
            feed: None,
            read: None,
            token_stored_at: None,
            deaths: VecDeque::new(),
            poll_until: None,
        }
    }

    /// A handle that asks for a full reading.
    pub fn pull_now(&self) -> PullNow {
        PullNow(Arc::clone(&self.forced))
    }

    /// Takes what the stream has, waiting for it a deadline at most, or reads everything when it is time to.
    ///
    /// # Errors
    /// Where MongoDB or the store fails; the next step goes on from what is stored. See [`PullEngine::rest`].
    pub async fn step(&mut self) -> Result<Step, PassError> {
        let server = self.upstream.server().await?;
        if server.has_streams && self.poll_until.is_none_or(|until| until <= Instant::now()) {
            self.upstream.record.pull_mode(PullMode::Stream);
            self.follow().await
        } else {
            self.upstream.record.pull_mode(PullMode::Poll);
            self.feed = None;
            self.poll().await
        }
    }

    /// Waits for `wait` or for [`PullNow::now`]. May be cancelled.
    pub async fn idle(&self, wait: Duration) {
        if tokio::time::timeout(wait, self.forced.notified())
            .await
            .is_ok()
        {
            // The step is to see it too.
            self.forced.notify_one();
        }
    }

    /// Waits until a step is worth trying again after `error`. May be cancelled.
    pub async fn rest(&self, error: &PassError) {
        tokio::time::sleep(error.pause()).await;
        self.upstream.ready().await;
    }

    async fn poll(&mut self) -> Result<Step, PassError> {
        let interval = self.upstream.options.pull_interval;
        let wait = self.until_due(interval);
        if !wait.is_zero() && !self.take_forced() {
            return Ok(Step::Idle { wait });
        }
        let documents = self.read_all().await?.0;
        Ok(Step::Progress { documents })
    }

    async fn follow(&mut self) -> Result<Step, PassError> {
        if self.take_forced()
            || self
                .until_due(self.upstream.options.resync_interval)
                .is_zero()
                && self.read.is_some()
        {
            self.feed = None;
            self.restart().await?;
        }
        if self.feed.is_none() {
            self.resume().await?;
        }
        let Some(feed) = &mut self.feed else {
            return Ok(Step::Idle {
                wait: Duration::ZERO,
            });
        };
        let words = feed.next(self.upstream.options.deadline).await;
        if words.is_empty() {
            return Err(self.hung().await.into());
        }
        self.hear(words).await
    }

    /// Opens the stream after the stored token, or after a snapshot.
    async fn resume(&mut self) -> Result<(), PassError> {
        let Some(token) = self.ask(|replica| replica.resume_token()).await? else {
            return self.restart().await;
        };
        self.feed = Some(
            Feed::open(
                &self.upstream,
                self.replica.collections(),
                Start::After(token),
            )
            .await?,
        );
        self.read.get_or_insert((Instant::now(), 0));
        Ok(())
    }

    /// Takes a snapshot and opens the stream where it began.
    async fn restart(&mut self) -> Result<(), PassError> {
        let (_, Some(cluster_time)) = self.read_all().await? else {
            // It says it is a replica set, and has no cluster time yet.
            let message = "the replica set is not initiated".into();
            return Err(Error::Connectivity { message }.into());
        };
        // The snapshot holds what happened at that very time, perhaps the drop that ended the last stream.
        let next = Timestamp {
            increment: cluster_time.increment + 1,
            ..cluster_time
        };
        let collections = self.replica.collections();
        self.feed = Some(Feed::open(&self.upstream, collections, Start::At(next)).await?);
        Ok(())
    }

    async fn hear(&mut self, words: Vec<Word>) -> Result<Step, PassError> {
        let mut events = Vec::new();
        let mut token = None;
        let mut end = None;
        for word in words {
            match word {
                Word::Event(event, after) => {
                    events.push(event);
                    token = after.or(token);
                }
                Word::Quiet(after) => token = after.or(token),
                word => end = Some(word),
            }
        }
        let documents = events.len();
        self.store(events, token).await?;
        match end {
            None => self.upstream.answered(),
            Some(end) => self.close(end).await?,
        }
        Ok(Step::Progress { documents })
    }

    async fn store(
        &mut self,
        events: Vec<ReplicaEvent>,
        token: Option<RawDocumentBuf>,
    ) -> Result<(), PortError> {
        let stored_lately = self
            .token_stored_at
            .is_some_and(|at| at.elapsed() < QUIET_TOKEN_INTERVAL);
        if events.is_empty() && (token.is_none() || stored_lately) {
            return Ok(());
        }
        self.ask(move |replica| replica.apply(events, token, None))
            .await?;
        self.token_stored_at = Some(Instant::now());
        Ok(())
    }

    /// The stream has ended; decides what follows.
    async fn close(&mut self, end: Word) -> Result<(), PassError> {
        self.feed = None;
        self.token_stored_at = None;
        if !matches!(end, Word::Failed(_)) {
            // What follows, stream or polling, begins with a full reading.
            self.read = None;
        }
        match end {
            Word::Failed(error) => {
                let error = self.upstream.driver_error(&error);
                self.upstream.failed(&error).await;
                Err(error.into())
            }
            Word::Forbidden => {
                tracing::warn!("change streams are not allowed here: polling instead");
                self.poll_until = Some(Instant::now() + POLL_INSTEAD);
                Ok(())
            }
            Word::Dead(reason) => {
                tracing::warn!(
                    reason,
                    "the change stream cannot go on: reading everything anew"
                );
                self.count_death();
                Ok(self.ask(|replica| replica.forget_resume_token()).await?)
            }
            Word::Event(..) | Word::Quiet(_) => Ok(()),
        }
    }

    fn count_death(&mut self) {
        let now = Instant::now();
        self.deaths
            .retain(|at| now.duration_since(*at) < DEATHS_WITHIN);
        self.deaths.push_back(now);
        if self.deaths.len() >= DEATHS_MAX {
            self.deaths.clear();
            self.poll_until = Some(now + POLL_INSTEAD);
        }
    }

    async fn hung(&mut self) -> Error {
        if let Some(feed) = self.feed.take() {
            self.upstream.abandon(feed.task());
        }
        let error = Error::Deadline(self.upstream.options.deadline);
        self.upstream.failed(&error).await;
        error
    }

    /// Reads everything and stores it where it differs. Returns how many documents there are, and the cluster's time
    /// before.
    async fn read_all(&mut self) -> Result<(usize, Option<Timestamp>), PassError> {
        let reading = self.reading().await?;
        let (count, hash) = (reading.documents.iter().map(Vec::len).sum(), reading.hash);
        let cluster_time = reading.cluster_time;
        // A stream changes the replica between readings: what was read last says nothing about what is stored.
        let is_known = cluster_time.is_none() && self.read.is_some_and(|(_, read)| read == hash);
        self.ask(move |replica| {
            if is_known {
                replica.apply(Vec::new(), None, Some(reading.began_at_ms))
            } else {
                replica.replace(reading.documents, None, reading.began_at_ms)
            }
        })
        .await?;
        self.read = Some((Instant::now(), hash));
        Ok((count, cluster_time))
    }

    async fn reading(&self) -> Result<Reading, Error> {
        let began_at_ms = self.replica.now_ms();
        let ping = self.upstream.command(rawdoc! { "ping": 1 }).await?;
        let cluster_time = ping.get_timestamp("operationTime").ok();
        let mut documents = Vec::new();
        let mut hasher = DefaultHasher::new();
        for (at, name) in self.replica.collections().iter().enumerate() {
            let read = self.collection(name).await?;
            hasher.write_usize(at);
            read.iter()
                .for_each(|document| hasher.write(document.as_bytes()));
            documents.push(read);
        }
        Ok(Reading {
            documents,
            began_at_ms,
            cluster_time,
            hash: hasher.finish(),
        })
    }

    /// A collection in the order of its `_id`s: in that order no document can be missed because it moved.
    async fn collection(&self, name: &str) -> Result<Vec<RawDocumentBuf>, Error> {
        let query = Query {
            sort: Some(doc! { "_id": 1 }),
            ..Query::default()
        };
        self.upstream
            .query_within(
                self.upstream.options.deadline * READING_DEADLINES,
                name,
                query,
            )
            .await
    }

    /// How long until a full reading is due.
    fn until_due(&self, interval: Duration) -> Duration {
        self.read.map_or(Duration::ZERO, |(at, _)| {
            interval.saturating_sub(at.elapsed())
        })
    }

    /// Whether a full reading was asked for since the last call.
    fn take_forced(&self) -> bool {
        use futures_util::FutureExt;
        self.forced.notified().now_or_never().is_some()
    }

    /// Asks the replica something on a blocking thread.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Replica) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let replica = Arc::clone(&self.replica);
        blocking(move || question(replica.as_ref())).await
    }
}
