//! Erasures of people, shared through `inlet.erasures` (R35, R38).
//!
//! A node reads them before it pushes anything after a connect, and again from time to time; until its host has applied
//! what was read, nothing is pushed. So a store that was put back from a backup brings nobody back, and other nodes of
//! the database forget whom one of them was asked to forget.
//!
//! Knows nothing of persons: records are passed on as they are. They are read by when they came to be upstream, by
//! MongoDB's clock, since a node may push its own long after it was asked.

use std::sync::Arc;
use std::time::Duration;

use bson::{DateTime, Document, doc};
use tokio::time::Instant;

use crate::claims::CLAIMS_COLLECTION;
use crate::client::{Query, Upstream};
use crate::error::{Error, PassError};
use crate::ports::{Erasures, OwedErasures, PortError, VoidClaim};
use crate::push::blocking;
use crate::write;

const ERASURES_COLLECTION: &str = "inlet.erasures";
/// When a record came to be upstream.
const PUSHED_AT: &str = "pushed_at";
/// How often they are read again while everything goes well.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// How far before its bookmark a reading begins: clocks of a replica set's members differ, and a record that was
/// written under one primary may appear after a later one. Those that are known are passed over.
const OVERLAP_MS: i64 = 24 * 60 * 60 * 1000;
/// Read in one go: a store that was put back may have years of them to learn.
const PAGE: i64 = 1_000;

/// Stands before the push.
pub(crate) struct ErasureGate {
    port: Arc<dyn Erasures>,
    read_at: Option<Instant>,
}

impl ErasureGate {
    pub(crate) fn new(port: Arc<dyn Erasures>) -> Self {
        Self {
            port,
            read_at: None,
        }
    }

    /// Whether anything may be pushed now. Where it may, what the host owes upstream for its erasures is done first.
    pub(crate) async fn pass(&mut self, upstream: &Upstream) -> Result<bool, PassError> {
        if self.read_at.is_none_or(|at| at.elapsed() >= READ_INTERVAL) {
            self.read(upstream).await?;
            self.read_at = Some(Instant::now());
        }
        if !self.ask(|port| port.are_applied()).await? {
            return Ok(false);
        }
        loop {
            let owed = self.ask(|port| port.owed()).await?;
            if owed.is_empty() {
                return Ok(true);
            }
            pay(upstream, &owed).await?;
            self.ask(move |port| port.paid(owed)).await?;
        }
    }

    /// Something failed: who knows what has happened upstream when it goes on.
    pub(crate) fn close(&mut self) {
        self.read_at = None;
    }

    async fn read(&self, upstream: &Upstream) -> Result<(), PassError> {
        let bookmark = self.ask(|port| port.bookmark()).await?;
        let read_to_ms = bookmark.map_or(0, DateTime::timestamp_millis);
        let from = DateTime::from_millis(read_to_ms.saturating_sub(OVERLAP_MS));
        // One that claims to come from the future must not hide those that come until then.
        let latest = DateTime::from_millis(DateTime::now().timestamp_millis() + OVERLAP_MS);
        let mut place = doc! { PUSHED_AT: { "$gte": from } };
        loop {
            let query = Query {
                filter: doc! { "$and": [place, { "_id": { "$type": "objectId" } }] },
                sort: Some(doc! { PUSHED_AT: 1, "_id": 1 }),
                limit: PAGE,
                ..Query::default()
            };
            let records = upstream.query(ERASURES_COLLECTION, query).await?;
            let is_last = (records.len() as u64) < PAGE.unsigned_abs();
            let Some((pushed_at, id)) = records.last().and_then(|record| {
                let pushed_at = record.get_datetime(PUSHED_AT).ok()?;
                Some((pushed_at, record.get_object_id("_id").ok()?))
            }) else {
                return Ok(());
            };
            let read_to = pushed_at.min(latest);
            self.ask(move |port| port.learn(records, read_to)).await?;
            if is_last {
                return Ok(());
            }
            place = doc! { "$or": [
                { PUSHED_AT: { "$gt": pushed_at } },
                { PUSHED_AT: pushed_at, "_id": { "$gt": id } },
            ] };
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Erasures) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let port = Arc::clone(&self.port);
        blocking(move || question(port.as_ref())).await
    }
}

/// Claims first: a record says that all is done.
async fn pay(upstream: &Upstream, owed: &OwedErasures) -> Result<(), Error> {
    if !owed.claims.is_empty() {
        remove_claims(upstream, &owed.claims).await?;
    }
    for record in &owed.records {
        let mut facts = record.clone();
        let Some(id) = facts.remove("_id") else {
            continue;
        };
        let update = doc! { "$setOnInsert": facts, "$currentDate": { PUSHED_AT: true } };
        upstream
            .update_one(ERASURES_COLLECTION, doc! { "_id": id }, update, true)
            .await?;
    }
    Ok(())
}

/// A claim that somebody else holds by now stays.
async fn remove_claims(upstream: &Upstream, claims: &[VoidClaim]) -> Result<(), Error> {
    let held: Vec<Document> = claims
        .iter()
        .map(|claim| doc! { "_id": &claim.key, "ref": claim.holder })
        .collect();
    let command = write::delete(CLAIMS_COLLECTION, &held, upstream.options.deadline)?;
    match upstream.write(command).await?.errors.pop() {
        Some(error) => Err(Error::from_code(error.code, error.message)),
        None => Ok(()),
    }
}
