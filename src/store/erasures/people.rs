//! Whom erasures are about: what was asked for, and under which other addresses a contact went with it (R38).
//!
//! What was asked for is a person's wherever it stands, in every account that the erasure concerns. What only the
//! person's contact had is not: a phone may be a household's. So it counts in the contact's account alone, and only
//! where a submission is known by nothing better, nor by it as somebody else.
//!
//! Must not know: how addresses are read from a submission.

use bson::RawDocument;
use bson::oid::ObjectId;
use redb::{ReadableTable, ReadableTableMetadata};

use super::load;
use crate::model::erasure::{PersonKey, email_key, phone_key};
use crate::store::documents::Stored;
use crate::store::{Snapshot, StoreError, Tables};

/// In the place of an account: the address was asked for.
pub(super) const ASKED: [u8; 12] = [0; 12];

/// Whoever sent a submission.
pub(crate) struct Whoever<'a> {
    /// Every address that it gives.
    pub(crate) given: &'a [PersonKey],
    /// That by which a contact is looked for first (R20).
    pub(crate) known_by: Option<PersonKey>,
    /// Since when somebody who is not erased has been known by that here, milliseconds since the epoch.
    pub(crate) known_since_ms: Option<i64>,
    /// The account it is for.
    pub(crate) account: ObjectId,
    /// Its webhook's sequence number, and when that arrived.
    pub(crate) came: (u64, i64),
}

impl Tables<'_> {
    /// The newest erasure of whoever sent a submission that came before it: a lead that had to be fetched, or was being
    /// made of it just then. One that is not finished says nothing yet: its round finds what is made until then, and it
    /// may be given up.
    pub(crate) fn erasure_since(&self, who: &Whoever<'_>) -> Result<Option<[u8; 12]>, StoreError> {
        let mut newest = None;
        for key in who.given.iter().chain(&who.known_by) {
            let of_key = (key, &[0; 12], &[0; 12])..=(key, &[0xff; 12], &[0xff; 12]);
            for entry in self.erased_people.range(of_key)? {
                let (entry, _) = entry?;
                let (_, id, account) = entry.value();
                if self.unfinished_erasures.get(id)?.is_some() {
                    continue;
                }
                let erasure = match load(&self.erasures, id) {
                    // Whom it concerned nobody knows: that is worth no other lead.
                    Err(StoreError::Corrupt { .. }) => None,
                    erasure => erasure?,
                };
                let concerning = erasure.filter(|erasure| {
                    let is_theirs = match *account {
                        ASKED => who.given.contains(key),
                        account => who.is_contact_of(key, account, erasure.at_ms),
                    };
                    is_theirs
                        && erasure.concerns(who.came.0, who.came.1)
                        && erasure.concerns_account(Some(who.account))
                });
                newest = newest.max(concerning.map(|erasure| (erasure.at_ms, erasure.id)));
            }
        }
        Ok(newest.map(|(_, id)| id))
    }

    /// Whether anybody was ever erased here.
    pub(crate) fn has_erasures(&self) -> Result<bool, StoreError> {
        Ok(!self.erased_people.is_empty()?)
    }

    /// Remembers under which addresses a contact goes.
    pub(super) fn remember_addresses(
        &mut self,
        erasure: &[u8; 12],
        contact: &Stored,
    ) -> Result<(), StoreError> {
        let account = contact.body()?.get_object_id("account_id").ok();
        let Some(account) = account.map(|account| account.bytes()) else {
            return Ok(());
        };
        for key in keys_of_contact(contact)? {
            self.erased_people.insert((&key, erasure, &account), ())?;
        }
        Ok(())
    }
}

impl Whoever<'_> {
    /// Whether it would have been taken for a contact of this account that went with an erasure of then.
    fn is_contact_of(&self, key: &PersonKey, account: [u8; 12], erased_at_ms: i64) -> bool {
        let is_somebody_elses = self
            .known_since_ms
            .is_some_and(|since| since < erased_at_ms);
        self.known_by == Some(*key) && self.account.bytes() == account && !is_somebody_elses
    }
}

impl Snapshot {
    pub(super) fn erasures_of(&self, keys: &[PersonKey]) -> Result<Vec<[u8; 12]>, StoreError> {
        let mut ids = Vec::new();
        for key in keys {
            let of_key = (key, &[0; 12], &[0; 12])..=(key, &[0xff; 12], &[0xff; 12]);
            for entry in self.erased_people.range(of_key)? {
                ids.push(*entry?.0.value().1);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Every address of a contact: what it is found by, and what is kept beside.
pub(crate) fn keys_of_contact(contact: &Stored) -> Result<Vec<PersonKey>, StoreError> {
    let body = contact.body()?;
    let found_by = contact.contact.clone().unwrap_or_default();
    let emails = texts(body, "email", "other_emails").chain(found_by.email);
    let phones = texts(body, "phone", "other_phones").chain(found_by.phone);
    let emails = emails.map(|email| email_key(&email));
    let phones = phones.map(|phone| phone_key(&phone));
    Ok(emails.chain(phones).collect())
}

fn texts(body: &RawDocument, field: &str, beside: &str) -> impl Iterator<Item = String> {
    let own = body.get_str(field).ok().map(str::to_owned);
    let others = body.get_array(beside).into_iter().flatten();
    let others = others.filter_map(|one| Some(one.ok()?.as_str()?.to_owned()));
    own.into_iter()
        .chain(others)
        .collect::<Vec<_>>()
        .into_iter()
}
