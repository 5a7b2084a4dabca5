//! Takes out what has been kept long enough (R41), one small step a transaction.
//!
//! A step looks at a few records, decides in the transaction that removes them, and says where the next one goes on. It
//! is over within milliseconds, since webhooks wait for the same writer.
//!
//! Must not know: how long is long enough, and when to look.

mod dead_tokens;
mod documents;
mod first_copies;
mod hashes;
mod webhooks;

use std::time::{Duration, Instant};

pub use documents::Unacknowledged;
pub(crate) use hashes::Place;

use super::StoreError;

/// A step's time in its transaction; it is over with the first record beyond.
const STEP_TIME_MAX: Duration = Duration::from_millis(2);

/// What a step did. `P` is a place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept<P> {
    /// Records removed that count: webhooks, documents, hashes.
    pub purged: u64,
    /// Where the next step goes on; `None`: there is nothing more to look at.
    pub next: Option<P>,
}

impl<P> Swept<P> {
    /// A step that did nothing: the next one begins at the same place.
    #[must_use]
    pub fn nothing(at: P) -> Self {
        Self {
            purged: 0,
            next: Some(at),
        }
    }
}

/// What is to become of a record.
enum Verdict<T> {
    /// It goes, with this.
    Goes(T),
    /// It stays until something happens to it.
    Stays,
    /// It stays for now.
    TooYoung,
}

/// The time of a step.
struct Budget(Instant);

impl Budget {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn is_used_up(&self) -> bool {
        self.0.elapsed() > STEP_TIME_MAX
    }
}

/// What is damaged stays: whoever looks for it is to find it.
fn intact<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
