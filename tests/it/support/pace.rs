//! How slow the machine is, for tests of how long the product takes: CI's has two cores, a disk that others use, and
//! runs everything at once.
//!
//! Must not know: the product.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two samples: rare enough to be no load.
const EVERY: Duration = Duration::from_millis(100);
/// As often as this is in what the product does in one go: to start, to answer, to push.
const LIKE: u32 = 10;

/// Measures the machine from its making on, until it is dropped.
pub(crate) struct Pace {
    samples: Arc<Mutex<Samples>>,
    /// Its end ends the measuring.
    goes_on: Option<Sender<()>>,
    measuring: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Samples {
    /// When each ended, and how long it took.
    taken: Vec<(Instant, Duration)>,
    /// When the one began that is under way.
    under_way: Option<Instant>,
}

impl Pace {
    /// Begins to measure.
    pub(crate) fn measure() -> Self {
        let samples = Arc::new(Mutex::new(Samples::default()));
        let (goes_on, ended) = mpsc::channel();
        let to = Arc::clone(&samples);
        let measuring = std::thread::spawn(move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                sample(&to);
            }
        });
        Self {
            samples,
            goes_on: Some(goes_on),
            measuring: Some(measuring),
        }
    }

    /// What the machine may add to what the product takes, going by its longest sample since then: ten times that.
    pub(crate) fn allowance(&self, since: Instant) -> Duration {
        let samples = self.samples.lock().expect("no sample panics");
        let taken = samples.taken.iter().filter(|(ended, _)| *ended >= since);
        let unfinished = samples.under_way.map(|begun| begun.elapsed());
        let longest = taken.map(|(_, took)| *took).chain(unfinished).max();
        longest.unwrap_or_default() * LIKE
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        drop(self.goes_on.take());
        if let Some(measuring) = self.measuring.take() {
            let _ = measuring.join();
        }
    }
}

/// A small piece of work of the kind that the product does: a process is started, and a page brought to the disk.
fn sample(samples: &Mutex<Samples>) {
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    let begun = Instant::now();
    samples.lock().expect("no sample panics").under_way = Some(begun);
    let started = Command::new("true").status();
    assert!(started.expect("a process can be started").success());
    write_page(&mut file).expect("the target directory takes files");
    let mut samples = samples.lock().expect("no sample panics");
    samples.under_way = None;
    samples.taken.push((Instant::now(), begun.elapsed()));
}

fn write_page(file: &mut File) -> std::io::Result<()> {
    file.write_all(&[1; 4096])?;
    file.sync_data()
}
