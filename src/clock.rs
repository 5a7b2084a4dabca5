//! What time it is, injected so that a whole node can run in a simulation.
//!
//! Must not know: who asks. Pauses are not waited for here; this is only for times that are written down.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of wall-clock time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. Never less than an earlier answer of the same clock.
    fn now_ms(&self) -> i64;
}

/// The machine's clock. When it is set forward, this one follows; when it is set back, this one goes on at its own
/// pace, so that within a process nothing is older than what came before it, and nothing that waits stands still.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    /// What the machine's clock would have shown then, by the latest it has shown since.
    started_at_ms: AtomicI64,
}

/// A clock that only moves when told to.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicI64,
}

// === impl SystemClock ===

impl SystemClock {
    /// A clock that goes by the machine's from now on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            started_at_ms: AtomicI64::new(i64::MIN),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others take"
    )]
    fn now_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let by_machine = since_epoch_ms(SystemTime::now()).saturating_sub(elapsed_ms);
        let started_at_ms = self
            .started_at_ms
            .fetch_max(by_machine, Ordering::Relaxed)
            .max(by_machine);
        started_at_ms.saturating_add(elapsed_ms)
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// A clock that stands at this time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self {
            now_ms: AtomicI64::new(now_ms),
        }
    }

    /// Moves on. Durations beyond what milliseconds can hold move it to the end of time.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let later = |now_ms: i64| Some(now_ms.saturating_add(by_ms));
        // `later` always answers, so the update always happens.
        let _ = self
            .now_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Is set right, having been fast.
    #[cfg(test)]
    pub(crate) fn set_back(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.now_ms.fetch_sub(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

/// A clock before 1970 has lost its battery: it reads 0.
fn since_epoch_ms(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards_when_the_machine_is_set_back() {
        let clock = SystemClock::new();
        let ahead_ms = clock.now_ms() + 60_000;
        clock.started_at_ms.fetch_add(60_000, Ordering::Relaxed);
        let now_ms = clock.now_ms();
        assert!(now_ms >= ahead_ms && now_ms < ahead_ms + 10_000);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(1_000);
        assert_eq!(clock.now_ms(), 1_000);
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now_ms(), 3_000);
    }

    #[test]
    fn a_time_before_1970_reads_as_zero() {
        assert_eq!(since_epoch_ms(UNIX_EPOCH - Duration::from_secs(5)), 0);
    }
}
