//! A listener to live events: the official Socket.IO client in a Node process of its own.
//!
//! Must not know: what the product sends. The client is fetched once per run as `tests/it/live/package-lock.json` pins
//! it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::wait;

const SOURCES: [&str; 3] = ["package.json", "package-lock.json", "client.mjs"];
const PATIENCE: Duration = Duration::from_secs(30);

/// A running client.
pub(crate) struct Listener {
    child: Child,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// Something that happened to a client.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The event's name; also `connect`, `connect_error`, `disconnect`, `upgrade`.
    pub(crate) event: String,
    /// What came with it.
    pub(crate) data: Value,
    /// When, in milliseconds since the epoch, on the machine's clock.
    pub(crate) at_ms: f64,
}

impl Listener {
    /// Connects to `url` with the client's `options` (those of `io(url, options)`).
    pub(crate) fn start(url: &str, options: &Value) -> Self {
        Self::run(&json!({ "url": url, "options": options }))
    }

    /// As [`Listener::start`], and sends an event of this name as soon as it is connected.
    pub(crate) fn talkative(url: &str, options: &Value, says: &str) -> Self {
        Self::run(&json!({ "url": url, "options": options, "says": says }))
    }

    fn run(argument: &Value) -> Self {
        let mut child = Command::new("node")
            .arg("client.mjs")
            .arg(argument.to_string())
            .current_dir(client())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node is installed");
        let output = child.stdout.take().expect("a piped output");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("the client prints JSON lines");
                notes.lock().expect("no reader panicked").push(read(&line));
            }
        });
        Self { child, heard }
    }

    /// Everything so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("no reader panicked").clone()
    }

    /// The data of every event of this name so far.
    pub(crate) fn all(&self, event: &str) -> Vec<Value> {
        let heard = self.heard().into_iter();
        heard
            .filter(|heard| heard.event == event)
            .map(|heard| heard.data)
            .collect()
    }

    /// Waits until it has heard at least `count` events of this name; gives their data.
    pub(crate) async fn hears(&self, event: &str, count: usize) -> Vec<Value> {
        wait::until(&format!("{count} `{event}`"), PATIENCE, async || {
            let all = self.all(event);
            if all.len() >= count {
                Ok(all)
            } else {
                Err(format!("{:?}", self.heard()))
            }
        })
        .await
    }

    /// The same for one event.
    pub(crate) async fn hears_one(&self, event: &str) -> Value {
        self.hears(event, 1).await.remove(0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(line: &Value) -> Heard {
    Heard {
        event: line["event"].as_str().expect("a name").to_owned(),
        data: line["data"].clone(),
        at_ms: line["at_ms"].as_f64().expect("a time"),
    }
}

/// The folder with the client and the libraries it needs.
fn client() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/live");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live-client");
        std::fs::create_dir_all(&folder).expect("the target directory takes files");
        for file in SOURCES {
            std::fs::copy(sources.join(file), folder.join(file)).expect("the sources are there");
        }
        let fetched = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .status()
            .expect("npm is installed");
        assert!(fetched.success(), "npm ci: {fetched}");
        folder
    })
}
