//! How the connection to MongoDB is, for status pages and metrics.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Whether MongoDB can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Not once since the start.
    #[default]
    NeverConnected,
    /// The last operation was answered.
    Connected,
    /// No operation has been answered since this time.
    Unreachable {
        /// When the first of the failures in a row happened.
        since: SystemTime,
    },
}

/// How reference data is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullMode {
    /// Nothing was pulled yet.
    #[default]
    None,
    /// By a change stream.
    Stream,
    /// By reading everything at intervals.
    Poll,
}

/// A snapshot of the connection's health.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Whether MongoDB can be reached.
    pub state: State,
    /// The last failure, without credentials; kept after recovery.
    pub last_error: Option<String>,
    /// When MongoDB last answered.
    pub last_success: Option<SystemTime>,
    /// Whether operations are being held back.
    pub breaker_open: bool,
    /// How reference data is followed.
    pub pull_mode: PullMode,
    /// MongoDB's clock minus this node's, milliseconds; `None` before the first connection.
    pub skew_ms: Option<i64>,
    /// MongoDB's version, as it says it.
    pub version: Option<String>,
    /// Operations given up at their deadline that have not ended yet.
    pub abandoned: usize,
}

/// What this machine's clock says: for people to read, and to compare with the server's.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is decided by it, so no test has to move it"
)]
pub(crate) fn machine_time() -> SystemTime {
    SystemTime::now()
}

/// The record behind [`Health`].
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Health>);

impl Record {
    pub(crate) fn snapshot(&self) -> Health {
        self.lock().clone()
    }

    pub(crate) fn answered(&self) {
        let mut health = self.lock();
        health.state = State::Connected;
        health.last_success = Some(machine_time());
    }

    pub(crate) fn unreachable(&self, error: &crate::Error) {
        let mut health = self.lock();
        if health.state == State::Connected {
            health.state = State::Unreachable {
                since: machine_time(),
            };
        }
        health.last_error = Some(error.to_string());
    }

    pub(crate) fn refused(&self, error: &crate::Error) {
        self.lock().last_error = Some(error.to_string());
    }

    pub(crate) fn server(&self, version: &str) {
        self.lock().version = Some(version.to_owned());
    }

    pub(crate) fn skew(&self, skew_ms: i64) {
        self.lock().skew_ms = Some(skew_ms);
    }

    pub(crate) fn pull_mode(&self, mode: PullMode) {
        self.lock().pull_mode = mode;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
