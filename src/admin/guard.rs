//! Who may talk to the admin listener: holders of the token, and nobody's web page but its own.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// What the admin listener demands.
pub struct Guard {
    token: Option<[u8; 32]>,
}

impl Guard {
    /// `token`: what `Authorization: Bearer` has to carry; `None`: nothing, the listener is on loopback.
    #[must_use]
    pub fn new(token: Option<&str>) -> Self {
        Self {
            token: token.map(digest),
        }
    }

    /// Whether whoever asks has to show a token.
    pub(super) fn demands_token(&self) -> bool {
        self.token.is_some()
    }

    /// Digests are compared, so that the time it takes tells nothing about the token.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = self.token else { return true };
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        bearer.is_some_and(|bearer| digest(bearer) == token)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

pub(super) async fn require_token(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    if guard.admits(request.headers()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (
        StatusCode::UNAUTHORIZED,
        challenge,
        "the admin token is missing or wrong\n",
    )
        .into_response()
}

/// Refuses requests that a foreign web page sends (its Origin is foreign), or that a foreign name was pointed here for
/// (DNS rebinding: the Host is a name). Addresses and `localhost` are our own; with a token set, so is any name.
pub(super) async fn require_own_host(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let host = text(headers, header::HOST);
    let own_host = host.is_none_or(|host| guard.token.is_some() || is_own(host));
    let own_origin = text(headers, header::ORIGIN).is_none_or(|origin| {
        origin
            .split_once("://")
            .is_some_and(|(_, authority)| Some(authority) == host)
    });
    if own_host && own_origin {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "this host or origin is foreign\n").into_response()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn is_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_our_own_and_names_are_not() {
        for own in [
            "127.0.0.1:8081",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8081",
            "10.1.2.3",
        ] {
            assert!(is_own(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example:8081",
            "",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_own(foreign), "{foreign}");
        }
    }

    #[test]
    fn only_the_right_bearer_is_admitted() {
        let guard = Guard::new(Some("secret"));
        let with = |value: &str| {
            HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a header"))])
        };
        assert!(guard.admits(&with("Bearer secret")));
        assert!(!guard.admits(&with("Bearer secre")));
        assert!(!guard.admits(&with("secret")));
        assert!(!guard.admits(&HeaderMap::new()));
        assert!(Guard::new(None).admits(&HeaderMap::new()));
    }
}
