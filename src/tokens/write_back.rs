//! Writes new tokens upstream, each in the place of the one it was exchanged for, and of no other (R33).

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use inlet_sync::Upstream;
use inlet_sync::ports::{Replica, ReplicaEvent};

use super::{Renewer, Round};
use crate::model::facebook_key;
use crate::store::reference::{COLLECTIONS, StoreReplica};
use crate::store::tokens::Renewed;
use crate::worker::StepError;

/// Tokens tried in one round, whichever; after a long outage the next round goes on at once, as long as any can be
/// written.
const WRITES_MAX: usize = 100;

const FACEBOOK_KEYS: usize = 3;

/// What became of a write.
enum Write {
    Done,
    /// MongoDB is away.
    Later,
    /// MongoDB does not want it, now or later.
    Refused,
}

impl Renewer {
    pub(super) async fn write_back(
        &self,
        upstream: &Arc<Upstream>,
        round: &mut Round,
    ) -> Result<(), StepError> {
        let mut waiting = self.store.read()?.tokens_to_write()?;
        let are_more = waiting.len() > WRITES_MAX;
        waiting.truncate(WRITES_MAX);
        for (document, renewed) in waiting {
            match self.write_one(upstream, &document, renewed).await? {
                Write::Done => round.written += 1,
                Write::Later => round.unwritten += 1,
                Write::Refused => round.refused += 1,
            }
        }
        round.more |= are_more && round.written > 0 && round.unwritten == 0;
        Ok(())
    }

    /// Writes one new token.
    async fn write_one(
        &self,
        upstream: &Arc<Upstream>,
        document: &Document,
        renewed: Renewed,
    ) -> Result<Write, StepError> {
        let now_ms = self.clock.now_ms();
        let (token, end_ms) = (&renewed.access_token, renewed.expires_at_ms);
        let replacement = facebook_key::replacement(document, token, end_ms, now_ms);
        let (Some((filter, update)), Ok(id)) = (replacement, document.get_object_id("_id")) else {
            // The document has no token any more: there is nothing to replace until it has one.
            return Ok(Write::Refused);
        };
        let outcome = upstream.update_one(COLLECTIONS[FACEBOOK_KEYS], filter, update, false);
        let outcome = match outcome.await {
            Ok(true) => {
                let mark = self
                    .store
                    .write(move |tables| tables.token_is_upstream(id, &renewed));
                return Ok(mark.await.map(|()| Write::Done)?);
            }
            // Another token is there, which wins; or this one, if the answer to an earlier try was lost.
            Ok(false) => self.read_again(upstream, id).await,
            Err(error) if error.is_permanent() => {
                tracing::warn!(key = %id, %error, "MongoDB refuses a renewed Facebook token; it is used here only");
                return Ok(Write::Refused);
            }
            Err(error) => Err(error.into()),
        };
        Ok(match outcome {
            Ok(()) => Write::Done,
            Err(error) => {
                tracing::debug!(key = %id, %error, "a renewed Facebook token cannot be written now");
                Write::Later
            }
        })
    }

    /// Takes over a key's document as it is upstream now.
    pub(super) async fn read_again(
        &self,
        upstream: &Arc<Upstream>,
        id: ObjectId,
    ) -> Result<(), StepError> {
        let found = upstream
            .find(COLLECTIONS[FACEBOOK_KEYS], doc! { "_id": id }, 1)
            .await?;
        let collection = FACEBOOK_KEYS;
        let event = match found.into_iter().next() {
            Some(document) => ReplicaEvent::Put {
                collection,
                document,
            },
            None => ReplicaEvent::Delete {
                collection,
                id: Bson::ObjectId(id),
            },
        };
        let replica = StoreReplica {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
        };
        let apply = move || replica.apply(vec![event], None, None);
        Ok(tokio::task::spawn_blocking(apply).await??)
    }
}

#[cfg(test)]
mod tests;
