//! When to try MongoDB again after it could not be reached.
//!
//! Full jitter, so that a hundred nodes do not return at once: a random time up to 250 ms, doubled with each failure,
//! 30 s at most. The driver's monitors look at the server each second all the while; when they see a primary again
//! the breaker closes at once, so the long waits cost nothing once the network is back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const BASE: Duration = Duration::from_millis(250);
const CAP: Duration = Duration::from_secs(30);

/// The cap while no client could be built (an SRV name that does not resolve): nobody watches, so ask more often.
const CAP_UNWATCHED: Duration = Duration::from_secs(1);

/// Closed while MongoDB answers, open for a while after each failure.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<Failures>,
    changed: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct Failures {
    in_a_row: u32,
    retry_at: Option<Instant>,
}

impl Breaker {
    /// How long operations are held back; zero when they may go.
    pub(crate) fn remaining(&self) -> Duration {
        let retry_at = self.lock().retry_at;
        retry_at.map_or(Duration::ZERO, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Completes when operations may go.
    pub(crate) async fn ready(&self) {
        loop {
            // Interest is registered before looking, so that no wake-up is missed.
            let changed = self.changed.notified();
            let remaining = self.remaining();
            if remaining.is_zero() {
                return;
            }
            let _ = tokio::time::timeout(remaining, changed).await;
        }
    }

    /// An operation failed for want of a reachable, able server. `watched`: the driver's monitors will say when it
    /// is back.
    pub(crate) fn failed(&self, watched: bool) {
        let mut state = self.lock();
        let now = Instant::now();
        // Operations that were under way together fail together: they count once.
        if state.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let cap = if watched { CAP } else { CAP_UNWATCHED };
        state.retry_at = Some(now + full_jitter(state.in_a_row, cap));
        state.in_a_row = state.in_a_row.saturating_add(1);
    }

    /// An operation was answered, or a primary appeared.
    pub(crate) fn close(&self) {
        *self.lock() = Failures::default();
        self.changed.notify_waiters();
    }

    /// Whether the last operation failed.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().in_a_row > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full_jitter(failures: u32, cap: Duration) -> Duration {
    let ceiling = BASE.saturating_mul(1 << failures.min(16)).min(cap);
    ceiling.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_no_further() {
        assert!((0..1000).all(|_| full_jitter(0, CAP) <= BASE));
        assert!((0..1000).all(|_| full_jitter(u32::MAX, CAP) <= CAP));
    }

    #[tokio::test]
    async fn a_primary_in_sight_ends_the_wait() {
        let breaker = Breaker::default();
        for _ in 0..20 {
            breaker.lock().retry_at = None;
            breaker.failed(true);
        }
        breaker.lock().retry_at = Some(Instant::now() + CAP);
        let (_, ()) = tokio::join!(breaker.ready(), async { breaker.close() });
        assert!(breaker.remaining().is_zero() && !breaker.is_open());
    }
}
