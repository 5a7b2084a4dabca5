//! A mongod to torment, and a small store that keeps what the engines ask of it in memory.

#[path = "../../../tests/it/support/port.rs"]
mod port;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bson::oid::ObjectId;
use bson::{Bson, Document, RawBson, RawDocumentBuf, doc};
use inlet_sync::ports::{
    Claim, Lookup, Outbox, Pending, PortError, Rendered, Replica, ReplicaEvent, Row, Settlement,
    Unsettled, Verdict,
};
use inlet_sync::{Options, PassError, PushEngine, Step, Upstream};

/// A running mongod with a directory of its own.
pub(crate) struct Mongod {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
    set: Option<&'static str>,
}

impl Mongod {
    pub(crate) async fn standalone() -> Self {
        Self::start(None).await
    }

    pub(crate) async fn replica_set() -> Self {
        let mongod = Self::start(Some("rs")).await;
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", mongod.port) };
        let initiate = doc! { "replSetInitiate": { "_id": "rs", "members": [member] } };
        mongod
            .client(true)
            .await
            .database("admin")
            .run_command(initiate)
            .await
            .unwrap();
        let probe = mongod.client(false).await;
        until("a primary is elected", async || {
            probe
                .database("t")
                .run_command(doc! { "ping": 1 })
                .await
                .is_ok()
        })
        .await;
        mongod
    }

    async fn start(set: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = port::free().port();
        let process = launch(directory.path(), port, set);
        let mongod = Self {
            process,
            directory,
            port,
            set,
        };
        mongod.wait_for_socket().await;
        mongod
    }

    pub(crate) fn options(&self) -> Options {
        let set = self
            .set
            .map_or(String::new(), |set| format!("?replicaSet={set}"));
        let mut options = Options::new(
            format!("mongodb://127.0.0.1:{}/{set}", self.port),
            "test",
            "node-1",
        );
        options.deadline = Duration::from_secs(20);
        options
    }

    pub(crate) async fn database(&self) -> mongodb::Database {
        self.client(false).await.database("test")
    }

    async fn client(&self, direct: bool) -> mongodb::Client {
        let uri = format!(
            "mongodb://127.0.0.1:{}/?directConnection={direct}",
            self.port
        );
        let set = self
            .set
            .filter(|_| !direct)
            .map_or(String::new(), |set| format!("&replicaSet={set}"));
        mongodb::Client::with_uri_str(format!("{uri}{set}&serverSelectionTimeoutMS=3000"))
            .await
            .unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port; returns when the socket listens.
    pub(crate) async fn restart(&mut self) {
        self.process = launch(self.directory.path(), self.port, self.set);
        self.wait_for_socket().await;
    }

    async fn wait_for_socket(&self) {
        let address = ("127.0.0.1", self.port);
        until("mongod listens", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(directory: &Path, port: u16, set: Option<&str>) -> Child {
    let mut command = Command::new(binary());
    command.arg("--dbpath").arg(directory).args([
        "--bind_ip",
        "127.0.0.1",
        "--port",
        &port.to_string(),
    ]);
    command.args([
        "--wiredTigerCacheSizeGB",
        "0.25",
        "--setParameter",
        "diagnosticDataCollectionEnabled=false",
    ]);
    command.args(["--setParameter", "enableTestCommands=1"]);
    command.args(set.iter().flat_map(|set| ["--replSet", set]));
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("INLET_TEST_MONGOD") {
        return path.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let path = target.join("mongod-6.0.5/mongod");
    assert!(
        path.exists(),
        "no mongod: set INLET_TEST_MONGOD or put one at {}",
        path.display()
    );
    path
}

/// Waits up to 30 s for something outside this process.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "waited in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const PEOPLE: u8 = 0;
pub(crate) const LEADS: u8 = 1;
pub(crate) const COLLECTIONS: [&str; 2] = ["people", "leads"];

/// A person or a lead in the small store.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: ObjectId,
    pub(crate) known: bool,
    /// Keys that are new since it was settled last.
    pub(crate) gained: usize,
    pub(crate) settled: bool,
    pub(crate) update: bool,
    pub(crate) parent: Option<Row>,
    pub(crate) email: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) fields: Document,
    pub(crate) refused: Option<i32>,
    pub(crate) upstream: Option<Document>,
}

/// The small store: rows, and the change log over them.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) items: Mutex<BTreeMap<Row, Item>>,
    log: Mutex<BTreeMap<u64, Row>>,
}

impl Shelf {
    pub(crate) fn person(&self, number: u64, email: Option<&str>, phone: Option<&str>) -> Row {
        let row = Row {
            collection: PEOPLE,
            number,
        };
        self.add(
            row,
            Item {
                email: email.map(Into::into),
                phone: phone.map(Into::into),
                settled: false,
                ..item()
            },
        )
    }

    pub(crate) fn lead(&self, number: u64, parent: Option<Row>, fields: Document) -> Row {
        self.add(
            Row {
                collection: LEADS,
                number,
            },
            Item {
                parent,
                fields,
                ..item()
            },
        )
    }

    pub(crate) fn add(&self, row: Row, item: Item) -> Row {
        self.items.lock().unwrap().insert(row, item);
        self.touch(row);
        row
    }

    pub(crate) fn touch(&self, row: Row) {
        let mut log = self.log.lock().unwrap();
        let ticket = log.keys().last().map_or(1, |last| last + 1);
        log.insert(ticket, row);
    }

    pub(crate) fn edit(&self, row: Row, edit: impl FnOnce(&mut Item)) {
        edit(self.items.lock().unwrap().get_mut(&row).unwrap());
    }

    pub(crate) fn get(&self, row: Row) -> Item {
        self.items.lock().unwrap()[&row].clone()
    }

    pub(crate) fn backlog(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    fn parent_of(&self, row: Row) -> Option<Row> {
        self.get(row).parent
    }
}

pub(crate) fn item() -> Item {
    Item {
        id: ObjectId::new(),
        known: false,
        gained: 0,
        settled: true,
        update: false,
        parent: None,
        email: None,
        phone: None,
        fields: doc! {},
        refused: None,
        upstream: None,
    }
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).unwrap()
}

fn alive() -> Document {
    doc! { "account": "a", "is_deleted": { "$ne": true } }
}

impl Outbox for Shelf {
    fn collections(&self) -> &'static [&'static str] {
        &COLLECTIONS
    }

    fn stages(&self) -> &'static [&'static [u8]] {
        &[&[PEOPLE], &[LEADS]]
    }

    fn take(&self, after: u64, limit: usize) -> Result<Vec<Pending>, PortError> {
        let log = self.log.lock().unwrap();
        let mut rows: Vec<Pending> = Vec::new();
        let mut places = HashMap::new();
        for (ticket, row) in log.range(after + 1..).take(limit) {
            let at = *places.entry(*row).or_insert_with(|| {
                rows.push(Pending {
                    row: *row,
                    tickets: Vec::new(),
                });
                rows.len() - 1
            });
            rows[at].tickets.push(*ticket);
        }
        Ok(rows)
    }

    fn unsettled(&self, pending: &[Pending]) -> Result<Vec<Unsettled>, PortError> {
        let items = self.items.lock().unwrap();
        let unsettled = pending
            .iter()
            .map(|pending| (pending.row, &items[&pending.row]));
        Ok(unsettled
            .filter(|(_, item)| !item.settled)
            .map(|(row, item)| ask(row, item))
            .collect())
    }

    fn settle(&self, settled: Vec<(Row, Settlement)>) -> Result<(), PortError> {
        for (row, settlement) in settled {
            self.edit(row, |item| match settlement {
                Settlement::Own => item.settled = true,
                Settlement::Confirmed(document) => {
                    (item.settled, item.update) = (true, true);
                    item.upstream = Document::try_from(document).ok();
                }
                Settlement::Adopted { id, document } | Settlement::Moved { id, document } => {
                    (item.id, item.settled, item.known, item.update) = (id, true, true, true);
                    item.upstream = document.and_then(|document| Document::try_from(document).ok());
                }
                Settlement::Gone => (item.id, item.known) = (ObjectId::new(), false),
            });
        }
        Ok(())
    }

    fn render(&self, pending: &[Pending]) -> Result<Vec<Rendered>, PortError> {
        Ok(pending
            .iter()
            .map(|pending| self.render_one(pending.row))
            .collect())
    }

    fn conclude(&self, verdicts: Vec<(Pending, Verdict)>) -> Result<(), PortError> {
        for (pending, verdict) in verdicts {
            match verdict {
                Verdict::AlreadyThere => self.edit(pending.row, |item| item.update = true),
                Verdict::Blocked { .. } | Verdict::Damaged { .. } => {}
                Verdict::Done => self.forget(&pending),
                Verdict::Refused { code, .. } => {
                    self.edit(pending.row, |item| item.refused = Some(code));
                    self.forget(&pending);
                }
            }
        }
        Ok(())
    }
}

impl Shelf {
    fn forget(&self, pending: &Pending) {
        let mut log = self.log.lock().unwrap();
        for ticket in &pending.tickets {
            log.remove(ticket);
        }
    }

    fn render_one(&self, row: Row) -> Rendered {
        let parent = self.parent_of(row).map(|parent| (parent, self.get(parent)));
        let item = self.get(row);
        let mut document = doc! { "_id": item.id, "account": "a" };
        document.extend(item.fields.clone());
        if let Some((by, parent)) = parent {
            if parent.refused.is_some() {
                return Rendered::Blocked { by };
            }
            document.insert("person", parent.id);
        }
        if row.collection == LEADS {
            return Rendered::Append(raw(&document));
        }
        let mut person = doc! {};
        person.extend(
            item.email
                .map(|email| ("email".to_owned(), Bson::from(email))),
        );
        person.extend(
            item.phone
                .map(|phone| ("phone".to_owned(), Bson::from(phone))),
        );
        if !item.update {
            document.extend(person);
            return Rendered::Create(raw(&document));
        }
        // As the product does: what is there stays, what is missing is filled in.
        let fill = |(key, value): (String, Bson)| {
            let filled = doc! { "$ifNull": [format!("${key}"), { "$literal": value }] };
            (key, Bson::from(filled))
        };
        person.insert("account", "a");
        let set: Document = person.into_iter().map(fill).collect();
        let stage = raw(&doc! { "$set": set });
        let update = RawBson::Array([stage].into_iter().collect());
        Rendered::Update {
            filter: raw(&doc! { "_id": item.id }),
            update,
            upsert: true,
        }
    }
}

fn ask(row: Row, item: &Item) -> Unsettled {
    let lookup = |field, value: &String, ignore_case| Lookup {
        filter: alive(),
        field,
        value: value.clone().into(),
        ignore_case,
    };
    let claim = |kind: &str, value: &String| Claim {
        key: format!("{kind}:{}", value.to_lowercase()),
        window_ms: None,
        at_ms: 0,
    };
    let (email, phone) = (item.email.iter(), item.phone.iter());
    Unsettled {
        row,
        own_id: item.id,
        known: item.known.then(|| inlet_sync::ports::Known {
            id: item.id,
            alive: alive(),
            gained: item.gained,
        }),
        lookups: email
            .clone()
            .map(|email| lookup("email", email, true))
            .chain(phone.clone().map(|phone| lookup("phone", phone, false)))
            .collect(),
        claims: email
            .map(|email| claim("e", email))
            .chain(phone.map(|phone| claim("p", phone)))
            .collect(),
    }
}

/// An engine over a shelf.
pub(crate) fn engine(options: Options, shelf: &Arc<Shelf>) -> PushEngine {
    PushEngine::new(Upstream::new(options), Arc::clone(shelf) as Arc<dyn Outbox>)
}

/// Steps until there is nothing to do.
pub(crate) async fn drain(engine: &mut PushEngine) -> Result<usize, PassError> {
    let mut total = 0;
    loop {
        match engine.step().await? {
            Step::Progress { documents } => total += documents,
            Step::Idle { .. } => return Ok(total),
        }
    }
}

/// The replica of two collections, and what was told about it.
#[derive(Default)]
pub(crate) struct Copy {
    pub(crate) state: Mutex<CopyState>,
}

#[derive(Default)]
pub(crate) struct CopyState {
    pub(crate) documents: BTreeMap<(usize, String), Document>,
    pub(crate) token: Option<RawDocumentBuf>,
    pub(crate) snapshots: usize,
    pub(crate) complete_at_ms: Option<i64>,
}

impl Copy {
    pub(crate) fn ids(&self, collection: usize) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state
            .documents
            .keys()
            .filter(|(known, _)| *known == collection)
            .map(|(_, id)| id.clone())
            .collect()
    }

    pub(crate) fn field(&self, collection: usize, id: &str, field: &str) -> Option<Bson> {
        self.state
            .lock()
            .unwrap()
            .documents
            .get(&(collection, id.to_owned()))?
            .get(field)
            .cloned()
    }
}

impl CopyState {
    fn put(&mut self, collection: usize, document: &RawDocumentBuf) {
        let document = Document::try_from(document.as_ref()).unwrap();
        self.documents.insert(
            (collection, document.get("_id").unwrap().to_string()),
            document,
        );
    }
}

impl Replica for Copy {
    fn collections(&self) -> &'static [&'static str] {
        &["accounts", "campaigns"]
    }

    fn resume_token(&self) -> Result<Option<RawDocumentBuf>, PortError> {
        Ok(self.state.lock().unwrap().token.clone())
    }

    fn replace(
        &self,
        documents: Vec<Vec<RawDocumentBuf>>,
        token: Option<RawDocumentBuf>,
        began_at_ms: i64,
    ) -> Result<(), PortError> {
        let mut state = self.state.lock().unwrap();
        state.documents.clear();
        for (collection, documents) in documents.iter().enumerate() {
            documents
                .iter()
                .for_each(|document| state.put(collection, document));
        }
        state.token = token;
        state.snapshots += 1;
        state.complete_at_ms = Some(began_at_ms);
        Ok(())
    }

    fn apply(
        &self,
        events: Vec<ReplicaEvent>,
        token: Option<RawDocumentBuf>,
        complete_at_ms: Option<i64>,
    ) -> Result<(), PortError> {
        let mut state = self.state.lock().unwrap();
        for event in events {
            match event {
                ReplicaEvent::Put {
                    collection,
                    document,
                } => state.put(collection, &document),
                ReplicaEvent::Delete { collection, id } => {
                    drop(state.documents.remove(&(collection, id.to_string())))
                }
            }
        }
        state.token = token.or(state.token.take());
        state.complete_at_ms = complete_at_ms.or(state.complete_at_ms);
        Ok(())
    }

    fn forget_resume_token(&self) -> Result<(), PortError> {
        self.state.lock().unwrap().token = None;
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the freshness of a real mongod is judged by real time"
    )]
    fn now_ms(&self) -> i64 {
        i64::try_from(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_millis(),
        )
        .unwrap()
    }
}
