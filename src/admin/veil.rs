//! What those are shown of secrets who need no token to ask: on loopback without `admin.token`, any account of the
//! machine. Leads are theirs to see, as the README says; tokens and secrets, which open other doors, are not.
//!
//! Must not know: collections and their schemas. A document may have fields that this program knows nothing of, so a
//! field's name decides.

use serde_json::Value;

use crate::platforms::body::{Part, parts};

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

/// How often JSON may be text within JSON, or within a field of a form, and is still looked into. What is deeper is
/// masked as a whole.
const DEPTH_MAX: usize = 4;

/// A document's line, its secrets masked.
pub(super) fn line(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(mut document) => {
            veil(&mut document, DEPTH_MAX);
            Value::to_string(&document)
        }
        // In pairs: what is not understood is not shown.
        Err(_) => MASK.to_owned(),
    }
}

/// A webhook as the console tells it. Query and body stay as they came where they hold no secret.
pub(super) fn webhook(mut webhook: Value) -> Value {
    let text = |name: &str| webhook[name].as_str();
    let query = text("query").and_then(form);
    let body = text("body").and_then(|it| body(text("content_type"), it));
    for (name, veiled) in [("query", query), ("body", body)] {
        if let Some(veiled) = veiled {
            webhook[name] = Value::from(veiled);
        }
    }
    webhook
}

/// A body with its secrets masked; `None` where it has none. Read as the adapters' bodies are (R4), so that nothing is
/// a secret there and a text without meaning here.
fn body(content_type: Option<&str>, text: &str) -> Option<String> {
    let text = text.trim_start_matches('\u{FEFF}').trim();
    match text.bytes().next()? {
        b'{' | b'[' | b'"' => {
            let mut json = read(text).or_else(|| read(text.trim_end_matches('=')));
            match &mut json {
                Some(json) => veil(json, DEPTH_MAX).then(|| json.to_string()),
                None => mask_of(text),
            }
        }
        b'<' => mask_of(text),
        _ => match parts(content_type, text) {
            Some((parts, is_whole)) => multipart(parts, is_whole),
            None => form(text),
        },
    }
}

/// What is not understood is not shown where it may hold a secret, if only under a name whose letters are escaped.
fn mask_of(text: &str) -> Option<String> {
    (is_secret(text) || text.contains("\\u")).then(|| MASK.to_owned())
}

/// A form with its secrets masked; `None` where it has none.
fn form(text: &str) -> Option<String> {
    let mut fields: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect();
    let has_secret = fields
        .iter_mut()
        .fold(false, |found, (name, value)| field(name, value) | found);
    has_secret.then(|| {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish()
    })
}

/// The parts of a multipart body, told as a body of their own where there is a secret among them, or something that
/// could not be read after them.
fn multipart(mut parts: Vec<Part>, is_whole: bool) -> Option<String> {
    let has_secret = parts.iter_mut().fold(false, |found, part| {
        field(&mut part.name, &mut part.text) | found
    });
    if is_whole && !has_secret {
        return None;
    }
    let shown = parts.iter().map(|part| {
        let file = part.file_name.as_ref();
        let file = file.map_or_else(String::new, |name| format!("; filename={name:?}"));
        format!(
            "--{MASK}\r\nContent-Disposition: form-data; name={:?}{file}\r\n\r\n{}\r\n",
            part.name, part.text
        )
    });
    Some(shown.chain([format!("--{MASK}--\r\n")]).collect())
}

/// Masks a field of a form if it is a secret, or what is secret of it if it is JSON; says whether there was any. A name
/// may be JSON as well: so relays send it that take it for a form.
fn field(name: &mut String, value: &mut String) -> bool {
    if name.starts_with(['{', '[']) {
        let veiled = body(None, name);
        let has_secret = veiled.is_some();
        if let Some(veiled) = veiled {
            *name = veiled;
            *value = MASK.to_owned();
        }
        return has_secret;
    }
    if is_secret(name) {
        *value = MASK.to_owned();
        return true;
    }
    veil_text(value, DEPTH_MAX)
}

/// Masks what stands under the name of a secret; says whether there was any.
fn veil(value: &mut Value, depth: usize) -> bool {
    match value {
        Value::Array(list) => list
            .iter_mut()
            .fold(false, |found, item| veil(item, depth) | found),
        Value::Object(object) => object.iter_mut().fold(false, |found, (name, value)| {
            let found_here = if is_secret(name) {
                hide(value)
            } else {
                veil(value, depth)
            };
            found | found_here
        }),
        Value::String(text) => veil_text(text, depth),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Masks the secrets of a text that is JSON, in `depth` layers.
fn veil_text(text: &mut String, depth: usize) -> bool {
    if !text.trim_start().starts_with(['{', '[', '"']) {
        return false;
    }
    let Some(mut json) = read(text) else {
        return false;
    };
    if depth == 0 {
        *text = MASK.to_owned();
        return true;
    }
    let has_secret = veil(&mut json, depth - 1);
    if has_secret {
        *text = json.to_string();
    }
    has_secret
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
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

    fn shown(content_type: &str, body: &str) -> String {
        let told = json!({ "query": "", "content_type": content_type, "body": body });
        webhook(told)["body"].as_str().expect("a text").to_owned()
    }

    const FORM: &str = "application/x-www-form-urlencoded";

    #[test]
    fn json_that_is_text_in_a_field_is_looked_into() {
        let table = [
            (
                r#"data={"apiKey":"k","a":1}&b=2"#,
                r#"data={"apiKey":"***","a":1}&b=2"#,
            ),
            (
                r#"{"apiKey":"k","name":"Ada"}="#,
                r#"{"apiKey":"***","name":"Ada"}"#,
            ),
            (r#"%7B"token":"k"%7D="#, r#"{"token":"***"}=***"#),
            (
                r#"{"data":"{\"token\":\"k\"}"}"#,
                r#"{"data":"{\"token\":\"***\"}"}"#,
            ),
            (r#"data={"\u0074oken":"k"}"#, r#"data={"token":"***"}"#),
            (r#""{\"token\":\"k\"}""#, r#""{\"token\":\"***\"}""#),
        ];
        for (body, expected) in table {
            let shown = shown(FORM, body);
            let plain = form_urlencoded::parse(shown.as_bytes())
                .map(|(name, value)| match value.is_empty() {
                    true => name.into_owned(),
                    false => format!("{name}={value}"),
                })
                .collect::<Vec<_>>();
            assert_eq!(plain.join("&"), expected);
        }
        for innocent in [
            r#"data={"a":"b"}"#,
            "note=[token] is a word",
            r#"{"note":"[token] is a word"}"#,
        ] {
            assert_eq!(shown(FORM, innocent), innocent);
        }
    }

    #[test]
    fn no_secret_is_too_deep_to_be_masked() {
        let mut body = json!({ "token": "s3cret" }).to_string();
        for _ in 0..DEPTH_MAX + 3 {
            body = json!({ "a": body }).to_string();
            assert!(
                !shown("application/json", &body).contains("s3cret"),
                "{body}"
            );
            assert!(!line(&body).contains("s3cret"), "{body}");
        }
    }

    #[test]
    fn secrets_in_parts_of_a_multipart_body_are_masked() {
        let part = |name: &str, value: &str| {
            format!("--x1\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let multipart = "multipart/form-data; boundary=x1";
        let plain = part("name", "Ada") + "--x1--\r\n";
        assert_eq!(shown(multipart, &plain), plain);
        let telling = part("name", "Ada")
            + &part("api_key", "s3cret")
            + &part("json", r#"{"token":"s3cret"}"#);
        for content_type in [multipart, FORM, "multipart/form-data; boundary=other"] {
            for end in [
                "--x1--\r\n",
                "--x1\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\ns3cret",
            ] {
                let shown = shown(content_type, &(telling.clone() + end));
                assert!(!shown.contains("s3cret"), "{shown}");
                assert!(
                    shown.contains("Ada") && shown.contains("\"api_key\""),
                    "{shown}"
                );
            }
        }
        let file = "--x1\r\nContent-Disposition: form-data; name=\"f\"; filename=\"key.json\"\r\n\r\n\
            {\"private_key\":\"s3cret\"}\r\n--x1--\r\n";
        let shown = shown(multipart, file);
        assert!(
            shown.contains("key.json") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_hidden_where_it_names_a_secret() {
        for body in [
            "<lead><apiKey>k</apiKey></lead>",
            r#"{"apiKey":"k""#,
            r#"{"\u0061piKey":"k""#,
        ] {
            assert_eq!(shown("text/xml", body), MASK);
        }
        let innocent = "<lead><name>Ada</name></lead>";
        assert_eq!(shown("text/xml", innocent), innocent);
    }
}
