//! A change stream over some collections of the database, read by a task of its own.
//!
//! The task owns the driver's stream and is never cancelled; it ends at its next word when nobody listens any more.

use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType, ResumeToken};
use mongodb::options::{ChangeStreamOptions, FullDocumentType};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::client::Upstream;
use crate::error::Error;
use crate::ports::ReplicaEvent;

/// How long the server waits for changes before it answers that there are none.
const AWAIT_MAX: Duration = Duration::from_secs(1);

/// Events read ahead; the server waits for the store after that.
const AHEAD_MAX: usize = 1000;

/// Where a stream begins.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// With the first change at or after this moment.
    At(Timestamp),
    /// After the change this token stands for.
    After(RawDocumentBuf),
}

/// What the reading task has to say.
#[derive(Debug)]
pub(crate) enum Word {
    /// A change, and the token to resume after it.
    Event(ReplicaEvent, Option<RawDocumentBuf>),
    /// No change up to this token.
    Quiet(Option<RawDocumentBuf>),
    /// The stream cannot go on and cannot be resumed: a collection was dropped or renamed, or history is lost.
    Dead(String),
    /// This node may not watch.
    Forbidden,
    /// MongoDB failed; the stream can be resumed.
    Failed(mongodb::error::Error),
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Feed {
    words: mpsc::Receiver<Word>,
    task: AbortHandle,
}

impl Feed {
    /// Starts reading. Failures to open come as the first word.
    ///
    /// # Errors
    /// Where MongoDB cannot be reached.
    pub(crate) async fn open(
        upstream: &Upstream,
        collections: &'static [&'static str],
        start: Start,
    ) -> Result<Self, Error> {
        let database = upstream.database().await?;
        let (sender, words) = mpsc::channel(AHEAD_MAX);
        let task = tokio::spawn(async move {
            let watch = database
                .watch()
                .pipeline(vec![only(collections)])
                .with_options(options(start));
            let last = match watch.await {
                Ok(stream) => read(stream.with_type(), collections, &sender).await,
                Err(error) => Some(Word::of(error)),
            };
            if let Some(last) = last {
                let _ = sender.send(last).await;
            }
        });
        Ok(Self {
            words,
            task: task.abort_handle(),
        })
    }

    /// What has come, waiting for the first word until `deadline`. Nothing: the stream gave no sign of life.
    pub(crate) async fn next(&mut self, deadline: Duration) -> Vec<Word> {
        let mut words = Vec::new();
        let _ = tokio::time::timeout(deadline, self.words.recv_many(&mut words, AHEAD_MAX)).await;
        words
    }

    /// The reading task, for a stream that hangs.
    pub(crate) fn task(&self) -> AbortHandle {
        self.task.clone()
    }
}

impl Word {
    fn of(error: mongodb::error::Error) -> Self {
        let code = match error.kind.as_ref() {
            mongodb::error::ErrorKind::Command(command) => command.code,
            _ => 0,
        };
        match Error::from_code(code, String::new()) {
            Error::Configuration { .. } => Self::Forbidden,
            // 286 history lost, 280 fatal, 260 invalid token, 40573 not a replica set; an event too large.
            _ if matches!(code, 260 | 280 | 286 | 40573) => Self::Dead(format!("code {code}")),
            Error::Document { code, .. } => Self::Dead(format!("code {code}")),
            _ if error.contains_label("NonResumableChangeStreamError") => {
                Self::Dead(format!("code {code}"))
            }
            _ => Self::Failed(error),
        }
    }
}

/// Reads until the stream ends or nobody listens; returns the last word.
async fn read(
    mut stream: ChangeStream<ChangeStreamEvent<RawDocumentBuf>>,
    collections: &[&str],
    words: &mpsc::Sender<Word>,
) -> Option<Word> {
    while stream.is_alive() {
        let word = match stream.next_if_any().await {
            Ok(None) => Word::Quiet(token(&stream)),
            Ok(Some(event)) if is_fatal(&event.operation_type) => {
                return Some(Word::Dead(format!("{:?}", event.operation_type)));
            }
            Ok(Some(event)) => match translate(event, collections) {
                Some(event) => Word::Event(event, token(&stream)),
                None => Word::Quiet(token(&stream)),
            },
            Err(error) => return Some(Word::of(error)),
        };
        words.send(word).await.ok()?;
    }
    Some(Word::Dead("the server closed it".into()))
}

fn only(collections: &[&str]) -> bson::Document {
    doc! { "$match": { "$or": [
        { "ns.coll": { "$in": collections } },
        { "to.coll": { "$in": collections } },
        { "operationType": { "$in": ["dropDatabase", "invalidate"] } },
    ] } }
}

fn options(start: Start) -> ChangeStreamOptions {
    let options = ChangeStreamOptions::builder()
        .full_document(Some(FullDocumentType::UpdateLookup))
        .max_await_time(Some(AWAIT_MAX))
        .build();
    let mut options = options;
    match start {
        Start::At(moment) => options.start_at_operation_time = Some(moment),
        Start::After(token) => {
            options.resume_after = bson::deserialize_from_slice(token.as_bytes()).ok()
        }
    }
    options
}

fn token(stream: &ChangeStream<ChangeStreamEvent<RawDocumentBuf>>) -> Option<RawDocumentBuf> {
    stream.resume_token().as_ref().and_then(raw)
}

fn raw(token: &ResumeToken) -> Option<RawDocumentBuf> {
    bson::serialize_to_raw_document_buf(token).ok()
}

fn is_fatal(operation: &OperationType) -> bool {
    matches!(
        operation,
        OperationType::Drop
            | OperationType::Rename
            | OperationType::DropDatabase
            | OperationType::Invalidate
    )
}

fn translate(
    event: ChangeStreamEvent<RawDocumentBuf>,
    collections: &[&str],
) -> Option<ReplicaEvent> {
    let name = event.ns?.coll?;
    let collection = collections.iter().position(|known| *known == name)?;
    match event.operation_type {
        OperationType::Delete => Some(ReplicaEvent::Delete {
            collection,
            id: event.document_key?.remove("_id")?,
        }),
        // An update whose document is absent was followed by a delete, which comes next.
        _ => Some(ReplicaEvent::Put {
            collection,
            document: event.full_document?,
        }),
    }
}
