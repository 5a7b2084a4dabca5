//! A Firebase Cloud Messaging of our own, with the token endpoint before it: real HTTP, real signatures, and any
//! misbehaviour on demand (platforms.md 11).
//!
//! Must not know: the node that asks. Assertions are verified here by hand, not by the library that made them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::scripted::{Asked, Said, Scripted, Step, lock};

/// The project the service account belongs to.
pub(crate) const PROJECT: &str = "acme-push";
/// The service account.
pub(crate) const CLIENT_EMAIL: &str = "inlet@acme-push.iam.gserviceaccount.com";
/// The id of its key.
pub(crate) const KEY_ID: &str = "0123456789abcdef";

const PRIVATE_KEY: &str = include_str!("../../keys/rsa.pem");
const PUBLIC_KEY: &str = include_str!("../../keys/rsa.pub.pem");
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// How long an access token lives, as Google has it.
const TOKEN_LIFE_MS: i64 = 3_599_000;

/// Google allows for clocks this far apart.
const SKEW_SECONDS: i64 = 300;

/// A running fake FCM with its token endpoint.
pub(crate) struct Fcm {
    messages: Scripted,
    tokens: Scripted,
    state: Arc<Mutex<State>>,
}

/// A push message as it was taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Push {
    /// FCM's name of it.
    pub(crate) name: String,
    /// The device.
    pub(crate) token: String,
    /// Title and text.
    pub(crate) notification: Value,
    /// What the app reads.
    pub(crate) data: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    taken: Vec<Push>,
    /// Access tokens that count, and the end of each.
    granted: BTreeMap<String, i64>,
    grants: usize,
    foreign: BTreeSet<String>,
    unregistered: BTreeSet<String>,
    /// By how much this server's clock is ahead of the machine's.
    ahead_ms: i64,
}

impl Fcm {
    /// Starts both servers on free ports.
    pub(crate) async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (for_messages, for_tokens) = (Arc::clone(&state), Arc::clone(&state));
        Self {
            messages: Scripted::start(move |asked| lock(&for_messages).message(asked)).await,
            tokens: Scripted::start(move |asked| lock(&for_tokens).grant(asked)).await,
            state,
        }
    }

    /// The value of `fcm.base_url`.
    pub(crate) fn url(&self) -> String {
        self.messages.url()
    }

    /// A key file for this server, as the console hands it out.
    pub(crate) fn key_file(&self) -> Value {
        json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": KEY_ID,
            "private_key": PRIVATE_KEY,
            "client_email": CLIENT_EMAIL,
            "client_id": "100000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": self.token_uri(),
        })
    }

    /// Writes [`Fcm::key_file`] into `folder`: the value of `fcm.service_account`.
    pub(crate) fn write_key_file(&self, folder: &std::path::Path) -> PathBuf {
        let path = folder.join("service-account.json");
        std::fs::write(&path, self.key_file().to_string()).expect("a writable folder");
        path
    }

    /// The next messages meet these steps, one each.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.messages.script(steps);
    }

    /// The next requests for an access token meet these steps, one each.
    pub(crate) fn script_tokens(&self, steps: impl IntoIterator<Item = Step>) {
        self.tokens.script(steps);
    }

    /// The messages taken so far, whether or not anybody was told.
    pub(crate) fn taken(&self) -> Vec<Push> {
        lock(&self.state).taken.clone()
    }

    /// How many requests for a message were read.
    pub(crate) fn messages_asked(&self) -> usize {
        self.messages.asked().len()
    }

    /// How many requests for an access token were read.
    pub(crate) fn tokens_asked(&self) -> usize {
        self.tokens.asked().len()
    }

    /// The app is gone from this device.
    pub(crate) fn unregister(&self, device: &str) {
        lock(&self.state).unregistered.insert(device.to_owned());
    }

    /// These devices' apps belong to other projects, and no others do.
    pub(crate) fn belong_elsewhere(&self, devices: &[String]) {
        lock(&self.state).foreign = devices.iter().cloned().collect();
    }

    /// No access token counts any more; new ones do.
    pub(crate) fn revoke_tokens(&self) {
        lock(&self.state).granted.clear();
    }

    /// What this server's clock shows, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        lock(&self.state).now_ms()
    }

    /// Moves this server's clock.
    pub(crate) fn advance(&self, by: Duration) {
        lock(&self.state).ahead_ms += i64::try_from(by.as_millis()).expect("a short while");
    }

    /// Connections for messages are refused and open ones broken, until [`Fcm::resume`].
    pub(crate) fn go_away(&mut self) {
        self.messages.go_away();
    }

    /// Listens again, on the address it always had.
    pub(crate) async fn resume(&mut self) {
        self.messages.resume().await;
    }

    /// The token endpoint refuses connections, until [`Fcm::resume_tokens`].
    pub(crate) fn go_away_tokens(&mut self) {
        self.tokens.go_away();
    }

    /// The token endpoint listens again.
    pub(crate) async fn resume_tokens(&mut self) {
        self.tokens.resume().await;
    }

    fn token_uri(&self) -> String {
        format!("{}/token", self.tokens.url())
    }
}

/// FCM's own form of an error; an empty `code` leaves the detail out.
pub(crate) fn error(http: u16, status: &str, code: &str) -> Said {
    let details = if code.is_empty() {
        json!([])
    } else {
        json!([{
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": code,
        }])
    };
    let error = json!({"code": http, "message": "scripted", "status": status, "details": details});
    Said::new(http, json!({ "error": error })).header("content-type", "application/json")
}

/// The token endpoint's form of an error.
pub(crate) fn oauth_error(http: u16, error: &str, description: &str) -> Said {
    Said::new(
        http,
        json!({"error": error, "error_description": description}),
    )
    .header("content-type", "application/json")
}

impl State {
    #[expect(
        clippy::disallowed_methods,
        reason = "it stands for another machine, which has a clock of its own"
    )]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = since.expect("a clock past 1970").as_millis();
        i64::try_from(now_ms).expect("a clock of this age") + self.ahead_ms
    }

    fn grant(&mut self, asked: &Asked) -> Said {
        if asked.field("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            return oauth_error(400, "unsupported_grant_type", "Invalid grant_type");
        }
        let audience = format!("http://{}{}", asked.header("host"), asked.path);
        let now = self.now_ms() / 1000;
        if let Err(why) = verify(&asked.field("assertion"), &audience, now) {
            return oauth_error(400, "invalid_grant", why);
        }
        self.grants += 1;
        let token = format!("ya29.granted-{}", self.grants);
        self.granted
            .insert(token.clone(), self.now_ms() + TOKEN_LIFE_MS);
        let life = TOKEN_LIFE_MS / 1000;
        let body = json!({"access_token": token, "expires_in": life, "token_type": "Bearer"});
        Said::new(200, body).header("content-type", "application/json")
    }

    fn message(&mut self, asked: &Asked) -> Said {
        let token = asked.header("authorization").strip_prefix("Bearer ");
        let end_ms = token.and_then(|token| self.granted.get(token));
        if end_ms.is_none_or(|end_ms| self.now_ms() >= *end_ms) {
            return error(401, "UNAUTHENTICATED", "");
        }
        if asked.path != format!("/v1/projects/{PROJECT}/messages:send") {
            return error(404, "NOT_FOUND", "");
        }
        match self.read(asked) {
            Ok(push) => {
                let said = Said::new(200, json!({"name": push.name}));
                self.taken.push(push);
                said
            }
            Err(said) => *said,
        }
    }

    /// The message, if FCM would take it.
    fn read(&self, asked: &Asked) -> Result<Push, Box<Said>> {
        let invalid = || Box::new(error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"));
        let message = asked.json()["message"].take();
        let token = message["token"].as_str().ok_or_else(invalid)?;
        if self.foreign.contains(token) {
            return Err(Box::new(error(
                403,
                "PERMISSION_DENIED",
                "SENDER_ID_MISMATCH",
            )));
        }
        if self.unregistered.contains(token) {
            return Err(Box::new(error(404, "NOT_FOUND", "UNREGISTERED")));
        }
        let data: BTreeMap<String, String> = match &message["data"] {
            Value::Null => BTreeMap::new(),
            // Only texts are taken.
            data => serde_json::from_value(data.clone()).map_err(|_| invalid())?,
        };
        let reserved = |key: &String| {
            ["from", "message_type"].contains(&key.as_str())
                || key.starts_with("google")
                || key.starts_with("gcm")
        };
        if data.keys().any(reserved) || message.to_string().len() > 4_096 {
            return Err(invalid());
        }
        Ok(Push {
            name: format!("projects/{PROJECT}/messages/0:{}", self.taken.len() + 1),
            token: token.to_owned(),
            notification: message["notification"].clone(),
            data,
        })
    }
}

/// Whether an assertion is what Google demands: signed with the account's key, for this audience and scope, alive.
fn verify(assertion: &str, audience: &str, now: i64) -> Result<(), &'static str> {
    let (message, signature) = assertion.rsplit_once('.').ok_or("no token")?;
    let (header, claims) = message.split_once('.').ok_or("no token")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "no base64")?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key())
        .verify(message.as_bytes(), &signature)
        .map_err(|_| "Invalid JWT Signature.")?;
    let header = part(header)?;
    if header != json!({"typ": "JWT", "alg": "RS256", "kid": KEY_ID}) {
        return Err("Invalid JWT header.");
    }
    let claims = part(claims)?;
    let time = |name: &str| claims[name].as_i64().ok_or("Invalid JWT: no time.");
    let (iat, exp) = (time("iat")?, time("exp")?);
    let faults = [
        (claims["iss"] != CLIENT_EMAIL, "Invalid issuer."),
        (claims["scope"] != SCOPE, "Invalid scope."),
        (claims["aud"] != audience, "Invalid audience."),
        (exp - iat > 3600 || exp <= iat, "Invalid JWT: bad life."),
        (
            iat > now + SKEW_SECONDS,
            "Invalid JWT: issued in the future.",
        ),
        (exp < now - SKEW_SECONDS, "Invalid JWT: expired."),
    ];
    let fault = faults.into_iter().find(|(is_wrong, _)| *is_wrong);
    fault.map_or(Ok(()), |(_, why)| Err(why))
}

fn part(encoded: &str) -> Result<Value, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "no base64")?;
    serde_json::from_slice(&bytes).map_err(|_| "no JSON")
}

fn public_key() -> Vec<u8> {
    let base64: String = PUBLIC_KEY
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    STANDARD.decode(base64).expect("a PEM")
}
