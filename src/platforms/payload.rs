//! What the adapters share: looking into a decoded payload and gathering the submitter's fields.
//!
//! Must not know: any single platform. Field names are compared without case, blanks and punctuation: `apiKey`,
//! `api_key` and `API-Key` are one name.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::body;
use crate::model::{LeadId, Names, Reading, Reason, Submission, Webhook};

/// Never shown and never stored in a document (R19). `url_token` is the campaign's own secret, where it came with
/// the fields of a query (R6).
const SECRETS: &[&str] = &["api_key", "url_token"];

/// What takes a secret's place.
const MASK: &str = "***";

/// The advertiser's own data, which must never pass for the submitter's (R15).
const ADVERTISERS: &[&str] = &[
    "page",
    "page_id",
    "page_name",
    "page_url",
    "page_uuid",
    "page_title",
    "form",
    "form_id",
    "form_name",
    "form_url",
    "campaign",
    "campaign_id",
    "campaign_name",
    "workspace",
    "workspace_id",
    "agent",
    "agent_name",
    "agent_email",
    "user_name",
    "user_agent",
    "product",
    "products",
    "product_name",
    "website_name",
    "variant",
    "ip",
    "ip_address",
    "client_ip",
    "ip_country",
    "referrer",
    "referer",
];

/// The payload as one object that says something; a list of exactly one object is that object.
pub(super) fn read(webhook: &Webhook) -> Result<Value, Reason> {
    let value = match body::decode(webhook) {
        Some(Value::Array(mut list)) if list.len() == 1 => list.pop(),
        value => value,
    };
    value
        .filter(|value| value.is_object() && is_filled(value))
        .ok_or(Reason::InvalidPayload)
}

/// The submission that a payload is. Without id and without a single field there is nothing to make a lead of.
pub(super) fn submission(
    payload: Value,
    lead_id: Option<LeadId>,
    fields: Fields,
) -> Result<Submission, Reason> {
    if lead_id.is_none() && fields.0.is_empty() {
        return Err(Reason::InvalidPayload);
    }
    Ok(Submission {
        lead_id,
        names: Names::Submission,
        fields: fields.into_value(),
        ip: ip(&payload),
        payload: masked(payload),
        payload_as_text: false,
        tracking_number: None,
        phone_country_code: None,
    })
}

impl From<Result<Submission, Reason>> for Reading {
    fn from(result: Result<Submission, Reason>) -> Self {
        match result {
            Ok(submission) => Reading::Submission(Box::new(submission)),
            Err(reason) => Reading::Ignored(reason),
        }
    }
}

/// A field by its name: exactly so, else by a name that is the same but for case and punctuation.
pub(super) fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let object = object.as_object()?;
    object.get(name).or_else(|| {
        let mut fields = object.iter();
        fields.find(|(key, _)| same_name(key, name)).map(|it| it.1)
    })
}

/// A field of nested objects: `data.attributes.id`.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, field)
}

/// The first of these paths that holds a usable id (R11).
pub(super) fn id(object: &Value, paths: &[&str]) -> Option<LeadId> {
    paths
        .iter()
        .find_map(|path| LeadId::read(at(object, path)?))
}

/// A filled text or number, trimmed.
pub(super) fn text(object: &Value, path: &str) -> Option<String> {
    match filled(at(object, path)?)? {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The submitter's address, where it is one; the first of several. Old ClickFunnels wraps it in an object.
pub(super) fn ip(object: &Value) -> Option<String> {
    let address = |path: &&str| {
        let text = text(object, path)?;
        let first = text.split(',').next()?.trim().to_owned();
        first.parse::<IpAddr>().is_ok().then_some(first)
    };
    ["ip", "ip.addr", "ip_address", "client_ip"]
        .iter()
        .find_map(address)
}

/// A list's items, or the one item that stands where a list belongs.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(list)) => list,
        Some(value) => std::slice::from_ref(value),
        None => &[],
    }
}

/// The call or text went out: its "customer" did not come to us (R12).
pub(super) fn is_outbound(payload: &Value) -> bool {
    text(payload, "direction")
        .is_some_and(|direction| direction.to_lowercase().contains("outbound"))
}

/// The submitter's own fields, gathered for extraction: filled ones only, and of one name the first that came.
#[derive(Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The object that extraction reads.
    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// One field under a clear name.
    pub(super) fn set(mut self, name: &str, value: Option<&Value>) -> Self {
        if let Some(value) = value.and_then(filled) {
            self.0.entry(name).or_insert(value);
        }
        self
    }

    /// The fields of an object, without the advertiser's own, the secrets and those named here.
    pub(super) fn fill(self, object: Option<&Value>, except: &[&str]) -> Self {
        let own = object.into_iter().flat_map(|it| submitters(it, except));
        own.fold(self, |fields, (name, value)| fields.set(name, Some(value)))
    }

    /// The fields of an object and of the objects in it, these without any further nesting (R39).
    pub(super) fn fill_one_deep(self, object: &Value, except: &[&str]) -> Self {
        let (nested, flat): (Vec<_>, Vec<_>) =
            submitters(object, except).partition(|(_, value)| value.is_object());
        let inner = nested.into_iter().flat_map(|(_, value)| {
            submitters(value, except).filter(|(_, value)| !value.is_object())
        });
        let own = flat.into_iter().chain(inner);
        own.fold(self, |fields, (name, value)| fields.set(name, Some(value)))
    }

    /// Fields that come as an object, or as a list of objects that name them.
    pub(super) fn named(self, fields: Option<&Value>, name: &str, value: &str) -> Self {
        match fields {
            Some(Value::Array(list)) => {
                list.iter()
                    .fold(self, |fields, item| match text(item, name) {
                        Some(name) => fields.set(&name, field(item, value)),
                        None => fields,
                    })
            }
            object => self.fill(object, &[]),
        }
    }
}

/// An object's fields without the advertiser's own, the secrets and those named here.
fn submitters<'a>(
    object: &'a Value,
    except: &[&str],
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let lists = [ADVERTISERS, SECRETS, except];
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(move |(name, _)| !lists.iter().any(|list| is_any(name, list)))
        .map(|(name, value)| (name.as_str(), value))
}

/// A value that says something, a list only with its items that do, and a list of one text or number as that. No value
/// are null, blank text, unfilled template text (`{{email}}`, R15), empty lists and objects.
fn filled(value: &Value) -> Option<Value> {
    if !is_filled(value) {
        return None;
    }
    let Value::Array(list) = value else {
        return Some(value.clone());
    };
    let mut list: Vec<Value> = list.iter().filter_map(filled).collect();
    list.dedup();
    match list.as_slice() {
        [only] if !only.is_object() => list.pop(),
        _ => Some(Value::Array(list)),
    }
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => {
            let text = text.trim();
            let is_template = text.starts_with("{{") && text.ends_with("}}");
            !text.is_empty() && !is_template
        }
        Value::Array(list) => list.iter().any(is_filled),
        Value::Object(object) => object.values().any(is_filled),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The payload without its secrets (R19).
pub(super) fn masked(mut payload: Value) -> Value {
    mask(&mut payload);
    payload
}

fn mask(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::Object(object) => {
            for (name, value) in object.iter_mut() {
                if is_any(name, SECRETS) {
                    *value = Value::from(MASK);
                } else {
                    mask(value);
                }
            }
        }
        _ => {}
    }
}

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| same_name(name, other))
}

fn same_name(a: &str, b: &str) -> bool {
    letters(a).eq(letters(b))
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .filter(|it| it.is_alphanumeric())
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_at_any_depth_and_under_any_spelling() {
        let payload =
            json!({"apiKey": "s3cret", "a": [{"API-Key": 7, "api_key": {"x": 1}}], "monkey": "ok"});
        let expected =
            json!({"apiKey": "***", "a": [{"API-Key": "***", "api_key": "***"}], "monkey": "ok"});
        assert_eq!(masked(payload), expected);
    }

    #[test]
    fn the_first_filled_value_of_a_name_stays() {
        let fields = Fields::default()
            .fill(Some(&json!({"phone": " ", "email": "{{email}}", "name": ["Ada"], "page_name": "Offer"})), &[])
            .fill(Some(&json!({"phone": "1", "email": null, "name": "Eve"})), &[]);
        assert_eq!(fields.into_value(), json!({"name": "Ada", "phone": "1"}));
    }

    #[test]
    fn an_address_is_only_what_reads_as_one() {
        assert_eq!(
            ip(&json!({"ip": "203.0.113.24, 10.0.0.1"})).unwrap(),
            "203.0.113.24"
        );
        assert_eq!(
            ip(&json!({"ip": {"family": 2, "addr": "2001:db8::1"}})).unwrap(),
            "2001:db8::1"
        );
        assert_eq!(
            ip(&json!({"ip": "localhost", "Client IP": "198.51.100.3"})).unwrap(),
            "198.51.100.3"
        );
        assert_eq!(ip(&json!({"ip": ["x"], "ip_address": 7})), None);
    }

    #[test]
    fn names_of_other_alphabets_are_names_too() {
        assert!(same_name("E-Mail", "e_mail"));
        assert!(!same_name("電話番号", "メールアドレス"));
    }
}
