//! Erasures as the sync crate sees them: what to read, what to push, and whether anything else may be (R35, R38).

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use inlet_sync::ports::{Erasures, OwedErasures, PortError, VoidClaim};
use redb::ReadableTable;

use crate::model::Erasure;
use crate::model::erasure::{PersonKey, Removed};
use crate::store::{Snapshot, Store, StoreError, Tables, number};

/// How far this node has read, by MongoDB's clock: milliseconds since the epoch.
const BOOKMARK: &str = "erasures_bookmark";
/// Erasures pushed in one go.
const RECORDS_MAX: usize = 100;
/// Claims removed in one go.
const CLAIMS_MAX: usize = 500;

/// Addresses and numbers of one person at most: a record of more was written by something that is broken.
const KEYS_MAX: usize = 1_000;

/// A store's erasures.
pub struct StoreErasures(
    /// The store.
    pub Arc<Store>,
);

impl Erasures for StoreErasures {
    fn bookmark(&self) -> Result<Option<DateTime>, PortError> {
        let read = self.0.read().and_then(|snapshot| {
            let at_ms = number(&snapshot.meta, BOOKMARK)?;
            Ok((at_ms > 0).then(|| DateTime::from_millis(at_ms.cast_signed())))
        });
        read.map_err(port)
    }

    fn learn(&self, records: Vec<RawDocumentBuf>, read_to: DateTime) -> Result<(), PortError> {
        let read: Vec<Erasure> = records.iter().filter_map(read).collect();
        let bookmark = read_to.timestamp_millis().max(0).cast_unsigned();
        if self.knows(&read, bookmark).map_err(port)? {
            return Ok(());
        }
        let work = move |tables: &mut Tables<'_>| {
            let mut new = 0;
            for erasure in read {
                new += u64::from(tables.learn_erasure(erasure)?);
            }
            if bookmark > number(&tables.meta, BOOKMARK)? {
                tables.set_number(BOOKMARK, bookmark)?;
            }
            Ok(new)
        };
        let new = self.0.write_blocking(work).map_err(port)?;
        if new > 0 {
            tracing::info!(new, "erasures of other nodes are to be applied");
            self.0.signals().erasures.notify_one();
        }
        Ok(())
    }

    /// What was asked for here may wait for its round while everything is pushed as ever.
    fn are_applied(&self) -> Result<bool, PortError> {
        let read = self.0.read().and_then(|snapshot| {
            Ok(!snapshot.is_erasing()? && !snapshot.owes_others_an_erasure()?)
        });
        read.map_err(port)
    }

    fn owed(&self) -> Result<OwedErasures, PortError> {
        let read = self.0.read().and_then(|snapshot| snapshot.owed_erasures());
        let (owed, damaged) = read.map_err(port)?;
        if !damaged.is_empty() {
            self.forget(damaged).map_err(port)?;
        }
        Ok(owed)
    }

    fn paid(&self, paid: OwedErasures) -> Result<(), PortError> {
        let ids: Vec<_> = paid.records.iter().filter_map(id_of).collect();
        let claims: Vec<_> = paid.claims.iter().filter_map(as_stored).collect();
        let work = move |tables: &mut Tables<'_>| {
            for id in &ids {
                tables.unpushed_erasures.remove(id)?;
            }
            for (claim, contact) in &claims {
                tables.void_claims.remove((claim, contact))?;
            }
            Ok(())
        };
        self.0.write_blocking(work).map_err(port)
    }
}

impl StoreErasures {
    /// Whether nothing of this is new.
    fn knows(&self, read: &[Erasure], bookmark: u64) -> Result<bool, StoreError> {
        let snapshot = self.0.read()?;
        for erasure in read {
            if snapshot.erasures.get(&erasure.id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(bookmark <= number(&snapshot.meta, BOOKMARK)?)
    }

    /// A record that cannot be read can be told to nobody, and must not be in the way of everything else.
    fn forget(&self, damaged: Vec<[u8; 12]>) -> Result<(), StoreError> {
        for id in &damaged {
            tracing::error!(
                erasure = hex::encode(id),
                "an erasure's record is damaged and was not pushed: ask for it once more"
            );
        }
        self.0.write_blocking(move |tables| {
            let mut damaged = damaged.iter();
            damaged.try_for_each(|id| tables.forget_erasure(id))
        })
    }
}

impl Snapshot {
    /// What is owed, and the erasures whose records are damaged.
    fn owed_erasures(&self) -> Result<(OwedErasures, Vec<[u8; 12]>), StoreError> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for entry in self.unpushed_erasures.iter()? {
            let id = *entry?.0.value();
            // Its claims are not known yet, and they go first.
            if self.has_unfinished(&[id])? {
                continue;
            }
            if records.len() + damaged.len() == RECORDS_MAX {
                break;
            }
            match self.erasure(&id) {
                Ok(Some(erasure)) => records.push(record(&erasure)),
                Ok(None) | Err(StoreError::Corrupt { .. }) => damaged.push(id),
                Err(error) => return Err(error),
            }
        }
        let mut claims = Vec::new();
        for entry in self.void_claims.iter()?.take(CLAIMS_MAX) {
            let entry = entry?;
            let (claim, contact) = entry.0.value();
            claims.push(VoidClaim {
                key: hex::encode(claim),
                holder: ObjectId::from_bytes(*contact),
            });
        }
        Ok((OwedErasures { records, claims }, damaged))
    }
}

/// `{_id, account_id?, keys, at, node}`.
fn record(erasure: &Erasure) -> Document {
    let keys: Vec<_> = erasure.keys.iter().map(hex::encode).collect();
    let mut record = doc! {
        "_id": ObjectId::from_bytes(erasure.id),
        "keys": keys,
        "at": DateTime::from_millis(erasure.at_ms),
        "node": &erasure.node,
    };
    if let Some(account) = erasure.account {
        record.insert("account_id", ObjectId::from_bytes(account));
    }
    record
}

/// What another node wrote; `None`, and a word in the log, where it cannot be read.
fn read(record: &RawDocumentBuf) -> Option<Erasure> {
    let read = Document::try_from(record.as_ref())
        .ok()
        .and_then(|record| erasure(&record));
    if read.is_none() {
        tracing::warn!("a record of inlet.erasures cannot be read, and is not applied");
    }
    read
}

fn erasure(record: &Document) -> Option<Erasure> {
    let keys = record.get_array("keys").ok()?;
    if keys.len() > KEYS_MAX {
        return None;
    }
    let keys = keys.iter().map(person_key);
    let account = match record.get("account_id") {
        None | Some(Bson::Null) => None,
        Some(account) => Some(account.as_object_id()?.bytes()),
    };
    Some(Erasure {
        id: record.get_object_id("_id").ok()?.bytes(),
        account,
        keys: keys.collect::<Option<_>>()?,
        at_ms: record.get_datetime("at").ok()?.timestamp_millis(),
        node: record.get_str("node").unwrap_or_default().to_owned(),
        upto: 0,
        is_elsewheres: true,
        is_abandoned: false,
        removed: Removed::default(),
    })
}

fn person_key(text: &Bson) -> Option<PersonKey> {
    let mut key = [0; 16];
    hex::decode_to_slice(text.as_str()?, &mut key).ok()?;
    Some(key)
}

fn id_of(record: &Document) -> Option<[u8; 12]> {
    record.get_object_id("_id").ok().map(|id| id.bytes())
}

fn as_stored(claim: &VoidClaim) -> Option<([u8; 32], [u8; 12])> {
    let mut key = [0; 32];
    hex::decode_to_slice(&claim.key, &mut key).ok()?;
    Some((key, claim.holder.bytes()))
}

fn port(error: StoreError) -> PortError {
    PortError(Box::new(error))
}
