//! The command line: what a user types and what they get back.
//!
//! Results go to standard output, progress and complaints to standard error. Commands ask a [`Backend`]: the running
//! node through its admin socket or, where that makes sense, a closed store.
//!
//! Must not know: how a node works. It is handed one as a [`Host`].

pub mod backend;
pub mod client;

mod check;
mod deliveries;
mod erase;
mod export;
mod import;
mod progress;
mod rewrite;
mod status;
mod sync;
pub(crate) mod table;
mod webhooks;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

pub use backend::{Backend, DeliveryFilter};
pub use client::AdminClient;

use crate::clock::Clock;
use crate::config::{Config, Mistakes, Strings};

/// The exit code when something failed. Done is 0.
pub const FAILED: u8 = 1;
/// The exit code of a command that cannot be understood, clap's own.
pub const MISUSED: u8 = 2;
/// The exit code for a mistake in the configuration: `EX_CONFIG` of sysexits.h.
pub const MISTAKEN: u8 = 78;

/// Takes in marketing webhooks, never loses one, and turns them into leads.
#[derive(Debug, Parser)]
#[command(name = "inlet", version, max_term_width = 100)]
pub struct Args {
    /// The configuration file. Otherwise /etc/inlet/inlet.toml, else ./inlet.toml, else defaults.
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything `inlet` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node until SIGTERM or SIGINT, then drain.
    Serve,
    /// Show what a node does, with samples and a throw-away store; needs nothing.
    Demo(Demo),
    /// Read the configuration and name every mistake at once.
    Check(check::Check),
    /// Whatever a node answers.
    #[command(flatten)]
    Ask(Ask),
}

/// Commands a node answers, running or not.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Load accounts, campaigns, users and Facebook keys, for a node that stands alone.
    Import(import::Import),
    /// Print a collection's documents, one a line (MongoDB Extended JSON).
    Export(export::Export),
    /// Tell backlog, outcomes, sync and dependencies.
    Status(status::Status),
    /// Find webhooks, look into them, replay them.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Find notifications, send them once more.
    #[command(subcommand)]
    Deliveries(deliveries::Deliveries),
    /// Remove a person, here and on every other node of the database.
    Erase(erase::Erase),
    /// Push and pull at once, or tell what is left.
    #[command(subcommand)]
    Sync(sync::Sync),
}

/// Show what a node does.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Leave when all is shown, instead of serving on.
    #[arg(long)]
    pub exit: bool,
}

/// What the command line needs of the program around it.
pub trait Host {
    /// Runs a node until it is told to stop, and drains it.
    fn serve(&self, config: Config) -> impl Future<Output = anyhow::Result<()>>;

    /// Shows what a node does.
    fn demo(&self, demo: Demo) -> impl Future<Output = anyhow::Result<()>>;

    /// Opens the store of a node that does not run; makes one only where it may.
    ///
    /// # Errors
    /// When there is no store, or it cannot be opened.
    fn offline(&self, config: &Config, may_create: bool) -> anyhow::Result<Box<dyn Backend>>;

    /// Writes the file of a store anew that no node has open, and tells how large it was and is. An error: there is no
    /// store, it is in use, or there is no room for a second file.
    fn rewrite(&self, config: &Config) -> impl Future<Output = anyhow::Result<serde_json::Value>>;
}

/// What a command works with.
struct Session<'a> {
    backend: &'a dyn Backend,
    out: &'a mut (dyn Write + Send),
    now_ms: i64,
}

/// Does what was asked, and says how it went.
pub async fn run(args: Args, env: &dyn Strings, clock: &dyn Clock, host: &impl Host) -> ExitCode {
    let mut out = BufWriter::new(io::stdout());
    let done = dispatch(args, env, clock, host, &mut out).await;
    // What was printed before a failure is shown too.
    let flushed = out.flush().map_err(anyhow::Error::from);
    match done.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

async fn dispatch(
    args: Args,
    env: &dyn Strings,
    clock: &dyn Clock,
    host: &impl Host,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<ExitCode> {
    let path = args.config.as_deref();
    match args.command {
        Command::Serve => host.serve(Config::load(path, env)?).await?,
        Command::Demo(demo) => host.demo(demo).await?,
        Command::Check(check) => return Ok(check.run(path, env, out)?),
        Command::Ask(ask) => {
            let config = Config::load_for_command(path, env)?;
            if let Ask::Erase(erase) = &ask
                && erase.rewrite
            {
                rewrite::run(&config, host, erase.json, out).await?;
                return Ok(ExitCode::SUCCESS);
            }
            let backend = backend_for(&ask, &config, host).await?;
            let session = Session {
                backend: backend.as_ref(),
                out,
                now_ms: clock.now_ms(),
            };
            ask.run(session).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The running node, else its store.
async fn backend_for(
    ask: &Ask,
    config: &Config,
    host: &impl Host,
) -> anyhow::Result<Box<dyn Backend>> {
    let socket = config.socket();
    if let Some(client) = AdminClient::connect(&socket).await? {
        return Ok(Box::new(client));
    }
    let no_node = format!("no node answers at {}", socket.display());
    anyhow::ensure!(
        ask.suits_a_closed_store(),
        "{no_node}: start it with `inlet serve`"
    );
    host.offline(config, matches!(ask, Ask::Import(_)))
        .context(no_node)
}

/// Whoever reads our output may stop reading: `inlet export … | head` is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn complain(error: &anyhow::Error) -> ExitCode {
    let mut stderr = io::stderr();
    // Where even standard error is gone, the exit code has to do.
    if let Some(mistakes) = error.downcast_ref::<Mistakes>() {
        let _ = writeln!(stderr, "{mistakes}");
        return ExitCode::from(MISTAKEN);
    }
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        let _ = write!(stderr, "{usage}");
        return ExitCode::from(MISUSED);
    }
    let _ = writeln!(stderr, "inlet: {error:#}");
    ExitCode::from(FAILED)
}

// === impl Ask ===

impl Ask {
    /// Whether the command makes sense without a running node.
    fn suits_a_closed_store(&self) -> bool {
        !matches!(self, Ask::Sync(_))
    }

    async fn run(self, session: Session<'_>) -> anyhow::Result<()> {
        match self {
            Ask::Import(import) => import.run(session).await,
            Ask::Export(export) => export.run(session).await,
            Ask::Status(status) => status.run(session).await,
            Ask::Webhooks(webhooks) => webhooks.run(session).await,
            Ask::Deliveries(deliveries) => deliveries.run(session).await,
            Ask::Erase(erase) => erase.run(session).await,
            Ask::Sync(sync) => sync.run(session).await,
        }
    }
}

// === impl Session ===

impl Session<'_> {
    /// Prints an answer as it is, or as people like to read it.
    fn print(
        &mut self,
        answer: &serde_json::Value,
        json: bool,
        human: impl FnOnce(&serde_json::Value) -> String,
    ) -> io::Result<()> {
        if json {
            return writeln!(self.out, "{answer}");
        }
        writeln!(self.out, "{}", human(answer).trim_end())
    }
}

#[cfg(test)]
mod tests;
