//! The node as its users have it: the real binary with a configuration file, a store on disk and two listeners.
//!
//! Must not know: what a node is made of. A test that ends with work left over has not seen what became of it, so a
//! node that is dropped while it has some fails the test, unless the test says that this is meant.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Ask, Reply};
use super::mongod::Mongod;
use super::process::{self, Process};
use super::{load, port, wait};

const PROGRAM: &str = env!("CARGO_BIN_EXE_inlet");
const START: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(60);
const FIRST_PULL: Duration = Duration::from_secs(30);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Where webhooks arrive.
const ROUTES: &str = "/v1/inbound/webhooks";

/// A node: running, killed or stopped; its store outlives the process and dies with this value.
pub(crate) struct Node {
    // Before the directory: fields are dropped in this order, and the process writes into it.
    process: Option<Process>,
    directory: TempDir,
    intake: SocketAddr,
    admin: SocketAddr,
    environment: BTreeMap<String, PathBuf>,
    has_upstream: bool,
    is_frozen: bool,
    may_leave_work: bool,
}

/// A node that is not there yet.
pub(crate) struct Build {
    settings: BTreeMap<String, String>,
    environment: BTreeMap<String, PathBuf>,
    reference: Option<Value>,
}

/// What a command line said.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// The exit code; -1 where a signal ended it.
    pub(crate) code: i32,
    /// Standard output: results.
    pub(crate) stdout: String,
    /// Standard error: logs and progress.
    pub(crate) stderr: String,
}

impl Build {
    /// Pushes to and pulls from this server's database `database`.
    pub(crate) fn mongodb(self, server: &Mongod, database: &str) -> Self {
        self.config(&format!("mongodb.uri = {:?}", server.uri()))
            .config(&format!("mongodb.database = {database:?}"))
    }

    /// Reads Facebook leads there.
    pub(crate) fn graph_url(self, url: &str) -> Self {
        self.config(&format!("facebook.graph_url = {url:?}"))
    }

    /// One line of configuration, with its full key: `pipeline.max_attempts = 5`. The last one for a key stands.
    pub(crate) fn config(mut self, line: &str) -> Self {
        let (key, value) = line.split_once('=').expect("a line `key = value`");
        self.settings
            .insert(key.trim().to_owned(), value.trim().to_owned());
        self
    }

    /// An environment variable that names a file or folder.
    pub(crate) fn environment(mut self, name: &str, path: PathBuf) -> Self {
        self.environment.insert(name.to_owned(), path);
        self
    }

    /// Imports this reference data before the first start ([`super::reference::Reference::to_import`]).
    pub(crate) fn reference(mut self, import: Value) -> Self {
        self.reference = Some(import);
        self
    }

    /// Writes the configuration, without starting anything.
    pub(crate) fn prepare(self) -> Node {
        let node = Node {
            directory: TempDir::with_prefix_in("node-", env!("CARGO_TARGET_TMPDIR"))
                .expect("the target directory takes files"),
            intake: port::free(),
            admin: port::free(),
            environment: self.environment,
            has_upstream: self.settings.contains_key("mongodb.uri"),
            process: None,
            is_frozen: false,
            may_leave_work: false,
        };
        node.configure(self.settings);
        node
    }

    /// Starts it and waits until it takes webhooks.
    pub(crate) async fn start(mut self) -> Node {
        let reference = self.reference.take();
        let mut node = self.prepare();
        if let Some(reference) = reference {
            node.import(&reference).await;
        }
        node.start().await;
        node
    }
}

impl Node {
    /// A stand-alone node with defaults, unless told more.
    pub(crate) fn build() -> Build {
        Build {
            settings: BTreeMap::new(),
            environment: BTreeMap::new(),
            reference: None,
        }
    }

    /// Where webhooks are posted.
    pub(crate) fn intake(&self) -> SocketAddr {
        self.intake
    }

    /// Where the admin listener is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The store's file.
    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().join("inlet.redb")
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("inlet.toml")
    }

    /// Posts JSON to a platform's route.
    pub(crate) async fn post(
        &self,
        platform: &str,
        account: impl ToString,
        campaign: impl ToString,
        body: &Value,
    ) -> Reply {
        self.ask(Ask::post_json(route(platform, account, campaign), body))
            .await
    }

    /// Posts a Facebook notification.
    pub(crate) async fn post_facebook(&self, body: &Value) -> Reply {
        self.ask(Ask::post_json(format!("{ROUTES}/facebook"), body))
            .await
    }

    /// Any request to intake.
    pub(crate) async fn ask(&self, ask: Ask) -> Reply {
        let reply = http::ask(self.intake, ask).await;
        reply.unwrap_or_else(|error| panic!("intake did not answer: {error}"))
    }

    /// Any request to the admin listener.
    pub(crate) async fn ask_admin(&self, ask: Ask) -> Reply {
        let reply = http::ask(self.admin, ask).await;
        reply.unwrap_or_else(|error| panic!("the admin listener did not answer: {error}"))
    }

    /// Posts all shots from `connections` kept-alive connections; the node may die meanwhile.
    pub(crate) async fn fire<I>(&self, connections: usize, shots: I) -> load::Report
    where
        I: IntoIterator<Item = load::Shot>,
        I::IntoIter: Send + 'static,
    {
        load::fire(self.intake, connections, shots).await
    }

    /// `GET /api/v1/status`.
    pub(crate) async fn status(&self) -> Value {
        self.ask_admin(Ask::get("/api/v1/status")).await.json()
    }

    /// Waits until nothing is ready or waiting, and everything is upstream where there is an upstream.
    pub(crate) async fn settled(&self) {
        self.settled_within(SETTLE).await;
    }

    /// As [`Node::settled`], with another deadline.
    pub(crate) async fn settled_within(&self, deadline: Duration) {
        wait::until("the node to settle", deadline, async || {
            let status = self.status().await;
            match left_over(&status, self.has_upstream) {
                0 => Ok(()),
                _ => Err(format!("{status:#}")),
            }
        })
        .await;
    }

    /// Waits until everything that it pulls has been read from upstream once.
    pub(crate) async fn has_read_reference_data(&self) {
        wait::until("the first pull", FIRST_PULL, async || {
            let reference = &self.status().await["reference"];
            let is_complete = reference["complete_at_ms"].is_number();
            is_complete
                .then_some(())
                .ok_or_else(|| reference.to_string())
        })
        .await;
    }

    /// This test ends with work left over, and means it.
    pub(crate) fn leave_unfinished(&mut self) {
        self.may_leave_work = true;
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.running().kill();
        self.process = None;
        self.is_frozen = false;
    }

    /// SIGTERM; waits for the drain and gives the exit status.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let status = self.running().terminate(DRAIN).await;
        self.process = None;
        status
    }

    /// Starts it on the store it has.
    pub(crate) async fn start(&mut self) {
        assert!(self.process.is_none(), "the node runs already");
        let log = self.directory.path().join("inlet.log");
        let mut command = self.command(&["serve"]);
        self.process = Some(Process::start(&mut command, &log, self.directory.path()));
        wait::until("the node to take webhooks", START, async || {
            if let Some(status) = self.running().ended() {
                panic!("inlet serve ended with {status}:\n{}", self.log_tail());
            }
            self.is_alive().await
        })
        .await;
    }

    /// Ends it, if it runs, in good order, and starts it again on the same store.
    pub(crate) async fn restart(&mut self) {
        if self.process.is_some() {
            let status = self.terminate().await;
            assert!(status.success(), "inlet serve ended with {status}");
        }
        self.start().await;
    }

    /// SIGSTOP, until [`Node::thaw`].
    pub(crate) fn freeze(&mut self) {
        self.running().freeze();
        self.is_frozen = true;
    }

    /// Ends [`Node::freeze`].
    pub(crate) fn thaw(&mut self) {
        self.running().thaw();
        self.is_frozen = false;
    }

    /// Its disk takes nothing more, until [`Node::free_disk`].
    pub(crate) fn fill_disk(&mut self) {
        self.running().fill_disk();
    }

    /// Ends [`Node::fill_disk`].
    pub(crate) fn free_disk(&mut self) {
        self.running().free_disk();
    }

    /// Runs `inlet` with these arguments and this node's configuration, beside the running node or on its closed
    /// store.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Said {
        Self::run(self.command(arguments)).await
    }

    /// As [`Node::cli`], by somebody whom the permissions of files concern: root asks none.
    pub(crate) async fn cli_without_privileges(&self, arguments: &[&str]) -> Said {
        Self::run(process::without_privileges(&self.command(arguments))).await
    }

    async fn run(mut command: Command) -> Said {
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.expect("the command's thread ends");
        Said::from(output.expect("the binary can be run"))
    }

    /// As [`Node::cli`], without waiting for it.
    pub(crate) fn cli_in_background(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = self.command(arguments);
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        command.spawn().expect("the binary can be run")
    }

    /// From its next start on it pushes to and pulls from this server's database `database`.
    pub(crate) fn connect(&mut self, server: &Mongod, database: &str) {
        self.add_config(&format!("mongodb.uri = {:?}", server.uri()));
        self.add_config(&format!("mongodb.database = {database:?}"));
        self.has_upstream = true;
    }

    /// One line more of configuration, with its full key, from its next start on.
    pub(crate) fn add_config(&self, line: &str) {
        let file = std::fs::OpenOptions::new().append(true).open(self.config());
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the configuration can be added to");
    }

    /// Loads reference data with `inlet import`.
    pub(crate) async fn import(&self, reference: &Value) {
        let file = self.directory.path().join("import.json");
        std::fs::write(&file, reference.to_string()).expect("the target directory takes files");
        let path = file.to_str().expect("a path in UTF-8");
        let said = self.cli(&["import", path]).await;
        assert_eq!(said.code, 0, "inlet import failed: {}", said.stderr);
    }

    /// The end of its log, over all starts.
    pub(crate) fn log_tail(&self) -> String {
        process::tail(&self.log())
    }

    /// Whether anything panicked in it, over all starts.
    pub(crate) fn has_panicked(&self) -> bool {
        let log = std::fs::read(self.log()).expect("a node that ran has a log");
        String::from_utf8_lossy(&log).contains("panicked")
    }

    /// How often its log says this, over all starts.
    pub(crate) fn says(&self, text: &str) -> usize {
        let log = std::fs::read(self.log()).expect("a node that ran has a log");
        String::from_utf8_lossy(&log).matches(text).count()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("inlet.log")
    }

    fn configure(&self, wanted: BTreeMap<String, String>) {
        let mut settings = BTreeMap::from([
            ("store.path".to_owned(), format!("{:?}", self.store())),
            ("intake.listen".to_owned(), format!("\"{}\"", self.intake)),
            ("admin.listen".to_owned(), format!("\"{}\"", self.admin)),
            // The developer's machine and CI's may have little disk to spare.
            ("intake.min_free".to_owned(), "\"16MiB\"".to_owned()),
        ]);
        settings.extend(wanted);
        let lines = settings
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"));
        std::fs::write(self.config(), lines.collect::<String>())
            .expect("the target directory takes files");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::on_a_disk_that_may_be_full(PROGRAM);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .current_dir(self.directory.path())
            .envs(&self.environment)
            .env_remove("FACEBOOK_VERIFY_TOKEN")
            .env_remove("FACEBOOK_API_VERSION");
        command
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node does not run")
    }

    async fn is_alive(&self) -> Result<(), String> {
        let reply = http::ask(self.admin, Ask::get("/healthz")).await;
        let reply = reply.map_err(|error| format!("/healthz: {error}"))?;
        if !reply.status.is_success() {
            return Err(format!("/healthz: {}", reply.status));
        }
        let intake = http::Connection::open(self.intake).await;
        intake.map(drop).map_err(|error| format!("intake: {error}"))
    }

    /// Work left over means that the test has not seen what became of it.
    fn expect_no_work_left(&self) {
        let status = self.last_status().expect("a running node tells its status");
        assert_eq!(
            left_over(&status, self.has_upstream),
            0,
            "work is left over: await `settled`, or say `leave_unfinished`: {status:#}"
        );
    }

    /// The status as a dropped node can still ask for it: without a runtime.
    fn last_status(&self) -> Option<Value> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(LAST_LOOK)).ok()?;
        let host = self.admin;
        write!(
            stream,
            "GET /api/v1/status HTTP/1.0\r\nHost: {host}\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the node's last words ---\n{}", self.log_tail());
        } else if self.process.is_some() && !self.is_frozen && !self.may_leave_work {
            self.expect_no_work_left();
        }
    }
}

impl Said {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }

    /// Standard output as JSON lines.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let lines = serde_json::Deserializer::from_str(&self.stdout).into_iter();
        let values: Result<Vec<Value>, _> = lines.collect();
        values.unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The path of a URL-addressed platform's webhook.
pub(crate) fn route(platform: &str, account: impl ToString, campaign: impl ToString) -> String {
    format!(
        "{ROUTES}/{platform}/{}/{}",
        account.to_string(),
        campaign.to_string()
    )
}

/// Work that a status names as not done: in the pipeline, to be sent, and on its way upstream where there is one.
fn left_over(status: &Value, has_upstream: bool) -> u64 {
    let count = |section: &str, name: &str| {
        status[section][name]
            .as_u64()
            .unwrap_or_else(|| panic!("the status has no {section}.{name}: {status}"))
    };
    let unpushed = if has_upstream {
        count("sync", "pending")
    } else {
        0
    };
    let unsent = ["email", "sms", "push"].map(|channel| {
        let of = &status["deliveries"][channel];
        let both = of["waiting"].as_u64().zip(of["sending"].as_u64());
        let (waiting, sending) = both.unwrap_or_else(|| panic!("no {channel}: {status}"));
        waiting + sending
    });
    let unsent: u64 = unsent.iter().sum();
    count("backlog", "ready") + count("backlog", "waiting") + unsent + unpushed
}
