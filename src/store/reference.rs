//! The replica of upstream reference data: on disk as it came, in memory as the pipeline reads it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use inlet_sync::ports::{PortError, Replica, ReplicaEvent};
use redb::ReadableTable;

use super::{Snapshot, Store, StoreError, Tables, codec};
use crate::clock::Clock;
use crate::model::{Account, Campaign, FacebookKey, User};

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

    /// The key that may read a page's leads for an account: the page's own first, then one without a page; never
    /// another account's (R12).
    #[must_use]
    pub fn key(&self, account: ObjectId, page: &str) -> Option<&FacebookKey> {
        let keys = self.keys.get(&account)?;
        let of_page = keys.iter().find(|key| key.page_id.as_deref() == Some(page));
        of_page.or_else(|| keys.iter().find(|key| key.page_id.is_none()))
    }

    /// Everything committed upstream before this time is in here; `None` before the first complete pull.
    #[must_use]
    pub fn complete_at_ms(&self) -> Option<i64> {
        self.complete_at_ms
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

    fn build(documents: impl Iterator<Item = (u8, Document)>, complete_at_ms: Option<i64>) -> Self {
        let mut reference = Self {
            complete_at_ms,
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

/// Holds the current [`Reference`].
pub(crate) struct ReferenceCell(ArcSwap<Reference>);

impl ReferenceCell {
    pub(crate) fn load(snapshot: &Snapshot) -> Result<Self, StoreError> {
        Ok(Self(ArcSwap::from_pointee(read(snapshot)?)))
    }

    pub(crate) fn get(&self) -> Arc<Reference> {
        self.0.load_full()
    }

    pub(crate) fn reload(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.0.store(Arc::new(read(snapshot)?));
        Ok(())
    }
}

fn read(snapshot: &Snapshot) -> Result<Reference, StoreError> {
    let mut documents = Vec::new();
    for entry in snapshot.reference.iter()? {
        let (key, record) = entry?;
        match document(record.value()) {
            Ok(document) => documents.push((key.value().0, document)),
            // The next complete pull brings it again.
            Err(error) => tracing::error!(%error, "a cached document is left out"),
        }
    }
    let complete_at_ms = match super::number(&snapshot.meta, COMPLETE_AT)? {
        0 => None,
        at => Some(at.cast_signed()),
    };
    Ok(Reference::build(documents.into_iter(), complete_at_ms))
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
        let now_ms = self.clock.now_ms();
        self.write(move |tables| {
            tables.replace_reference(&documents, now_ms)?;
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
        let now_ms = self.clock.now_ms();
        self.write(move |tables| {
            for event in &events {
                match event {
                    ReplicaEvent::Put {
                        collection,
                        document,
                    } => {
                        tables.put_reference(number(*collection), document, now_ms)?;
                    }
                    ReplicaEvent::Delete { collection, id } => {
                        tables.delete_reference(number(*collection), &id_document(id), now_ms)?
                    }
                }
            }
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

fn number(collection: usize) -> u8 {
    u8::try_from(collection).unwrap_or(u8::MAX)
}

impl Store {
    /// Adds or replaces reference documents by hand (`inlet import`); `documents` is parallel to [`COLLECTIONS`].
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn import(
        &self,
        documents: Vec<Vec<RawDocumentBuf>>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.write(move |tables| {
            for (collection, documents) in documents.iter().enumerate() {
                for document in documents {
                    tables.put_reference(number(collection), document, now_ms)?;
                }
            }
            Ok(())
        })
        .await?;
        self.reload_reference()
    }

    pub(crate) fn reload_reference(&self) -> Result<(), StoreError> {
        self.reference_cell().reload(&self.read()?)?;
        self.signals().pipeline.notify_one();
        self.signals().graph.notify_one();
        Ok(())
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
}

impl Tables<'_> {
    /// The Facebook keys of an account.
    pub(crate) fn facebook_keys(&self, account: ObjectId) -> Result<Vec<FacebookKey>, StoreError> {
        let mut keys = Vec::new();
        for entry in self.reference.range((KEYS, &[][..])..(KEYS + 1, &[][..]))? {
            keys.extend(FacebookKey::read(&document(entry?.1.value())?));
        }
        keys.retain(|key| key.account_id == account);
        Ok(keys)
    }

    fn replace_reference(
        &mut self,
        documents: &[Vec<RawDocumentBuf>],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let mut kept = HashSet::new();
        for (collection, documents) in documents.iter().enumerate() {
            for document in documents {
                if let Some(id) = id_bytes(document) {
                    kept.insert((number(collection), id));
                }
                self.put_reference(number(collection), document, now_ms)?;
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
            self.delete_reference(collection, &id, now_ms)?;
        }
        Ok(())
    }

    fn put_reference(
        &mut self,
        collection: u8,
        document: &RawDocument,
        now_ms: i64,
    ) -> Result<(), StoreError> {
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
        if collection == KEYS {
            self.wake_for_key(document, now_ms)?;
        }
        Ok(())
    }

    /// A new or changed token wakes what was parked for want of one (R28).
    fn wake_for_key(&mut self, document: &RawDocument, now_ms: i64) -> Result<(), StoreError> {
        if let Ok(account) = document.get_object_id("account_id") {
            self.unpark(&account.bytes(), now_ms)?;
        }
        Ok(())
    }

    /// A key that goes may leave its account with another one: what was parked looks again.
    fn delete_reference(
        &mut self,
        collection: u8,
        id: &[u8],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let gone = self
            .reference
            .remove((collection, id))?
            .map(|record| document(record.value()));
        if let (KEYS, Some(Ok(gone))) = (collection, gone)
            && let Ok(account) = gone.get_object_id("account_id")
        {
            self.unpark(&account.bytes(), now_ms)?;
        }
        Ok(())
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
