//! What this product sets up upstream: plain indexes, and the word on which versions may push.
//!
//! Nothing here is fatal but one thing: a database whose `inlet.schema` asks for a newer version is not pushed to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Database;
use tokio::time::Instant;

use crate::client::{Options, Query, Upstream};
use crate::error::Error;

/// The version of what this crate and its host write. A node holds its pushes where `min_version` is above it.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA_COLLECTION: &str = "inlet.schema";
/// How often a pushing node looks whether it has become too old.
const SCHEMA_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// How long after a failure missing indexes are created again: doubled each time, up to the second.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Index exists with other options, or under another name: somebody else's decision stands.
const INDEX_EXISTS_DIFFERENTLY: [i32; 2] = [85, 86];

/// A plain (never unique) index the host's lookups need.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSpec {
    /// The collection.
    pub collection: &'static str,
    /// The fields, ascending.
    pub fields: &'static [&'static str],
    /// Whether text is compared without regard to case (collation `en`, strength 2), as
    /// [`crate::ports::Lookup::ignore_case`] does: a lookup whose collation differs scans the collection.
    pub ignore_case: bool,
    /// Whether the field is a date after which MongoDB may remove the document.
    pub expires: bool,
}

impl IndexSpec {
    fn command(&self) -> Document {
        let keys: Document = self
            .fields
            .iter()
            .map(|field| ((*field).to_owned(), 1.into()))
            .collect();
        let suffix = if self.ignore_case { "_ci" } else { "" };
        let mut index =
            doc! { "key": keys, "name": format!("inlet_{}{suffix}", self.fields.join("_")) };
        if self.ignore_case {
            index.insert("collation", doc! { "locale": "en", "strength": 2 });
        }
        if self.expires {
            index.insert("expireAfterSeconds", 0);
        }
        doc! { "createIndexes": self.collection, "indexes": [index] }
    }
}

/// Creates missing indexes, in the background: building one on a large collection outlasts any deadline. What failed is
/// tried again with the node's sign of life, at growing intervals.
#[derive(Debug, Default)]
pub(crate) struct Bootstrap(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
enum Progress {
    #[default]
    NotBegun,
    Building,
    /// These are missing still.
    Waiting {
        missing: Vec<IndexSpec>,
        again_at: Instant,
        failures: u32,
    },
    Done,
}

impl Bootstrap {
    /// Creates what is missing, unless that is being done or was tried a moment ago.
    pub(crate) fn go_on(&self, database: Database, options: &Options) {
        if !options.create_indexes {
            return;
        }
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((missing, failures)) = progress.due(&options.indexes) else {
            return;
        };
        *progress = Progress::Building;
        let told = Arc::clone(&self.0);
        tokio::spawn(async move {
            let missing = create_indexes(&database, missing, failures == 0).await;
            *told.lock().unwrap_or_else(PoisonError::into_inner) =
                Progress::after(missing, failures);
        });
    }
}

impl Progress {
    /// What is to be created now, and how often that has failed.
    fn due(&self, all: &[IndexSpec]) -> Option<(Vec<IndexSpec>, u32)> {
        match self {
            Self::NotBegun => Some((all.to_vec(), 0)),
            Self::Waiting {
                missing,
                again_at,
                failures,
            } if *again_at <= Instant::now() => Some((missing.clone(), *failures)),
            Self::Building | Self::Waiting { .. } | Self::Done => None,
        }
    }

    fn after(missing: Vec<IndexSpec>, failures: u32) -> Self {
        if missing.is_empty() {
            return Self::Done;
        }
        let wait = RETRY_AFTER.0.saturating_mul(1 << failures.min(16));
        Self::Waiting {
            missing,
            again_at: Instant::now() + wait.min(RETRY_AFTER.1),
            failures: failures + 1,
        }
    }
}

/// Returns those that could not be created. A missing index costs time, not leads, so that is logged once.
async fn create_indexes(
    database: &Database,
    indexes: Vec<IndexSpec>,
    is_first: bool,
) -> Vec<IndexSpec> {
    let mut missing = Vec::new();
    for index in indexes {
        match database.run_command(index.command()).await {
            Ok(_) => {}
            Err(error) if is_settled_otherwise(&error) => {}
            Err(_) => {
                if is_first {
                    tracing::warn!(collection = index.collection, fields = ?index.fields,
                        "index not created; tried again later");
                }
                missing.push(index);
            }
        }
    }
    missing
}

fn is_settled_otherwise(error: &mongodb::error::Error) -> bool {
    let mongodb::error::ErrorKind::Command(command) = error.kind.as_ref() else {
        return false;
    };
    INDEX_EXISTS_DIFFERENTLY.contains(&command.code)
}

/// Holds back the pushes of a node that has become too old.
#[derive(Debug, Default)]
pub(crate) struct SchemaGate {
    passed_at: Option<Instant>,
}

impl SchemaGate {
    /// # Errors
    /// [`Error::Configuration`] where `inlet.schema` asks for a newer version.
    pub(crate) async fn pass(&mut self, upstream: &Upstream) -> Result<(), Error> {
        if self
            .passed_at
            .is_some_and(|at| at.elapsed() < SCHEMA_CHECK_INTERVAL)
        {
            return Ok(());
        }
        let query = Query {
            filter: doc! { "_id": "schema" },
            limit: 1,
            ..Query::default()
        };
        match upstream.query(SCHEMA_COLLECTION, query).await?.first() {
            Some(schema) => refuse_newer(&Document::try_from(schema.as_ref()).unwrap_or_default())?,
            None => introduce(upstream).await?,
        }
        self.passed_at = Some(Instant::now());
        Ok(())
    }
}

fn refuse_newer(schema: &Document) -> Result<(), Error> {
    let min = schema
        .get("min_version")
        .and_then(|min| min.as_i64().or(min.as_i32().map(i64::from)));
    match min {
        Some(min) if min > SCHEMA_VERSION => {
            let message = format!(
                "{SCHEMA_COLLECTION} asks for version {min}, this node writes {SCHEMA_VERSION}"
            );
            Err(Error::Configuration { message })
        }
        _ => Ok(()),
    }
}

async fn introduce(upstream: &Upstream) -> Result<(), Error> {
    let first =
        doc! { "$setOnInsert": { "version": SCHEMA_VERSION, "min_version": SCHEMA_VERSION } };
    match upstream
        .update_one(SCHEMA_COLLECTION, doc! { "_id": "schema" }, first, true)
        .await
    {
        // Another node was faster.
        Ok(_) | Err(Error::Document { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
