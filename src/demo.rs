//! `inlet demo`: the product in ten seconds, with nothing but the binary.
//!
//! A throw-away store, a sample account with a campaign for every platform, and every adapter's samples posted over
//! HTTP to the node itself. Facebook's leads are fetched from a built-in stand-in for the Graph API.

mod graph;
mod reference;
mod report;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Client;
use serde_json::Value;

use crate::app::{Addresses, App};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::console::Console;
use crate::model::Method;
use crate::platforms::{self, Adapter, Addressing, Sample};

/// How long the samples may take to be worked through; they take milliseconds.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// What was posted, and how it was answered.
struct Posted {
    adapter: &'static Adapter,
    sample: &'static Sample,
    status: u16,
}

/// Shows what a node does; keeps serving until `stop` unless `exit`.
///
/// # Errors
/// When no store can be made or no port be opened.
pub async fn run(exit: bool, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("no folder for a throw-away store can be made")?;
    let graph_url = graph::start().await?;
    let config = config(folder.path(), &graph_url)?;
    let app = App::build(&config, Arc::new(SystemClock::new())).await?;
    let (addresses, console) = (app.addresses()?, app.console());
    console.import(&reference::sample()).await?;
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let node = tokio::spawn(app.run(async move { drop(left.await) }));
    let posted = post_samples(addresses).await?;
    settle(&console).await?;
    report::print(&console, &posted, addresses, exit)?;
    if !exit {
        stop.await;
    }
    drop(leave);
    node.await.context("the node did not stop cleanly")
}

/// Ports are the system's to choose, so that a demo runs beside anything.
fn config(folder: &std::path::Path, graph_url: &str) -> anyhow::Result<Config> {
    let store = folder.join("inlet.redb");
    let text = format!(
        "[node]\nid = \"demo\"\n\
         [store]\npath = {store:?}\n\
         [intake]\nlisten = \"127.0.0.1:0\"\nmin_free = \"1MiB\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [facebook]\ngraph_url = {graph_url:?}\n"
    );
    Ok(Config::parse(&text)?)
}

async fn post_samples(addresses: Addresses) -> anyhow::Result<Vec<Posted>> {
    let client = Client::builder()
        .no_proxy()
        .build()
        .context("no HTTP client can be made")?;
    let mut posted = Vec::new();
    for adapter in platforms::ALL {
        for sample in adapter.samples {
            let status = post(&client, addresses, adapter, sample).await?;
            posted.push(Posted {
                adapter,
                sample,
                status,
            });
        }
    }
    Ok(posted)
}

async fn post(
    client: &Client,
    addresses: Addresses,
    adapter: &Adapter,
    sample: &Sample,
) -> anyhow::Result<u16> {
    let mut url = format!(
        "http://{}/v1/inbound/webhooks/{}",
        addresses.intake, adapter.slug
    );
    if adapter.addressing == Addressing::Url {
        url += &format!(
            "/{}/{}",
            reference::ACCOUNT,
            reference::campaign_id(adapter.slug)
        );
    }
    if !sample.query.is_empty() {
        url += &format!("?{}", sample.query);
    }
    let mut request = match sample.method {
        Method::Get => client.get(url),
        Method::Post => client.post(url).body(sample.body),
    };
    if let Some(content_type) = sample.content_type {
        request = request.header("content-type", content_type);
    }
    Ok(request.send().await?.status().as_u16())
}

async fn settle(console: &Console) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + SETTLE_MAX;
    loop {
        let status = console.status()?;
        if status.pointer("/backlog/ready") == Some(&Value::from(0)) {
            return Ok(());
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the samples were not worked through in time: {status}"
        );
        tokio::time::sleep(SETTLE_STEP).await;
    }
}
