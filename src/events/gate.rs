//! What stands before the Socket.IO server: any origin may come, but only so many sessions.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

/// How long a browser may keep the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "7200";
/// When to come again where every seat is taken, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// A request that opens a session takes a seat; the session keeps the request's head, and the seat with it, until it
/// ends, whichever way it does.
pub(super) async fn pass(
    State(seats): State<Arc<Semaphore>>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        preflight()
    } else if is_in_session(&request) {
        next.run(request).await
    } else if let Ok(seat) = seats.try_acquire_owned() {
        request.extensions_mut().insert(Arc::new(seat));
        next.run(request).await
    } else {
        full()
    };
    allow_any_origin(response.headers_mut());
    response
}

/// As the server looks for it.
fn is_in_session(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair.starts_with("sid="))
}

/// The token is the authorisation, and no cookie is looked at: whoever has a token may use it from any page.
fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn full() -> Response {
    let headers = [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
    let body = r#"{"message":"too many sessions"}"#;
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}
