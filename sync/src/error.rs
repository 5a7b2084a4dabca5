//! What went wrong between this node and MongoDB, and what that asks of the caller.
//!
//! The driver's own errors are not kept as sources: they print hosts and, at worst, parts of the connection string.
//! What is kept is the code, and a message from which credentials have been cut.

use std::time::Duration;

use mongodb::error::{ErrorKind, WriteFailure};

use crate::ports::PortError;

/// How long a node that MongoDB turns away waits before it asks again: somebody has to change a setting first.
const CONFIGURATION_WAIT: Duration = Duration::from_secs(60);

/// How long a failed local store is left alone; the product's store reopens itself within such a time.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// A failed operation upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// MongoDB cannot be reached, or has no primary. Tried again behind the back-off.
    #[error("MongoDB is not reachable: {message}")]
    Connectivity {
        /// The driver's or server's words, without credentials.
        message: String,
    },
    /// No answer within [`crate::Options::deadline`]. Whether the operation took effect is unknown.
    #[error("MongoDB gave no answer within {0:?}")]
    Deadline(Duration),
    /// MongoDB is overloaded, ran into its own time limit, or could not satisfy the write concern: the outcome is
    /// unknown. Tried again behind the back-off, in smaller pieces.
    #[error("MongoDB is over its capacity (code {code}): {message}")]
    Capacity {
        /// MongoDB's code.
        code: i32,
        /// MongoDB's message.
        message: String,
    },
    /// MongoDB turns this node away: credentials, privileges, version, schema. Holds everything; never a reason to
    /// set a document aside.
    #[error("MongoDB turns this node away: {message}")]
    Configuration {
        /// What has to be put right.
        message: String,
    },
    /// MongoDB refused what was sent for a reason that lies in what was sent.
    #[error("MongoDB refuses this (code {code}): {message}")]
    Document {
        /// MongoDB's code.
        code: i32,
        /// MongoDB's message.
        message: String,
    },
    /// A code this version does not know.
    #[error("MongoDB answered with the unknown code {code}: {message}")]
    Unknown {
        /// MongoDB's code.
        code: i32,
        /// MongoDB's message.
        message: String,
    },
}

impl Error {
    /// Whether trying the same again is of no use.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Document { .. })
    }

    /// Whether smaller batches may help.
    pub(crate) fn asks_for_less(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Capacity { .. })
    }

    /// Whether the back-off applies, as opposed to an answer that came promptly from a healthy server.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Connectivity { .. }
                | Self::Deadline(_)
                | Self::Capacity { .. }
                | Self::Unknown { .. }
        )
    }

    /// MongoDB's code, where it gave one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Capacity { code, .. }
            | Self::Document { code, .. }
            | Self::Unknown { code, .. } => Some(*code),
            Self::Connectivity { .. } | Self::Deadline(_) | Self::Configuration { .. } => None,
        }
    }

    /// The class of an answer with an error code.
    pub(crate) fn from_code(code: i32, message: String) -> Self {
        match code {
            // Not primary, stepping down, shutting down, network: the driver's own retryable codes.
            6 | 7 | 63 | 89 | 91 | 133 | 134 | 150 | 189 | 262 | 9001 | 10058 | 10107 | 11600
            | 11602 | 13388 | 13435 | 13436 => Self::Connectivity {
                message: format!("{message} (code {code})"),
            },
            // Time limits, write conflicts, write concerns, throttling (429 and 16500: Cosmos).
            24 | 43 | 50 | 64 | 79 | 100 | 112 | 175 | 202 | 237 | 429 | 16500 | 11601 => {
                Self::Capacity { code, message }
            }
            // Unauthorized, authentication failed, illegal operation, Atlas' own, user not found, reauthentication.
            11 | 13 | 18 | 20 | 391 | 8000 => Self::Configuration {
                message: format!("{message} (code {code})"),
            },
            2 | 9 | 14 | 22 | 28 | 40 | 52 | 54 | 55 | 56 | 57 | 58 | 59 | 66 | 121 | 10334
            | 11000 | 11001 | 16755 | 16837 | 17280 | 17419 | 17420 => {
                Self::Document { code, message }
            }
            _ => Self::Unknown { code, message },
        }
    }

    /// The class of a driver error. `secrets` are cut out of the message.
    pub(crate) fn from_driver(error: &mongodb::error::Error, secrets: &Secrets) -> Self {
        let message = |text: &str| secrets.cut(text);
        match error.kind.as_ref() {
            ErrorKind::Command(command) => Self::from_code(command.code, message(&command.message)),
            ErrorKind::Write(WriteFailure::WriteError(write)) => {
                Self::from_code(write.code, message(&write.message))
            }
            ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Self::Capacity {
                code: concern.code,
                message: message(&concern.message),
            },
            ErrorKind::Authentication { message: text, .. }
            | ErrorKind::InvalidArgument { message: text, .. }
            | ErrorKind::InvalidTlsConfig { message: text, .. }
            | ErrorKind::IncompatibleServer { message: text, .. } => Self::Configuration {
                message: message(text),
            },
            // A wrong password shows as a failed selection or a cleared pool around the authentication error.
            other => Self::from_cause(error, message(&other.to_string())),
        }
    }

    fn from_cause(error: &mongodb::error::Error, message: String) -> Self {
        let mut cause = std::error::Error::source(error);
        while let Some(inner) =
            cause.and_then(|inner| inner.downcast_ref::<mongodb::error::Error>())
        {
            if matches!(inner.kind.as_ref(), ErrorKind::Authentication { .. }) {
                return Self::Configuration { message };
            }
            cause = std::error::Error::source(inner);
        }
        Self::Connectivity { message }
    }
}

/// What must not appear in errors and logs.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// The credentials in a connection string, as written there.
    pub(crate) fn of(uri: &str) -> Self {
        let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
        let Some((credentials, _)) = after_scheme.rsplit_once('@') else {
            return Self(Vec::new());
        };
        let password = credentials.split_once(':').map(|(_, password)| password);
        let texts = [Some(uri), Some(credentials), password];
        Self(
            texts
                .into_iter()
                .flatten()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    fn cut(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// Why a step of an engine ended early. Nothing is lost by it: what was not concluded is taken up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// MongoDB.
    #[error(transparent)]
    Upstream(#[from] Error),
    /// The host's own store.
    #[error(transparent)]
    Store(#[from] PortError),
}

impl PassError {
    /// How long to wait at least before the next step, besides [`crate::Upstream::ready`].
    pub fn pause(&self) -> Duration {
        match self {
            Self::Upstream(Error::Configuration { .. }) => CONFIGURATION_WAIT,
            Self::Upstream(_) => Duration::ZERO,
            Self::Store(_) => STORE_WAIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_cut_out_of_messages() {
        let secrets = Secrets::of("mongodb://inlet:s3cret@db.example/?w=1");
        assert_eq!(
            secrets.cut("cannot parse inlet:s3cret@db or s3cret"),
            "cannot parse ***@db or ***"
        );
    }

    #[test]
    fn a_refused_privilege_is_never_a_documents_fault() {
        assert!(!Error::from_code(13, String::new()).is_permanent());
        assert!(Error::from_code(121, String::new()).is_permanent());
    }

    #[test]
    fn a_failed_write_concern_is_an_unknown_outcome() {
        assert!(matches!(
            Error::from_code(64, String::new()),
            Error::Capacity { code: 64, .. }
        ));
    }
}
