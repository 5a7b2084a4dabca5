//! What those are shown of secrets who need no token to ask: on loopback without `admin.token`, any account of the
//! machine. Leads are theirs to see, as the README says; tokens and secrets, which open other doors, are not.
//!
//! Must not know: collections and their schemas. A document may have fields that this program knows nothing of, so a
//! field's name decides.

use serde_json::Value;

/// What takes a secret's place.
const MASK: &str = "***";
/// A name that has one of these in it, in whatever case and punctuation, names a secret: `access_token`, `fcm_tokens`,
/// `signing_secrets`, `url_token`, `apiKey`.
const SECRETS: [&str; 6] = [
    "token",
    "secret",
    "password",
    "apikey",
    "privatekey",
    "credential",
];
/// Times that stand beside a token, and are of use without it.
const HARMLESS: [&str; 2] = ["expires_in", "updated_at"];

/// A document's line, its secrets masked.
pub(super) fn line(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(mut document) => {
            veil(&mut document);
            Value::to_string(&document)
        }
        // In pairs: what is not understood is not shown.
        Err(_) => MASK.to_owned(),
    }
}

/// A webhook as the console tells it. Query and body stay as they came where they hold no secret.
pub(super) fn webhook(mut webhook: Value) -> Value {
    for name in ["query", "body"] {
        let veiled = webhook[name].as_str().and_then(text);
        if let Some(veiled) = veiled {
            webhook[name] = Value::from(veiled);
        }
    }
    webhook
}

/// JSON or a form with its secrets masked; `None` where it has none.
fn text(text: &str) -> Option<String> {
    if let Ok(mut json) = serde_json::from_str::<Value>(text) {
        return veil(&mut json).then(|| json.to_string());
    }
    let mut has_secret = false;
    let pairs = form_urlencoded::parse(text.as_bytes()).map(|(name, value)| {
        let is_secret = is_secret(&name);
        has_secret |= is_secret;
        let value = if is_secret { MASK.into() } else { value };
        (name, value)
    });
    let veiled = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    has_secret.then_some(veiled)
}

/// Masks what stands under the name of a secret; says whether there was any.
fn veil(value: &mut Value) -> bool {
    match value {
        Value::Array(list) => list
            .iter_mut()
            .fold(false, |found, item| veil(item) | found),
        Value::Object(object) => object.iter_mut().fold(false, |found, (name, value)| {
            let found_here = if is_secret(name) {
                hide(value)
            } else {
                veil(value)
            };
            found | found_here
        }),
        _ => false,
    }
}

/// Masks all there is, but for [`HARMLESS`] fields.
fn hide(value: &mut Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Array(list) => list
            .iter_mut()
            .fold(false, |found, item| hide(item) | found),
        Value::Object(object) => object
            .iter_mut()
            .filter(|(name, _)| !HARMLESS.contains(&name.as_str()))
            .fold(false, |found, (_, value)| hide(value) | found),
        Value::String(_) | Value::Number(_) => {
            *value = Value::from(MASK);
            true
        }
    }
}

fn is_secret(name: &str) -> bool {
    let letters = name.chars().filter(|letter| letter.is_alphanumeric());
    let letters: String = letters.flat_map(char::to_lowercase).collect();
    SECRETS.iter().any(|secret| letters.contains(secret))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_called_a_secret_is_masked_and_nothing_else() {
        let document = json!({
            "_id": { "$oid": "65a1" }, "page_id": "1048", "url_token": "u", "signing_secrets": ["a", "b"],
            "token": { "access_token": "EAAG", "expires_in": { "$date": "2026-01-09T09:30:11Z" } },
            "users": [{ "fcm_tokens": ["t"], "Pass-Word": { "hash": "x", "rounds": 7 } }],
        });
        let expected = json!({
            "_id": { "$oid": "65a1" }, "page_id": "1048", "url_token": "***", "signing_secrets": ["***", "***"],
            "token": { "access_token": "***", "expires_in": { "$date": "2026-01-09T09:30:11Z" } },
            "users": [{ "fcm_tokens": ["***"], "Pass-Word": { "hash": "***", "rounds": "***" } }],
        });
        assert_eq!(line(&document.to_string()), expected.to_string());
        assert_eq!(line("{\"token\": \"cut o"), "***");
    }

    #[test]
    fn a_webhook_without_secrets_is_shown_as_it_came() {
        let plain = json!({ "query": "a=1&b=%20", "body": "{ \"email\" : \"ada@example.com\" }" });
        assert_eq!(webhook(plain.clone()), plain);
        let telling =
            json!({ "query": "url_token=s&a=1", "body": r#"{"apiKey":"k","name":"Ada"}"# });
        let expected =
            json!({ "query": "url_token=***&a=1", "body": r#"{"apiKey":"***","name":"Ada"}"# });
        assert_eq!(webhook(telling), expected);
        let form = json!({ "query": "", "body": "name=Ada&api_key=k" });
        assert_eq!(webhook(form)["body"], "name=Ada&api_key=***");
    }
}
