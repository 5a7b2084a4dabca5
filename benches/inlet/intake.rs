//! Durable intake: as a burst with the pipeline paused, and with pipeline and sync running; against a handler that
//! stores nothing, and against the disk.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::child::{Child, Node};
use super::harness::mongod::{Mongod, fresh_name};
use super::load::{Measured, Numbers, Plan, Valve, fire};
use super::report::{Target, conclude, median, ms, number, table};
use super::{disk, reference, workshop};

/// What can be chosen.
#[derive(Debug, Args)]
pub(crate) struct Knobs {
    /// How many connections at once, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,400")]
    connections: Vec<usize>,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The burst only: no MongoDB is needed.
    #[arg(long)]
    burst_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Empty,
    Burst,
    Running,
}

/// One run against one server.
struct Sample {
    server: Server,
    connections: usize,
    measured: Measured,
    memory_mib_max: f64,
    cpu_us_each: f64,
    disk_p50: Duration,
}

/// Measures and prints.
pub(crate) async fn run(knobs: Knobs) -> anyhow::Result<()> {
    let mongod = match knobs.burst_only {
        true => None,
        false => Some(Mongod::replica_set().await),
    };
    let numbers = Numbers::from(0);
    let mut samples = Vec::new();
    for round in 1..=knobs.rounds {
        for &connections in &knobs.connections {
            eprintln!("round {round}, {connections} connections");
            for server in Server::all(mongod.is_some()) {
                let duration = Duration::from_secs(knobs.seconds);
                let sample = measure(*server, connections, duration, &numbers, mongod.as_ref());
                samples.push(sample.await?);
            }
        }
    }
    report(&knobs, &samples);
    Ok(())
}

async fn measure(
    server: Server,
    connections: usize,
    duration: Duration,
    numbers: &Numbers,
    mongod: Option<&Mongod>,
) -> anyhow::Result<Sample> {
    let folder = TempDir::new_in(workshop()?)?;
    let disk_p50 = disk::fdatasync_p50(folder.path())?;
    let database = fresh_name("intake");
    let child = start(server, &folder, &database, mongod).await?;
    let plan = Plan {
        address: child.address,
        connections,
        duration,
    };
    let (valve, _held_open) = Valve::new();
    let before = child.usage()?.cpu;
    let measured = fire(plan, numbers, &valve).await?;
    let usage = child.usage()?;
    let acknowledged = valve
        .acknowledged
        .load(std::sync::atomic::Ordering::Relaxed);
    child.stop()?;
    if let (Server::Running, Some(mongod)) = (server, mongod) {
        mongod.database(&database).await.drop().await?;
    }
    Ok(Sample {
        server,
        connections,
        measured,
        memory_mib_max: usage.memory_mib_max,
        cpu_us_each: (usage.cpu - before).as_secs_f64() * 1e6 / acknowledged.max(1) as f64,
        disk_p50,
    })
}

async fn start(
    server: Server,
    folder: &TempDir,
    database: &str,
    mongod: Option<&Mongod>,
) -> anyhow::Result<Child> {
    match (server, mongod) {
        (Server::Empty, _) => Child::empty(),
        (Server::Running, Some(mongod)) => {
            reference::insert_into(&mongod.database(database).await).await?;
            let uri = mongod.uri();
            Child::node(
                folder,
                &Node {
                    mongodb: Some((&uri, database)),
                    ..Node::default()
                },
            )
        }
        _ => Child::node(
            folder,
            &Node {
                paused: true,
                ..Node::default()
            },
        ),
    }
}

impl Server {
    fn all(with_upstream: bool) -> &'static [Self] {
        let all = &[Self::Empty, Self::Burst, Self::Running];
        if with_upstream { all } else { &all[..2] }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Empty => "stores nothing",
            Self::Burst => "burst",
            Self::Running => "running",
        }
    }
}

/// The medians of all rounds.
struct Summary<'a>(Vec<&'a Sample>);

impl<'a> Summary<'a> {
    fn of(samples: &'a [Sample], server: Server, connections: usize) -> Self {
        let these = samples
            .iter()
            .filter(|sample| sample.server == server && sample.connections == connections);
        Self(these.collect())
    }

    fn median(&self, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.0.iter().map(|sample| value(sample)).collect())
    }

    fn per_second(&self) -> f64 {
        self.median(|sample| sample.measured.per_second)
    }

    fn p99_ms(&self) -> f64 {
        self.median(|sample| ms(sample.measured.p99))
    }

    /// Of the rates in the same round, so that a neighbour's load weighs on both.
    fn ratio(&self, empty: &Self) -> f64 {
        let pairs = self.0.iter().zip(&empty.0);
        median(
            pairs
                .map(|(one, empty)| one.measured.per_second / empty.measured.per_second)
                .collect(),
        )
    }

    fn json(&self, empty: &Self) -> Value {
        json!({
            "per_second": self.per_second(),
            "of_empty": self.ratio(empty),
            "p50_ms": self.median(|sample| ms(sample.measured.p50)),
            "p99_ms": self.p99_ms(),
            "memory_mib_max": self.median(|sample| sample.memory_mib_max),
            "cpu_us_each": self.median(|sample| sample.cpu_us_each),
            "generator_busy": self.median(|sample| sample.measured.generator_busy),
        })
    }
}

fn report(knobs: &Knobs, samples: &[Sample]) {
    let disk_ms = median(samples.iter().map(|sample| ms(sample.disk_p50)).collect());
    println!("fdatasync of 4 KiB: p50 {} ms", number(disk_ms));
    let mut rows = Vec::new();
    let mut measured = Vec::new();
    for &connections in &knobs.connections {
        let empty = Summary::of(samples, Server::Empty, connections);
        for server in Server::all(!knobs.burst_only) {
            let summary = Summary::of(samples, *server, connections).json(&empty);
            rows.push(row(connections, *server, &summary));
            measured.push(json!({
                "connections": connections, "server": server.name(), "median": summary,
            }));
        }
    }
    let head = [
        "connections",
        "server",
        "requests/s",
        "of empty",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "CPU µs each",
        "generator busy",
    ];
    table(&head, rows);
    conclude(
        "intake",
        json!({ "fdatasync_p50_ms": disk_ms, "runs": measured }),
        &targets(samples, disk_ms),
    );
}

fn row(connections: usize, server: Server, summary: &Value) -> Vec<String> {
    let columns = [
        "per_second",
        "of_empty",
        "p50_ms",
        "p99_ms",
        "memory_mib_max",
        "cpu_us_each",
        "generator_busy",
    ];
    let mut row = vec![connections.to_string(), server.name().to_owned()];
    row.extend(columns.map(|column| number(summary[column].as_f64().unwrap_or(f64::NAN))));
    row
}

fn targets(samples: &[Sample], disk_ms: f64) -> Vec<Target> {
    let at = |server, connections| Summary::of(samples, server, connections);
    let ratio = |connections| at(Server::Burst, connections).ratio(&at(Server::Empty, connections));
    let nodes = samples
        .iter()
        .filter(|sample| sample.server != Server::Empty);
    let memory = nodes
        .map(|sample| sample.memory_mib_max)
        .fold(0.0, f64::max);
    let p99_ms = (2.0 * at(Server::Empty, 100).p99_ms()).max(6.0 * disk_ms);
    vec![
        Target::at_least("burst, 400 connections: of empty", 0.55, ratio(400)),
        Target::at_least("burst, 100 connections: of empty", 0.35, ratio(100)),
        Target::at_most(
            "burst, 100 connections: p99 ms",
            p99_ms,
            at(Server::Burst, 100).p99_ms(),
        ),
        Target::at_most("resident memory, MiB", 150.0, memory),
    ]
}
