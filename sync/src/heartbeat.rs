//! A node's sign of life in `inlet.nodes`.

use bson::{Document, doc, rawdoc};

use crate::client::Upstream;
use crate::error::Error;

const NODES_COLLECTION: &str = "inlet.nodes";

impl Upstream {
    /// Writes `facts` (version, backlog, lag, ...) to this node's entry in `inlet.nodes`, with `last_seen` by
    /// MongoDB's clock and `skew_ms`, how far MongoDB's clock is ahead of this node's. Returns the entry as it was
    /// before, for the host to notice a second node of the same name or a store that was restored from a backup.
    /// Indexes that could not be created are tried again on this occasion.
    ///
    /// # Errors
    /// As [`Error`] says; at once while operations are held back.
    pub async fn heartbeat(
        &self,
        mut facts: Document,
    ) -> Result<Option<bson::RawDocumentBuf>, Error> {
        self.note_skew(&self.command(rawdoc! { "hello": 1 }).await?);
        self.mend_indexes().await?;
        facts.insert("skew_ms", self.health().skew_ms);
        let me = doc! { "_id": &self.options.node };
        let before = self.find(NODES_COLLECTION, me.clone(), 1).await?;
        let update = doc! { "$set": facts, "$currentDate": { "last_seen": true } };
        self.update_one(NODES_COLLECTION, me, update, true).await?;
        Ok(before.into_iter().next())
    }
}
