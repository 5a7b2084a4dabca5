//! Erasures (R38): the records of them, what they have removed so far, and what they keep from coming back.
//!
//! An erasure begins with its record, in a transaction of its own, and waits for a round, which carries out all that
//! wait: see `rounds`. Until then the node goes on. Whom it concerns is fixed with the record: what the person sent up
//! to then. Of that more leads, documents and notifications may be made while it waits, and some may go out; the round
//! finds them by the same addresses, and by the contact they were made for. What is worked through only after the round
//! is made into nothing. What the person sends after the record is nobody's who is erased: a contact that it is taken
//! for stays, with what it says by then.
//!
//! What a crash leaves undone is found and done again, since the record has all that is needed to find it.
//!
//! Must not know: how a person is recognised in a webhook, and when to look.

mod family;
mod people;
mod removal;
mod returns;
mod rounds;
mod upstream;
mod webhooks;

use bson::oid::ObjectId;
use redb::{ReadableTable, ReadableTableMetadata};

pub use family::{Again, ErasedLead};
pub(crate) use people::{Whoever, keys_of_contact};
pub use removal::Scope;
pub use returns::TakenKey;
pub(crate) use returns::{first_copy_key, repeat_key};
pub use rounds::{NotAbandoned, Progress};
pub use upstream::StoreErasures;
pub use webhooks::{ErasedWebhook, Place};

use people::ASKED;

use super::documents::Collection;
use super::{Snapshot, StoreError, Tables, codec};
use crate::model::Erasure;
use crate::model::erasure::PersonKey;

const TABLE: &str = "erasures";
/// The row of a derived key whose lead was erased: no document has this number.
pub(crate) const ERASED_ROW: u64 = 0;

/// A document that may be upstream and was erased here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftUpstream {
    /// In which collection.
    pub collection: Collection,
    /// Its `_id` there.
    pub id: ObjectId,
    /// Whether MongoDB has acknowledged it; if not, it may have been on its way.
    pub is_certain: bool,
}

impl Tables<'_> {
    /// Takes note of an erasure asked for here: it concerns every webhook up to the last one stored.
    pub(crate) fn begin_erasure(&mut self, mut erasure: Erasure) -> Result<(), StoreError> {
        erasure.upto = self.newest_webhook()?;
        self.add_erasure(&erasure)?;
        self.unpushed_erasures.insert(&erasure.id, ())?;
        Ok(())
    }

    /// Takes note of an erasure that another node was asked for, unless it is known; whether it is new. What comes
    /// after this transaction it does not concern, whatever time it was by that node's clock.
    pub(crate) fn learn_erasure(&mut self, mut erasure: Erasure) -> Result<bool, StoreError> {
        let is_new = self.erasures.get(&erasure.id)?.is_none();
        if is_new {
            erasure.upto = self.newest_webhook()?;
            erasure.is_elsewheres = true;
            self.add_erasure(&erasure)?;
        }
        Ok(is_new)
    }

    /// The highest sequence number that was given out.
    fn newest_webhook(&self) -> Result<u64, StoreError> {
        let last = self.inbox.last()?.map_or(0, |(seq, _)| seq.value());
        Ok(last.max(self.cursor()?))
    }

    fn add_erasure(&mut self, erasure: &Erasure) -> Result<(), StoreError> {
        self.put_erasure(erasure)?;
        for key in &erasure.keys {
            self.erased_people.insert((key, &erasure.id, &ASKED), ())?;
        }
        self.unfinished_erasures
            .insert(&erasure.id, erasure.is_elsewheres)?;
        Ok(())
    }

    fn put_erasure(&mut self, erasure: &Erasure) -> Result<(), StoreError> {
        let record = codec::encode(erasure);
        self.erasures.insert(&erasure.id, record.as_slice())?;
        Ok(())
    }

    /// An erasure whose record is damaged tells nobody's name any more: it is forgotten, so that it can be read from
    /// upstream, or asked for, once more.
    pub(crate) fn forget_erasure(&mut self, id: &[u8; 12]) -> Result<(), StoreError> {
        self.erasures.remove(id)?;
        self.unfinished_erasures.remove(id)?;
        self.unpushed_erasures.remove(id)?;
        Ok(())
    }
}

impl Snapshot {
    /// Erasures that are not finished, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn unfinished_erasures(&self, limit: usize) -> Result<Vec<[u8; 12]>, StoreError> {
        let unfinished = self.unfinished_erasures.iter()?.take(limit);
        unfinished.map(|entry| Ok(*entry?.0.value())).collect()
    }

    /// How many erasures are not upstream.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn erasures_unpushed(&self) -> Result<u64, StoreError> {
        Ok(self.unpushed_erasures.len()?)
    }

    /// An erasure's record.
    ///
    /// # Errors
    /// When the store cannot be read, or the record is damaged.
    pub fn erasure(&self, id: &[u8; 12]) -> Result<Option<Erasure>, StoreError> {
        load(&self.erasures, id)
    }

    /// Whether an erasure waits to be pushed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_unpushed(&self, id: &[u8; 12]) -> Result<bool, StoreError> {
        Ok(self.unpushed_erasures.get(id)?.is_some())
    }

    /// What may be upstream of all that was ever erased of whoever is known by one of these.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn left_upstream(&self, keys: &[PersonKey]) -> Result<Vec<LeftUpstream>, StoreError> {
        let mut left = Vec::new();
        for id in self.erasures_of(keys)? {
            let of_erasure = (&id, 0, &[0; 12])..=(&id, u8::MAX, &[0xff; 12]);
            for entry in self.left_upstream.range(of_erasure)? {
                let (place, certainty) = entry?;
                let (_, collection, document) = place.value();
                left.push(LeftUpstream {
                    collection: Collection::ALL[usize::from(collection)],
                    id: ObjectId::from_bytes(*document),
                    is_certain: certainty.value() == 1,
                });
            }
        }
        left.sort_unstable();
        left.dedup();
        Ok(left)
    }
}

fn load(
    erasures: &impl ReadableTable<&'static [u8; 12], &'static [u8]>,
    id: &[u8; 12],
) -> Result<Option<Erasure>, StoreError> {
    let Some(record) = erasures.get(id)? else {
        return Ok(None);
    };
    codec::decode(TABLE, record.value()).map(Some)
}
