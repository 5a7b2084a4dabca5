//! The derived keys that a submission takes, whether or not a lead is made of it.
//!
//! Erasure leaves them behind, so that a resend of what was erased is a duplicate (R38).

use bson::oid::ObjectId;

use super::plan::{identify_at, lead_oid};
use super::prepare::{Draft, fields_hash};
use crate::model::{Campaign, LeadId, Names, Submission};
use crate::store::erasures::TakenKey;

/// Keys that are taken for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The lead's, with what it said.
    pub key: TakenKey,
    /// Of a submission without an id: what its resends are recognised by within the window (R10).
    pub first_copy: Option<[u8; 16]>,
}

/// What a submission for this account and campaign, known here or not, takes that arrived then.
#[must_use]
pub fn taken_by(place: (ObjectId, ObjectId), submission: &Submission, arrived_at_ms: i64) -> Taken {
    let fields_hash = fields_hash(submission);
    let lead = identify_at(
        place,
        submission.lead_id.as_ref(),
        &fields_hash,
        arrived_at_ms,
    );
    Taken {
        key: TakenKey {
            lead: lead.id.bytes(),
            said: said(submission.names, fields_hash),
        },
        first_copy: lead.first_copy,
    }
}

/// The key of a lead whose id names a submission.
#[must_use]
pub fn taken_by_lead(campaign: &Campaign, lead: &LeadId) -> TakenKey {
    let place = (campaign.account_id.bytes(), campaign.id.bytes());
    TakenKey {
        lead: lead_oid((&place.0, &place.1), lead.as_str()).bytes(),
        said: None,
    }
}

/// What tells a resend of a submission from news, where its id names a person.
#[must_use]
pub fn said_by(submission: &Submission) -> Option<[u8; 32]> {
    said(submission.names, fields_hash(submission))
}

/// The key of the lead of this `_id` that a draft is, with what it says.
pub(super) fn key_of(lead: ObjectId, draft: &Draft) -> TakenKey {
    TakenKey {
        lead: lead.bytes(),
        said: said(draft.names, draft.fields_hash),
    }
}

fn said(names: Names, fields_hash: [u8; 32]) -> Option<[u8; 32]> {
    (names == Names::Person).then_some(fields_hash)
}
