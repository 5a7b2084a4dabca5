//! Notifications: what a representative is told of a lead, and by which way (R26).
//!
//! Must not know: the pipeline, MongoDB, HTTP servers. A sender (one per way) hands one message over and says what
//! became of it; who waits, gives up or sends again is decided by the deliveries.

pub mod attachment;
pub mod claims;
pub mod content;
pub mod deliveries;
pub mod email;
pub mod facts;
mod http;
pub mod push;
pub mod sms;
pub mod template;
pub mod ways;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::health::Health;
use crate::model::Channel;
use facts::Facts;

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
    /// The provider is well, and does not take this message now: a recipient who is greylisted, a device or a sender's
    /// number that has had too much. Nothing was handed over; this message waits alone, and uses up no attempt (R28).
    #[error("{detail}")]
    Deferred {
        /// The provider's answer.
        detail: String,
        /// How long the provider asked to wait with it.
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

/// How long handing a message over takes at most, unless the way says otherwise, and while the node drains by every
/// way. Senders have timeouts of their own, and come to an end within it. With the commit that writes the answer down
/// it fits into a drain (a test of `app.rs` checks it): an SMS whose answer comes too late for that is not sent again.
pub const SEND_MAX: Duration = Duration::from_secs(22);

/// One way to reach a representative: what a sender is to the deliveries.
pub trait Way: Send + Sync + 'static {
    /// All that is needed to hand it over once.
    type Message: Send;

    /// Which way it is.
    fn channel(&self) -> Channel;

    /// How long [`Way::send`] may take; past it a message's outcome counts as unknown.
    fn send_max(&self) -> Duration {
        SEND_MAX
    }

    /// The project under which devices are addressed now, where the way knows devices, and which project it is. It may
    /// read a small file.
    fn project(&self) -> Option<String> {
        None
    }

    /// Works out what to send. No I/O.
    ///
    /// # Errors
    /// Why nothing can be sent for this lead, in words: the user has no address, the way is not set up.
    fn render(&self, facts: &Facts) -> Result<Self::Message, String>;

    /// Hands a message over, once, within a time of its own.
    fn send(&self, message: Self::Message) -> impl Future<Output = Handed> + Send;
}

/// How handing a message over went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The provider's answer.
    pub outcome: Result<Receipt, Failure>,
    /// Devices that the provider says cannot be reached any more.
    pub dead: Vec<Device>,
    /// The project that a device took a push of.
    pub works: Option<String>,
}

/// A device, as a push project knows it: the same token may mean nothing to another project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The project's id.
    pub project: String,
    /// The device's registration token.
    pub token: String,
}

impl From<Result<Receipt, Failure>> for Handed {
    fn from(outcome: Result<Receipt, Failure>) -> Self {
        Self {
            outcome,
            dead: Vec::new(),
            works: None,
        }
    }
}

/// How a channel of a running node is doing.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Which.
    pub channel: Channel,
    /// What it suffers from.
    pub health: Arc<Health>,
    /// Why there is none: what the configuration lacks.
    pub not_set_up: Option<String>,
}

/// A way that is not there: what is to go by it fails at once, and says why.
#[derive(Debug, Clone)]
pub struct NotSetUp {
    /// Which way.
    pub channel: Channel,
    /// Why, in words: "`smtp.url` is not set".
    pub why: String,
}

impl Way for NotSetUp {
    type Message = std::convert::Infallible;

    fn channel(&self) -> Channel {
        self.channel
    }

    fn render(&self, _: &Facts) -> Result<Self::Message, String> {
        Err(self.why.clone())
    }

    async fn send(&self, message: Self::Message) -> Handed {
        match message {}
    }
}
