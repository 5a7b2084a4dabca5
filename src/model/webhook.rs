//! A webhook exactly as a platform sent it (ruling R1): the ground truth everything else is derived from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One request from a platform, raw. Meaning comes later, from an adapter.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Webhook {
    /// The adapter's slug: the path segment after `/v1/inbound/webhooks/`.
    pub platform: String,
    /// The account id of the path, as text; `None` on routes without one (Facebook).
    pub account: Option<String>,
    /// The campaign id of the path, as text; `None` on routes without one (Facebook).
    pub campaign: Option<String>,
    /// A GET with a query on a form route is a webhook too (R3).
    pub method: Method,
    /// The query string without the question mark, still percent-encoded.
    pub query: String,
    /// The `Content-Type` header, lossily as text.
    pub content_type: Option<String>,
    /// The other headers that matter (signatures, delivery ids), lower-case names.
    pub headers: Vec<(String, String)>,
    /// Who sent it, after trusted proxies are taken away.
    pub peer: IpAddr,
    /// Milliseconds since the Unix epoch, by this node's clock.
    pub arrived_at_ms: i64,
    /// The body's bytes, untouched.
    pub body: Vec<u8>,
}

/// The platform of what is left of a webhook that was erased before the pipeline had looked at it.
const ERASED: &str = "erased";

impl Webhook {
    /// What is left where a webhook was erased that has to keep its place in the queue: that something arrived (R38).
    #[must_use]
    pub fn erased(arrived_at_ms: i64) -> Self {
        Self {
            platform: ERASED.to_owned(),
            account: None,
            campaign: None,
            method: Method::Post,
            query: String::new(),
            content_type: None,
            headers: Vec::new(),
            peer: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            arrived_at_ms,
            body: Vec::new(),
        }
    }

    /// Whether nothing but its place is left of it.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.platform == ERASED
    }
}

/// How a webhook came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Method {
    /// Fields in the query.
    Get,
    /// Fields in the body, or in the query where the body is empty (R4).
    Post,
}

/// A webhook's name for people: `node.epoch.sequence` (R40).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebhookId {
    /// The node that received it.
    pub node: String,
    /// Rises with each restore, so that a restored node never reuses an id.
    pub epoch: u32,
    /// Counts up from 1 within the store.
    pub seq: u64,
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.node, self.epoch, self.seq)
    }
}

/// The text is no `node.epoch.sequence`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no webhook id: expected node.epoch.sequence, such as edge-1.0.42")]
pub struct NotAWebhookId(String);

impl FromStr for WebhookId {
    type Err = NotAWebhookId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.rsplitn(3, '.');
        let parsed = (|| {
            let seq = parts.next()?.parse().ok()?;
            let epoch = parts.next()?.parse().ok()?;
            let node = parts.next()?.to_owned();
            Some(WebhookId { node, epoch, seq })
        })();
        parsed.ok_or_else(|| NotAWebhookId(text.to_owned()))
    }
}
