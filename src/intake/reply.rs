//! What a platform is told.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::limits::Refusal;

const SUCCESS: &str = r#"{"success": true}"#;
const FAILURE: &str = r#"{"success": false}"#;

pub(super) fn success() -> Response {
    json(StatusCode::OK, SUCCESS)
}

/// The webhook is on no disk (R2).
pub(super) fn failure(status: StatusCode) -> Response {
    json(status, FAILURE)
}

/// Not stored, and the sender is told why by the status (R3).
pub(super) fn refused(refusal: Refusal) -> Response {
    let mut response = json(refusal.status(), FAILURE);
    if let Some(seconds) = refusal.retry_after_s() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal == Refusal::WrongMethod {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// Bare text: Facebook's challenge.
pub(super) fn text(text: String) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", text.into())
}

fn json(status: StatusCode, body: &'static str) -> Response {
    with_type(status, "application/json", body.into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
