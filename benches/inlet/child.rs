//! Servers under test: this very program once more, as a process of its own.
//!
//! A child says on its standard output where it listens, and ends when its standard input does: so it never outlives
//! its parent, however that ended.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use axum::serve::ListenerExt;
use clap::Args;
use inlet::app::App;
use inlet::clock::SystemClock;
use inlet::config::Config;
use inlet::schedule::{Retention, Stop};
use inlet::telemetry;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::retention::Purge;

/// What a child is.
#[derive(Debug, Args)]
pub(crate) struct Role {
    /// A node with this configuration; without one, a handler that reads the body and stores nothing.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The node takes webhooks in and does not work through them.
    #[arg(long)]
    paused: bool,
    /// The node removes this all the while, where it is old.
    #[arg(long)]
    purging: Option<Purge>,
}

/// A running child.
pub(crate) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    /// Where it takes webhooks.
    pub(crate) address: SocketAddr,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Resident memory at its highest, MiB.
    pub(crate) memory_mib_max: f64,
    /// Time on all processors.
    pub(crate) cpu: Duration,
}

/// The kernel's unit for a process's times, which is the same on every Linux.
const TICK: Duration = Duration::from_millis(10);

impl Child {
    /// A handler that reads the body and stores nothing.
    pub(crate) fn empty() -> anyhow::Result<Self> {
        Self::start(&[])
    }

    /// A node whose configuration and store are in `folder`.
    pub(crate) fn node(folder: &TempDir, node: &Node<'_>) -> anyhow::Result<Self> {
        let config = folder.path().join("inlet.toml");
        std::fs::write(&config, node.config(folder.path()))?;
        let mut arguments = vec!["--config".into(), config.display().to_string()];
        if node.paused {
            arguments.push("--paused".into());
        }
        if let Some(purge) = node.purging {
            arguments.extend(["--purging".into(), purge.name().into()]);
        }
        Self::start(&arguments)
    }

    fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            // As systemd/inlet.service has it.
            .env("MALLOC_ARENA_MAX", "2")
            .arg("child")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a server under test does not start")?;
        let stdin = process.stdin.take();
        let mut said = String::new();
        let stdout = process.stdout.take().context("a child has an output")?;
        BufReader::new(stdout).read_line(&mut said)?;
        let address = said
            .trim()
            .parse()
            .context("a server under test ended early")?;
        Ok(Self {
            process,
            stdin,
            address,
        })
    }

    /// Its use of the machine so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        usage(&self.process.id().to_string())
    }

    /// Ends it and waits for it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let status = self.process.wait()?;
        ensure!(status.success(), "a server under test ended with {status}");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Fails only where it was waited for already.
        let _ = self.process.wait();
    }
}

/// What a node is told.
#[derive(Debug, Default)]
pub(crate) struct Node<'a> {
    /// Takes webhooks in only.
    pub(crate) paused: bool,
    /// Removes this all the while, where it is old.
    pub(crate) purging: Option<Purge>,
    /// Where MongoDB is, and the database.
    pub(crate) mongodb: Option<(&'a str, &'a str)>,
}

impl Node<'_> {
    fn config(&self, folder: &Path) -> String {
        let store = store(folder);
        let mut text = format!(
            "[node]\nid = \"bench\"\n[store]\npath = {store:?}\n\
             [intake]\nlisten = \"127.0.0.1:0\"\nmax_backlog = 100000000\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n"
        );
        if let Some((uri, database)) = self.mongodb {
            text += &format!("[mongodb]\nuri = {uri:?}\ndatabase = {database:?}\n");
        }
        text
    }
}

/// The store of a node whose files are in `folder`.
pub(crate) fn store(folder: &Path) -> PathBuf {
    folder.join("inlet.redb")
}

/// The use of the machine by a process: its id, or `self`.
pub(crate) fn usage(process: &str) -> anyhow::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.context("a process has a peak of memory")?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, after_name) = stat.rsplit_once(") ").context("a process has a name")?;
    let times = after_name.split(' ').skip(11).take(2);
    let ticks = times.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(Usage {
        memory_mib_max: kib / 1024.0,
        cpu: TICK * ticks,
    })
}

/// The child's side.
pub(crate) async fn run(role: Role) -> anyhow::Result<()> {
    match role.config.clone() {
        Some(config) => node(&config, &role).await,
        None => empty().await,
    }
}

async fn node(config: &Path, role: &Role) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(config)?;
    let config = Config::parse(&text)?;
    telemetry::init(&config.log)?;
    let mut app = App::build(&config, Arc::new(SystemClock::new())).await?;
    if role.paused {
        app = app.with_pipeline_paused();
    }
    let (shutdown, stop) = watch::channel(false);
    if let Some(purge) = role.purging {
        let store = Arc::clone(&app.console().store);
        let retention = Retention::new(store, Arc::new(SystemClock::new()), purge.policy());
        tokio::spawn(async move {
            match retention.run(Stop::when(stop)).await {
                Ok(done) => eprintln!("{}", done.result),
                Err(error) => eprintln!("the purge failed: {error}"),
            }
        });
    }
    println!("{}", app.addresses()?.intake);
    app.run(async {
        orphaned().await;
        let _ = shutdown.send(true);
    })
    .await;
    Ok(())
}

async fn empty() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = Router::new().fallback(post(async |body: Bytes| {
        drop(body);
        r#"{"success": true}"#
    }));
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        () = orphaned() => Ok(()),
    }
}

/// Completes when standard input ends.
async fn orphaned() {
    let (gone, noticed) = oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is ever written to it; an error is an end as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = gone.send(());
    });
    let _ = noticed.await;
}
