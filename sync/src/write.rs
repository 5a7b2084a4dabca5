//! Writes the documents of one collection and gives each its verdict, or none where the outcome is unknown.
//!
//! A document is blamed only for what is surely its own doing: an error at its index, or a command that holds nothing
//! but this document and is refused while a command without any document is not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::{RawDocumentBuf, doc};
use tokio::time::Instant;

pub(crate) use self::command::{COMMAND_DOCUMENTS_MAX, Reply, Statement, delete, insert, update};
use self::command::{DOCUMENT_BYTES_MAX, DUPLICATE_KEY, TOO_LARGE, WriteError, batches};
use crate::client::Upstream;
use crate::error::Error;
use crate::ports::{Rendered, Verdict};

mod command;

/// How long a code this version does not know counts as an outage, before it counts against the document.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(600);

/// How often an upsert that met a concurrent one is sent again at once.
const UPSERT_RETRIES: usize = 3;

/// Verdicts by place in the stage, and the error that left the rest without one.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) verdicts: Vec<(usize, Verdict)>,
    pub(crate) error: Option<Error>,
}

impl Outcome {
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.verdicts.append(&mut other.verdicts);
        self.error = self.error.take().or(other.error);
    }
}

/// When each unknown code was first met.
#[derive(Debug, Default)]
pub(crate) struct UnknownCodes(Mutex<HashMap<i32, Instant>>);

impl UnknownCodes {
    /// Whether patience with `code` is over.
    fn is_over(&self, code: i32) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.entry(code).or_insert_with(Instant::now).elapsed() > UNKNOWN_PATIENCE
    }

    /// A command went through: what was met before is over.
    fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// The writes to one collection in one stage.
pub(crate) struct Writer<'a> {
    pub(crate) collection: &'static str,
    upstream: &'a Upstream,
    per_command: usize,
    unknown: &'a UnknownCodes,
    inserts: Vec<Item>,
    updates: Vec<Item>,
    outcome: Outcome,
}

/// One document on its way.
struct Item {
    /// Its place in the stage.
    at: usize,
    body: Body,
}

enum Body {
    Append(RawDocumentBuf),
    Create(RawDocumentBuf),
    Update(Statement),
}

impl Item {
    fn bytes(&self) -> usize {
        match &self.body {
            Body::Append(document) | Body::Create(document) => document.as_bytes().len(),
            Body::Update(statement) => statement.document().as_bytes().len(),
        }
    }
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        upstream: &'a Upstream,
        collection: &'static str,
        per_command: usize,
        unknown: &'a UnknownCodes,
    ) -> Self {
        let (inserts, updates, outcome) = (Vec::new(), Vec::new(), Outcome::default());
        Self {
            collection,
            upstream,
            per_command,
            unknown,
            inserts,
            updates,
            outcome,
        }
    }

    /// Adds the document at place `at` of the stage; what needs no write is no concern of a writer.
    pub(crate) fn add(&mut self, at: usize, rendered: Rendered) {
        let (list, body) = match rendered {
            Rendered::Append(document) => (&mut self.inserts, Body::Append(document)),
            Rendered::Create(document) => (&mut self.inserts, Body::Create(document)),
            Rendered::Update {
                filter,
                update,
                upsert,
            } => (
                &mut self.updates,
                Body::Update(Statement::new(&filter, &update, upsert)),
            ),
            Rendered::Nothing | Rendered::Blocked { .. } | Rendered::Damaged { .. } => return,
        };
        let item = Item { at, body };
        if item.bytes() > DOCUMENT_BYTES_MAX {
            self.refuse(
                at,
                TOO_LARGE,
                format!("{} bytes are more than a document may have", item.bytes()),
            );
        } else {
            list.push(item);
        }
    }

    /// Inserts first: an update may concern a document that this very batch creates.
    pub(crate) async fn run(mut self) -> Outcome {
        let (inserts, updates) = (
            std::mem::take(&mut self.inserts),
            std::mem::take(&mut self.updates),
        );
        for items in [inserts, updates] {
            for batch in batches(&items, self.per_command, Item::bytes) {
                if let Err(error) = self.write(batch).await {
                    self.outcome.error = Some(error);
                    return self.outcome;
                }
            }
        }
        self.outcome
    }

    /// Writes a batch; where the whole of it is refused, its halves, until the culprit stands alone.
    async fn write(&mut self, batch: &[Item]) -> Result<(), Error> {
        let mut parts = vec![batch.iter().collect::<Vec<_>>()];
        let mut retries = 0;
        while let Some(mut part) = parts.pop() {
            match self.upstream.write(self.command(&part)).await {
                Ok(reply) => {
                    if reply.errors.is_empty() {
                        self.unknown.forget();
                    }
                    let again = self.judge(&part, reply, retries < UPSERT_RETRIES)?;
                    retries += 1;
                    if !again.is_empty() {
                        parts.push(again);
                    }
                }
                Err(error) if !self.blames_documents(&error) => return Err(error),
                Err(_) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    self.control().await?;
                    self.refuse(
                        part[0].at,
                        error.code().unwrap_or_default(),
                        error.to_string(),
                    );
                }
            }
        }
        Ok(())
    }

    fn command(&self, part: &[&Item]) -> RawDocumentBuf {
        let mut documents = Vec::with_capacity(part.len());
        let mut statements = Vec::new();
        for item in part {
            match &item.body {
                Body::Append(document) | Body::Create(document) => {
                    documents.push(document.as_ref())
                }
                Body::Update(statement) => statements.push(statement),
            }
        }
        let deadline = self.upstream.options.deadline;
        if statements.is_empty() {
            insert(self.collection, &documents, deadline)
        } else {
            update(self.collection, &statements, deadline)
        }
    }

    /// Gives the documents of an answered command their verdicts. Returns those to be sent again at once.
    fn judge<'i>(
        &mut self,
        part: &[&'i Item],
        reply: Reply,
        may_retry: bool,
    ) -> Result<Vec<&'i Item>, Error> {
        let mut errors: HashMap<usize, WriteError> = reply
            .errors
            .into_iter()
            .map(|error| (error.index, error))
            .collect();
        // An unknown code that only some of the documents met is theirs; one that all met may be the server's.
        let met_by_all = errors.len() == part.len();
        let (mut again, mut failure) = (Vec::new(), None);
        for (index, item) in part.iter().enumerate() {
            let Some(error) = errors.remove(&index) else {
                self.outcome.verdicts.push((item.at, Verdict::Done));
                continue;
            };
            match (&item.body, error.is_same_id) {
                (Body::Append(_), true) => self.outcome.verdicts.push((item.at, Verdict::Done)),
                (Body::Create(_), true) => {
                    self.outcome.verdicts.push((item.at, Verdict::AlreadyThere))
                }
                (Body::Update(_), true) if may_retry => again.push(*item),
                _ if error.code == DUPLICATE_KEY => self.refuse(item.at, error.code, error.message),
                _ => match Error::from_code(error.code, error.message) {
                    Error::Document { code, message } => self.refuse(item.at, code, message),
                    Error::Unknown { code, message }
                        if !met_by_all || self.unknown.is_over(code) =>
                    {
                        self.refuse(item.at, code, message);
                    }
                    error => failure = Some(error),
                },
            }
        }
        failure.map_or(Ok(again), Err)
    }

    fn blames_documents(&self, error: &Error) -> bool {
        match error {
            Error::Unknown { code, .. } => self.unknown.is_over(*code),
            error => error.is_permanent(),
        }
    }

    /// A command that writes nothing. If it is refused as well, the command's form or this node is not to MongoDB's
    /// liking, and no document is to blame.
    async fn control(&self) -> Result<(), Error> {
        let nothing = Statement::of(
            &doc! { "_id": { "$in": [] } },
            &doc! { "$set": { "_": 0 } },
            false,
        )?;
        let command = update(self.collection, &[&nothing], self.upstream.options.deadline);
        match self.upstream.write(command).await {
            Err(Error::Document { code, message }) => Err(Error::Configuration {
                message: format!("every write is refused (code {code}): {message}"),
            }),
            other => other.map(|_| ()),
        }
    }

    fn refuse(&mut self, at: usize, code: i32, message: String) {
        self.outcome
            .verdicts
            .push((at, Verdict::Refused { code, message }));
    }
}
