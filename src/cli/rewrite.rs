//! `inlet erase --rewrite`: the store's file written anew, with progress, while no node has it open.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::table::cell;
use super::{AdminClient, Host, progress};
use crate::config::Config;

/// How often the new file is looked at.
const STEP: Duration = Duration::from_millis(200);

pub(super) async fn run(
    config: &Config,
    host: &impl Host,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let socket = config.socket();
    anyhow::ensure!(
        AdminClient::connect(&socket).await?.is_none(),
        "a node answers at {}: stop it first",
        socket.display()
    );
    let rewritten = watched(&config.store.path, host.rewrite(config)).await?;
    match json {
        true => writeln!(out, "{rewritten}")?,
        false => writeln!(out, "{}", told(&rewritten))?,
    }
    Ok(())
}

/// Waits while a bar follows the new file as it grows towards the old one's size.
async fn watched(
    path: &Path,
    rewrite: impl Future<Output = anyhow::Result<Value>>,
) -> anyhow::Result<Value> {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let bar = progress::bar_before_results(size(path));
    let new = unfinished(path);
    let mut rewrite = std::pin::pin!(rewrite);
    let rewritten = loop {
        match tokio::time::timeout(STEP, &mut rewrite).await {
            Ok(rewritten) => break rewritten,
            Err(_) => bar.set_position(size(&new)),
        }
    };
    bar.finish_and_clear();
    rewritten
}

/// Where the store writes its new file.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".compacting");
    PathBuf::from(name)
}

fn told(rewritten: &Value) -> String {
    format!(
        "the store's file was written anew: {} bytes, before that {}",
        cell(rewritten, "/after_bytes"),
        cell(rewritten, "/before_bytes"),
    )
}
