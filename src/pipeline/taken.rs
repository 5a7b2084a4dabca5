//! The derived keys that a submission takes, whether or not a lead is made of it.
//!
//! Erasure leaves them behind, so that a resend of what was erased is a duplicate (R38).

use bson::oid::ObjectId;

use super::plan::identify_at;
use super::prepare::fields_hash;
use crate::model::Submission;
use crate::store::erasures::repeat_key;

/// Keys that are taken for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The lead's, and what it said: where an id names a person, the same words are a resend, and others are news.
    pub keys: Vec<[u8; 12]>,
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
    let id = lead.id.bytes();
    Taken {
        keys: vec![id, repeat_key(&id, &fields_hash)],
        first_copy: lead.first_copy,
    }
}
