//! What commands ask of a node, whether it runs or not.
//!
//! Answers are the admin API's JSON, not types of our own: `--json` prints them as they are, and a command that is
//! older than the node still shows what it knows.
//!
//! Must not know: HTTP, or the store.

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::model::{DeliveryId, Selection, WebhookId};
pub use crate::store::deliveries::Filter as DeliveryFilter;

/// An answer that takes a while.
pub type Answer<'a, T> = BoxFuture<'a, anyhow::Result<T>>;

/// Where exported lines go, one call a line, without the line break. An error ends the export.
pub type LineSink<'a> = dyn FnMut(&str) -> anyhow::Result<()> + Send + 'a;

/// A node that can be asked.
pub trait Backend: Send + Sync {
    /// `GET /api/v1/status`.
    fn status(&self) -> Answer<'_, Value>;

    /// `GET /api/v1/webhooks`: one page, newest first.
    fn webhooks<'a>(&'a self, selection: &'a Selection) -> Answer<'a, Value>;

    /// `GET /api/v1/webhooks/{id}`.
    fn webhook<'a>(&'a self, id: &'a WebhookId) -> Answer<'a, Value>;

    /// `POST /api/v1/webhooks/{id}/replay`: how many were replayed.
    fn replay<'a>(&'a self, id: &'a WebhookId) -> Answer<'a, u64>;

    /// `POST /api/v1/webhooks/replay`: how many of one page were replayed, and where the next page begins.
    fn replay_selected<'a>(&'a self, selection: &'a Selection) -> Answer<'a, Value>;

    /// `GET /api/v1/deliveries`: one page, newest first; `before` is the `next` of the page before.
    fn deliveries<'a>(
        &'a self,
        filter: &'a DeliveryFilter,
        before: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Value>;

    /// `POST /api/v1/deliveries/{id}/resend`: how many are to be sent once more.
    fn resend<'a>(&'a self, id: &'a DeliveryId, force: bool) -> Answer<'a, u64>;

    /// `POST /api/v1/erasures`: what was erased, or would be.
    fn erase<'a>(&'a self, asked: &'a Value) -> Answer<'a, Value>;

    /// `POST /api/v1/erasures/{id}/abandon`: what had been erased by then.
    fn abandon<'a>(&'a self, id: &'a str) -> Answer<'a, Value>;

    /// `GET /api/v1/documents/{collection}?count=1`.
    fn count<'a>(&'a self, collection: &'a str) -> Answer<'a, u64>;

    /// `GET /api/v1/documents/{collection}`: every document, a line each.
    fn export<'a>(&'a self, collection: &'a str, line: &'a mut LineSink<'_>) -> Answer<'a, ()>;

    /// `POST /api/v1/reference`: how many of each kind were loaded.
    fn import<'a>(&'a self, reference: &'a Value) -> Answer<'a, Value>;

    /// `POST /api/v1/sync`: what was pushed, and what is left.
    fn sync_now(&self) -> Answer<'_, Value>;

    /// `GET /api/v1/sync`.
    fn sync_status(&self) -> Answer<'_, Value>;
}
