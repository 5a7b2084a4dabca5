//! Stores filled through the library, without HTTP: kept from run to run, copied for each.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, ensure};
use futures_util::future::try_join_all;
use inlet::clock::{Clock, ManualClock, SystemClock};
use inlet::model::{Method, Webhook};
use inlet::pipeline::freshness::Freshness;
use inlet::pipeline::{Limits, Pipeline, Shared};
use inlet::store::Store;
use inlet::store::documents::Collection;
use inlet::store::outbox::StoreOutbox;
use inlet::worker::run_until_idle;
use inlet_sync::ports::{Outbox, Verdict};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::reference::{ACCOUNT, CAMPAIGN, to_import};
use super::{load, workshop};

/// Leads received before the pipeline runs.
const CHUNK: u64 = 2_000;
/// Tickets in one acknowledgement, as many as a push takes at once.
const TICKETS: usize = 7_000;
/// How old what is old is.
const AGE_MS: i64 = 60 * 86_400_000;

/// What a filled store holds besides leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Every document waits to be pushed.
    Full,
    /// Every document counts as pushed.
    Empty,
    /// The same, and all of it is older than anything is kept.
    Old,
}

/// Copies a store of this many leads to `to`; it is filled when it is first asked for.
pub(crate) async fn copy(leads: u64, queue: Queue, to: &Path) -> anyhow::Result<()> {
    let kept = kept(leads, queue)?;
    if !kept.exists() {
        let unfinished = kept.with_extension("part");
        let _ = std::fs::remove_file(&unfinished);
        fill(&unfinished, leads, queue).await?;
        std::fs::rename(&unfinished, &kept)?;
    }
    std::fs::copy(&kept, to)?;
    std::fs::File::open(to)?.sync_all()?;
    Ok(())
}

fn kept(leads: u64, queue: Queue) -> anyhow::Result<PathBuf> {
    let state = match queue {
        Queue::Full => "queued",
        Queue::Empty => "pushed",
        Queue::Old => "pushed-and-old",
    };
    Ok(workshop()?.join(format!("{leads}-leads-{state}.redb")))
}

/// A filled store, opened by this process.
pub(crate) fn open(path: &Path) -> anyhow::Result<(Arc<Store>, StoreOutbox)> {
    let store = Arc::new(Store::open(path.to_owned(), Some("bench"))?);
    let outbox = StoreOutbox::new(Arc::clone(&store), 600_000, Arc::new(SystemClock::new()));
    Ok((store, outbox))
}

async fn fill(path: &Path, leads: u64, queue: Queue) -> anyhow::Result<()> {
    let (store, outbox) = open(path)?;
    let clock = queue.clock();
    store.import(to_import()?).await?;
    let outbox = Arc::new(outbox);
    let mut pipeline = pipeline(&store, Arc::clone(&clock));
    let mut first = 0;
    while first < leads {
        let until = (first + CHUNK).min(leads);
        submit(&store, &mut pipeline, first..until, clock.now_ms()).await?;
        if queue != Queue::Full {
            let outbox = Arc::clone(&outbox);
            tokio::task::spawn_blocking(move || acknowledge(&outbox)).await??;
        }
        if until.is_multiple_of(CHUNK * 25) {
            eprintln!("{until} of {leads} leads are in the store");
        }
        first = until;
    }
    let counted = store.read()?.counted("lead")?;
    ensure!(
        counted == leads,
        "{counted} leads are in the store, not {leads}"
    );
    Ok(())
}

/// More leads, as of now.
pub(crate) async fn append(store: &Arc<Store>, leads: Range<u64>) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock::new());
    let now_ms = clock.now_ms();
    submit(store, &mut pipeline(store, clock), leads, now_ms).await
}

async fn submit(
    store: &Store,
    pipeline: &mut Pipeline,
    leads: Range<u64>,
    now_ms: i64,
) -> anyhow::Result<()> {
    let webhooks: Vec<_> = leads.map(|number| webhook(number, now_ms)).collect();
    try_join_all(webhooks.iter().map(|webhook| store.receive(webhook))).await?;
    run_until_idle(pipeline)
        .await
        .map_err(|error| anyhow!("the pipeline failed: {error}"))
}

impl Queue {
    fn clock(self) -> Arc<dyn Clock> {
        let now = SystemClock::new();
        match self {
            Queue::Full | Queue::Empty => Arc::new(now),
            Queue::Old => Arc::new(ManualClock::at(now.now_ms() - AGE_MS)),
        }
    }
}

/// A pipeline over a store that is not a node's.
pub(crate) fn pipeline(store: &Arc<Store>, clock: Arc<dyn Clock>) -> Pipeline {
    Pipeline::new(Arc::new(Shared {
        store: Arc::clone(store),
        clock,
        freshness: Freshness::new(true),
        limits: limits(),
        live_events: false,
    }))
}

/// How many webhooks a store keeps.
pub(crate) fn webhooks(store: &Store) -> anyhow::Result<u64> {
    let snapshot = store.read()?;
    let (mut count, mut after) = (0, 0);
    loop {
        let page = snapshot.webhooks_after(after, 1_000)?;
        let Some((last, _)) = page.last() else {
            return Ok(count);
        };
        after = *last;
        count += page.len() as u64;
    }
}

/// How many documents of a collection a store keeps.
pub(crate) fn documents(store: &Store, collection: Collection) -> anyhow::Result<u64> {
    let snapshot = store.read()?;
    let (mut count, mut after) = (0, 0);
    loop {
        let page = snapshot.documents_after(collection, after, 1_000)?;
        let Some((last, _)) = page.last() else {
            return Ok(count);
        };
        after = *last;
        count += page.len() as u64;
    }
}

fn acknowledge(outbox: &StoreOutbox) -> anyhow::Result<()> {
    loop {
        let pending = outbox.take(0, TICKETS)?;
        if pending.is_empty() {
            return Ok(());
        }
        let done = pending.into_iter().map(|pending| (pending, Verdict::Done));
        outbox.conclude(done.collect())?;
    }
}

/// The webhook of the lead of this number.
pub(crate) fn webhook(number: u64, now_ms: i64) -> Webhook {
    let mut body = Vec::new();
    load::body(number, &mut body);
    Webhook {
        platform: "instapage".to_owned(),
        account: Some(ACCOUNT.to_owned()),
        campaign: Some(CAMPAIGN.to_owned()),
        method: Method::Post,
        query: String::new(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        arrived_at_ms: now_ms,
        body,
    }
}

/// The configuration's defaults.
fn limits() -> Limits {
    Limits {
        max_attempts: 3,
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        dedupe_window: Duration::from_secs(600),
        max_waiting_per_account: 100_000,
        max_waiting_unknown: 10_000,
    }
}
