//! What stands before the Socket.IO server: any origin may come, but only so many sessions.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::seats::Seats;
use crate::intake::Cut;

/// How long a browser may keep the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "7200";
/// When to come again where every seat is taken, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// A request that opens a session takes a seat; the session keeps the request's head, and the seat with it, until it
/// ends, whichever way it does.
pub(super) async fn pass(
    State(seats): State<Arc<Seats>>,
    mut request: Request,
    next: Next,
) -> Response {
    let session = parameter(&request, "sid").map(str::to_owned);
    let connection = connection(&request);
    let mut response = match session {
        _ if request.method() == Method::OPTIONS => preflight(),
        Some(session) if seats.has_ended(&session) => {
            drop(next.run(good_bye(&request, &session)).await);
            gone()
        }
        Some(session) => {
            if let Some(connection) = connection {
                let upgrade = seats.upgrade(&session, connection);
                request.extensions_mut().insert(upgrade);
            }
            next.run(request).await
        }
        None => match seats.take(connection) {
            Some(seat) => {
                request.extensions_mut().insert(seat);
                next.run(request).await
            }
            None => full(),
        },
    };
    allow_any_origin(response.headers_mut());
    response
}

/// As the server looks for it.
fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What the request came on, where it becomes the session's alone. One that is polled on may be others' as well, behind
/// a proxy.
fn connection(request: &Request) -> Option<Cut> {
    let is_websocket = parameter(request, "transport") == Some("websocket");
    let cut = request.extensions().get::<Cut>();
    cut.filter(|_| is_websocket).cloned()
}

/// What a client says that ends its session.
fn good_bye(request: &Request, session: &str) -> Request {
    let path = request.uri().path();
    let mut good_bye = Request::new(Body::from("1"));
    *good_bye.method_mut() = Method::POST;
    let target = format!("{path}?EIO=4&transport=polling&sid={session}");
    if let Ok(target) = target.parse() {
        *good_bye.uri_mut() = target;
    }
    good_bye
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

/// In the library's own words for a session that it does not know.
fn gone() -> Response {
    let body = r#"{"code":"1","message":"Session ID unknown"}"#;
    (StatusCode::BAD_REQUEST, body).into_response()
}
