//! Whether whoever sent a submission was erased since it came (R38): it had to be fetched, or waited, or was being
//! prepared just then.
//!
//! Must not know: how an erasure finds what is stored.

use redb::ReadableTable;

use super::plan::identify;
use super::prepare::Draft;
use super::taken::key_of;
use super::{contact, plan};
use crate::model::TaskKey;
use crate::model::erasure::{PersonKey, email_key, phone_key};
use crate::store::documents::{Collection, ContactKeys};
use crate::store::erasures::Whoever;
use crate::store::{StoreError, Tables};

/// Whether it is erased. Its key is taken as if there had been a lead, so that a resend is a duplicate of it.
pub(super) fn is_erased(
    tables: &mut Tables<'_>,
    key: TaskKey,
    draft: &Draft,
) -> Result<bool, StoreError> {
    if !tables.has_erasures()? {
        return Ok(false);
    }
    let keys = contact::keys(&draft.person);
    let who = Whoever {
        given: &draft.addresses,
        known_by: best_of(&keys),
        known_since_ms: known_since(tables, draft, &keys)?,
        account: draft.campaign.account_id,
        came: (key.seq, draft.arrived_at_ms),
    };
    let Some(erasure) = tables.erasure_since(&who)? else {
        return Ok(false);
    };
    let plan::LeadIdentity { id, first_copy, .. } = identify(draft);
    tables.leave_key(&erasure, &key_of(id, draft))?;
    if let Some(hash) = &first_copy {
        tables.leave_first_copy(hash, draft.arrived_at_ms)?;
    }
    Ok(true)
}

/// What a contact is looked for by first (R20).
fn best_of(keys: &ContactKeys) -> Option<PersonKey> {
    let email = keys.email.as_deref().map(email_key);
    email.or_else(|| keys.phone.as_deref().map(phone_key))
}

/// Since when there has been a contact that is known by that.
fn known_since(
    tables: &Tables<'_>,
    draft: &Draft,
    keys: &ContactKeys,
) -> Result<Option<i64>, StoreError> {
    let hashes = contact::key_hashes(&draft.campaign, keys);
    let Some(best) = hashes.first() else {
        return Ok(None);
    };
    let Some(row) = tables.contact_keys.get(best)?.map(|row| row.value()) else {
        return Ok(None);
    };
    match tables.document(Collection::Contacts.row(row)) {
        Ok(contact) => {
            let made_at = contact.body()?.get_datetime("created_at").ok();
            Ok(made_at.map(|at| at.timestamp_millis()))
        }
        Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
