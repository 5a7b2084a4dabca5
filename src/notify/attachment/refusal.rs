//! Why a file was not fetched, in words for the representative who misses it.
//!
//! Must not know: what becomes of the mail.

use std::error::Error;

use super::Class;

/// A text of another program is cut there (characters).
const DETAIL_CHARS_MAX: usize = 200;

/// Why a file was not fetched. Texts name no URL: it may carry a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not to be read as a URL with a host.
    #[error("its address is no URL")]
    Url,
    /// Neither `http` nor `https`.
    #[error("its address is neither http nor https")]
    Scheme,
    /// A user's name or password before the host.
    #[error("its address names a user")]
    UserInfo,
    /// A port of another protocol.
    #[error("port {0} is not for files")]
    Port(u16),
    /// Not of the public internet, at first, after a redirect, or as the connection's peer.
    #[error("its address leads to {0}, not to the public internet")]
    Address(Class),
    /// The node has no TLS to fetch it by.
    #[error("the sender of this mail cannot fetch files at the moment")]
    Unready,
    /// The name has no address.
    #[error("its host was not found")]
    Unresolved,
    /// No connection, or it broke, or what came is not HTTP.
    #[error("its server did not answer properly: {0}")]
    Broken(String),
    /// The time is over.
    #[error("its server was too slow")]
    TooSlow,
    /// Sent on and on.
    #[error("its server redirected more than {redirects_max} times")]
    Redirects {
        /// How often is allowed.
        redirects_max: usize,
    },
    /// From `https` to `http`.
    #[error("its server redirected from https to http")]
    Downgrade,
    /// Another status than 200.
    #[error("its server answered with status {0}")]
    Status(u16),
    /// Packed, though that was not asked for.
    #[error("its server sent it compressed")]
    Compressed,
    /// Larger than one file may be.
    #[error("it is larger than {} MiB", mib(*.bytes_max))]
    TooLarge {
        /// How large is allowed.
        bytes_max: usize,
    },
    /// Larger than what the other files leave.
    #[error("all files together are larger than {} MiB", mib(*.bytes_max))]
    TotalTooLarge {
        /// How large is allowed.
        bytes_max: usize,
    },
    /// Behind the last file of a mail.
    #[error("there are more than {count_max} files")]
    TooMany {
        /// How many are allowed.
        count_max: usize,
    },
}

impl Refusal {
    /// What stood in the way of a request. A refusal of the guard comes back wrapped in the client's errors.
    pub(super) fn of(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TooSlow;
        }
        let error = error.without_url();
        if let Some(refusal) = causes(&error).find_map(|error| error.downcast_ref::<Self>()) {
            return refusal.clone();
        }
        let innermost = causes(&error).last().map(ToString::to_string);
        Self::broken(&innermost.unwrap_or_default())
    }

    pub(super) fn broken(detail: &str) -> Self {
        let printable = detail.chars().filter(|c| !c.is_control());
        Self::Broken(printable.take(DETAIL_CHARS_MAX).collect())
    }
}

/// The error, and what caused it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}
