//! The one way to MongoDB: a client built when it is first needed, a deadline on every operation, and the breaker.
//!
//! The driver has no operation timeout and its futures must not be dropped half-way, so each operation runs as a task
//! of its own and the caller waits for the task, not for the operation. A task that misses its deadline goes on
//! holding a connection of the pool; when [`ABANDONED_MAX`] of them have piled up, a new client takes over.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{ClientOptions, Collation, CollationStrength, FindOptions};
use mongodb::{Client, Database, ServerType};
use tokio::task::AbortHandle;

use crate::bootstrap::{Bootstrap, IndexSpec};
use crate::breaker::Breaker;
use crate::error::{Error, Secrets};
use crate::health::{Health, Record, machine_time};
use crate::write::{self, Statement};

/// Given-up operations that still hold a connection before a new client is built: half the pool.
const ABANDONED_MAX: usize = 4;
const POOL_MAX: u32 = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const SELECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the monitors look at the server. It bounds how late a returning MongoDB is noticed.
const HEARTBEAT: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(60);
const MAJOR_VERSION_MIN: u32 = 5;

/// Where MongoDB is and how to treat it.
#[derive(Clone)]
pub struct Options {
    /// The connection string. It is parsed at the first use: an SRV name needs DNS.
    pub uri: String,
    /// The database.
    pub database: String,
    /// This node's id: in the driver's `appName`, in claims and in `inlet.nodes`.
    pub node: String,
    /// Ids this node had before: what was claimed under them is its own.
    pub earlier_nodes: Vec<String>,
    /// How long one operation may take before its outcome counts as unknown.
    pub deadline: Duration,
    /// Where there is no change stream: the time between two readings of the reference data.
    pub pull_interval: Duration,
    /// Where there is one: how often everything is read again all the same, to heal what a stream cannot show (a
    /// document read just before a fail-over rolled it back).
    pub resync_interval: Duration,
    /// Whether missing plain indexes may be created.
    pub create_indexes: bool,
    /// The indexes the host's lookups need.
    pub indexes: Vec<IndexSpec>,
}

impl Options {
    /// The defaults: operations have 15 s, reference data is polled each 30 s, streams are checked each hour.
    pub fn new(
        uri: impl Into<String>,
        database: impl Into<String>,
        node: impl Into<String>,
    ) -> Self {
        Self {
            uri: uri.into(),
            database: database.into(),
            node: node.into(),
            earlier_nodes: Vec::new(),
            deadline: Duration::from_secs(15),
            pull_interval: Duration::from_secs(30),
            resync_interval: Duration::from_secs(3600),
            create_indexes: true,
            indexes: Vec::new(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection string holds credentials.
        f.debug_struct("Options")
            .field("database", &self.database)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The connection to MongoDB, shared by the engines and by pointed reads.
pub struct Upstream {
    pub(crate) options: Options,
    pub(crate) record: Record,
    secrets: Secrets,
    breaker: Arc<Breaker>,
    connection: tokio::sync::Mutex<Connection>,
    abandoned: Mutex<Vec<AbortHandle>>,
    bootstrap: Bootstrap,
}

/// What is known of the other side. The client outlives failures, because its monitors see MongoDB return; what the
/// server said of itself does not.
#[derive(Default)]
struct Connection {
    client: Option<Client>,
    server: Option<Server>,
}

/// What a server says of itself when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    /// A replica set or a sharded cluster: only there do change streams exist. `isWritablePrimary` says nothing, a
    /// standalone has it too.
    pub(crate) has_streams: bool,
}

/// A search. `limit` zero is no limit.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) filter: Document,
    pub(crate) projection: Option<Document>,
    pub(crate) sort: Option<Document>,
    pub(crate) limit: i64,
    pub(crate) ignore_case: bool,
}

impl Upstream {
    /// Sets up the connection without opening it: no I/O, no DNS, no errors before the first use.
    pub fn new(options: Options) -> Arc<Self> {
        Arc::new(Self {
            secrets: Secrets::of(&options.uri),
            breaker: Arc::default(),
            record: Record::default(),
            connection: tokio::sync::Mutex::default(),
            abandoned: Mutex::default(),
            bootstrap: Bootstrap::default(),
            options,
        })
    }

    /// How the connection is now.
    pub fn health(&self) -> Health {
        Health {
            breaker_open: self.breaker.is_open(),
            abandoned: self.abandoned_now(),
            ..self.record.snapshot()
        }
    }

    /// Completes when operations may be tried: at once unless the last one failed. May be cancelled.
    pub async fn ready(&self) {
        self.breaker.ready().await;
    }

    /// Reads at most `limit` documents (0: all) from the primary.
    ///
    /// # Errors
    /// As [`Error`] says; at once while operations are held back.
    pub async fn find(
        &self,
        collection: &str,
        filter: Document,
        limit: i64,
    ) -> Result<Vec<RawDocumentBuf>, Error> {
        self.query(
            collection,
            Query {
                filter,
                limit,
                ..Query::default()
            },
        )
        .await
    }

    /// Updates one document, majority-committed and journaled. Returns whether one was matched or upserted.
    ///
    /// # Errors
    /// As [`Error`] says; at once while operations are held back.
    pub async fn update_one(
        &self,
        collection: &str,
        filter: Document,
        update: Document,
        upsert: bool,
    ) -> Result<bool, Error> {
        let statement = Statement::of(&filter, &update, upsert)?;
        let reply = self
            .write(write::update(
                collection,
                &[&statement],
                self.options.deadline,
            ))
            .await?;
        match reply.errors.into_iter().next() {
            Some(refused) => Err(Error::from_code(refused.code, refused.message)),
            None => Ok(reply.n > 0),
        }
    }

    /// Closes the connections, waiting no longer than a second.
    pub async fn shutdown(&self) {
        if let Some(client) = self.connection.lock().await.client.take() {
            let _ = tokio::time::timeout(Duration::from_secs(1), client.shutdown().immediate(true))
                .await;
        }
    }

    pub(crate) async fn query(
        &self,
        collection: &str,
        query: Query,
    ) -> Result<Vec<RawDocumentBuf>, Error> {
        self.query_within(self.options.deadline, collection, query)
            .await
    }

    pub(crate) async fn query_within(
        &self,
        deadline: Duration,
        collection: &str,
        query: Query,
    ) -> Result<Vec<RawDocumentBuf>, Error> {
        let database = self.database().await?;
        let collection = database.collection::<RawDocumentBuf>(collection);
        let options = query.options();
        let read = async move {
            collection
                .find(query.filter)
                .with_options(options)
                .await?
                .try_collect()
                .await
        };
        self.within(deadline, read).await
    }

    /// Runs a command on the primary. Errors inside an `Ok` reply are the caller's to find.
    pub(crate) async fn command(&self, command: RawDocumentBuf) -> Result<Document, Error> {
        let database = self.database().await?;
        self.within(self.options.deadline, async move {
            database.run_raw_command(command).await
        })
        .await
    }

    /// Runs a write command; an unsatisfied write concern is an error here.
    pub(crate) async fn write(&self, command: RawDocumentBuf) -> Result<write::Reply, Error> {
        let reply = write::Reply::parse(self.command(command).await?);
        match &reply.write_concern_error {
            None => Ok(reply),
            Some(error) => {
                self.breaker.failed(true);
                Err(error.clone())
            }
        }
    }

    /// What the server said of itself at the last connect.
    pub(crate) async fn server(&self) -> Result<Server, Error> {
        self.connect().await.map(|(_, server)| server)
    }

    pub(crate) async fn database(&self) -> Result<Database, Error> {
        self.connect().await.map(|(database, _)| database)
    }

    /// Waits for `operation`, a task of its own, until the deadline, and takes note of how it went.
    pub(crate) async fn within<T: Send + 'static>(
        &self,
        deadline: Duration,
        operation: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = self.spawned(deadline, operation).await;
        match &outcome {
            Ok(_) => self.answered(),
            Err(error) => self.failed(error).await,
        }
        outcome
    }

    /// Gives up on a task of the driver: it goes on, and is counted.
    pub(crate) fn abandon(&self, task: AbortHandle) {
        self.lock_abandoned().push(task);
    }

    /// Takes note of a failure.
    pub(crate) async fn failed(&self, error: &Error) {
        if !error.is_outage() {
            self.record.refused(error);
            return;
        }
        self.record.unreachable(error);
        let mut connection = self.connection.lock().await;
        connection.server = None;
        self.breaker.failed(connection.client.is_some());
    }

    /// Creates the indexes that could not be created before, if it is time to.
    pub(crate) async fn mend_indexes(&self) -> Result<(), Error> {
        self.bootstrap.go_on(self.database().await?, &self.options);
        Ok(())
    }

    pub(crate) fn driver_error(&self, error: &mongodb::error::Error) -> Error {
        Error::from_driver(error, &self.secrets)
    }

    pub(crate) fn answered(&self) {
        self.breaker.close();
        self.record.answered();
    }

    async fn spawned<T: Send + 'static>(
        &self,
        deadline: Duration,
        operation: impl Future<Output = mongodb::error::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        let mut task = tokio::spawn(operation);
        match tokio::time::timeout(deadline, &mut task).await {
            Ok(Ok(outcome)) => outcome.map_err(|error| self.driver_error(&error)),
            Ok(Err(_)) => Err(Error::Connectivity {
                message: "the driver's task ended without an answer".into(),
            }),
            Err(_) => {
                self.abandon(task.abort_handle());
                Err(Error::Deadline(deadline))
            }
        }
    }

    async fn connect(&self) -> Result<(Database, Server), Error> {
        let held = self.breaker.remaining();
        if !held.is_zero() {
            return Err(Error::Connectivity {
                message: format!("not tried, held back for {held:?}"),
            });
        }
        let mut connection = self.connection.lock().await;
        self.retire_clogged(&mut connection);
        let outcome = self.establish(&mut connection).await;
        drop(connection);
        if let Err(error) = &outcome {
            self.failed(error).await;
        }
        outcome
    }

    async fn establish(&self, connection: &mut Connection) -> Result<(Database, Server), Error> {
        let client = match &connection.client {
            Some(client) => client.clone(),
            None => connection.client.insert(self.build().await?).clone(),
        };
        let database = client.database(&self.options.database);
        let server = match connection.server {
            Some(server) => server,
            None => *connection.server.insert(self.greet(&database).await?),
        };
        Ok((database, server))
    }

    /// Drops a client whose pool is clogged by operations that never ended. Only then may those be cancelled: what
    /// they leave behind inside the driver goes with the client.
    fn retire_clogged(&self, connection: &mut Connection) {
        if self.abandoned_now() < ABANDONED_MAX {
            return;
        }
        tracing::warn!("building a new MongoDB client: too many operations were never answered");
        for task in self.lock_abandoned().drain(..) {
            task.abort();
        }
        if let Some(client) = std::mem::take(connection).client {
            tokio::spawn(async move { client.shutdown().immediate(true).await });
        }
    }

    async fn build(&self) -> Result<Client, Error> {
        let uri = self.options.uri.clone();
        let parse = async move { ClientOptions::parse(uri).await };
        let mut options = self.spawned(self.options.deadline, parse).await?;
        options.app_name = Some(format!("inlet/{}", self.options.node));
        options.connect_timeout = Some(CONNECT_TIMEOUT);
        options.server_selection_timeout = Some(SELECTION_TIMEOUT);
        options.heartbeat_freq = Some(HEARTBEAT);
        options.max_pool_size = Some(POOL_MAX);
        options.max_idle_time = Some(IDLE_MAX);
        options.sdam_event_handler = Some(self.watch_for_primaries());
        Client::with_options(options).map_err(|error| self.driver_error(&error))
    }

    /// Closes the breaker when the driver's monitors see a writable server where there was none.
    fn watch_for_primaries(&self) -> EventHandler<SdamEvent> {
        let breaker = Arc::clone(&self.breaker);
        EventHandler::callback(move |event| {
            if let SdamEvent::ServerDescriptionChanged(change) = event
                && !is_writable(change.previous_description.server_type())
                && is_writable(change.new_description.server_type())
            {
                breaker.close();
            }
        })
    }

    /// Asks who is there, refuses what is too old, and sets up what this product needs there.
    async fn greet(&self, database: &Database) -> Result<Server, Error> {
        let hello = self.ask(database, doc! { "hello": 1 }).await?;
        let build = self.ask(database, doc! { "buildInfo": 1 }).await?;
        let version = build.get_str("version").unwrap_or_default();
        self.record.server(version);
        self.note_skew(&hello);
        refuse_old(version)?;
        self.answered();
        self.bootstrap.go_on(database.clone(), &self.options);
        Ok(Server {
            has_streams: hello.contains_key("setName")
                || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
        })
    }

    async fn ask(&self, database: &Database, question: Document) -> Result<Document, Error> {
        let database = database.clone();
        self.spawned(self.options.deadline, async move {
            database.run_command(question).await
        })
        .await
    }

    /// How far the other clock is ahead, by the server's answer to `hello`.
    pub(crate) fn note_skew(&self, hello: &Document) {
        let here = machine_time()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        if let (Ok(there), Ok(here)) = (hello.get_datetime("localTime"), i64::try_from(here)) {
            self.record
                .skew(there.timestamp_millis().saturating_sub(here));
        }
    }

    fn abandoned_now(&self) -> usize {
        let mut abandoned = self.lock_abandoned();
        abandoned.retain(|task| !task.is_finished());
        abandoned.len()
    }

    fn lock_abandoned(&self) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Query {
    fn options(&self) -> FindOptions {
        let collation = Collation::builder()
            .locale("en")
            .strength(CollationStrength::Secondary)
            .build();
        FindOptions::builder()
            .batch_size(1000)
            .projection(self.projection.clone())
            .sort(self.sort.clone())
            .limit(self.limit)
            .collation(self.ignore_case.then_some(collation))
            .build()
    }
}

fn is_writable(server: ServerType) -> bool {
    matches!(
        server,
        ServerType::RsPrimary
            | ServerType::Standalone
            | ServerType::Mongos
            | ServerType::LoadBalancer
    )
}

fn refuse_old(version: &str) -> Result<(), Error> {
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < MAJOR_VERSION_MIN) {
        let message =
            format!("MongoDB {version} is too old: {MAJOR_VERSION_MIN}.0 or newer is needed");
        return Err(Error::Configuration { message });
    }
    Ok(())
}
