//! The `inlet` binary: argv -> Config -> App -> run; exit codes.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use inlet::app::App;
use inlet::cli::{self, Args, Backend, Demo, Host};
use inlet::clock::SystemClock;
use inlet::closed::ClosedStore;
use inlet::config::{Config, Process};
use inlet::{demo, telemetry};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Args::parse(), &Process, &SystemClock::new(), &Program).await
}

struct Program;

impl Host for Program {
    async fn serve(&self, config: Config) -> anyhow::Result<()> {
        telemetry::init(&config.log)?;
        let stop = stop_signal()?;
        let app = App::build(&config, Arc::new(SystemClock::new())).await?;
        let addresses = app.addresses()?;
        tracing::info!(intake = %addresses.intake, admin = %addresses.admin, "serving");
        app.run(stop).await;
        Ok(())
    }

    async fn demo(&self, asked: Demo) -> anyhow::Result<()> {
        demo::run(asked.exit, stop_signal()?).await
    }

    fn offline(&self, config: &Config, may_create: bool) -> anyhow::Result<Box<dyn Backend>> {
        Ok(Box::new(ClosedStore::open(config, may_create)?))
    }

    async fn rewrite(&self, config: &Config) -> anyhow::Result<serde_json::Value> {
        ClosedStore::rewrite(config).await
    }
}

/// Completes at the first SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
