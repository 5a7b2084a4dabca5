//! Exchanges a token that still works for one that lives longer (platforms.md 1.6, R33).
//!
//! Must not know: keys, whose the token is, when to ask. An expired token cannot be exchanged.

use std::fmt;

use serde_json::Value;

use super::failure::{complaint, not_graph};
use super::{Answer, Failure, Graph, push_segment};

/// A token that Graph gave for another one.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchanged {
    /// The new token; sometimes the old one, prolonged.
    pub access_token: String,
    /// Its life in seconds, about sixty days; `None` where Graph does not say.
    pub expires_in: Option<u64>,
}

impl fmt::Debug for Exchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchanged")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

impl Graph {
    /// Whether there are an app's id and secret, without which no token is exchanged.
    #[must_use]
    pub fn can_exchange(&self) -> bool {
        self.app_id.is_some() && self.app_secret.is_some()
    }

    /// Exchanges `access_token`. One request. The old token may work on or not: that is Facebook's choice.
    ///
    /// # Errors
    /// [`Failure`] says what stood in the way; [`Failure::Refused`] where no app is configured.
    pub async fn exchange(&self, access_token: &str) -> Result<Exchanged, Failure> {
        let told = |failure: Failure| failure.told(|it| self.fit_to_tell(it, access_token));
        self.ask_exchange(access_token).await.map_err(told)
    }

    async fn ask_exchange(&self, access_token: &str) -> Result<Exchanged, Failure> {
        let (Some(app_id), Some(app_secret)) = (&self.app_id, &self.app_secret) else {
            let detail = "facebook.app_id and facebook.app_secret are not set".to_owned();
            return Err(Failure::Refused { detail });
        };
        let mut url = self.base.clone();
        push_segment(&mut url, "oauth");
        push_segment(&mut url, "access_token");
        url.query_pairs_mut()
            .append_pair("grant_type", "fb_exchange_token")
            .append_pair("client_id", app_id)
            .append_pair("client_secret", app_secret)
            .append_pair("fb_exchange_token", access_token);
        read(&self.ask(url).await?)
    }
}

/// The token in an answer. The answer is never quoted: a token may be in it that nobody could mask.
fn read(answer: &Answer) -> Result<Exchanged, Failure> {
    let status = answer.status;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    if let Some(failure) = complaint(status, answer.waits, &body) {
        return Err(failure);
    }
    let token = body.get("access_token").and_then(Value::as_str);
    match token.map(str::trim).filter(|token| !token.is_empty()) {
        Some(token) if status.is_success() => Ok(Exchanged {
            access_token: token.to_owned(),
            expires_in: seconds(body.get("expires_in")),
        }),
        _ => {
            let detail = format!("{status}: {} bytes without a token", answer.body.len());
            Err(not_graph(status, answer.waits, detail))
        }
    }
}

/// A number, or text that is one; zero says nothing.
fn seconds(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    let seconds = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    (seconds > 0).then_some(seconds)
}
