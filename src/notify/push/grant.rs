//! One request for an access token: a signed assertion for a bearer token (RFC 7523, platforms.md 11).
//!
//! Must not know: who keeps the token, or for how long. Whatever stands in the way, no message was sent yet, and none
//! is to blame: every failure is [`Failure::Unavailable`].

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode};
use serde_json::Value;

use super::service_account::ServiceAccount;
use crate::notify::http::{self, Answer};
use crate::notify::{Failure, http::NoAnswer};

/// A bearer token as it was granted.
pub(super) struct Grant {
    pub(super) bearer: String,
    /// Its life from when it was asked for; 0 where the answer does not tell.
    pub(super) expires_in_seconds: i64,
}

/// Asks once, at `now_ms` since the Unix epoch.
pub(super) async fn ask(
    client: &Client,
    account: &ServiceAccount,
    now_ms: i64,
) -> Result<Grant, Failure> {
    let assertion = account
        .assertion(now_ms)
        .map_err(|error| http::unavailable(error.to_string()))?;
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
        .append_pair("assertion", &assertion)
        .finish();
    let request = client
        .post(account.token_uri().clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form);
    let granted = match http::exchange(request).await {
        Ok(answer) => judge(&answer),
        Err(no_answer) => Err(not_reached(no_answer)),
    };
    granted.map_err(|failure| http::fit_to_tell(failure, &[&assertion]))
}

fn judge(answer: &Answer) -> Result<Grant, Failure> {
    if let Some(bearer) = bearer(answer) {
        return Ok(Grant {
            bearer,
            expires_in_seconds: life_seconds(&answer.json).max(0),
        });
    }
    Err(Failure::Unavailable {
        detail: format!("no access token for FCM: {}", reason(answer)),
        retry_after: answer.retry_after,
    })
}

/// The token, where it is one that a header can hold.
fn bearer(answer: &Answer) -> Option<String> {
    let token = answer.json.get("access_token")?.as_str()?;
    let is_fit = !token.is_empty() && HeaderValue::from_str(token).is_ok();
    (answer.status == StatusCode::OK && is_fit).then(|| token.to_owned())
}

/// A number, by some servers written as text.
fn life_seconds(answer: &Value) -> i64 {
    let life = answer.get("expires_in").unwrap_or(&Value::Null);
    let in_text = || life.as_str()?.parse().ok();
    life.as_i64().or_else(in_text).unwrap_or_default()
}

fn reason(answer: &Answer) -> String {
    let status = answer.status;
    if status.is_success() {
        // Half a token may be in it.
        return format!("{status}: an answer without a token");
    }
    let text = |name| answer.json.get(name).and_then(Value::as_str);
    let Some(error) = text("error") else {
        return answer.quote();
    };
    let description = text("error_description").unwrap_or_default();
    let remedy = remedy(error);
    format!("{status}: {error}: {description}{remedy}")
}

fn remedy(error: &str) -> &'static str {
    match error {
        "invalid_grant" => {
            "; see that this machine's clock is right, and that the key of `fcm.service_account` was not revoked"
        }
        "invalid_client" | "unauthorized_client" | "access_denied" | "invalid_scope" => {
            "; mend the service account of `fcm.service_account`"
        }
        _ => "",
    }
}

fn not_reached(no_answer: NoAnswer) -> Failure {
    let detail = no_answer.into_detail();
    http::unavailable(format!("no access token for FCM: {detail}"))
}
