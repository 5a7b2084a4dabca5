//! Two nodes with the same webhook notify once, as far as they can agree (R26).
//!
//! Must not know: how a claim is kept.

use std::future::Future;

use bson::oid::ObjectId;

use crate::model::Channel;
use crate::model::identity::derived_hash;

/// Where nodes agree on who sends what.
pub trait Claims: Send + Sync + 'static {
    /// Whether there is anybody to agree with right now: else nothing is waited for.
    fn is_reachable(&self) -> bool;

    /// Whether there never is anybody: what this node has cached is all there is to know.
    fn is_alone(&self) -> bool;

    /// Claims keys for this node; says of each whether it is this node's. `None`: nobody could be asked.
    fn claim(
        &self,
        keys: Vec<String>,
        now_ms: i64,
    ) -> impl Future<Output = Option<Vec<bool>>> + Send;
}

/// A node that shares its leads with no other.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Claims for Alone {
    fn is_reachable(&self) -> bool {
        false
    }

    fn is_alone(&self) -> bool {
        true
    }

    async fn claim(&self, _: Vec<String>, _: i64) -> Option<Vec<bool>> {
        None
    }
}

/// What is claimed: to tell of this lead by this way. Not to whom: two nodes may have chosen different representatives
/// (R22), and one of them is to hear of it, not both.
#[must_use]
pub fn key(lead: ObjectId, channel: Channel) -> String {
    let parts = [&lead.bytes()[..], channel.name().as_bytes()];
    hex::encode(derived_hash("claim.notify", &parts))
}
