//! Intake while old leads are removed, against intake while they are left alone; and what a purge to the end leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use inlet::clock::SystemClock;
use inlet::schedule::{Policy, Retention, Stop, check_sample};
use inlet::store::Store;
use inlet::store::compaction::Compacted;
use inlet::store::documents::Collection;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use super::child::{Child, Node, store};
use super::harness::mongod::{Mongod, fresh_name};
use super::load::{Measured, Numbers, Plan, Valve, fire};
use super::prefill::{self, Queue};
use super::report::{Target, conclude, median, ms, number, table};
use super::{reference, workshop};

/// As the configuration's defaults have it.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
const POLICY: Policy = Policy {
    webhooks: KEPT,
    documents: Some(KEPT),
    dedupe_window: Duration::from_secs(600),
};
/// Old leads sent once more when they are gone.
const RESENT: u64 = 1_000;
/// Leads that came just before the purge whose end result is looked at.
const FRESH: u64 = 1_000;

const DOCUMENTS_OF_A_LEAD: [(Collection, u64); 6] = [
    (Collection::Contacts, 1),
    (Collection::Leads, 1),
    (Collection::Deals, 1),
    (Collection::Conversations, 1),
    (Collection::Rooms, 1),
    (Collection::Messages, 2),
];

/// What can be chosen.
#[derive(Debug, Args)]
pub(crate) struct Knobs {
    /// Leads in the store that are old enough to go.
    #[arg(long, default_value_t = 100_000)]
    leads: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How often both are measured; the median of the ratios counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What is removed: each is measured alone, since a run removes one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purge {
    /// Webhooks with their outcomes.
    Webhooks,
    /// Leads with all that belongs to them.
    Documents,
}

/// One run, and the store it left.
struct Sample {
    measured: Measured,
    acknowledged: u64,
    folder: TempDir,
}

impl Purge {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks",
            Self::Documents => "documents",
        }
    }

    pub(crate) fn policy(self) -> Policy {
        match self {
            Self::Webhooks => Policy {
                documents: None,
                ..POLICY
            },
            Self::Documents => Policy {
                webhooks: 100 * KEPT,
                ..POLICY
            },
        }
    }
}

/// Measures and prints.
pub(crate) async fn run(knobs: Knobs) -> anyhow::Result<()> {
    let mongod = Mongod::replica_set().await;
    let (mut webhooks, mut documents) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    let mut last = None;
    for round in 1..=knobs.rounds {
        let mut p99 = Vec::new();
        for purging in [None, Some(Purge::Webhooks), Some(Purge::Documents)] {
            eprintln!("round {round}, removing: {purging:?}");
            let sample = measure(&knobs, purging, &mongod).await?;
            p99.push(ms(sample.measured.p99));
            rows.push(row(round, purging, &sample));
            last = Some(sample);
        }
        webhooks.push(p99[1] / p99[0]);
        documents.push(p99[2] / p99[0]);
    }
    let last = last.context("nothing was measured")?;
    let left = finish(&knobs, last).await?;
    let shrunk = shrink(&knobs).await?;
    let head = ["round", "removing", "requests/s", "p50 ms", "p99 ms"];
    table(&head, rows);
    let target = |what, ratios: &[f64]| Target::at_most(what, 2.0, median(ratios.to_vec()));
    conclude(
        "retention",
        json!({
            "p99_ratios": { "webhooks": webhooks, "documents": documents },
            "to_the_end_s": left.as_secs_f64(),
            "file_bytes": { "before": shrunk.before_bytes, "after": shrunk.after_bytes },
        }),
        &[
            target("p99 while webhooks are removed, of p99 without", &webhooks),
            target(
                "p99 while documents are removed, of p99 without",
                &documents,
            ),
            Target::at_most(
                "file after purge and compaction, of before",
                0.1,
                shrunk.after_bytes as f64 / shrunk.before_bytes as f64,
            ),
        ],
    );
    Ok(())
}

async fn measure(knobs: &Knobs, purging: Option<Purge>, mongod: &Mongod) -> anyhow::Result<Sample> {
    let folder = TempDir::new_in(workshop()?)?;
    prefill::copy(knobs.leads, Queue::Old, &store(folder.path())).await?;
    let database = fresh_name("retention");
    reference::insert_into(&mongod.database(&database).await).await?;
    let uri = mongod.uri();
    let node = Node {
        paused: false,
        purging,
        mongodb: Some((&uri, &database)),
    };
    let child = Child::node(&folder, &node)?;
    let plan = Plan {
        address: child.address,
        connections: knobs.connections,
        duration: Duration::from_secs(knobs.seconds),
    };
    let (valve, _held_open) = Valve::new();
    let measured = fire(plan, &Numbers::from(knobs.leads), &valve).await?;
    child.stop()?;
    mongod.database(&database).await.drop().await?;
    Ok(Sample {
        measured,
        acknowledged: valve.acknowledged.load(Ordering::Relaxed),
        folder,
    })
}

fn row(round: usize, purging: Option<Purge>, sample: &Sample) -> Vec<String> {
    vec![
        round.to_string(),
        purging.map_or("nothing", Purge::name).to_owned(),
        number(sample.measured.per_second),
        number(ms(sample.measured.p50)),
        number(ms(sample.measured.p99)),
    ]
}

/// Ends the purge without a rest, and looks whether what is left is what was acknowledged during the run, and whether
/// the old leads are still known.
async fn finish(knobs: &Knobs, sample: Sample) -> anyhow::Result<Duration> {
    let (store, _) = prefill::open(&store(sample.folder.path()))?;
    let begun = Instant::now();
    purge(Arc::clone(&store)).await?;
    let took = begun.elapsed();
    let kept = prefill::webhooks(&store)?;
    ensure!(
        kept == sample.acknowledged,
        "{kept} webhooks are left, and {} were acknowledged",
        sample.acknowledged
    );
    let duplicates = store.read()?.counted("duplicate")?;
    let resent = RESENT.min(knobs.leads);
    prefill::append(&store, 0..resent).await?;
    let known = store.read()?.counted("duplicate")? - duplicates;
    ensure!(known == resent, "{known} of {resent} are known");
    Ok(took)
}

/// Old leads and 1,000 fresh ones: fails unless the fresh ones are left with all their documents, and nothing else.
/// Says what the next start makes of the file.
async fn shrink(knobs: &Knobs) -> anyhow::Result<Compacted> {
    let folder = TempDir::new_in(workshop()?)?;
    let path = store(folder.path());
    prefill::copy(knobs.leads, Queue::Old, &path).await?;
    {
        let (store, _) = prefill::open(&path)?;
        prefill::append(&store, knobs.leads..knobs.leads + FRESH).await?;
        purge(Arc::clone(&store)).await?;
        let kept = prefill::webhooks(&store)?;
        ensure!(kept == FRESH, "{kept} webhooks are left, not {FRESH}");
        for (collection, each) in DOCUMENTS_OF_A_LEAD {
            let kept = prefill::documents(&store, collection)?;
            ensure!(
                kept == each * FRESH,
                "{kept} documents are left in {}, not {each} for each fresh lead",
                collection.name()
            );
        }
        if let Err(error) = check_sample(Arc::clone(&store)).await {
            anyhow::bail!("the self-check failed: {error}");
        }
        store.plan_compaction().await?;
    }
    let (store, _) = prefill::open(&path)?;
    store.compacted().context("the file was left as it was")
}

async fn purge(store: Arc<Store>) -> anyhow::Result<()> {
    let (_running, stop) = watch::channel(false);
    let retention = Retention::new(store, Arc::new(SystemClock::new()), POLICY);
    let done = retention.without_rests().run(Stop::when(stop)).await;
    match done {
        Ok(done) => eprintln!("to the end: {}", done.result),
        Err(error) => anyhow::bail!("the purge failed: {error}"),
    }
    Ok(())
}
