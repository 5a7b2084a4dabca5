//! The plain implementation that Inlet is measured against: Express and Mongoose, from a folder named by the caller.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::workshop;

/// What belongs to it; nothing else of its folder is read.
const FILES: [&str; 2] = ["package.json", "server.js"];

/// A running peer; killed on drop.
pub(crate) struct Peer {
    process: Child,
    /// Where it takes webhooks.
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Peer {
    /// Installs a copy of what is in `source` and starts it on this database.
    pub(crate) fn start(source: &Path, uri: &str) -> anyhow::Result<Self> {
        let folder = TempDir::new_in(workshop()?)?;
        for file in FILES {
            std::fs::copy(source.join(file), folder.path().join(file))
                .with_context(|| format!("the peer has a {file}"))?;
        }
        let installed = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--silent"])
            .current_dir(folder.path())
            .status()
            .context("npm is needed for the peer")?;
        ensure!(installed.success(), "npm install ended with {installed}");
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut process = Command::new("node")
            .arg("server.js")
            .current_dir(folder.path())
            .env("MONGO", uri)
            .env("PORT", address.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("node is needed for the peer")?;
        wait_until_ready(&mut process)?;
        Ok(Self {
            process,
            address,
            _folder: folder,
        })
    }
}

fn wait_until_ready(process: &mut Child) -> anyhow::Result<()> {
    let stdout = process.stdout.take().context("a child has an output")?;
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    ensure!(said.trim() == "ready", "the peer is not ready: {said}");
    Ok(())
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
