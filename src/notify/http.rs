//! One HTTP exchange with a provider, and the one question that matters when it breaks: was the message sent?
//!
//! Must not know: any provider, or what its answers mean.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, RequestBuilder, StatusCode, Url, redirect};
use serde_json::Value;

use super::Failure;
use crate::{detail, retry_after};

/// Real answers are a few KiB; a broken proxy may send without end.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An HTTP answer: always with its status, perhaps without all of its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// What `Retry-After` asks for.
    pub(super) retry_after: Option<Duration>,
    /// The body, where it came whole and is JSON; else `Null`.
    pub(super) json: Value,
    /// Whether the whole body came, and was no longer than 64 KiB.
    pub(super) is_whole: bool,
    text: String,
}

/// Not even a status came.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The request was surely never sent.
    NotSent(String),
    /// It may have been sent, and acted upon.
    Lost(String),
}

/// A client that follows no redirect: whoever redirects (a captive portal) must not be handed credentials.
///
/// Installs *ring* as the process's TLS provider where none is installed. Proxies are taken from the usual environment
/// variables (`HTTPS_PROXY`, `NO_PROXY`).
pub(super) fn client(connect_timeout: Duration, timeout: Duration) -> ClientBuilder {
    // An error means that one is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("inlet/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .timeout(timeout)
        .redirect(redirect::Policy::none())
}

/// An address that can be asked; a path in it is kept as a prefix.
pub(super) fn base_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text.trim()).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

/// Appends path segments, percent-encoded: whatever one holds, it stays one segment.
pub(super) fn extend_path<'a>(url: &mut Url, segments: impl IntoIterator<Item = &'a str>) {
    url.path_segments_mut()
        .expect("http and https URLs have path segments")
        .pop_if_empty()
        .extend(segments);
}

/// Sends a request, once, and reads its answer.
pub(super) async fn exchange(request: RequestBuilder) -> Result<Answer, NoAnswer> {
    let response = request.send().await.map_err(no_answer)?;
    let status = response.status();
    let retry_after = retry_after::read(response.headers());
    let body = read_body(response).await;
    let is_whole = body.is_some();
    let body = body.unwrap_or_default();
    Ok(Answer {
        status,
        retry_after,
        json: serde_json::from_slice(&body).unwrap_or(Value::Null),
        is_whole,
        text: String::from_utf8_lossy(&body).into_owned(),
    })
}

impl Answer {
    /// Status and body for people, of an answer that is none of the provider's.
    pub(super) fn quote(&self) -> String {
        let status = self.status;
        match self.text.trim() {
            _ if !self.is_whole => format!("{status}: an answer that broke off or had no end"),
            "" => format!("{status}: an empty answer"),
            text => format!("{status}: {text}"),
        }
    }

    /// Whether a refusal can only be about this one request: a repetition, or another request, says nothing new.
    /// Everything else that is not the provider's own word may be a proxy's, and pass.
    pub(super) fn is_about_the_request(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 413 | 414 | 422 | 431)
    }
}

impl NoAnswer {
    /// What it means for a message: unavailable where it was not sent, else unknown (R26).
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::NotSent(detail) => unavailable(detail),
            Self::Lost(detail) => Failure::Unknown { detail },
        }
    }

    pub(super) fn into_detail(self) -> String {
        match self {
            Self::NotSent(detail) | Self::Lost(detail) => detail,
        }
    }
}

pub(super) fn unavailable(detail: impl Into<String>) -> Failure {
    Failure::Unavailable {
        detail: detail.into(),
        retry_after: None,
    }
}

/// The same failure, its detail masked and bounded.
pub(super) fn fit_to_tell(failure: Failure, secrets: &[&str]) -> Failure {
    let fit = |detail: String| detail::fit_to_tell(&detail, secrets.iter().copied());
    match failure {
        Failure::Unavailable {
            detail,
            retry_after,
        } => Failure::Unavailable {
            detail: fit(detail),
            retry_after,
        },
        Failure::Deferred {
            detail,
            retry_after,
        } => Failure::Deferred {
            detail: fit(detail),
            retry_after,
        },
        Failure::Refused { detail } => Failure::Refused {
            detail: fit(detail),
        },
        Failure::Unknown { detail } => Failure::Unknown {
            detail: fit(detail),
        },
    }
}

async fn read_body(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

fn no_answer(error: reqwest::Error) -> NoAnswer {
    // A base URL may carry a password.
    let error = error.without_url();
    let detail = detail::with_causes(&error);
    if error.is_connect() || error.is_builder() || was_never_begun(&error) {
        NoAnswer::NotSent(detail)
    } else {
        NoAnswer::Lost(detail)
    }
}

/// hyper calls a request *cancelled* only where it closed the connection before the first byte was written.
fn was_never_begun(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    causes
        .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_canceled)
}
