//! Push messages by Firebase Cloud Messaging, HTTP v1 (platforms.md 11).
//!
//! Must not know: leads, deliveries, attempts, whose device it is. It asks once (twice where the access token was
//! stale). Neither the service account's key nor an access token leaves it in an error, a debug print or a log line.

mod access;
mod grant;
mod payload;
mod service_account;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url};

use super::http::{self, Answer};
use super::{Failure as NotTaken, Receipt};
use crate::clock::Clock;
use crate::late::Late;

use access::{Access, AccessTokens};

pub use service_account::{KeyFileError, ServiceAccount};

/// Hands push messages to one Firebase project. Cheap to share behind a reference.
pub struct PushSender {
    client: Arc<Late<Client>>,
    base: Url,
    tokens: AccessTokens,
}

/// How to reach FCM (interface.md, `[fcm]`).
#[derive(Debug, Clone)]
pub struct Options {
    /// `fcm.service_account`: the JSON key file. It is read again for each access token, so that a rotated key needs
    /// no restart.
    pub service_account: PathBuf,
    /// `fcm.base_url`; a path in it is kept as a prefix.
    pub base_url: String,
    /// Until the connection stands, TLS included.
    pub connect_timeout: Duration,
    /// Until the answer's last byte, connecting included; for the access token and for the message each.
    pub timeout: Duration,
}

/// One push message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The device's registration token.
    pub token: String,
    /// The headline.
    pub title: String,
    /// The text; shortened where the message would be longer than the 4,096 bytes that FCM takes.
    pub body: String,
    /// The project that `token` is to be asked for under; `None`: the one that the key file names by then.
    pub project: Option<String>,
    /// What the app reads. Keys that FCM reserves (`from`, `message_type`, `google…`, `gcm…`) are left out.
    pub data: BTreeMap<String, String>,
}

/// Why a push message was not handed over, or not surely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The app is gone from the device: the token is to be forgotten.
    #[error("{detail}")]
    DeviceGone {
        /// The project that was asked.
        project: String,
        /// FCM's answer.
        detail: String,
    },
    /// The token belongs to another project. Either the device's app is of the past, or the key file is a wrong one:
    /// that this project reaches other devices speaks for the former.
    #[error("{detail}")]
    OtherProject {
        /// The project that was asked.
        project: String,
        /// FCM's answer, with what to do if the key file is to blame.
        detail: String,
    },
    /// As with every other way to notify.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

/// The options make no sender.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `base_url` is no address that can be asked.
    #[error("fcm.base_url is no http or https address")]
    Url,
}

impl PushSender {
    /// A sender; nothing is sent or read yet. While the key file is of no use, messages are unavailable, and say why:
    /// it may be mended in its place.
    ///
    /// # Errors
    /// [`OptionsError`] names the option that is wrong.
    pub fn new(options: Options, clock: Arc<dyn Clock>) -> Result<Self, OptionsError> {
        let base = http::base_url(&options.base_url).ok_or(OptionsError::Url)?;
        let (connect_timeout, timeout) = (options.connect_timeout, options.timeout);
        let client = move || http::client(connect_timeout, timeout).build();
        let client = Arc::new(Late::new("the FCM client", client));
        Ok(Self {
            tokens: AccessTokens::new(Arc::clone(&client), options.service_account, clock),
            client,
            base,
        })
    }

    /// The project that messages go out under now; `None` while the key file is of no use. May read that file.
    #[must_use]
    pub fn project_id(&self) -> Option<String> {
        self.tokens.project_id()
    }

    /// Why nothing can be sent for now, if that is known without sending.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.client.get().err()
    }

    /// Hands one message over; the receipt's id is FCM's name of it.
    ///
    /// # Errors
    /// [`Failure`] says what became of it. After [`NotTaken::Unknown`] it may be sent again (R26).
    pub async fn send(&self, message: &Message) -> Result<Receipt, Failure> {
        let payload = payload::render(message)?;
        let access = fit_for(message, self.tokens.get().await?)?;
        let (answer, access) = match self.post(&payload, &access).await {
            // A token may be withdrawn before its time. One look for a better one, and no more.
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                let fresh = fit_for(message, self.tokens.instead_of(&access).await?)?;
                (self.post(&payload, &fresh).await, fresh)
            }
            answer => (answer, access),
        };
        let secrets = [access.bearer(), &message.token];
        answer
            .map_err(Failure::from)
            .and_then(|answer| verdict::judge(&answer, access.project_id()))
            .map_err(|failure| fit_to_tell(failure, &secrets))
    }

    async fn post(&self, payload: &str, access: &Access) -> Result<Answer, NotTaken> {
        let mut url = self.base.clone();
        let project = access.project_id();
        http::extend_path(&mut url, ["v1", "projects", project, "messages:send"]);
        let client = self.client.get().map_err(http::unavailable)?;
        let request = client
            .post(url)
            .bearer_auth(access.bearer())
            .header(CONTENT_TYPE, "application/json")
            .body(payload.to_owned());
        http::exchange(request)
            .await
            .map_err(http::NoAnswer::into_failure)
    }
}

/// The key file may be another project's by now: what is known of devices, and what is about to be learnt, is of the
/// project that the message was worked out for. Nothing is handed over then, and it is worked out again.
fn fit_for(message: &Message, access: Arc<Access>) -> Result<Arc<Access>, NotTaken> {
    let project = message.project.as_deref();
    if project.is_none_or(|project| project == access.project_id()) {
        return Ok(access);
    }
    let now = access.project_id();
    let detail = format!("the key file is of another project by now, {now}: tried again under it");
    Err(http::unavailable(detail))
}

impl From<Failure> for NotTaken {
    /// For whoever has no use for the difference: a device that is gone is a "no" for good, and a project that reaches
    /// nobody is to be mended.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DeviceGone { detail, .. } => Self::Refused { detail },
            Failure::OtherProject { detail, .. } => http::unavailable(detail),
            Failure::NotTaken(failure) => failure,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service_account: PathBuf::new(),
            base_url: "https://fcm.googleapis.com".to_owned(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for PushSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSender").finish_non_exhaustive()
    }
}

fn fit_to_tell(failure: Failure, secrets: &[&str]) -> Failure {
    let fit = |detail: String| crate::detail::fit_to_tell(&detail, secrets.iter().copied());
    match failure {
        Failure::DeviceGone { project, detail } => Failure::DeviceGone {
            project,
            detail: fit(detail),
        },
        Failure::OtherProject { project, detail } => Failure::OtherProject {
            project,
            detail: fit(detail),
        },
        Failure::NotTaken(failure) => Failure::NotTaken(http::fit_to_tell(failure, secrets)),
    }
}
