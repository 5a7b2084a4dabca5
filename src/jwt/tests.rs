//! Tokens that others made, tokens that nobody should accept, and keys that are none.

#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::Deserialize;
use serde_json::json;

use super::*;

const NOW_MS: i64 = 1_767_950_000_000;
const NOW: i64 = NOW_MS / 1000;

const RSA: &str = include_str!("../../tests/keys/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../tests/keys/rsa.pub.pem");
const RSA_OTHER: &str = include_str!("../../tests/keys/rsa_other.pem");
const RSA_1024: &str = include_str!("../../tests/keys/rsa_1024.pem");
const EC: &str = include_str!("../../tests/keys/ec.pem");

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Owner {
    sub: String,
}

fn shared() -> SharedKey {
    SharedKey::new(b"a secret of at least thirty-two bytes")
}

fn verified(claims: &Value) -> Result<Owner, Refusal> {
    let key = shared();
    key.verify(&key.sign(claims).unwrap(), NOW_MS)
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with any header, signed with `secret` by HS256 whatever the header says.
fn token(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[test]
fn what_was_signed_is_accepted() {
    let owner = verified(&json!({"sub": "owner-1", "exp": NOW + 60})).unwrap();
    assert_eq!(owner.sub, "owner-1");
}

/// RFC 7515, appendix A.1.
#[test]
fn the_example_of_the_rfc_is_accepted_in_its_time() {
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let key = SharedKey::new(&secret);
    let claims: Value = key.verify(token, 1_300_819_379_000).unwrap();
    assert_eq!(claims["iss"], "joe");
    assert_eq!(key.verify::<Value>(token, NOW_MS), Err(Refusal::Expired));
}

#[test]
fn a_token_counts_from_nbf_to_exp_give_or_take_a_minute() {
    let table = [
        (json!({"sub": "o", "exp": NOW - 59}), Ok(())),
        (json!({"sub": "o", "exp": NOW - 60}), Err(Refusal::Expired)),
        (json!({"sub": "o", "exp": -1}), Err(Refusal::Expired)),
        (json!({"sub": "o", "exp": 1_767_950_000.5}), Ok(())),
        (json!({"sub": "o", "exp": NOW + 9, "nbf": NOW + 60}), Ok(())),
        (
            json!({"sub": "o", "exp": NOW + 99, "nbf": NOW + 61}),
            Err(Refusal::Early),
        ),
        (json!({"sub": "o"}), Err(Refusal::Endless)),
        (json!({"sub": "o", "exp": "never"}), Err(Refusal::Claims)),
        (json!({"sub": "o", "exp": null}), Err(Refusal::Claims)),
        (
            json!({"sub": "o", "exp": NOW + 9, "nbf": "now"}),
            Err(Refusal::Claims),
        ),
        (json!({"sub": 7, "exp": NOW + 9}), Err(Refusal::Claims)),
        (json!({"exp": NOW + 9}), Err(Refusal::Claims)),
        (
            json!({"sub": "o", "exp": NOW + 9, "aud": "else"}),
            Err(Refusal::Audience),
        ),
    ];
    for (claims, expected) in table {
        assert_eq!(verified(&claims).map(|_| ()), expected, "{claims}");
    }
}

#[test]
fn a_token_that_somebody_else_signed_or_changed_is_refused() {
    let key = shared();
    let good = key
        .sign(&json!({"sub": "owner-1", "exp": NOW + 60}))
        .unwrap();
    let other = SharedKey::new(b"another secret of more than thirty-two bytes");
    assert_eq!(
        other.verify::<Owner>(&good, NOW_MS),
        Err(Refusal::Signature)
    );
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let claims = part(&json!({"sub": "owner-2", "exp": NOW + 60}));
    let changed = format!("{header}.{claims}.{signature}");
    assert_eq!(
        key.verify::<Owner>(&changed, NOW_MS),
        Err(Refusal::Signature)
    );
    let unsigned = format!("{head}.");
    assert_eq!(
        key.verify::<Owner>(&unsigned, NOW_MS),
        Err(Refusal::Signature)
    );
}

#[test]
fn no_header_talks_us_into_another_algorithm() {
    let secret = b"a secret of at least thirty-two bytes";
    let claims = json!({"sub": "owner-1", "exp": NOW + 60});
    let good = token(&json!({"alg": "HS256"}), &claims, secret);
    assert!(
        shared().verify::<Owner>(&good, NOW_MS).is_ok(),
        "the test signs as it should"
    );
    let table = [
        (json!({"alg": "none"}), Refusal::Malformed),
        (json!({"alg": "None"}), Refusal::Malformed),
        (json!({"alg": "hs256"}), Refusal::Malformed),
        (json!({}), Refusal::Malformed),
        (json!({"alg": "HS384"}), Refusal::Algorithm),
        (json!({"alg": "HS512"}), Refusal::Algorithm),
        (json!({"alg": "RS256"}), Refusal::Algorithm),
        (json!({"alg": "ES256"}), Refusal::Algorithm),
        (json!({"alg": "EdDSA"}), Refusal::Algorithm),
        (
            json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
            Refusal::Algorithm,
        ),
    ];
    for (header, expected) in table {
        let refused = shared().verify::<Owner>(&token(&header, &claims, secret), NOW_MS);
        assert_eq!(refused, Err(expected), "{header}");
    }
    let bare = format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims));
    assert_eq!(
        shared().verify::<Owner>(&bare, NOW_MS),
        Err(Refusal::Malformed)
    );
}

/// The classic confusion: a verifier that holds a public key, and a token "signed" with that key's text by HMAC.
#[test]
fn a_public_key_never_serves_as_a_secret() {
    provider::install();
    let claims = json!({"sub": "owner-1", "exp": NOW + 60});
    let forged = token(&json!({"alg": "HS256"}), &claims, RSA_PUBLIC.as_bytes());
    let key = DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).unwrap();
    for algorithm in [Algorithm::HS256, Algorithm::RS256] {
        let mut validation = signature_only();
        validation.algorithms = vec![algorithm];
        assert!(jsonwebtoken::decode::<Value>(&forged, &key, &validation).is_err());
    }
}

#[test]
fn what_is_no_token_is_refused_without_a_panic() {
    let long = "a".repeat(100_000);
    for text in ["", ".", "..", "...", "a.b.c", "é.é.é", "eyJ9.e30.", &long] {
        assert_eq!(
            shared().verify::<Owner>(text, NOW_MS),
            Err(Refusal::Malformed)
        );
    }
}

#[test]
fn an_rsa_token_is_verified_by_its_public_half_alone() {
    let claims = json!({"iss": "me", "exp": NOW + 60});
    let token = RsaKey::from_pem(RSA)
        .unwrap()
        .sign("key-1", &claims)
        .unwrap();
    let public = DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).unwrap();
    let mut validation = signature_only();
    validation.algorithms = vec![Algorithm::RS256];
    let read = jsonwebtoken::decode::<Value>(&token, &public, &validation).unwrap();
    assert_eq!(read.claims, claims);
    assert_eq!(read.header.kid.as_deref(), Some("key-1"));
    let forged = RsaKey::from_pem(RSA_OTHER)
        .unwrap()
        .sign("key-1", &claims)
        .unwrap();
    assert!(jsonwebtoken::decode::<Value>(&forged, &public, &validation).is_err());
}

/// PKCS#1 v1.5 signatures are deterministic. The expected one is what
/// `openssl dgst -sha256 -sign tests/keys/rsa.pem` makes of the token's first two parts.
#[test]
fn an_rsa_token_carries_the_signature_that_openssl_makes() {
    let claims = json!({"iss": "me"});
    let token = RsaKey::from_pem(RSA)
        .unwrap()
        .sign("key-1", &claims)
        .unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    assert_eq!(
        message,
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsImtpZCI6ImtleS0xIn0.eyJpc3MiOiJtZSJ9"
    );
    assert_eq!(
        signature,
        "LaQtdW4PUaGhg6RacI6o5l2YksE_z6a5wCNnRSCuBauFYQBAzQWlAZhfv3jzRjflSZf3XxkjaSoNXK9iKwJY7OdjycgLj6Zt9KUPasyntoIjxEeknMce7B27P3DKFhhfRwlm16EIaCNsBTO89wkVvP0ZKarpocLrv1uvQM-LkOv4b_rOOwP8nHYYSnXQ0HOO9kO0JVinC0NuNBcOT7yYDP5aXx8Eiiav1F-6mlqgNMLWVo2jkjFDfSKBgaSzZOMvpgRncWikX2puucYU-0PedJbNY9hQLF_F2z0PSDdC2n4bSw2V9-n3EPygeb8z0vB0QoF3oetLoKo_-2-VA_NTEA"
    );
}

#[test]
fn a_key_that_cannot_sign_says_why_and_not_what_it_is() {
    let not_rsa = ["", "secret", RSA_PUBLIC.trim_end_matches("-----\n"), EC];
    for pem in not_rsa {
        assert_eq!(RsaKey::from_pem(pem).unwrap_err(), KeyError::NotRsa);
    }
    for pem in [RSA_1024, RSA_PUBLIC] {
        let unfit = RsaKey::from_pem(pem).unwrap_err();
        assert!(matches!(unfit, KeyError::Unfit(_)), "{unfit}");
    }
    let shown = format!("{:?} {:?}", RsaKey::from_pem(RSA).unwrap(), shared());
    assert_eq!(shown, "RsaKey { .. } SharedKey { .. }");
}

#[test]
fn claims_that_json_cannot_hold_are_not_signed() {
    let map = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert!(shared().sign(&map).is_err());
}
