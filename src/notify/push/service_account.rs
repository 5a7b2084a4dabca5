//! A service account's key file, as the Google Cloud console hands it out.
//!
//! Must not know: HTTP, FCM. What it says of a file never repeats what is in it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use reqwest::Url;
use serde::Serialize;
use serde_json::Value;

use crate::jwt::{KeyError, NotSigned, RsaKey};
use crate::notify::http;

/// Real files have some 2,400 bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What an access token is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// The longest life Google allows an assertion.
const ASSERTION_SECONDS: i64 = 60 * 60;

/// A service account that may send push messages.
#[derive(Debug)]
pub struct ServiceAccount {
    project_id: String,
    client_email: String,
    key_id: String,
    key: RsaKey,
    token_uri: Url,
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("the key file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Longer than any key file.
    #[error("the key file is longer than 64 KiB")]
    TooLong,
    /// Not what the console hands out.
    #[error("the key file is no JSON object")]
    NotJson,
    /// A key file, but of something else, such as a user's.
    #[error("the key file's `type` is not \"service_account\"")]
    OtherType,
    /// A field is absent, empty or no text.
    #[error("the key file has no `{0}`")]
    Missing(&'static str),
    /// The address access tokens come from is none.
    #[error("the key file's `token_uri` is no http or https address")]
    TokenUri,
    /// The private key signs nothing.
    #[error("the key file's `private_key` is of no use: {0}")]
    Key(#[from] KeyError),
}

/// Claims of an assertion (platforms.md 11).
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl ServiceAccount {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFileError`] says what is wrong with it, and what is missing.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let mut text = Vec::new();
        File::open(path)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(KeyFileError::TooLong);
        }
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<Self, KeyFileError> {
        let file: Value = serde_json::from_slice(text).map_err(|_| KeyFileError::NotJson)?;
        if !file.is_object() {
            return Err(KeyFileError::NotJson);
        }
        let field = |name: &'static str| {
            let text = file.get(name).and_then(Value::as_str).map(str::trim);
            text.filter(|text| !text.is_empty())
                .ok_or(KeyFileError::Missing(name))
        };
        if field("type")? != "service_account" {
            return Err(KeyFileError::OtherType);
        }
        Ok(Self {
            project_id: field("project_id")?.to_owned(),
            client_email: field("client_email")?.to_owned(),
            key_id: field("private_key_id")?.to_owned(),
            key: RsaKey::from_pem(field("private_key")?)?,
            token_uri: http::base_url(field("token_uri")?).ok_or(KeyFileError::TokenUri)?,
        })
    }

    /// The Firebase project it belongs to.
    #[must_use]
    pub fn project_id(&self) -> &str {
        &self.project_id
    }

    /// Where access tokens come from.
    pub(super) fn token_uri(&self) -> &Url {
        &self.token_uri
    }

    /// A signed statement, good for an hour from `now_ms` on, to be exchanged for an access token.
    pub(super) fn assertion(&self, now_ms: i64) -> Result<String, NotSigned> {
        let iat = now_ms.div_euclid(1000);
        let claims = Claims {
            iss: &self.client_email,
            scope: SCOPE,
            aud: self.token_uri.as_str(),
            iat,
            exp: iat + ASSERTION_SECONDS,
        };
        self.key.sign(&self.key_id, &claims)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "key-1",
            "private_key": include_str!("../../../tests/keys/rsa.pem"),
            "client_email": "inlet@acme.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        })
    }

    fn error(file: &Value) -> String {
        let error = ServiceAccount::parse(file.to_string().as_bytes()).unwrap_err();
        format!("{error} {error:?}")
    }

    #[test]
    fn a_key_file_of_the_console_is_read() {
        let account = ServiceAccount::parse(good().to_string().as_bytes()).unwrap();
        assert_eq!(account.project_id(), "acme");
        assert_eq!(
            account.token_uri().as_str(),
            "https://oauth2.googleapis.com/token"
        );
        assert!(!format!("{account:?}").contains("PRIVATE"));
    }

    #[test]
    fn whatever_is_missing_is_named() {
        for name in good().as_object().unwrap().keys() {
            for nothing in [json!(null), json!(""), json!("  "), json!(7)] {
                let mut file = good();
                file[name] = nothing;
                assert!(error(&file).contains(&format!("no `{name}`")), "{name}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_the_key_is_not() {
        let table = [
            ("type", json!("authorized_user"), "`type` is not"),
            ("token_uri", json!("not an address"), "`token_uri`"),
            ("private_key", json!("hush-hush"), "no RSA private key"),
            (
                "private_key",
                json!(include_str!("../../../tests/keys/ec.pem")),
                "no RSA private key",
            ),
            (
                "private_key",
                json!(include_str!("../../../tests/keys/rsa_1024.pem")),
                "cannot be used",
            ),
        ];
        for (name, value, expected) in table {
            let mut file = good();
            file[name] = value;
            let error = error(&file);
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hush") && !error.contains("MII"), "{error}");
        }
        for text in ["", "[]", "hush-hush", "{\"type\": hush}"] {
            let error = ServiceAccount::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, KeyFileError::NotJson), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_or_has_no_end_is_refused() {
        let none = ServiceAccount::load(Path::new("/nowhere/at-all.json")).unwrap_err();
        assert!(matches!(none, KeyFileError::Unreadable(_)), "{none}");
        let endless = ServiceAccount::load(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(endless, KeyFileError::TooLong), "{endless}");
    }
}
