//! Request bodies (ruling R4): from content type, query and bytes to one JSON value.
//!
//! The bytes decide, not the content type: platforms and the scripts between us and them label JSON as a form and
//! forms as JSON. Numbers keep their exact text, the last of duplicate keys wins, invalid UTF-8 is replaced.
//!
//! Must not know: any platform, and what the fields mean. Its size is bounded by the intake's body limit, the nesting
//! of JSON by serde_json's recursion limit (128), that of forms by `NESTING_MAX`.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream;
use multer::{Field, Multipart};
use serde_json::{Map, Value};

use crate::model::Webhook;

/// How deep `a[b][c]` may nest in a form; what goes deeper keeps its whole name as a plain key.
const NESTING_MAX: usize = 8;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the webhook carries; `None` where nothing can be read. Not necessarily an object.
///
/// A `+` that was not escaped before a phone number has become a blank, as the form encoding says: it cannot be told
/// from a blank that was typed.
#[must_use]
pub fn decode(webhook: &Webhook) -> Option<Value> {
    let body = webhook.body.as_slice();
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    match text.bytes().next() {
        None => form(&webhook.query),
        // A relay that takes JSON for a form's key puts an equals sign behind it.
        Some(b'{' | b'[' | b'"') => json(text).or_else(|| json(text.trim_end_matches('='))),
        Some(b'<') => None,
        Some(_) => match boundary(webhook.content_type.as_deref(), text) {
            Some(boundary) => multipart(&boundary, body),
            None => form(text),
        },
    }
}

/// JSON text; also JSON inside a JSON string, as tools send it that encode twice.
pub(super) fn json(text: &str) -> Option<Value> {
    match serde_json::from_str(text).ok()? {
        Value::String(inner) => serde_json::from_str(&inner).ok(),
        value => Some(value),
    }
}

fn form(text: &str) -> Option<Value> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        insert(&mut fields, &name, value.into_owned());
    }
    json_as_key(&fields).or_else(|| finish(fields))
}

/// The JSON of a form that has nothing but JSON text as its only key: what PHP's `http_build_query` and curl make of
/// it.
fn json_as_key(fields: &Map<String, Value>) -> Option<Value> {
    let only = fields.keys().next().filter(|_| fields.len() == 1)?;
    only.starts_with(['{', '[']).then(|| json(only)).flatten()
}

fn multipart(boundary: &str, body: &[u8]) -> Option<Value> {
    let mut fields = Map::new();
    for part in read_parts(boundary, body).0 {
        insert(&mut fields, &part.name, part.file_name.unwrap_or(part.text));
    }
    finish(fields)
}

/// A part of a multipart body.
pub(crate) struct Part {
    pub(crate) name: String,
    /// Of a file, which counts by its name.
    pub(crate) file_name: Option<String>,
    pub(crate) text: String,
}

/// The parts of a multipart body, and whether these are all of it; `None` where it is something else.
pub(crate) fn parts(content_type: Option<&str>, text: &str) -> Option<(Vec<Part>, bool)> {
    let boundary = boundary(content_type, text)?;
    Some(read_parts(&boundary, text.as_bytes()))
}

/// A body that breaks off keeps the parts before.
fn read_parts(boundary: &str, body: &[u8]) -> (Vec<Part>, bool) {
    let whole = Ok::<_, Infallible>(Bytes::copy_from_slice(body));
    let mut multipart = Multipart::new(stream::once(ready(whole)), boundary);
    let mut parts = Vec::new();
    // Everything is there already, so nothing is ever pending.
    loop {
        match multipart.next_field().now_or_never() {
            Some(Ok(Some(field))) => match read_part(field) {
                Some(part) => parts.push(part),
                None => return (parts, false),
            },
            Some(Ok(None)) => return (parts, true),
            Some(Err(_)) | None => return (parts, false),
        }
    }
}

fn read_part(field: Field<'_>) -> Option<Part> {
    Some(Part {
        name: field.name().unwrap_or_default().to_owned(),
        file_name: field.file_name().map(str::to_owned),
        text: field.text().now_or_never()?.ok()?,
    })
}

/// The boundary that separates the parts, as declared or else as the first line shows it.
fn boundary(content_type: Option<&str>, text: &str) -> Option<String> {
    let declared = content_type.and_then(|it| multer::parse_boundary(it).ok());
    let used = declared.filter(|boundary| text.contains(&format!("--{boundary}")));
    used.or_else(|| {
        let (first, rest) = text.strip_prefix("--")?.split_once('\n')?;
        let header = rest.get(.."content-".len())?;
        let is_part = header.eq_ignore_ascii_case("content-");
        is_part.then(|| first.trim_end().to_owned())
    })
}

fn finish(fields: Map<String, Value>) -> Option<Value> {
    let listed = |(name, value)| (name, lists(value));
    (!fields.is_empty()).then(|| Value::Object(fields.into_iter().map(listed).collect()))
}

/// Puts a field where its name says: `a[b]=c` into the object `a`, `a[]=c` and repeated names into a list.
fn insert(fields: &mut Map<String, Value>, name: &str, value: String) {
    let (name, path) = brackets(name).unwrap_or((name, Vec::new()));
    let slot = fields.entry(name).or_insert(Value::Null);
    put(slot, &path, Value::String(value));
}

fn brackets(name: &str) -> Option<(&str, Vec<&str>)> {
    let (head, rest) = name.strip_suffix(']')?.split_once('[')?;
    let path: Vec<&str> = rest.split("][").collect();
    let is_plain = path.iter().all(|segment| !segment.contains(['[', ']']));
    (!head.is_empty() && path.len() <= NESTING_MAX && is_plain).then_some((head, path))
}

/// A `Null` slot is one that was not met before: forms have no nulls. What clashes becomes a list; nothing is lost.
fn put(slot: &mut Value, path: &[&str], value: Value) {
    if let (Value::Object(object), [key, rest @ ..]) = (&mut *slot, path)
        && !key.is_empty()
    {
        return put(object.entry(*key).or_insert(Value::Null), rest, value);
    }
    let in_list = path.strip_prefix(&[""]).unwrap_or(path);
    match slot {
        Value::Null => *slot = nested(path, value),
        Value::Array(list) => list.push(nested(in_list, value)),
        before => *before = Value::Array(vec![before.take(), nested(in_list, value)]),
    }
}

fn nested(path: &[&str], value: Value) -> Value {
    path.iter().rfold(value, |value, key| match *key {
        "" => Value::Array(vec![value]),
        key => Value::Object(Map::from_iter([(key.to_owned(), value)])),
    })
}

/// Objects whose keys are 0, 1, 2... in order are the lists they were before PHP wrote them as a form.
fn lists(value: Value) -> Value {
    match value {
        Value::Object(object) if is_list(&object) => {
            object.into_iter().map(|(_, value)| lists(value)).collect()
        }
        Value::Object(object) => {
            let listed = |(name, value)| (name, lists(value));
            Value::Object(object.into_iter().map(listed).collect())
        }
        Value::Array(list) => list.into_iter().map(lists).collect(),
        value => value,
    }
}

fn is_list(object: &Map<String, Value>) -> bool {
    let mut keys = object.keys().enumerate();
    !object.is_empty() && keys.all(|(index, key)| *key == index.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{IpAddr, Ipv4Addr};

    use serde_json::json;

    use super::*;
    use crate::model::Method;

    fn decoded(content_type: &str, query: &str, body: impl AsRef<[u8]>) -> Option<Value> {
        decode(&Webhook {
            platform: "generic".to_owned(),
            account: None,
            campaign: None,
            method: Method::Post,
            query: query.to_owned(),
            content_type: Some(content_type.to_owned()),
            headers: Vec::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            arrived_at_ms: 0,
            body: body.as_ref().to_owned(),
        })
    }

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";

    #[test]
    fn the_bytes_decide_where_the_content_type_lies() {
        let ada = json!({"name": "Ada"});
        assert_eq!(decoded(FORM, "", r#"{"name":"Ada"}"#).unwrap(), ada);
        assert_eq!(decoded(JSON, "", "name=Ada").unwrap(), ada);
        assert_eq!(decoded(FORM, "", r#" {"name":"Ada"}="#).unwrap(), ada);
        assert_eq!(
            decoded(FORM, "", "%7B%22name%22%3A%22Ada%22%7D=").unwrap(),
            ada
        );
        assert_eq!(decoded(JSON, "", r#""{\"name\":\"Ada\"}""#).unwrap(), ada);
        assert_eq!(
            decoded(JSON, "", "\u{FEFF}{\"name\":\"Ada\"}").unwrap(),
            ada
        );
    }

    #[test]
    fn a_query_counts_only_where_the_body_is_empty() {
        assert_eq!(
            decoded(FORM, "a=1&b=x%20y", "").unwrap(),
            json!({"a": "1", "b": "x y"})
        );
        assert_eq!(decoded(FORM, "a=1", "b=2").unwrap(), json!({"b": "2"}));
        assert_eq!(decoded(FORM, "", " \r\n"), None);
    }

    #[test]
    fn numbers_keep_their_exact_text_and_the_last_duplicate_wins() {
        let text = r#"{"a":1,"id":9007199254740993,"big":12345678901234567890,"pi":3.10,"a":2}"#;
        let value = decoded(JSON, "", text).unwrap();
        let expected = r#"{"a":2,"id":9007199254740993,"big":12345678901234567890,"pi":3.10}"#;
        assert_eq!(value.to_string(), expected);
    }

    #[test]
    fn invalid_utf8_is_replaced_and_not_refused() {
        assert_eq!(
            decoded(JSON, "", b"{\"a\":\"\xFF\"}").unwrap(),
            json!({"a": "\u{FFFD}"})
        );
        assert_eq!(
            decoded(FORM, "", "a=%FF&b=%E9t").unwrap(),
            json!({"a": "\u{FFFD}", "b": "\u{FFFD}t"})
        );
    }

    #[test]
    fn json_deeper_than_the_limit_is_unreadable_and_no_crash() {
        assert_eq!(decoded(JSON, "", "[".repeat(100_000)), None);
        assert_eq!(decoded(JSON, "", r#"{"a":"#.repeat(500)), None);
    }

    #[test]
    fn brackets_nest_and_repeated_names_make_lists() {
        let form = "a=1&a=2&l[]=x&lead[name]=Ada&lead[tags][]=p&lead[tags][]=q&f[0][n]=k&f[1][n]=m";
        let expected = json!({
            "a": ["1", "2"], "l": ["x"], "lead": {"name": "Ada", "tags": ["p", "q"]},
            "f": [{"n": "k"}, {"n": "m"}],
        });
        assert_eq!(decoded(FORM, "", form).unwrap(), expected);
    }

    #[test]
    fn names_that_clash_or_nest_too_deep_lose_nothing() {
        let clash = decoded(FORM, "", "a=1&a[b]=2&c[d]=3&c=4&[x]=5&y]=6").unwrap();
        assert_eq!(
            clash,
            json!({"a": ["1", {"b": "2"}], "c": [{"d": "3"}, "4"], "[x]": "5", "y]": "6"})
        );
        let deep = format!("a{}=1", "[b]".repeat(NESTING_MAX + 1));
        assert_eq!(
            decoded(FORM, "", &deep).unwrap().as_object().unwrap().len(),
            1
        );
    }

    #[test]
    fn multipart_text_is_read_with_or_without_its_content_type() {
        let body = "--x1\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nÉlodie\r\n\
            --x1\r\nContent-Disposition: form-data; name=\"cv\"; filename=\"cv.pdf\"\r\n\
            Content-Type: application/pdf\r\n\r\n%PDF\r\n--x1--\r\n";
        let expected = json!({"name": "Élodie", "cv": "cv.pdf"});
        assert_eq!(
            decoded("multipart/form-data; boundary=x1", "", body).unwrap(),
            expected
        );
        assert_eq!(decoded(FORM, "", body).unwrap(), expected);
        assert_eq!(
            decoded("multipart/form-data; boundary=other", "", body).unwrap(),
            expected
        );
    }

    #[test]
    fn multipart_that_breaks_off_keeps_its_whole_parts() {
        let body = "--x1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
            --x1\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n2";
        let value = decoded("multipart/form-data; boundary=x1", "", body).unwrap();
        assert_eq!(value["a"], "1");
    }

    #[test]
    fn xml_is_unreadable() {
        assert_eq!(
            decoded("application/xml", "", "<lead><name>Ada</name></lead>"),
            None
        );
    }
}
