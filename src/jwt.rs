//! JSON web tokens: HS256 with a shared secret, RS256 with an RSA key, and nothing else (RFC 7515, 7518, 7519).
//!
//! Must not know: what a token is for, who presents it, what time it is: callers bring the time.

mod provider;
#[cfg(test)]
mod tests;

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
use ring::signature::RsaKeyPair;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How far the clocks of two machines may be apart.
const SKEW_SECONDS_MAX: f64 = 60.0;

/// A secret that both sides know: signs and verifies with HS256.
pub struct SharedKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// The private half of an RSA key: signs with RS256.
pub struct RsaKey {
    encoding: EncodingKey,
}

/// Why a token is not accepted. No text repeats any part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No three parts, or none that hold what they should.
    #[error("this is no token")]
    Malformed,
    /// Another algorithm than HS256, or an extension marked as critical.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// Somebody else signed it, or it was changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// It has no `exp`.
    #[error("the token has no end: exp is missing")]
    Endless,
    /// Its `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// Its `nbf` is to come.
    #[error("the token is not valid yet")]
    Early,
    /// It names an audience (`aud`), and that is not us: nobody here has a name.
    #[error("the token is meant for somebody else: it has an audience")]
    Audience,
    /// A claim the caller needs is missing, or is of another type.
    #[error("the token lacks a claim, or has one of another type")]
    Claims,
}

/// Why a key signs nothing. No text repeats any part of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no PEM (`-----BEGIN PRIVATE KEY-----`), or holds another kind of key.
    #[error("it is no RSA private key in PEM")]
    NotRsa,
    /// An RSA key that is damaged, or shorter than 2,048 bits.
    #[error("the RSA key cannot be used: {0}")]
    Unfit(String),
}

/// Claims that no signature could be made for.
#[derive(Debug, thiserror::Error)]
#[error("the token cannot be signed")]
pub struct NotSigned(#[from] jsonwebtoken::errors::Error);

// === impl SharedKey ===

impl SharedKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        provider::install();
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
        }
    }

    /// A token of these claims; to be accepted it needs an `exp`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When the claims cannot be written as JSON.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, NotSigned> {
        let header = Header::new(Algorithm::HS256);
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }

    /// The claims of a token that was signed with this key and is valid at `now_ms` (since the Unix epoch), give or
    /// take a minute. `exp` is demanded, `nbf` honoured where present.
    ///
    /// # Errors
    /// [`Refusal`] says what is wrong with it.
    pub fn verify<T: DeserializeOwned>(&self, token: &str, now_ms: i64) -> Result<T, Refusal> {
        let TokenData { header, claims } =
            jsonwebtoken::decode::<Value>(token, &self.decoding, &signature_only())
                .map_err(|error| refusal(error.kind()))?;
        if header.crit.is_some() {
            // RFC 7515 4.1.11: who does not understand an extension must not accept the token.
            return Err(Refusal::Algorithm);
        }
        check_times(&claims, now_ms)?;
        serde_json::from_value(claims).map_err(|_| Refusal::Claims)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey").finish_non_exhaustive()
    }
}

// === impl RsaKey ===

impl RsaKey {
    /// A private key in PEM, PKCS#8 or PKCS#1.
    ///
    /// # Errors
    /// When it can never sign.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        provider::install();
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| KeyError::NotRsa)?;
        RsaKeyPair::from_der(encoding.as_bytes())
            .map_err(|rejected| KeyError::Unfit(rejected.to_string()))?;
        Ok(Self { encoding })
    }

    /// A token of these claims whose header names the key it was signed with (`kid`).
    ///
    /// # Errors
    /// When the claims cannot be written as JSON.
    pub fn sign(&self, key_id: &str, claims: &impl Serialize) -> Result<String, NotSigned> {
        let header = Header {
            kid: Some(key_id.to_owned()),
            ..Header::new(Algorithm::RS256)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaKey").finish_non_exhaustive()
    }
}

/// Times are checked here, not by the library: it asks the machine's clock, and it cannot read a number where
/// serde_json keeps numbers as text (`arbitrary_precision`), so that every `exp` would count as missing.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation
}

fn check_times(claims: &Value, now_ms: i64) -> Result<(), Refusal> {
    // Milliseconds of this century are exact in a double.
    #[expect(clippy::cast_precision_loss, reason = "exact up to the year 287,396")]
    let now_seconds = now_ms as f64 / 1000.0;
    let exp = seconds(claims, "exp")?.ok_or(Refusal::Endless)?;
    if now_seconds >= exp + SKEW_SECONDS_MAX {
        return Err(Refusal::Expired);
    }
    match seconds(claims, "nbf")? {
        Some(nbf) if nbf > now_seconds + SKEW_SECONDS_MAX => Err(Refusal::Early),
        _ => Ok(()),
    }
}

/// A `NumericDate` (RFC 7519 2): seconds, perhaps with a fraction.
fn seconds(claims: &Value, name: &str) -> Result<Option<f64>, Refusal> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
        _ => Err(Refusal::Claims),
    }
}

fn refusal(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidSignature => Refusal::Signature,
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::UnsupportedAlgorithm => Refusal::Algorithm,
        _ => Refusal::Malformed,
    }
}
