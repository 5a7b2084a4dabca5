//! Tokens for listeners, signed here with nothing of the product: what it verifies, somebody else has signed.
//!
//! Must not know: who accepts them.

use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::clock;

/// A token (HS256) for this owner that is good for `seconds` from now; negative: it has expired.
pub(crate) fn of(owner: &str, seconds: i64, secret: &str) -> String {
    let exp = clock::now_ms() / 1_000 + seconds;
    signed(&json!({ "sub": owner, "exp": exp }), secret)
}

/// A token (HS256) of any claims.
pub(crate) fn signed(claims: &Value, secret: &str) -> String {
    let unsigned = unsigned(&json!({ "alg": "HS256", "typ": "JWT" }), claims);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(unsigned.as_bytes());
    format!("{unsigned}.{}", base64url(&mac.finalize().into_bytes()))
}

/// A token that claims to need no signature.
pub(crate) fn of_none(claims: &Value) -> String {
    format!("{}.", unsigned(&json!({ "alg": "none" }), claims))
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}
