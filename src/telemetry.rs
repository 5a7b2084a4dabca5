//! Logs: one line an event, to standard error, so that standard output stays for results.
//!
//! Must not know: what is logged. The subscriber it installs is the only global of the program.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Libraries that tell of every step they take, unless `log.level` asks for it.
const QUIET: &str = "tokio_cron_scheduler=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level names a module in a way the filter cannot read.
    #[error("`log.level` cannot be read")]
    Level(#[from] ParseError),
    /// Somebody installed a subscriber before.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Starts logging as `[log]` says; once per process.
///
/// # Errors
/// When the level cannot be read, or logging was started before.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{}", log.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written, be it that the disk is full, must cost nothing but the line.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text => lines
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .try_init()?,
    }
    Ok(())
}
