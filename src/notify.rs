//! Notifications: what a representative is told of a lead, and by which way (R26).
//!
//! Must not know: the pipeline, MongoDB, HTTP servers. A sender (one per way) hands one message over and says what
//! became of it; who waits, gives up or sends again is decided by the deliveries.

pub mod attachment;
pub mod email;
mod http;
pub mod push;
pub mod sms;
pub mod template;

use std::time::Duration;

/// What the provider said when it took a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The provider's id of the message, where it gives one.
    pub id: Option<String>,
}

/// Why a message was not handed over, or not surely. Texts are for people: they name no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The provider cannot be reached, is overloaded, throttles, or refuses our credentials: nothing was handed over,
    /// and nothing is wrong with the message. It waits, and uses up no attempt (R28).
    #[error("{detail}")]
    Unavailable {
        /// What happened.
        detail: String,
        /// How long the provider asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// A "no" for good: this message will never be taken (R28).
    #[error("{detail}")]
    Refused {
        /// The provider's answer.
        detail: String,
    },
    /// The message may have been taken: the connection was lost after it was sent (R26).
    #[error("{detail}")]
    Unknown {
        /// What happened.
        detail: String,
    },
}
