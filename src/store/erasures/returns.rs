//! Who comes back under an id after an erasure, and who only says again what was erased (R38).
//!
//! An erased lead's derived key stays, taken by nobody. Where the id names a submission, whatever comes under it is a
//! resend. Where it names a person, what was not said before is said by somebody who is back: that is a lead of its
//! own, whose `_id` is derived from the erased one and the erasure it went by, so that nodes where it went by the same
//! one agree on it, and MongoDB takes it for another lead than the erased one. That one may be erased in its turn: the
//! keys are a chain, a link for each erasure that took a lead.
//!
//! Must not know: how an erasure finds what is theirs.

use redb::ReadableTable;

use super::ERASED_ROW;
use crate::model::derived_id;
use crate::model::identity::derived_hash;
use crate::store::documents::{Collection, key};
use crate::store::{StoreError, Tables};

/// The derived key that a submission takes, whether or not a lead is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenKey {
    /// The lead's `_id`, had nobody ever been erased.
    pub lead: [u8; 12],
    /// Where the id names a person: the hash of what was said, which tells a resend from news.
    pub said: Option<[u8; 32]>,
}

/// Where a submission has come to in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The `_id` of the lead that it repeats, or is to become.
    pub(crate) id: [u8; 12],
    /// What is at that key; `None`: the lead is to be made.
    pub(crate) row: Option<u64>,
    /// Whether leads before it were erased.
    pub(crate) is_return: bool,
}

impl Tables<'_> {
    /// The lead that a submission repeats or is to become.
    pub(crate) fn link_of(&self, taken: &TakenKey) -> Result<Link, StoreError> {
        self.follow(taken, None)
    }

    /// Leaves a key of what goes before a lead was made of it, so that a resend is a duplicate. Whatever one erasure
    /// takes under an id is one link: other nodes may have made a lead of it, with the rest as its repetitions.
    pub(crate) fn leave_key(
        &mut self,
        erasure: &[u8; 12],
        taken: &TakenKey,
    ) -> Result<(), StoreError> {
        let link = self.follow(taken, Some(erasure))?;
        if !self.is_kept_or_erased(link.row)? {
            self.leave_lead_key(erasure, &link.id)?;
        }
        match &taken.said {
            Some(said) => self.remember_said(&link.id, said),
            None => Ok(()),
        }
    }

    /// The same for what is recognised without an id (R10).
    pub(crate) fn leave_first_copy(
        &mut self,
        hash: &[u8; 16],
        arrived_at_ms: i64,
    ) -> Result<(), StoreError> {
        if self.first_copies.get(hash)?.is_none() {
            self.first_copies
                .insert(hash, (arrived_at_ms, ERASED_ROW))?;
        }
        Ok(())
    }

    /// A lead's key is nobody's any more.
    pub(super) fn leave_lead_key(
        &mut self,
        erasure: &[u8; 12],
        lead: &[u8; 12],
    ) -> Result<(), StoreError> {
        self.keys.insert(lead, ERASED_ROW)?;
        self.erased_leads.insert(lead, erasure)?;
        Ok(())
    }

    /// Goes along the chain to the first link that is not erased, to that where the same was said, or to that of
    /// `erasure`.
    fn follow(&self, taken: &TakenKey, erasure: Option<&[u8; 12]>) -> Result<Link, StoreError> {
        let mut link = Link {
            id: taken.lead,
            row: self.row_of(&taken.lead)?,
            is_return: false,
        };
        let Some(said) = &taken.said else {
            return Ok(link);
        };
        while link.row == Some(ERASED_ROW) && !self.was_said(&link.id, said)? {
            let by = self.erased_leads.get(&link.id)?.map(|by| *by.value());
            let by = by.ok_or(StoreError::Corrupt {
                table: "erased_leads",
            })?;
            if erasure == Some(&by) {
                break;
            }
            let id = derived_id("return", &[&link.id, &by]).bytes();
            link = Link {
                id,
                row: self.row_of(&id)?,
                is_return: true,
            };
        }
        Ok(link)
    }

    /// A lead that retention has removed here would be remembered by a resend.
    fn is_kept_or_erased(&self, row: Option<u64>) -> Result<bool, StoreError> {
        match row {
            None => Ok(false),
            Some(ERASED_ROW) => Ok(true),
            Some(row) => {
                let row = Collection::Leads.row(row);
                Ok(self.documents.get(key(row))?.is_some())
            }
        }
    }

    fn row_of(&self, lead: &[u8; 12]) -> Result<Option<u64>, StoreError> {
        Ok(self.keys.get(lead)?.map(|row| row.value()))
    }

    fn was_said(&self, lead: &[u8; 12], said: &[u8; 32]) -> Result<bool, StoreError> {
        let key = repeat_key(&self.departed_id(*lead)?, said);
        Ok(self.keys.get(&key)?.is_some())
    }

    pub(super) fn remember_said(
        &mut self,
        lead: &[u8; 12],
        said: &[u8; 32],
    ) -> Result<(), StoreError> {
        let key = repeat_key(&self.departed_id(*lead)?, said);
        if self.keys.get(&key)?.is_none() {
            self.keys.insert(&key, ERASED_ROW)?;
        }
        Ok(())
    }
}

/// What tells apart the messages of a lead whose id names a person (R9): `upstream` is the lead's `_id`.
pub(crate) fn repeat_key(upstream: &[u8; 12], fields_hash: &[u8; 32]) -> [u8; 12] {
    derived_id("repeat", &[upstream, fields_hash]).bytes()
}

/// Under what a first copy of fields without an id is remembered (R10).
pub(crate) fn first_copy_key(
    account: &[u8; 12],
    campaign: &[u8; 12],
    fields_hash: &[u8; 32],
) -> [u8; 16] {
    let mut half = [0; 16];
    let hash = derived_hash("first_copy", &[account, campaign, fields_hash]);
    half.copy_from_slice(&hash[..16]);
    half
}
