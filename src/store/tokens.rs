//! What this node knows of Facebook tokens beyond their documents: new ones that are not upstream yet, and broken ones.
//!
//! Must not know: Graph, MongoDB. A renewed token lies over the cached document for as long as that shows the token it
//! replaces, so that a reading of the old document does not undo it (R33). Any other token there is somebody else's,
//! newer one, and wins.

use std::collections::HashMap;

use bson::Document;
use bson::oid::ObjectId;
use redb::ReadableTable;

use super::{Snapshot, StoreError, Tables, codec};
use crate::model::FacebookKey;
use crate::model::facebook_key::{Fingerprint, fingerprint};

const RENEWED: &str = "renewed_tokens";
const BROKEN: &str = "broken_tokens";

/// Counters that outlive what they counted.
pub const RENEWED_COUNT: &str = "token_renewed";
/// See [`RENEWED_COUNT`].
pub const BROKEN_COUNT: &str = "token_broken";

/// A token that this node got in exchange for another.
#[derive(Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Renewed {
    /// The token it replaces in the key's document.
    pub replaces: Fingerprint,
    /// The new one.
    pub access_token: String,
    /// When that ends, milliseconds since the epoch; `None`: never.
    pub expires_at_ms: Option<i64>,
    /// When this node got it, milliseconds since the epoch.
    pub since_ms: i64,
    /// Whether the document upstream has it. It stays here all the same: an older reading may still arrive.
    pub is_upstream: bool,
}

/// What stands between an account's leads and Graph.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Broken {
    /// The refused token; `None`: there is no key.
    pub token: Option<Fingerprint>,
    /// Since when this node knows, milliseconds since the epoch.
    pub since_ms: i64,
    /// When Graph refused it last, milliseconds since the epoch.
    pub asked_ms: i64,
    /// Graph's answer, in words.
    pub reason: String,
}

/// Where something is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The account.
    pub account: ObjectId,
    /// Its key; `None`: there is none.
    pub key: Option<ObjectId>,
    /// The page; `None`: every page that the key serves.
    pub page: Option<String>,
}

/// A refused token is tried once more after this time: a permission can come back without a new token.
const PROBE_AFTER_MS: i64 = 3 * 60 * 60 * 1000;

const NO_KEY: [u8; 12] = [0; 12];
const EVERY_PAGE: &str = "";

impl Renewed {
    /// The key as it is to be used.
    pub(crate) fn lie_over(&self, key: &mut FacebookKey) {
        if key.fingerprint() != self.replaces {
            return;
        }
        // Graph may prolong a token instead of replacing it; then the later of the two ends is the newer.
        let is_same = key.access_token == self.access_token;
        let known = key.expires_at_ms.filter(|_| is_same);
        key.expires_at_ms = self.expires_at_ms.max(known);
        key.access_token.clone_from(&self.access_token);
    }
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed")
            .field("since_ms", &self.since_ms)
            .field("is_upstream", &self.is_upstream)
            .finish_non_exhaustive()
    }
}

impl Broken {
    /// Whether one lead may find out if it is still so.
    #[must_use]
    pub fn may_be_probed(&self, now_ms: i64) -> bool {
        self.token.is_some() && now_ms.saturating_sub(self.asked_ms) >= PROBE_AFTER_MS
    }
}

impl Place {
    /// Where a key serves nothing at all any more.
    #[must_use]
    pub fn of_key(key: &FacebookKey) -> Self {
        Self {
            account: key.account_id,
            key: Some(key.id),
            page: key.page_id.clone(),
        }
    }

    /// Where a key does not serve this page.
    #[must_use]
    pub fn on_page(key: &FacebookKey, page: &str) -> Self {
        Self {
            page: Some(page.to_owned()),
            ..Self::of_key(key)
        }
    }

    /// Where an account has no key for a page.
    #[must_use]
    pub fn without_key(account: ObjectId, page: &str) -> Self {
        Self {
            account,
            key: None,
            page: Some(page.to_owned()),
        }
    }

    fn key_bytes(&self) -> [u8; 12] {
        self.key.map_or(NO_KEY, |key| key.bytes())
    }

    fn page_text(&self) -> &str {
        self.page.as_deref().unwrap_or(EVERY_PAGE)
    }

    fn read((account, key, page): (&[u8; 12], &[u8; 12], &str)) -> Self {
        Self {
            account: ObjectId::from_bytes(*account),
            key: (*key != NO_KEY).then(|| ObjectId::from_bytes(*key)),
            page: (page != EVERY_PAGE).then(|| page.to_owned()),
        }
    }
}

impl Snapshot {
    /// The tokens renewed here, by key.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn renewed_tokens(&self) -> Result<HashMap<ObjectId, Renewed>, StoreError> {
        let mut renewed = HashMap::new();
        for entry in self.renewed_tokens.iter()? {
            let (id, record) = entry?;
            let token = readable(RENEWED, record.value());
            renewed.extend(token.map(|token| (ObjectId::from_bytes(*id.value()), token)));
        }
        Ok(renewed)
    }

    /// Tokens that are to be written upstream, each with its key's document as it is cached.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tokens_to_write(&self) -> Result<Vec<(Document, Renewed)>, StoreError> {
        let mut waiting = self.renewed_tokens()?;
        waiting.retain(|_, renewed| !renewed.is_upstream);
        let mut found = Vec::new();
        for (id, renewed) in waiting {
            found.extend(self.facebook_key_document(id)?.map(|it| (it, renewed)));
        }
        Ok(found)
    }

    /// Why Graph is not to be asked with this key for a page, if it is not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn broken(&self, key: &FacebookKey, page: &str) -> Result<Option<Broken>, StoreError> {
        find_broken(&self.broken_tokens, key, page)
    }

    /// Everything that is broken.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn broken_tokens(&self) -> Result<Vec<(Place, Broken)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.broken_tokens.iter()? {
            let (place, record) = entry?;
            let broken = readable(BROKEN, record.value());
            found.extend(broken.map(|broken| (Place::read(place.value()), broken)));
        }
        Ok(found)
    }

    /// Whether work of this account waits for a token.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_parked(&self, account: ObjectId) -> Result<bool, StoreError> {
        let account = account.bytes();
        let from = (&account, 0, 0, &[0; 12]);
        let to = (&account, u64::MAX, u32::MAX, &[0xff; 12]);
        Ok(self.parked.range(from..=to)?.next().is_some())
    }
}

impl Tables<'_> {
    /// Puts a new token in the place of the one that `used` has. False where the key has another one by now: that wins,
    /// and nothing is changed.
    pub(crate) fn renew_token(
        &mut self,
        used: &FacebookKey,
        access_token: String,
        expires_at_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let Some(cached) = self.facebook_key(used.id)? else {
            // Gone, or damaged; then the old token, if it still works, is renewed once more when it is read again.
            return Ok(false);
        };
        let replaces = cached.fingerprint();
        if self.overlaid(cached)?.fingerprint() != used.fingerprint() {
            return Ok(false);
        }
        let renewed = Renewed {
            replaces,
            access_token,
            expires_at_ms,
            since_ms: now_ms,
            is_upstream: false,
        };
        let record = codec::encode(&renewed);
        self.renewed_tokens
            .insert(&used.id.bytes(), record.as_slice())?;
        self.count(RENEWED_COUNT, 1);
        self.mend(used.account_id)?;
        Ok(true)
    }

    /// Takes note that a renewed token is upstream, unless it has been renewed again since.
    pub(crate) fn token_is_upstream(
        &mut self,
        key: ObjectId,
        written: &Renewed,
    ) -> Result<(), StoreError> {
        match self.renewed(key)? {
            Some(renewed) if renewed == *written => self.keep_renewed(
                key,
                &Renewed {
                    is_upstream: true,
                    ..renewed
                },
            ),
            _ => Ok(()),
        }
    }

    /// A key's document was read anew. The token that was renewed here may be there by now; any other than it and the
    /// one it replaces is newer.
    pub(crate) fn compare_renewed(&mut self, read: &FacebookKey) -> Result<(), StoreError> {
        let Some(renewed) = self.renewed(read.id)? else {
            return Ok(());
        };
        let there = read.fingerprint();
        if there == fingerprint(&renewed.access_token) {
            let is_upstream = renewed.is_upstream || there != renewed.replaces;
            return self.keep_renewed(
                read.id,
                &Renewed {
                    is_upstream,
                    ..renewed
                },
            );
        }
        if there != renewed.replaces {
            self.renewed_tokens.remove(&read.id.bytes())?;
        }
        Ok(())
    }

    /// A key's document is gone, and what was renewed with it.
    pub(crate) fn forget_renewed(&mut self, key: ObjectId) -> Result<(), StoreError> {
        self.renewed_tokens.remove(&key.bytes())?;
        Ok(())
    }

    /// Records what is broken, unless the token in question has been replaced meanwhile. `keys` are those of the
    /// account in this transaction.
    pub(crate) fn note_broken(
        &mut self,
        place: &Place,
        broken: &Broken,
        keys: &[FacebookKey],
    ) -> Result<(), StoreError> {
        if !is_still_broken(place, broken, keys) {
            return Ok(());
        }
        let tuple = (
            &place.account.bytes(),
            &place.key_bytes(),
            place.page_text(),
        );
        let known = self.broken_tokens.get(tuple)?;
        let known = known
            .and_then(|record| readable::<Broken>(BROKEN, record.value()))
            .filter(|known| known.token == broken.token);
        let mut broken = broken.clone();
        match &known {
            Some(known) => broken.since_ms = known.since_ms,
            None => self.count(BROKEN_COUNT, 1),
        }
        if known.as_ref() != Some(&broken) {
            let record = codec::encode(&broken);
            self.broken_tokens.insert(tuple, record.as_slice())?;
        }
        Ok(())
    }

    /// A key that was refused has served this page again: what was parked looks again.
    pub(crate) fn token_works(&mut self, key: &FacebookKey, page: &str) -> Result<(), StoreError> {
        let (account, id) = (key.account_id.bytes(), key.id.bytes());
        for page in [page, key.page_id.as_deref().unwrap_or(EVERY_PAGE)] {
            self.broken_tokens.remove((&account, &id, page))?;
        }
        self.unpark(&account)
    }

    /// Whether one of an account's keys may be tried for a page.
    pub(crate) fn has_working_key(
        &self,
        keys: &[FacebookKey],
        page: &str,
    ) -> Result<bool, StoreError> {
        for key in FacebookKey::for_page(keys, page) {
            if find_broken(&self.broken_tokens, key, page)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The keys of an account have changed: forgets what is no longer broken, and wakes what was parked (R28).
    pub(crate) fn mend(&mut self, account: ObjectId) -> Result<(), StoreError> {
        self.forget_mended(account)?;
        self.unpark(&account.bytes())
    }

    fn forget_mended(&mut self, account: ObjectId) -> Result<(), StoreError> {
        let bytes = account.bytes();
        let known: Vec<_> = self
            .broken_tokens
            .range((&bytes, &[0; 12], "")..)?
            .map(|entry| {
                let (place, record) = entry?;
                let broken = readable::<Broken>(BROKEN, record.value());
                Ok((Place::read(place.value()), broken))
            })
            .take_while(|entry: &Result<(Place, _), StoreError>| {
                entry
                    .as_ref()
                    .is_ok_and(|(place, _)| place.account == account)
            })
            .collect::<Result<_, _>>()?;
        if known.is_empty() {
            return Ok(());
        }
        let keys = self.facebook_keys(account)?;
        for (place, broken) in known {
            if !broken.is_some_and(|broken| is_still_broken(&place, &broken, &keys)) {
                self.broken_tokens
                    .remove((&bytes, &place.key_bytes(), place.page_text()))?;
            }
        }
        Ok(())
    }

    /// A key with the token that was renewed here, if it was.
    pub(crate) fn overlaid(&self, mut key: FacebookKey) -> Result<FacebookKey, StoreError> {
        if let Some(renewed) = self.renewed(key.id)? {
            renewed.lie_over(&mut key);
        }
        Ok(key)
    }

    fn renewed(&self, key: ObjectId) -> Result<Option<Renewed>, StoreError> {
        let record = self.renewed_tokens.get(&key.bytes())?;
        Ok(record.and_then(|record| readable(RENEWED, record.value())))
    }

    fn keep_renewed(&mut self, key: ObjectId, renewed: &Renewed) -> Result<(), StoreError> {
        let record = codec::encode(renewed);
        self.renewed_tokens
            .insert(&key.bytes(), record.as_slice())?;
        Ok(())
    }
}

/// A damaged record is as good as none: the token in the document is used, or Graph asked once more.
fn readable<T: bincode::Decode<()>>(table: &'static str, record: &[u8]) -> Option<T> {
    codec::decode(table, record)
        .inspect_err(
            |error| tracing::error!(%error, "what was known of a Facebook token is left out"),
        )
        .ok()
}

fn is_still_broken(place: &Place, broken: &Broken, keys: &[FacebookKey]) -> bool {
    match place.key {
        Some(id) => keys
            .iter()
            .any(|key| key.id == id && Some(key.fingerprint()) == broken.token),
        None => FacebookKey::for_page(keys, place.page_text()).is_empty(),
    }
}

/// What is broken about a key's present token, for this page or altogether.
fn find_broken(
    table: &impl ReadableTable<(&'static [u8; 12], &'static [u8; 12], &'static str), &'static [u8]>,
    key: &FacebookKey,
    page: &str,
) -> Result<Option<Broken>, StoreError> {
    let (account, id) = (key.account_id.bytes(), key.id.bytes());
    for page in [page, EVERY_PAGE] {
        let Some(record) = table.get((&account, &id, page))? else {
            continue;
        };
        let broken = readable::<Broken>(BROKEN, record.value());
        if let Some(broken) = broken.filter(|it| it.token == Some(key.fingerprint())) {
            return Ok(Some(broken));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
