//! The benchmarks: what is measured against what is said in `benches/README.md`.
//!
//! Must not know: how anything under test works. Servers run as processes of their own, so that their memory and
//! their time are not the load generator's.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures go to standard output, progress to standard error"
)]

mod child;
mod disk;
mod drain;
mod intake;
mod load;
mod peer;
mod prefill;
mod reference;
mod report;
mod retention;
mod upstream;

/// The integration tests' harness, as far as it starts a mongod.
#[path = "../../tests/it/support"]
#[allow(dead_code, reason = "the tests need more of it")]
mod harness {
    pub(crate) mod mongod;
    pub(crate) mod port;
    pub(crate) mod process;
    pub(crate) mod wait;
}

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// Measures Inlet, always against something measured in the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench inlet --")]
struct Args {
    #[command(subcommand)]
    part: Part,
    /// What `cargo bench` adds.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Durable intake, against a handler that stores nothing and against the disk.
    Intake(intake::Knobs),
    /// From webhook to MongoDB, against Express and Mongoose, and with many leads in the store.
    Upstream(upstream::Knobs),
    /// Draining a queue, against the driver's own `insert_many`.
    Drain(drain::Knobs),
    /// Intake while old leads are removed, against intake while they are left alone.
    Retention(retention::Knobs),
    /// A server under test.
    #[command(hide = true)]
    Child(child::Role),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().part {
        Part::Intake(knobs) => one_thread()?.block_on(intake::run(knobs)),
        Part::Upstream(knobs) => one_thread()?.block_on(upstream::run(knobs)),
        Part::Drain(knobs) => all_threads()?.block_on(drain::run(knobs)),
        Part::Retention(knobs) => one_thread()?.block_on(retention::run(knobs)),
        Part::Child(role) => all_threads()?.block_on(child::run(role)),
    }
}

/// For the load generator: it must not take more of the machine than it needs.
fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// As the product's own `main` has it.
fn all_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// Where stores are kept while they are measured, and filled ones from run to run: on the disk that is measured.
fn workshop() -> anyhow::Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.parent().unwrap_or(target).join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
