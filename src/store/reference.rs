//! The replica of upstream reference data: on disk as it came, in memory as the pipeline reads it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use inlet_sync::ports::{PortError, Replica, ReplicaEvent};
use redb::ReadableTable;

use super::tasks::Need;
use super::{Snapshot, Store, StoreError, Tables, codec, number};
use crate::clock::Clock;
use crate::model::{Account, Campaign, FacebookKey, User};
pub use cell::Pointed;
pub(crate) use cell::ReferenceCell;
use cell::{GENERATION, Reads};

mod cell;

/// Names of the collections, in the order of their numbers.
pub const COLLECTIONS: [&str; 4] = ["accounts", "campaigns", "users", "facebook.keys"];
const ACCOUNTS: u8 = 0;
const CAMPAIGNS: u8 = 1;
const USERS: u8 = 2;
const KEYS: u8 = 3;

const TABLE: &str = "reference";
const RESUME_TOKEN: &str = "resume_token";
const COMPLETE_AT: &str = "reference_complete_at";

/// Accounts, campaigns, users and Facebook keys as of now; a snapshot that never changes.
#[derive(Debug, Default)]
pub struct Reference {
    accounts: HashMap<ObjectId, Account>,
    campaigns: HashMap<ObjectId, Arc<Campaign>>,
    by_form: HashMap<(String, String), Vec<ObjectId>>,
    users: HashMap<ObjectId, User>,
    keys: HashMap<ObjectId, Vec<FacebookKey>>,
    complete_at_ms: Option<i64>,
    reads: Reads,
}

impl Reference {
    /// An account.
    #[must_use]
    pub fn account(&self, id: ObjectId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// A campaign of this account that is not deleted (R12).
    #[must_use]
    pub fn campaign(&self, account: ObjectId, id: ObjectId) -> Option<&Arc<Campaign>> {
        self.campaigns
            .get(&id)
            .filter(|campaign| campaign.account_id == account && !campaign.is_deleted)
    }

    /// Every campaign of a Facebook page and form that is not deleted (R12), in the order of their ids.
    #[must_use]
    pub fn campaigns_of_form(&self, page: &str, form: &str) -> Vec<&Arc<Campaign>> {
        let ids = self.by_form.get(&(page.to_owned(), form.to_owned()));
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.campaigns.get(id))
            .collect()
    }

    /// The campaign of this id, whatever its account.
    #[must_use]
    pub fn campaign_by_id(&self, id: ObjectId) -> Option<&Arc<Campaign>> {
        self.campaigns
            .get(&id)
            .filter(|campaign| !campaign.is_deleted)
    }

    /// A user.
    #[must_use]
    pub fn user(&self, id: ObjectId) -> Option<&User> {
        self.users.get(&id)
    }

    /// The keys that may read a page's leads for an account, in the order in which they are to be tried; never another
    /// account's (R12).
    #[must_use]
    pub fn keys(&self, account: ObjectId, page: &str) -> Vec<&FacebookKey> {
        let keys = self.keys.get(&account).map_or(&[][..], Vec::as_slice);
        FacebookKey::for_page(keys, page)
    }

    /// Every Facebook key.
    pub fn all_keys(&self) -> impl Iterator<Item = &FacebookKey> {
        self.keys.values().flatten()
    }

    /// Everything committed upstream before this time is in here; `None` before the first complete pull.
    #[must_use]
    pub fn complete_at_ms(&self) -> Option<i64> {
        self.complete_at_ms
    }

    /// Whether a "no" about `need` may rest on this data: it was read, completely or just for this need, after this
    /// time (R13). Milliseconds since the epoch.
    #[must_use]
    pub fn is_younger_than(&self, at_ms: i64, need: &Need) -> bool {
        self.complete_at_ms.is_some_and(|at| at > at_ms) || self.reads.is_after(need, at_ms)
    }

    /// How many documents of each of [`COLLECTIONS`] are cached.
    #[must_use]
    pub fn sizes(&self) -> [usize; 4] {
        let keys = self.keys.values().map(Vec::len).sum();
        [
            self.accounts.len(),
            self.campaigns.len(),
            self.users.len(),
            keys,
        ]
    }

    fn build(
        documents: impl Iterator<Item = (u8, Document)>,
        complete_at_ms: Option<i64>,
        reads: Reads,
    ) -> Self {
        let mut reference = Self {
            complete_at_ms,
            reads,
            ..Self::default()
        };
        for (collection, document) in documents {
            reference.add(collection, &document);
        }
        for ids in reference.by_form.values_mut() {
            ids.sort_unstable();
        }
        reference
    }

    fn add(&mut self, collection: u8, document: &Document) {
        match collection {
            ACCOUNTS => self
                .accounts
                .extend(Account::read(document).map(|account| (account.id, account))),
            CAMPAIGNS => self.add_campaign(Campaign::read(document)),
            USERS => self
                .users
                .extend(User::read(document).map(|user| (user.id, user))),
            KEYS => {
                if let Some(key) = FacebookKey::read(document) {
                    self.keys.entry(key.account_id).or_default().push(key);
                }
            }
            _ => {}
        }
    }

    fn add_campaign(&mut self, campaign: Option<Campaign>) {
        let Some(campaign) = campaign.filter(|campaign| !campaign.is_deleted) else {
            return;
        };
        if let (Some(page), Some(form)) = (&campaign.page_id, &campaign.lead_form_id) {
            self.by_form
                .entry((page.clone(), form.clone()))
                .or_default()
                .push(campaign.id);
        }
        self.campaigns.insert(campaign.id, Arc::new(campaign));
    }
}

fn read(snapshot: &Snapshot, reads: Reads) -> Result<Reference, StoreError> {
    let mut documents = Vec::new();
    for entry in snapshot.reference.iter()? {
        let (key, record) = entry?;
        let collection = key.value().0;
        documents.extend(readable(record.value()).map(|document| (collection, document)));
    }
    let complete_at_ms = match number(&snapshot.meta, COMPLETE_AT)? {
        0 => None,
        at => Some(at.cast_signed()),
    };
    let mut reference = Reference::build(documents.into_iter(), complete_at_ms, reads);
    let renewed = snapshot.renewed_tokens()?;
    for key in reference.keys.values_mut().flatten() {
        if let Some(renewed) = renewed.get(&key.id) {
            renewed.lie_over(key);
        }
    }
    Ok(reference)
}

/// A cached document, unless it is damaged: the next complete pull brings it again.
fn readable(record: &[u8]) -> Option<Document> {
    document(record)
        .inspect_err(|error| tracing::error!(%error, "a cached document is left out"))
        .ok()
}

fn document(record: &[u8]) -> Result<Document, StoreError> {
    let corrupt = |_| StoreError::Corrupt { table: TABLE };
    Document::from_reader(codec::open(TABLE, record)?).map_err(corrupt)
}

/// The store as the pull engine sees it.
pub struct StoreReplica {
    /// The store.
    pub store: Arc<Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl StoreReplica {
    fn write(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), PortError> {
        self.store
            .write_blocking(work)
            .and_then(|()| self.store.reload_reference())
            .map_err(port)
    }
}

impl Replica for StoreReplica {
    fn collections(&self) -> &'static [&'static str] {
        &COLLECTIONS
    }

    fn resume_token(&self) -> Result<Option<RawDocumentBuf>, PortError> {
        let snapshot = self.store.read().map_err(port)?;
        let token = snapshot
            .meta
            .get(RESUME_TOKEN)
            .map_err(|error| port(error.into()))?;
        Ok(token.and_then(|token| RawDocumentBuf::from_bytes(token.value().to_vec()).ok()))
    }

    fn replace(
        &self,
        documents: Vec<Vec<RawDocumentBuf>>,
        resume_token: Option<RawDocumentBuf>,
        began_at_ms: i64,
    ) -> Result<(), PortError> {
        self.write(move |tables| {
            tables.replace_reference(&documents)?;
            tables.complete_at(began_at_ms)?;
            tables.resume_after(resume_token.as_deref())
        })
    }

    fn apply(
        &self,
        events: Vec<ReplicaEvent>,
        resume_token: Option<RawDocumentBuf>,
        complete_at_ms: Option<i64>,
    ) -> Result<(), PortError> {
        self.write(move |tables| {
            tables.apply_reference(&events)?;
            complete_at_ms.map_or(Ok(()), |at_ms| tables.complete_at(at_ms))?;
            resume_token.map_or(Ok(()), |token| tables.resume_after(Some(&token)))
        })
    }

    fn forget_resume_token(&self) -> Result<(), PortError> {
        self.write(|tables| tables.resume_after(None))
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

fn port(error: StoreError) -> PortError {
    PortError(Box::new(error))
}

fn place(collection: usize) -> u8 {
    u8::try_from(collection).unwrap_or(u8::MAX)
}

impl Store {
    /// Adds or replaces reference documents by hand (`inlet import`); `documents` is parallel to [`COLLECTIONS`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn import(&self, documents: Vec<Vec<RawDocumentBuf>>) -> Result<(), StoreError> {
        self.write(move |tables| {
            for (collection, documents) in documents.iter().enumerate() {
                for document in documents {
                    tables.put_reference(place(collection), document)?;
                }
            }
            Ok(())
        })
        .await?;
        self.reload_reference()
    }
}

impl Snapshot {
    /// The cached documents of one of [`COLLECTIONS`], as they came.
    ///
    /// # Errors
    /// When the store cannot be read or a record is damaged.
    pub fn reference_documents(&self, collection: u8) -> Result<Vec<Document>, StoreError> {
        let range = self
            .reference
            .range((collection, &[][..])..(collection + 1, &[][..]))?;
        range.map(|entry| document(entry?.1.value())).collect()
    }

    /// A Facebook key's document, as it came; `None` also where it is damaged.
    pub(crate) fn facebook_key_document(
        &self,
        id: ObjectId,
    ) -> Result<Option<Document>, StoreError> {
        let id = id_document(&Bson::ObjectId(id));
        let record = self.reference.get((KEYS, id.as_slice()))?;
        Ok(record.and_then(|record| readable(record.value())))
    }
}

impl Tables<'_> {
    /// The Facebook keys of an account, with the tokens to use. Damaged ones are left out: they are cached for all
    /// accounts together, and must not keep the others' leads from being written.
    pub(crate) fn facebook_keys(&self, account: ObjectId) -> Result<Vec<FacebookKey>, StoreError> {
        let mut keys = Vec::new();
        for entry in self.reference.range((KEYS, &[][..])..(KEYS + 1, &[][..]))? {
            let key = readable(entry?.1.value()).and_then(|document| FacebookKey::read(&document));
            if let Some(key) = key.filter(|key| key.account_id == account) {
                keys.push(self.overlaid(key)?);
            }
        }
        Ok(keys)
    }

    /// A Facebook key with the token that its document has; `None` also where that is damaged.
    pub(crate) fn facebook_key(&self, id: ObjectId) -> Result<Option<FacebookKey>, StoreError> {
        let id = id_document(&Bson::ObjectId(id));
        let record = self.reference.get((KEYS, id.as_slice()))?;
        let document = record.and_then(|record| readable(record.value()));
        Ok(document.and_then(|document| FacebookKey::read(&document)))
    }

    fn apply_reference(&mut self, events: &[ReplicaEvent]) -> Result<(), StoreError> {
        for event in events {
            match event {
                ReplicaEvent::Put {
                    collection,
                    document,
                } => self.put_reference(place(*collection), document)?,
                ReplicaEvent::Delete { collection, id } => {
                    self.delete_reference(place(*collection), &id_document(id))?;
                }
            }
        }
        Ok(())
    }

    fn replace_reference(&mut self, documents: &[Vec<RawDocumentBuf>]) -> Result<(), StoreError> {
        let mut kept = HashSet::new();
        for (collection, documents) in documents.iter().enumerate() {
            for document in documents {
                if let Some(id) = id_bytes(document) {
                    kept.insert((place(collection), id));
                }
                self.put_reference(place(collection), document)?;
            }
        }
        let mut gone = Vec::new();
        for entry in self.reference.iter()? {
            let (key, _) = entry?;
            let (collection, id) = key.value();
            if !kept.contains(&(collection, id.to_vec())) {
                gone.push((collection, id.to_vec()));
            }
        }
        for (collection, id) in gone {
            self.delete_reference(collection, &id)?;
        }
        Ok(())
    }

    fn put_reference(&mut self, collection: u8, document: &RawDocument) -> Result<(), StoreError> {
        let Some(id) = id_bytes(document) else {
            return Ok(());
        };
        let record = codec::frame(document.as_bytes());
        let key = (collection, id.as_slice());
        let is_same = self
            .reference
            .get(key)?
            .is_some_and(|old| old.value() == record.as_slice());
        if is_same {
            return Ok(());
        }
        self.reference.insert(key, record.as_slice())?;
        self.count_reference_change(collection)?;
        if collection == KEYS {
            self.take_key(document)?;
        }
        Ok(())
    }

    /// A new or changed token wakes what was parked for want of one (R28).
    fn take_key(&mut self, raw: &RawDocument) -> Result<(), StoreError> {
        let read = Document::try_from(raw).ok();
        if let Some(key) = read.and_then(|document| FacebookKey::read(&document)) {
            self.compare_renewed(&key)?;
        }
        match raw.get_object_id("account_id") {
            Ok(account) => self.mend(account),
            Err(_) => Ok(()),
        }
    }

    /// A key that goes may leave its account with another one: what was parked looks again.
    fn delete_reference(&mut self, collection: u8, id: &[u8]) -> Result<(), StoreError> {
        let gone = self
            .reference
            .remove((collection, id))?
            .map(|record| document(record.value()));
        if gone.is_some() {
            self.count_reference_change(collection)?;
        }
        if let (KEYS, Some(Ok(gone))) = (collection, gone)
            && let Some(key) = FacebookKey::read(&gone)
        {
            self.forget_renewed(key.id)?;
            self.mend(key.account_id)?;
        }
        Ok(())
    }

    /// Nobody asks pointedly for users, and they change the most.
    fn count_reference_change(&mut self, collection: u8) -> Result<(), StoreError> {
        if collection == USERS {
            return Ok(());
        }
        self.next_number(GENERATION).map(drop)
    }

    fn complete_at(&mut self, at_ms: i64) -> Result<(), StoreError> {
        self.set_number(COMPLETE_AT, at_ms.max(0).cast_unsigned())
    }

    fn resume_after(&mut self, token: Option<&RawDocument>) -> Result<(), StoreError> {
        match token {
            Some(token) => self.meta.insert(RESUME_TOKEN, token.as_bytes())?,
            None => self.meta.remove(RESUME_TOKEN)?,
        };
        Ok(())
    }
}

/// An `_id` of any BSON type as a key: a document with that one field.
fn id_bytes(document: &RawDocument) -> Option<Vec<u8>> {
    let id: Bson = document.get("_id").ok()??.try_into().ok()?;
    Some(id_document(&id))
}

fn id_document(id: &Bson) -> Vec<u8> {
    let document = bson::doc! { "_id": id.clone() };
    RawDocumentBuf::try_from(&document)
        .map(RawDocumentBuf::into_bytes)
        .unwrap_or_default()
}
