//! Draining a queue of documents, against inserting the same documents with the driver's unordered `insert_many`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bson::{Document, RawDocumentBuf};
use clap::Args;
use futures_util::TryStreamExt;
use inlet::store::documents::Collection;
use inlet::upstream::{Push, connect};
use inlet::worker::Worker;
use inlet_sync::Options;
use inlet_sync::ports::Outbox;
use mongodb::Database;
use mongodb::options::{CreateCollectionOptions, WriteConcern};
use serde_json::json;
use tempfile::TempDir;

use super::child::store;
use super::harness::mongod::{Mongod, fresh_name};
use super::prefill::{self, Queue, copy};
use super::report::{Target, conclude, median, number, table};
use super::workshop;

/// Documents that a lead of a new person causes.
const DOCUMENTS_EACH: u64 = 7;
/// Documents in one `insert_many`.
const BATCH: usize = 1_000;

/// What can be chosen.
#[derive(Debug, Args)]
pub(crate) struct Knobs {
    /// Documents in the queue, to the next whole lead.
    #[arg(long, default_value_t = 200_000)]
    documents: u64,
    /// How often both are measured; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A MongoDB without a replica set.
    #[arg(long)]
    standalone: bool,
}

/// Documents per second.
struct Round {
    drained: f64,
    inserted: f64,
}

/// Measures and prints.
pub(crate) async fn run(knobs: Knobs) -> anyhow::Result<()> {
    let mongod = match knobs.standalone {
        true => Mongod::standalone().await,
        false => Mongod::replica_set().await,
    };
    let leads = knobs.documents.div_ceil(DOCUMENTS_EACH);
    let mut rounds = Vec::new();
    for round in 1..=knobs.rounds {
        eprintln!("round {round}");
        rounds.push(measure(&mongod, leads).await?);
    }
    report(leads * DOCUMENTS_EACH, &rounds);
    Ok(())
}

async fn measure(mongod: &Mongod, leads: u64) -> anyhow::Result<Round> {
    let folder = TempDir::new_in(workshop()?)?;
    let path = store(folder.path());
    copy(leads, Queue::Full, &path).await?;
    let documents = documents(&path)?;
    let count: usize = documents.values().map(Vec::len).sum();
    ensure!(
        count as u64 == leads * DOCUMENTS_EACH,
        "{count} documents are queued"
    );
    let drained = mongod.database(&fresh_name("drained")).await;
    let inserted = mongod.database(&fresh_name("inserted")).await;
    let drain_took = drain(&path, mongod, &drained).await?;
    prepare_alike(&drained, &inserted).await?;
    drained.drop().await?;
    let insert_took = insert(&inserted, documents).await?;
    inserted.drop().await?;
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    Ok(Round {
        drained: rate(drain_took),
        inserted: rate(insert_took),
    })
}

/// Everything that waits, as MongoDB is to get it, by collection.
fn documents(path: &Path) -> anyhow::Result<BTreeMap<&'static str, Vec<RawDocumentBuf>>> {
    let (store, outbox) = prefill::open(path)?;
    let snapshot = store.read()?;
    let mut documents = BTreeMap::<_, Vec<_>>::new();
    for pending in outbox.take(0, usize::MAX)? {
        let collection = Collection::of(pending.row).name();
        let whole = snapshot.whole(pending.row)?;
        documents.entry(collection).or_default().push(whole);
    }
    Ok(documents)
}

async fn drain(path: &Path, mongod: &Mongod, database: &Database) -> anyhow::Result<Duration> {
    let (store, outbox) = prefill::open(path)?;
    let upstream = connect(Options::new(mongod.uri(), database.name(), "bench"));
    let mut push = Push::new(Arc::clone(&upstream), outbox);
    let begun = Instant::now();
    while store.read()?.pending_count()? > 0 {
        if let Err(error) = push.step().await {
            anyhow::bail!("the push failed: {error}");
        }
    }
    let took = begun.elapsed();
    ensure!(store.read()?.held_count()? == 0, "documents were refused");
    upstream.shutdown().await;
    Ok(took)
}

/// The same collections with the same indexes, so that MongoDB has the same to do.
async fn prepare_alike(model: &Database, copy: &Database) -> anyhow::Result<()> {
    for name in Collection::NAMES {
        let indexes = model.collection::<Document>(name).list_indexes().await;
        let Ok(indexes) = indexes else {
            continue;
        };
        copy.create_collection(name)
            .with_options(CreateCollectionOptions::default())
            .await?;
        let indexes: Vec<_> = indexes.try_collect().await?;
        for index in indexes {
            copy.collection::<Document>(name)
                .create_index(index)
                .await?;
        }
    }
    Ok(())
}

async fn insert(
    database: &Database,
    documents: BTreeMap<&'static str, Vec<RawDocumentBuf>>,
) -> anyhow::Result<Duration> {
    let concern = WriteConcern::builder()
        .w(mongodb::options::Acknowledgment::Majority)
        .journal(true)
        .build();
    let begun = Instant::now();
    for (name, documents) in &documents {
        let collection = database.collection::<RawDocumentBuf>(name);
        for batch in documents.chunks(BATCH) {
            let inserted = collection.insert_many(batch).ordered(false);
            inserted.write_concern(concern.clone()).await?;
        }
    }
    Ok(begun.elapsed())
}

fn report(documents: u64, rounds: &[Round]) {
    let ratio = |round: &Round| round.drained / round.inserted;
    let rows = rounds.iter().map(|round| {
        let figures = [round.drained, round.inserted, ratio(round)];
        figures.map(number).to_vec()
    });
    table(&["drained/s", "insert_many/s", "ratio"], rows);
    let measured = rounds.iter().map(|round| {
        json!({ "drained_per_second": round.drained, "inserted_per_second": round.inserted })
    });
    let reached = median(rounds.iter().map(ratio).collect());
    conclude(
        "drain",
        json!({ "documents": documents, "rounds": measured.collect::<Vec<_>>() }),
        &[Target::at_least("of insert_many's rate", 0.5, reached)],
    );
}
