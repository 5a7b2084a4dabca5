//! What only one node may do: the first to claim it does it, for good.
//!
//! A claim is a document of its own in `inlet.claims`, `{_id: key, node, until}`; that only one node can insert it is
//! all that is needed of MongoDB. Knows nothing of what is claimed.

use std::collections::HashSet;
use std::time::Duration;

use bson::{DateTime, RawDocumentBuf, doc};

use crate::claims::CLAIMS_COLLECTION;
use crate::client::{Query, Upstream};
use crate::error::Error;
use crate::write::{self, COMMAND_DOCUMENTS_MAX};

/// How long a claim is of use: whoever has not acted by then has nothing left to act upon.
const CLAIM_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Upstream {
    /// Claims `keys` for this node, and says of each whether it is this node's now, or was already. Keys are hashes: no
    /// personal data (R35). `now_ms` is the host's clock, milliseconds since the epoch. Distinct keys, please.
    ///
    /// # Errors
    /// As [`Error`] says; at once while operations are held back. Claims that were made stay, and are found again.
    pub async fn claim_once(&self, keys: &[String], now_ms: i64) -> Result<Vec<bool>, Error> {
        let mut ours = Vec::with_capacity(keys.len());
        for page in keys.chunks(COMMAND_DOCUMENTS_MAX) {
            let taken = self.insert_claims(page, now_ms).await?;
            let mine = self.held_by_this_node(&taken).await?;
            let is_ours = |key: &String| !taken.contains(key) || mine.contains(key);
            ours.extend(page.iter().map(is_ours));
        }
        Ok(ours)
    }

    /// Returns the keys that somebody had claimed before, perhaps this node.
    async fn insert_claims(&self, keys: &[String], now_ms: i64) -> Result<Vec<String>, Error> {
        let lifetime_ms = i64::try_from(CLAIM_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let until = DateTime::from_millis(now_ms.saturating_add(lifetime_ms));
        let claim = |key: &String| {
            let claim = doc! { "_id": key, "node": &self.options.node, "until": until };
            RawDocumentBuf::try_from(&claim).map_err(|error| Error::Document {
                code: 22,
                message: error.to_string(),
            })
        };
        let claims = keys.iter().map(claim).collect::<Result<Vec<_>, _>>()?;
        let claims: Vec<_> = claims.iter().map(AsRef::as_ref).collect();
        let command = write::insert(CLAIMS_COLLECTION, &claims, self.options.deadline);
        let mut taken = Vec::new();
        for error in self.write(command).await?.errors {
            match keys.get(error.index).filter(|_| error.is_same_id) {
                Some(key) => taken.push(key.clone()),
                None => return Err(Error::from_code(error.code, error.message)),
            }
        }
        Ok(taken)
    }

    async fn held_by_this_node(&self, keys: &[String]) -> Result<HashSet<String>, Error> {
        if keys.is_empty() {
            return Ok(HashSet::new());
        }
        let mut names = self.options.earlier_nodes.clone();
        names.push(self.options.node.clone());
        let query = Query {
            filter: doc! { "_id": { "$in": keys }, "node": { "$in": names } },
            ..Query::default()
        };
        let claims = self.query(CLAIMS_COLLECTION, query).await?;
        let key = |claim: RawDocumentBuf| claim.get_str("_id").ok().map(str::to_owned);
        Ok(claims.into_iter().filter_map(key).collect())
    }
}
