//! How webhooks end (ruling R8): each in exactly one recorded outcome.

use std::fmt;
use std::str::FromStr;

/// One unit of work and of outcome: a webhook, a Facebook change, or a change for one campaign.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode,
)]
pub struct TaskKey {
    /// The webhook's sequence number in the store.
    pub seq: u64,
    /// The position of the change in a Facebook batch; 0 for every other platform.
    pub change: u32,
    /// The campaign's ObjectId where one change feeds several campaigns; zeroes otherwise.
    pub campaign: [u8; 12],
}

impl TaskKey {
    /// The task of a whole webhook.
    #[must_use]
    pub fn webhook(seq: u64) -> Self {
        Self::change(seq, 0)
    }

    /// The task of one change of a batch, before its campaigns are known.
    #[must_use]
    pub fn change(seq: u64, change: u32) -> Self {
        Self {
            seq,
            change,
            campaign: [0; 12],
        }
    }
}

/// How a task ended, when, and after how many attempts.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Ended {
    /// The verdict.
    pub outcome: Outcome,
    /// Attempts that counted (R27, R28): 1 where the first went through.
    pub attempts: u32,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A task's verdict.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Outcome {
    /// It became this lead.
    Lead {
        /// The lead's `_id`.
        id: [u8; 12],
    },
    /// The lead was already there (R9, R10).
    Duplicate {
        /// The `_id` of the lead it repeats.
        of: [u8; 12],
    },
    /// No lead was to be made of it.
    Ignored {
        /// Why.
        reason: Reason,
    },
    /// It failed for good; kept, visible, replayable.
    DeadLetter {
        /// The last error, in words.
        error: String,
    },
}

impl Outcome {
    /// Every outcome's name.
    pub const NAMES: [&str; 4] = ["lead", "duplicate", "ignored", "dead_letter"];

    /// The outcome's name in listings and filters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Lead { .. } => "lead",
            Outcome::Duplicate { .. } => "duplicate",
            Outcome::Ignored { .. } => "ignored",
            Outcome::DeadLetter { .. } => "dead_letter",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a webhook was ignored (R8).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, for listings and help texts.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The reason's name in outcomes and filters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// No adapter could read the body, or what it needs is not in it.
    InvalidPayload = "invalid_payload",
    /// The account or campaign id of the URL is no ObjectId.
    InvalidId = "invalid_id",
    /// No campaign with this id and account, or none with this page and form (R12).
    CampaignNotFound = "campaign_not_found",
    /// The campaign is there but not active.
    CampaignInactive = "campaign_inactive",
    /// The account is unknown or not active.
    AccountInactive = "account_inactive",
    /// The call came in on another number than the campaign's (R12).
    TrackingNumberMismatch = "tracking_number_mismatch",
    /// An event that makes no lead: deletions, outbound calls, other Kartra actions, other page fields.
    UnsupportedEvent = "unsupported_event",
    /// A platform's own test.
    Test = "test",
    /// It came before its sender was erased (R38).
    Erased = "erased",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no reason.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no reason")]
pub struct NotAReason(String);

impl FromStr for Reason {
    type Err = NotAReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == text)
            .ok_or_else(|| NotAReason(text.to_owned()))
    }
}
