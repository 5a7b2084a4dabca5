//! The admin API, on a TCP listener for people and on a unix socket for the command line.
//!
//! Must not know: the store's tables, MongoDB. It turns requests into questions to the [`Console`].

pub mod guard;
#[cfg(test)]
mod tests;
mod veil;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::console::{Console, ConsoleError};
use crate::erasure::Asked;
use crate::model::Selection;
use crate::store::deliveries::Filter as DeliveryFilter;
use guard::Guard;

/// Bodies of admin requests: an import of many campaigns fits.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The routes for people and programs over TCP, behind `guard`.
pub fn router(console: Arc<Console>, backlog_max: u64, guard: Guard) -> Router {
    let guard = Arc::new(guard);
    let api = api().layer(middleware::from_fn_with_state(
        Arc::clone(&guard),
        guard::require_token,
    ));
    let state = Admin {
        console,
        backlog_max,
        shows_secrets: guard.demands_token(),
    };
    let all = Router::new().merge(api).merge(open()).with_state(state);
    all.layer(middleware::from_fn_with_state(
        guard,
        guard::require_own_host,
    ))
}

/// The same routes for the command line, over a socket that only the node's user can open.
pub fn socket_router(console: Arc<Console>, backlog_max: u64) -> Router {
    Router::new().merge(api()).merge(open()).with_state(Admin {
        console,
        backlog_max,
        shows_secrets: true,
    })
}

#[derive(Clone)]
struct Admin {
    console: Arc<Console>,
    backlog_max: u64,
    /// To whoever got as far as here.
    shows_secrets: bool,
}

/// What asks for no token.
fn open() -> Router<Admin> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

fn api() -> Router<Admin> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/webhooks", get(webhooks))
        .route("/api/v1/webhooks/replay", post(replay_selected))
        .route("/api/v1/webhooks/{id}", get(webhook))
        .route("/api/v1/webhooks/{id}/replay", post(replay))
        .route("/api/v1/deliveries", get(deliveries))
        .route("/api/v1/deliveries/{id}/resend", post(resend))
        .route("/api/v1/erasures", post(erase))
        .route("/api/v1/erasures/{id}/abandon", post(abandon))
        .route("/api/v1/documents/{collection}", get(documents))
        .route("/api/v1/reference", post(import))
        .route("/api/v1/sync", get(sync_status).post(sync_now))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Ready: webhooks can be stored, and the pipeline keeps up.
async fn ready(State(admin): State<Admin>) -> Response {
    let store = &admin.console.store;
    match (
        store.is_available(),
        store.levels().unread() < admin.backlog_max,
    ) {
        (true, true) => "ready\n".into_response(),
        (false, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store is not available\n",
        )
            .into_response(),
        (_, false) => (StatusCode::SERVICE_UNAVAILABLE, "the backlog is full\n").into_response(),
    }
}

/// The text format that Prometheus asks for first.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics(State(admin): State<Admin>) -> Response {
    match blocking(admin, Console::metrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

type Answer = Result<Json<Value>, ConsoleError>;

async fn status(State(admin): State<Admin>) -> Answer {
    blocking(admin, Console::status).await.map(Json)
}

async fn sync_status(State(admin): State<Admin>) -> Answer {
    blocking(admin, Console::sync_status).await.map(Json)
}

async fn sync_now(State(admin): State<Admin>) -> Answer {
    admin.console.sync_now().await.map(Json)
}

async fn webhooks(State(admin): State<Admin>, Query(selection): Query<Selection>) -> Answer {
    let page = blocking(admin, move |console| console.webhooks(&selection)).await?;
    Ok(Json(page))
}

async fn webhook(State(admin): State<Admin>, Path(id): Path<String>) -> Answer {
    let shows_secrets = admin.shows_secrets;
    let webhook = blocking(admin, move |console| console.webhook(&id)).await?;
    Ok(Json(if shows_secrets {
        webhook
    } else {
        veil::webhook(webhook)
    }))
}

async fn replay(State(admin): State<Admin>, Path(id): Path<String>) -> Answer {
    admin.console.replay(&id).await.map(Json)
}

async fn replay_selected(State(admin): State<Admin>, Json(selection): Json<Selection>) -> Answer {
    admin.console.replay_selected(selection).await.map(Json)
}

/// Deliveries in one answer, unless asked otherwise.
const DELIVERIES_PAGE: usize = 50;

/// A filter of deliveries in a query, where paging stands beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedDeliveries {
    channel: Option<String>,
    state: Option<String>,
    since: Option<i64>,
    limit: Option<usize>,
    before: Option<u64>,
}

async fn deliveries(State(admin): State<Admin>, Query(asked): Query<AskedDeliveries>) -> Answer {
    let limit = asked.limit.unwrap_or(DELIVERIES_PAGE);
    let filter = DeliveryFilter {
        channel: asked.channel,
        state: asked.state,
        since: asked.since,
    };
    blocking(admin, move |console| {
        console.deliveries(&filter, asked.before, limit)
    })
    .await
    .map(Json)
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Resending {
    force: bool,
}

async fn resend(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    wish: Option<Json<Resending>>,
) -> Answer {
    let force = wish.is_some_and(|Json(wish)| wish.force);
    admin.console.resend(&id, force).await.map(Json)
}

/// Whom to erase is in the body: an address has no place in a URL, which ends up in logs.
async fn erase(State(admin): State<Admin>, Json(asked): Json<Asked>) -> Answer {
    admin.console.erase(&asked).await.map(Json)
}

async fn abandon(State(admin): State<Admin>, Path(id): Path<String>) -> Answer {
    admin.console.abandon(&id).await.map(Json)
}

async fn import(State(admin): State<Admin>, body: Bytes) -> Answer {
    let file =
        serde_json::from_slice(&body).map_err(|error| ConsoleError::Invalid(error.to_string()))?;
    admin.console.import(&file).await.map(Json)
}

#[derive(Deserialize)]
struct Counting {
    count: Option<u8>,
}

/// A collection as JSON lines, read page by page so that no reader pins the store for long.
async fn documents(
    State(admin): State<Admin>,
    Path(collection): Path<String>,
    Query(counting): Query<Counting>,
) -> Result<Response, ConsoleError> {
    let count = admin.console.count(&collection)?;
    if counting.count.is_some() {
        return Ok(Json(json!({ "count": count })).into_response());
    }
    let pages = futures_util::stream::try_unfold(Some(0), move |after| {
        let (admin, collection) = (admin.clone(), collection.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let (lines, next) = admin.console.export(&collection, after)?;
            let text: String = lines
                .into_iter()
                .map(|line| {
                    if admin.shows_secrets {
                        line + "\n"
                    } else {
                        veil::line(&line) + "\n"
                    }
                })
                .collect();
            Ok::<_, ConsoleError>(Some((text, next)))
        }
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(pages),
    )
        .into_response())
}

/// Listings read many records: not on the threads that serve webhooks.
async fn blocking<T: Send + 'static>(
    admin: Admin,
    ask: impl FnOnce(&Console) -> Result<T, ConsoleError> + Send + 'static,
) -> Result<T, ConsoleError> {
    let asked = tokio::task::spawn_blocking(move || ask(&admin.console)).await;
    asked.unwrap_or_else(|_| {
        Err(ConsoleError::Invalid(
            "the request could not be worked out".to_owned(),
        ))
    })
}

impl IntoResponse for ConsoleError {
    fn into_response(self) -> Response {
        let status = match &self {
            ConsoleError::NotFound(_) => StatusCode::NOT_FOUND,
            ConsoleError::Invalid(_) => StatusCode::BAD_REQUEST,
            ConsoleError::Store(_) | ConsoleError::Unfinished(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
