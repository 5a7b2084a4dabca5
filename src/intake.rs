//! Intake: bytes -> committed -> 200.
//!
//! Must not know: what a body means, MongoDB, the pipeline. A webhook is answered with success only after an fsync
//! (R1); whatever is not on disk is answered with a failure (R2).

mod bodies;
mod held;
pub mod limits;
pub mod rate;
pub mod reply;
pub mod server;
pub mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method as HttpMethod, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use percent_encoding::percent_decode_str;

use crate::clock::Clock;
use crate::model::{Method, Webhook};
use crate::platforms::{self, Adapter, Addressing};
use crate::store::{NotStored, Store};
use bodies::Bodies;
pub use held::Cut;
use limits::{Limits, Refusal, Refusals};

/// Headers that are kept with a webhook (R1): what signs it, and what names the delivery and the sender.
const KEPT_HEADERS: [&str; 9] = [
    "x-hub-signature-256",
    "x-hub-signature",
    "x-clickfunnels-webhook-delivery-id",
    "x-webhook-clickfunnels-signature",
    "x-webhook-clickfunnels-timestamp",
    "signature",
    "x-ctm-signature",
    "x-ctm-time",
    "user-agent",
];

/// The intake of one node.
pub struct Intake {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    bodies: Bodies,
    refusals: Refusals,
    settings: Settings,
}

/// What the intake is told by the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The status of a webhook that could not be stored (R2): 400, or 503.
    pub failure_status: StatusCode,
    /// Facebook's `hub.verify_token`; `None`: no subscription is confirmed.
    pub verify_token: Option<String>,
}

/// The address at the other end of the connection, put into each request by the server.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Intake {
    /// An intake that stores into `store`.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        settings: Settings,
    ) -> Self {
        Self {
            store,
            clock,
            limits,
            bodies: Bodies::default(),
            refusals: Refusals::default(),
            settings,
        }
    }

    /// How many requests were refused, by reason.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The routes of the specification.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/v1/inbound/webhooks/{platform}", any(page_addressed))
            .route(
                "/v1/inbound/webhooks/{platform}/{account}/{campaign}",
                any(url_addressed),
            )
            // Hooks that were set up with a slash at the end work too.
            .route("/v1/inbound/webhooks/{platform}/", any(page_addressed))
            .route(
                "/v1/inbound/webhooks/{platform}/{account}/{campaign}/",
                any(url_addressed),
            )
            .route("/funnel_webhooks/test", any(async || reply::success()))
            .fallback(async |State(intake): State<Arc<Intake>>| {
                intake.refuse(Refusal::UnknownRoute)
            })
            .with_state(self)
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        self.refusals.count(refusal);
        reply::refused(refusal)
    }

    /// Limits first, then the body, then the disk; signatures (R6) belong between body and disk.
    async fn receive(&self, adapter: &Adapter, target: Target, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let peer = self.limits.client_address(peer(&parts), &parts.headers);
        if let Err(refusal) = self.limits.admit(peer, &self.store, self.clock.now_ms()) {
            return self.refuse(refusal);
        }
        // The room that it takes is given back when it is stored.
        let mut held = match self.bodies.read(body, self.limits.body_bytes_max).await {
            Ok(held) => held,
            Err(refusal) => return self.refuse(refusal),
        };
        let body = std::mem::take(&mut held.bytes);
        let webhook = webhook(adapter, target, &parts, peer, body, self.clock.now_ms());
        match self.store.receive(&webhook).await {
            Ok(_) => reply::success(),
            Err(NotStored::Busy) => self.refuse(Refusal::Busy),
            Err(NotStored::Failed) => {
                self.refusals.count(Refusal::NotStored);
                reply::failure(self.settings.failure_status)
            }
        }
    }

    /// Facebook's subscription check (R5): the bare challenge, or a success that subscribes nobody.
    fn verify(&self, query: &str) -> Response {
        let value = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        let subscribes = value("hub.mode").as_deref() == Some("subscribe");
        let trusted = self.settings.verify_token.is_some()
            && value("hub.verify_token") == self.settings.verify_token;
        match value("hub.challenge") {
            Some(challenge) if subscribes && trusted => reply::text(challenge),
            _ => reply::success(),
        }
    }
}

/// The ids in the path; text, whatever it says: it is judged later (R1).
struct Target {
    account: Option<String>,
    campaign: Option<String>,
}

async fn url_addressed(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    let adapter = platforms::by_slug(&segment(&request, PLATFORM))
        .filter(|adapter| matches!(adapter.addressing, Addressing::Url));
    let Some(adapter) = adapter else {
        return intake.refuse(Refusal::UnknownRoute);
    };
    let has_query = request.uri().query().is_some_and(|query| !query.is_empty());
    let is_webhook =
        request.method() == HttpMethod::POST || (request.method() == HttpMethod::GET && has_query);
    if !is_webhook {
        return intake.refuse(Refusal::WrongMethod);
    }
    let target = Target {
        account: Some(segment(&request, ACCOUNT)),
        campaign: Some(segment(&request, CAMPAIGN)),
    };
    intake.receive(adapter, target, request).await
}

async fn page_addressed(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    let adapter = platforms::by_slug(&segment(&request, PLATFORM))
        .filter(|adapter| matches!(adapter.addressing, Addressing::Page));
    let Some(adapter) = adapter else {
        return intake.refuse(Refusal::UnknownRoute);
    };
    match *request.method() {
        HttpMethod::GET => intake.verify(request.uri().query().unwrap_or_default()),
        HttpMethod::POST => {
            intake
                .receive(
                    adapter,
                    Target {
                        account: None,
                        campaign: None,
                    },
                    request,
                )
                .await
        }
        _ => intake.refuse(Refusal::WrongMethod),
    }
}

/// Places in `/v1/inbound/webhooks/{platform}/{account}/{campaign}`, counted from the empty text before the first
/// slash.
const PLATFORM: usize = 4;
const ACCOUNT: usize = 5;
const CAMPAIGN: usize = 6;

/// A part of the path, decoded. What is no UTF-8 is replaced, not refused: it is judged later, like any other id.
fn segment(request: &Request, place: usize) -> String {
    let segment = request
        .uri()
        .path()
        .split('/')
        .nth(place)
        .unwrap_or_default();
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn peer(parts: &Parts) -> IpAddr {
    let unknown = IpAddr::from([0, 0, 0, 0]);
    parts
        .extensions
        .get::<Peer>()
        .map_or(unknown, |peer| peer.0.ip().to_canonical())
}

fn webhook(
    adapter: &Adapter,
    target: Target,
    parts: &Parts,
    peer: IpAddr,
    body: Vec<u8>,
    arrived_at_ms: i64,
) -> Webhook {
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Webhook {
        platform: adapter.slug.to_owned(),
        account: target.account,
        campaign: target.campaign,
        method: if parts.method == HttpMethod::GET {
            Method::Get
        } else {
            Method::Post
        },
        query: parts.uri.query().unwrap_or_default().to_owned(),
        content_type: text(header::CONTENT_TYPE.as_str()),
        headers: kept(&parts.headers),
        peer,
        arrived_at_ms,
        body,
    }
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let present = KEPT_HEADERS
        .iter()
        .filter_map(|name| Some((*name, headers.get(*name)?)));
    present
        .map(|(name, value)| {
            (
                name.to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}
