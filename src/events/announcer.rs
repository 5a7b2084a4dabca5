//! Tells listeners what happened, in the order in which it was committed.
//!
//! A commit wakes it. It reads what is new, tells whoever listens, and removes what was told: lazily, many at once,
//! because a removal is a commit of its own. After a start what was not removed yet is told again, if it is not a
//! minute old.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Events;
use super::payload::{self, Payload};
use crate::clock::Clock;
use crate::store::events::Event;
use crate::store::{Snapshot, Store, StoreError};
use crate::worker::{Step, StepError, Worker};

/// Events told in one step.
const BATCH_MAX: usize = 256;
/// An event that nobody could be told for this long is no news any more.
const AGE_MAX_MS: i64 = 60_000;
/// How long told events stay at least, so that a burst of them is removed by one commit.
const REMOVAL_PAUSE: Duration = Duration::from_millis(200);
/// How long after a start an owner without listeners is waited for: they were there before, and come back.
pub const RETURN_MAX: Duration = Duration::from_secs(5);
/// How often those are looked for.
const RETURN_STEP: Duration = Duration::from_millis(50);
/// How long it sleeps when no commit wakes it.
const POLL: Duration = Duration::from_secs(1);

/// The worker that tells.
pub struct Announcer {
    events: Arc<Events>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    /// Everything up to this number was told, or will not be.
    told: u64,
    removed: u64,
    removed_at: Instant,
    /// Until when owners without listeners are waited for.
    returning_until: Instant,
    is_waiting_for_return: bool,
}

/// What is to be told next.
struct Batch {
    news: Vec<(Event, Payload)>,
    /// The number of the last event that was looked at.
    last: u64,
    /// It ends before an event whose listeners may come back.
    waits_for_return: bool,
    is_full: bool,
}

impl Announcer {
    /// A worker that tells what is in `store`, waiting for listeners to return for `return_max` from now.
    #[must_use]
    pub fn new(
        events: Arc<Events>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        return_max: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            events,
            store,
            clock,
            told: 0,
            removed: 0,
            removed_at: now,
            returning_until: now + return_max,
            is_waiting_for_return: false,
        }
    }

    fn gather(&self) -> Gathering {
        Gathering {
            events: Arc::clone(&self.events),
            store: Arc::clone(&self.store),
            told: self.told,
            born_after_ms: self.clock.now_ms() - AGE_MAX_MS,
            keeps_for_absent: Instant::now() < self.returning_until,
        }
    }

    async fn remove_told(&mut self) -> Result<(), StoreError> {
        if self.removed == self.told || self.removed_at.elapsed() < REMOVAL_PAUSE {
            return Ok(());
        }
        let told = self.told;
        self.store
            .write(move |tables| tables.remove_events(told))
            .await?;
        self.removed = told;
        self.removed_at = Instant::now();
        Ok(())
    }
}

impl Worker for Announcer {
    fn name(&self) -> &'static str {
        "announcer"
    }

    async fn step(&mut self) -> Result<Step, StepError> {
        if self.store.read()?.is_erasing()? {
            // What is still to be told may be of what goes (R38).
            return Ok(Step::Idle);
        }
        let gathering = self.gather();
        let batch = tokio::task::spawn_blocking(move || gathering.batch()).await??;
        for (event, payload) in &batch.news {
            self.events
                .tell(&event.owner, event.kind.name(), payload)
                .await;
        }
        if self.events.is_closing() {
            // Who was sent away may have missed it: it stays for the next start.
            return Ok(Step::Idle);
        }
        self.told = batch.last;
        self.is_waiting_for_return = batch.waits_for_return;
        self.remove_told().await?;
        Ok(if batch.is_full {
            Step::Busy
        } else {
            Step::Idle
        })
    }

    async fn wait(&mut self) {
        let pause = if self.is_waiting_for_return {
            RETURN_STEP
        } else if self.removed < self.told {
            REMOVAL_PAUSE.saturating_sub(self.removed_at.elapsed())
        } else {
            POLL
        };
        let woken = self.store.signals().events.notified();
        let _ = tokio::time::timeout(pause, woken).await;
    }
}

/// What reading a batch takes, for a thread that may block.
struct Gathering {
    events: Arc<Events>,
    store: Arc<Store>,
    told: u64,
    born_after_ms: i64,
    keeps_for_absent: bool,
}

/// What becomes of an event.
enum Fate {
    Told(Payload),
    Forgotten,
    Kept,
}

impl Gathering {
    fn batch(&self) -> Result<Batch, StoreError> {
        let snapshot = self.store.read()?;
        let events = snapshot.events_after(self.told, BATCH_MAX)?;
        let mut batch = Batch {
            news: Vec::new(),
            last: self.told,
            waits_for_return: false,
            is_full: events.len() == BATCH_MAX,
        };
        for (number, event) in events {
            // One that is damaged holds up no other.
            if let Some(event) = event {
                match self.fate(&snapshot, &event)? {
                    Fate::Told(payload) => batch.news.push((event, payload)),
                    Fate::Forgotten => {}
                    Fate::Kept => {
                        batch.waits_for_return = true;
                        batch.is_full = false;
                        return Ok(batch);
                    }
                }
            }
            batch.last = number;
        }
        Ok(batch)
    }

    /// Nobody there: nothing is read.
    fn fate(&self, snapshot: &Snapshot, event: &Event) -> Result<Fate, StoreError> {
        if event.at_ms < self.born_after_ms {
            return Ok(Fate::Forgotten);
        }
        if !self.events.has_listeners(&event.owner) {
            return Ok(if self.keeps_for_absent {
                Fate::Kept
            } else {
                Fate::Forgotten
            });
        }
        match payload::read(snapshot, event) {
            Ok(Some(payload)) => Ok(Fate::Told(payload)),
            // Its document is gone or damaged: there is nothing to tell.
            Ok(None) | Err(StoreError::Corrupt { .. }) => Ok(Fate::Forgotten),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
