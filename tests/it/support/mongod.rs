//! A real MongoDB 6.0.5, stand-alone or as a replica set of one, that can be stopped, killed and frozen.
//!
//! Must not know: what is stored in it.

mod binary;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::process::Process;
use super::{port, wait};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

static SHARED_STANDALONE: OnceCell<Mongod> = OnceCell::const_new();
static SHARED_REPLICA_SET: OnceCell<Mongod> = OnceCell::const_new();

/// A MongoDB server on the loopback interface; killed on drop, and never outliving the tests.
pub(crate) struct Mongod {
    // Before the directory: fields are dropped in this order, and the process writes into it.
    process: Option<Process>,
    directory: TempDir,
    kind: Kind,
    address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standalone,
    ReplicaSet,
}

impl Mongod {
    /// A server of this test's own, without change streams.
    pub(crate) async fn standalone() -> Self {
        Self::new(Kind::Standalone).await
    }

    /// A server of this test's own, the primary of the replica set `rs0`.
    pub(crate) async fn replica_set() -> Self {
        Self::new(Kind::ReplicaSet).await
    }

    /// A server for all tests that only read and write: each takes a database of its own ([`fresh_name`]).
    pub(crate) async fn shared_standalone() -> &'static Self {
        SHARED_STANDALONE.get_or_init(Self::standalone).await
    }

    /// As [`Mongod::shared_standalone`], with change streams.
    pub(crate) async fn shared_replica_set() -> &'static Self {
        SHARED_REPLICA_SET.get_or_init(Self::replica_set).await
    }

    async fn new(kind: Kind) -> Self {
        let mut mongod = Self {
            kind,
            address: port::free(),
            directory: TempDir::with_prefix_in("mongod-", env!("CARGO_TARGET_TMPDIR"))
                .expect("the target directory takes files"),
            process: None,
        };
        mongod.run(None).await;
        if kind == Kind::ReplicaSet {
            mongod.initiate().await;
        }
        mongod.ready().await;
        mongod
    }

    /// The connection string.
    pub(crate) fn uri(&self) -> String {
        match self.kind {
            Kind::Standalone => format!("mongodb://{}/", self.address),
            Kind::ReplicaSet => format!("mongodb://{}/?replicaSet=rs0", self.address),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of the calling test's own: a driver's client lives on the runtime that made it.
    pub(crate) async fn client(&self) -> Client {
        client(&self.uri()).await
    }

    /// A database, seen through a new client.
    pub(crate) async fn database(&self, name: &str) -> Database {
        self.client().await.database(name)
    }

    /// Starts it again, with the port and the data it had.
    pub(crate) async fn start(&mut self) {
        self.start_again(None).await;
    }

    /// As [`Mongod::start`], with one of the server's own fail points set before it takes its first command: so a
    /// test decides where a server hangs, however fast the machine is.
    pub(crate) async fn start_with(&mut self, point: &str, setting: Document) {
        let setting = Bson::Document(setting).into_relaxed_extjson();
        self.start_again(Some(format!("failpoint.{point}={setting}")))
            .await;
    }

    async fn start_again(&mut self, parameter: Option<String>) {
        assert!(self.process.is_none(), "the server runs already");
        self.run(parameter).await;
        self.ready().await;
    }

    /// Waits until a node has made its indexes there, of which this is the last: this version aborts when it is shut
    /// down in the middle of making one.
    pub(crate) async fn indexed(&self, database: &Database) {
        let claims = database.collection::<Document>("inlet.claims");
        wait::until("the node's indexes", START, async || {
            let names = claims.list_index_names().await.unwrap_or_default();
            (names.len() > 1)
                .then_some(())
                .ok_or_else(|| format!("{names:?}"))
        })
        .await;
    }

    /// A clean shutdown, once no index is being made. See [`Mongod::indexed`].
    pub(crate) async fn stop(&mut self) {
        let admin = self.database("admin").await;
        wait::until("indexes to be made", START, async || {
            let making = doc! { "currentOp": 1, "command.createIndexes": { "$exists": true } };
            let answer = admin.run_command(making).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let making = answer
                .get_array("inprog")
                .map_err(|error| error.to_string())?;
            making
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("{making:?}"))
        })
        .await;
        let status = self.running().terminate(STOP).await;
        let log = self.running().log_tail();
        assert!(status.success(), "mongod ended with {status}:\n{log}");
        self.process = None;
    }

    /// The server is gone at once.
    pub(crate) fn kill(&mut self) {
        self.running().kill();
        self.process = None;
    }

    /// Connections stay open and nothing answers, until [`Mongod::thaw`].
    pub(crate) fn freeze(&mut self) {
        self.running().freeze();
    }

    /// Ends [`Mongod::freeze`].
    pub(crate) fn thaw(&mut self) {
        self.running().thaw();
    }

    /// Makes the next `times` commands that `fault` matches fail: the server's own `failCommand` fail point, for
    /// instance `{failCommands: ["insert"], errorCode: 91}` or `{failCommands: ["find"], closeConnection: true}`.
    pub(crate) async fn fail_commands(&self, times: i32, fault: Document) {
        let point =
            doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": fault };
        self.admin(point).await.expect("a fail point can be set");
    }

    /// Waits until a command has met the fail point `failCommand` that hangs it.
    pub(crate) async fn has_hung(&self) {
        let met =
            doc! { "waitForFailPoint": "failCommand", "timesEntered": 1, "maxTimeMS": 120_000 };
        self.admin(met).await.expect("a command hangs");
    }

    /// A command against `admin`, on this very server whatever the state of its replica set.
    async fn admin(&self, command: Document) -> mongodb::error::Result<Document> {
        let uri = format!("mongodb://{}/?directConnection=true", self.address);
        client(&uri)
            .await
            .database("admin")
            .run_command(command)
            .await
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server is down")
    }

    async fn run(&mut self, parameter: Option<String>) {
        let binary = tokio::task::spawn_blocking(binary::path)
            .await
            .expect("mongod is at hand");
        let mut command = Command::new(binary);
        command
            .arg("--dbpath")
            .arg(self.directory.path())
            .args(["--bind_ip", "127.0.0.1", "--nounixsocket"])
            .args(["--port", &self.address.port().to_string()])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"])
            .args(["--setParameter", "enableTestCommands=1"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            // A primary told to stop would otherwise entertain its clients for 15 s.
            .args([
                "--setParameter",
                "shutdownTimeoutMillisForSignaledShutdown=100",
            ]);
        if self.kind == Kind::ReplicaSet {
            command.args(["--replSet", "rs0"]);
        }
        if let Some(parameter) = parameter {
            command.args(["--setParameter", &parameter]);
        }
        let log = self.directory.path().join("mongod.log");
        self.process = Some(Process::start(&mut command, &log, self.directory.path()));
        self.until("mongod to answer", |_| true).await;
    }

    async fn initiate(&self) {
        let member = doc! { "_id": 0, "host": self.address.to_string() };
        self.admin(doc! { "replSetInitiate": { "_id": "rs0", "members": [member] } })
            .await
            .expect("a replica set of one can be initiated");
    }

    /// Waits until writes are taken.
    async fn ready(&mut self) {
        self.until("mongod to take writes", |hello| {
            hello.get_bool("isWritablePrimary").unwrap_or(false)
        })
        .await;
    }

    /// Waits until the answer to `hello` satisfies; a server that ended instead fails with its log.
    async fn until(&mut self, what: &str, satisfies: impl Fn(&Document) -> bool) {
        wait::until(what, START, async || {
            if let Some(status) = self.running().ended() {
                panic!("mongod ended with {status}:\n{}", self.running().log_tail());
            }
            match self.admin(doc! { "hello": 1 }).await {
                Ok(hello) if satisfies(&hello) => Ok(()),
                Ok(hello) => Err(hello.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }
}

/// A database name that no other test has.
pub(crate) fn fresh_name(about: &str) -> String {
    format!("{about}-{:016x}", fastrand::u64(..))
}

async fn client(uri: &str) -> Client {
    let mut options = ClientOptions::parse(uri)
        .await
        .expect("a valid connection string");
    options.server_selection_timeout = Some(Duration::from_secs(5));
    options.connect_timeout = Some(Duration::from_secs(2));
    Client::with_options(options).expect("valid options")
}
