//! Retention: step by step through what has been kept long enough (R41).
//!
//! Between steps it rests for a multiple of what the step took, so that intake keeps the writer: a slow disk makes a
//! slow purge, not slow answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Done, Stop};
use crate::clock::Clock;
use crate::store::retention::{Place, Swept, Unacknowledged};
use crate::store::{Snapshot, Store, StoreError, Tables};
use crate::worker::StepError;

/// A rest after a step, as a multiple of the step's time, and its bounds.
const REST_FACTOR: u32 = 4;
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How often it looks whether a round of erasures has ended.
const ERASURE_POLL: Duration = Duration::from_millis(100);
/// Whoever still has a device token that died so long ago is told once more that it leads nowhere.
const DEAD_TOKENS_KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How long what is kept (configuration `[store]` and `[intake]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Webhooks, after they are done.
    pub webhooks: Duration,
    /// Documents, if they are upstream; `None` for a stand-alone node, where they are nowhere else.
    pub documents: Option<Duration>,
    /// Hashes of submissions without an id, beyond the arrival of the oldest webhook there is.
    pub dedupe_window: Duration,
}

/// The job.
#[derive(Clone)]
pub struct Retention {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    rests: bool,
}

/// What a run removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Removed {
    webhooks: u64,
    documents: u64,
    first_copies: u64,
    dead_tokens: u64,
    is_behind: bool,
}

/// Documents that go by their age: how to look whether any are left after a row, and how to take a step there.
#[derive(Clone, Copy)]
struct Aged {
    has: fn(&Snapshot, u64, i64) -> Result<bool, StoreError>,
    purge: PurgeAged,
}

/// After a row, what is from before a time; milliseconds since the epoch.
type PurgeAged =
    fn(&mut Tables<'_>, u64, i64, &mut Unacknowledged) -> Result<Swept<u64>, StoreError>;

const LEADS: Aged = Aged {
    has: Snapshot::has_aged_lead,
    purge: |tables, after, until_ms, unacknowledged| {
        tables.purge_leads(after, until_ms, unacknowledged)
    },
};
const LOGS: Aged = Aged {
    has: Snapshot::has_aged_log,
    purge: |tables, after, until_ms, unacknowledged| {
        tables.purge_logs(after, until_ms, unacknowledged)
    },
};

/// A table of hashes: how to look whether anything is left from a place on, and how to take a step there.
struct Hashes {
    has: fn(&Snapshot, &Place) -> Result<bool, StoreError>,
    purge: fn(&mut Tables<'_>, Place, i64) -> Result<Swept<Place>, StoreError>,
}

const FIRST_COPIES: Hashes = Hashes {
    has: Snapshot::has_first_copies,
    purge: |tables, from, before_ms| tables.purge_first_copies(from, before_ms),
};

const DEAD_TOKENS: Hashes = Hashes {
    has: Snapshot::has_dead_tokens,
    purge: |tables, from, before_ms| tables.purge_dead_tokens(from, before_ms),
};

impl Retention {
    /// The job over a store.
    #[must_use]
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, policy: Policy) -> Self {
        Self {
            store,
            clock,
            policy,
            rests: true,
        }
    }

    /// The same without rests between its steps, for a store that nobody else uses.
    #[must_use]
    pub fn without_rests(mut self) -> Self {
        self.rests = false;
        self
    }

    /// Removes what has been kept long enough, to the end or until it is time to stop.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn run(self, mut stop: Stop) -> Result<Done, StepError> {
        let mut removed = Removed::default();
        self.webhooks(&mut stop, &mut removed).await?;
        self.documents(&mut stop, &mut removed).await?;
        removed.first_copies = self.first_copies(&mut stop).await?;
        let dead_before_ms = self.ago(DEAD_TOKENS_KEPT);
        removed.dead_tokens = self.hashes(&mut stop, DEAD_TOKENS, dead_before_ms).await?;
        let Removed {
            webhooks,
            documents,
            first_copies,
            dead_tokens,
            is_behind,
        } = removed;
        let mut result =
            format!("removed {webhooks} webhooks, {documents} documents, {first_copies} hashes");
        if dead_tokens > 0 {
            result += &format!(", {dead_tokens} dead device tokens");
        }
        if is_behind {
            result += "; documents wait until MongoDB has caught up";
        }
        Ok(Done {
            result,
            is_ok: true,
            is_whole: !stop.is_set(),
        })
    }

    async fn webhooks(&self, stop: &mut Stop, removed: &mut Removed) -> Result<(), StoreError> {
        let until_ms = self.ago(self.policy.webhooks);
        let mut place = Some(self.store.read()?.retention_mark()?);
        while let Some(after) = place.filter(|_| !stop.is_set()) {
            if !self.store.read()?.has_aged_webhook(after, until_ms)? {
                break;
            }
            self.while_erasing(stop).await?;
            let begun = Instant::now();
            let step = self.store.write(move |tables| match tables.is_erasing()? {
                true => Ok(Swept::nothing(after)),
                false => tables.purge_webhooks(after, until_ms),
            });
            let swept = step.await?;
            removed.webhooks += swept.purged;
            place = swept.next;
            self.rest(stop, begun).await;
        }
        Ok(())
    }

    async fn documents(&self, stop: &mut Stop, removed: &mut Removed) -> Result<(), StepError> {
        let Some(kept) = self.policy.documents else {
            return Ok(());
        };
        let until_ms = self.ago(kept);
        let snapshot = self.store.read()?;
        if !snapshot.has_aged_lead(0, until_ms)? && !snapshot.has_aged_log(0, until_ms)? {
            return Ok(());
        }
        let reading = tokio::task::spawn_blocking(move || snapshot.unacknowledged());
        let Some(unacknowledged) = reading.await?? else {
            removed.is_behind = true;
            return Ok(());
        };
        let unacknowledged = self
            .aged(LEADS, stop, removed, until_ms, unacknowledged)
            .await?;
        self.aged(LOGS, stop, removed, until_ms, unacknowledged)
            .await?;
        Ok(())
    }

    /// Removes documents of a kind; returns what is not acknowledged by then.
    async fn aged(
        &self,
        kind: Aged,
        stop: &mut Stop,
        removed: &mut Removed,
        until_ms: i64,
        mut unacknowledged: Unacknowledged,
    ) -> Result<Unacknowledged, StoreError> {
        let mut place = Some(0);
        while let Some(after) = place.filter(|_| !stop.is_set()) {
            if !(kind.has)(&self.store.read()?, after, until_ms)? {
                break;
            }
            self.while_erasing(stop).await?;
            let begun = Instant::now();
            let step = self.store.write(move |tables| {
                let swept = match tables.is_erasing()? {
                    true => Swept::nothing(after),
                    false => (kind.purge)(tables, after, until_ms, &mut unacknowledged)?,
                };
                Ok((swept, unacknowledged))
            });
            let (swept, brought_up_to_date) = step.await?;
            unacknowledged = brought_up_to_date;
            removed.documents += swept.purged;
            place = swept.next;
            self.rest(stop, begun).await;
        }
        Ok(unacknowledged)
    }

    async fn first_copies(&self, stop: &mut Stop) -> Result<u64, StoreError> {
        let oldest_ms = self.store.read()?.oldest_arrival_ms(self.clock.now_ms())?;
        let before_ms = oldest_ms.saturating_sub(millis(self.policy.dedupe_window));
        self.hashes(stop, FIRST_COPIES, before_ms).await
    }

    async fn hashes(
        &self,
        stop: &mut Stop,
        Hashes { has, purge }: Hashes,
        before_ms: i64,
    ) -> Result<u64, StoreError> {
        let mut purged = 0;
        let mut place = Some([0; 16]);
        while let Some(from) = place.filter(|_| !stop.is_set()) {
            if !has(&self.store.read()?, &from)? {
                break;
            }
            let begun = Instant::now();
            let step = self
                .store
                .write(move |tables| purge(tables, from, before_ms));
            let swept = step.await?;
            purged += swept.purged;
            place = swept.next;
            self.rest(stop, begun).await;
        }
        Ok(purged)
    }

    /// What an erasure has found is its own to remove, with what that leaves behind (R38).
    async fn while_erasing(&self, stop: &mut Stop) -> Result<(), StoreError> {
        while !stop.is_set() && self.store.read()?.is_erasing()? {
            stop.rest(ERASURE_POLL).await;
        }
        Ok(())
    }

    async fn rest(&self, stop: &mut Stop, begun: Instant) {
        if self.rests {
            let rest = begun.elapsed() * REST_FACTOR;
            stop.rest(rest.clamp(REST.0, REST.1)).await;
        }
    }

    fn ago(&self, kept: Duration) -> i64 {
        self.clock.now_ms().saturating_sub(millis(kept))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
