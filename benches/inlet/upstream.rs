//! From webhook to all documents in MongoDB, pipeline and sync running: against Express and Mongoose, and with many
//! leads in the store already.
//!
//! The load is as much as the other side keeps up with: requests are held back while more than so many leads are
//! acknowledged and not upstream yet. So what is measured is a rate that can be kept up, and not a growing backlog.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use bson::Document;
use clap::Args;
use mongodb::Database;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

use super::child::{Child, Node, store};
use super::harness::mongod::{Mongod, fresh_name};
use super::load::{Measured, Numbers, Plan, Valve, fire};
use super::peer::Peer;
use super::prefill::{self, Queue};
use super::reference;
use super::report::{Target, conclude, ms, number, table};

/// How often MongoDB is asked how far it is.
const LOOK: Duration = Duration::from_millis(250);
/// The first and the last document of a lead.
const ENDS: [&str; 2] = ["inbound.leads", "crm.deals"];
/// Names the peer's folder.
const PEER: &str = "INLET_BENCH_PEER";

/// What can be chosen.
#[derive(Debug, Args)]
pub(crate) struct Knobs {
    /// Seconds of each run; the second half counts.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Leads that may be acknowledged and not upstream yet.
    #[arg(long, default_value_t = 4_000)]
    backlog: u64,
    /// Leads in the store of the third run; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    leads: u64,
    /// A MongoDB without a replica set.
    #[arg(long)]
    standalone: bool,
}

/// What one run came to.
struct Run {
    name: &'static str,
    /// Leads that reached MongoDB per second, in the second half.
    per_second: f64,
    /// Leads acknowledged and not upstream: the means of the third and of the last quarter. It is a saw-tooth, so two
    /// single readings would say nothing.
    backlog: (f64, f64),
    measured: Measured,
    usage: Option<Use>,
}

struct Use {
    memory_mib_max: f64,
    cpu_us_each: f64,
}

/// Measures and prints.
pub(crate) async fn run(knobs: Knobs) -> anyhow::Result<()> {
    let mongod = match knobs.standalone {
        true => Mongod::standalone().await,
        false => Mongod::replica_set().await,
    };
    let numbers = Numbers::from(knobs.leads);
    let mut runs = vec![inlet(&knobs, &mongod, &numbers, "Inlet, empty store", 0).await?];
    if let Some(folder) = std::env::var_os(PEER).map(PathBuf::from) {
        runs.push(peer(&knobs, &mongod, &numbers, folder).await?);
    }
    if knobs.leads > 0 {
        let name = "Inlet, filled store";
        runs.push(inlet(&knobs, &mongod, &numbers, name, knobs.leads).await?);
    }
    report(&runs);
    Ok(())
}

async fn inlet(
    knobs: &Knobs,
    mongod: &Mongod,
    numbers: &Numbers,
    name: &'static str,
    leads: u64,
) -> anyhow::Result<Run> {
    let folder = TempDir::new_in(super::workshop()?)?;
    if leads > 0 {
        prefill::copy(leads, Queue::Empty, &store(folder.path())).await?;
    }
    eprintln!("{name}");
    let database = mongod.database(&fresh_name("upstream")).await;
    reference::insert_into(&database).await?;
    let uri = mongod.uri();
    let child = Child::node(
        &folder,
        &Node {
            mongodb: Some((&uri, database.name())),
            ..Node::default()
        },
    )?;
    let plan = knobs.plan(child.address);
    let mut run = keep_up(name, plan, knobs.backlog, numbers, &database).await?;
    let usage = child.usage()?;
    let leads = upstream(&database).await?;
    run.usage = Some(Use {
        memory_mib_max: usage.memory_mib_max,
        cpu_us_each: usage.cpu.as_secs_f64() * 1e6 / leads.max(1) as f64,
    });
    child.stop()?;
    database.drop().await?;
    Ok(run)
}

async fn peer(
    knobs: &Knobs,
    mongod: &Mongod,
    numbers: &Numbers,
    folder: PathBuf,
) -> anyhow::Result<Run> {
    let name = "Express and Mongoose";
    let database = mongod.database(&fresh_name("peer")).await;
    let uri = mongod.uri();
    let (server, options) = uri.rsplit_once('/').context("a URI has a path")?;
    let peer = Peer::start(&folder, &format!("{server}/{}{options}", database.name()))?;
    eprintln!("{name}");
    let plan = knobs.plan(peer.address);
    let run = keep_up(name, plan, knobs.backlog, numbers, &database).await?;
    drop(peer);
    database.drop().await?;
    Ok(run)
}

impl Knobs {
    fn plan(&self, address: std::net::SocketAddr) -> Plan {
        Plan {
            address,
            connections: self.connections,
            duration: Duration::from_secs(self.seconds),
        }
    }
}

async fn keep_up(
    name: &'static str,
    plan: Plan,
    backlog_max: u64,
    numbers: &Numbers,
    database: &Database,
) -> anyhow::Result<Run> {
    let (valve, gate) = Valve::new();
    let watched = watch_over(database, &valve, gate, backlog_max, plan.duration);
    let (measured, (per_second, backlog)) = tokio::try_join!(fire(plan, numbers, &valve), watched)?;
    ensure!(per_second > 0.0, "{name}: nothing reached MongoDB");
    Ok(Run {
        name,
        per_second,
        backlog,
        measured,
        usage: None,
    })
}

/// Opens and closes the gate; gives the rate of the second half, and the mean backlogs of its quarters.
async fn watch_over(
    database: &Database,
    valve: &Valve,
    gate: watch::Sender<bool>,
    backlog_max: u64,
    duration: Duration,
) -> anyhow::Result<(f64, (f64, f64))> {
    let begun = Instant::now();
    let mut half = None;
    let (mut third, mut last) = (Vec::new(), Vec::new());
    loop {
        tokio::time::sleep(LOOK).await;
        let there = upstream(database).await?;
        let backlog = valve
            .acknowledged
            .load(Ordering::Relaxed)
            .saturating_sub(there);
        gate.send_replace(backlog < backlog_max);
        let at = begun.elapsed();
        if at < duration / 2 {
            continue;
        }
        let (half_at, half_there) = *half.get_or_insert((at, there));
        let quarter = if at < duration * 3 / 4 {
            &mut third
        } else {
            &mut last
        };
        quarter.push(backlog as f64);
        if at >= duration {
            let gained = (there - half_there) as f64;
            let per_second = gained / (at - half_at).as_secs_f64();
            return Ok((per_second, (mean(&third), mean(&last))));
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Leads whose first and last document are in MongoDB.
async fn upstream(database: &Database) -> anyhow::Result<u64> {
    let mut least = u64::MAX;
    for collection in ENDS {
        let documents = database.collection::<Document>(collection);
        least = least.min(documents.estimated_document_count().await?);
    }
    Ok(least)
}

fn report(runs: &[Run]) {
    let head = [
        "",
        "leads/s",
        "backlog, 3rd quarter",
        "4th quarter",
        "answer p50 ms",
        "p99 ms",
        "RSS MiB",
        "CPU µs each",
    ];
    table(&head, runs.iter().map(row));
    let find = |name: &str| runs.iter().find(|run| run.name == name);
    let rate = |name: &str| find(name).map_or(f64::NAN, |run| run.per_second);
    let (empty, filled) = (rate("Inlet, empty store"), rate("Inlet, filled store"));
    let memory = find("Inlet, empty store").and_then(|run| run.usage.as_ref());
    let grown = runs.iter().filter(|run| run.usage.is_some());
    let grown = grown.map(|run| run.backlog.1 / run.backlog.0.max(1.0));
    let targets = [
        Target::at_least(
            "of the peer's rate",
            12.0,
            empty / rate("Express and Mongoose"),
        ),
        Target::at_least(
            "filled store: of the empty store's rate",
            0.8,
            filled / empty,
        ),
        Target::at_most(
            "backlog: last quarter, of the one before",
            1.2,
            grown.fold(0.0, f64::max),
        ),
        Target::at_most(
            "resident memory, empty store, MiB",
            150.0,
            memory.map_or(f64::NAN, |usage| usage.memory_mib_max),
        ),
    ];
    let measured: Vec<_> = runs.iter().map(Run::json).collect();
    conclude("upstream", json!(measured), &targets);
}

fn row(run: &Run) -> Vec<String> {
    let usage = |value: fn(&Use) -> f64| {
        run.usage
            .as_ref()
            .map_or(String::new(), |u| number(value(u)))
    };
    vec![
        run.name.to_owned(),
        number(run.per_second),
        number(run.backlog.0),
        number(run.backlog.1),
        number(ms(run.measured.p50)),
        number(ms(run.measured.p99)),
        usage(|usage| usage.memory_mib_max),
        usage(|usage| usage.cpu_us_each),
    ]
}

impl Run {
    fn json(&self) -> Value {
        json!({
            "server": self.name,
            "leads_per_second": self.per_second,
            "backlog_third_quarter": self.backlog.0,
            "backlog_last_quarter": self.backlog.1,
            "answer_p50_ms": ms(self.measured.p50),
            "answer_p99_ms": ms(self.measured.p99),
            "memory_mib_max": self.usage.as_ref().map(|usage| usage.memory_mib_max),
            "cpu_us_each": self.usage.as_ref().map(|usage| usage.cpu_us_each),
        })
    }
}
