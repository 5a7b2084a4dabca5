//! How the things a node depends on are doing, for people to read.

use std::sync::{Mutex, PoisonError};

/// The state of one dependency (Graph).
#[derive(Debug, Default)]
pub struct Health(Mutex<Option<Trouble>>);

/// Why a dependency is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub error: String,
    /// Milliseconds since the epoch.
    pub since_ms: i64,
}

impl Health {
    /// It answered.
    pub fn well(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// It did not.
    pub fn ill(&self, error: String, now_ms: i64) {
        let mut trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = trouble.as_ref().map_or(now_ms, |trouble| trouble.since_ms);
        *trouble = Some(Trouble { error, since_ms });
    }

    /// What is wrong, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
