//! MongoDB Extended JSON (v2), to and from: what `inlet import` reads and `inlet export` writes.
//!
//! Our own reading of the format, and no more of it than documents.md needs, so that the product's is checked by a
//! second pair of eyes.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document};
use serde_json::{Map, Value, json};

/// A document as relaxed Extended JSON.
pub(crate) fn to_json(document: &Document) -> Value {
    let fields = document
        .iter()
        .map(|(name, value)| (name.clone(), value_to_json(value)));
    Value::Object(fields.collect())
}

/// A document from Extended JSON, relaxed or canonical.
pub(crate) fn from_json(json: &Value) -> Document {
    match value_from_json(json) {
        Bson::Document(document) => document,
        other => panic!("{other} is not a document"),
    }
}

fn value_to_json(value: &Bson) -> Value {
    match value {
        Bson::Null => Value::Null,
        Bson::Boolean(flag) => json!(flag),
        Bson::String(text) => json!(text),
        Bson::Int32(number) => json!(number),
        Bson::Int64(number) => json!(number),
        Bson::Double(number) => json!(number),
        Bson::ObjectId(id) => json!({ "$oid": id.to_hex() }),
        Bson::DateTime(time) => {
            json!({ "$date": { "$numberLong": time.timestamp_millis().to_string() } })
        }
        Bson::Array(values) => values.iter().map(value_to_json).collect(),
        Bson::Document(document) => to_json(document),
        other => panic!("{other} is not used in documents.md"),
    }
}

fn value_from_json(json: &Value) -> Bson {
    match json {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        Value::String(text) => Bson::String(text.clone()),
        Value::Number(number) => number
            .as_i64()
            .map(Bson::Int64)
            .or_else(|| number.as_f64().map(Bson::Double))
            .expect("a JSON number is a number"),
        Value::Array(values) => Bson::Array(values.iter().map(value_from_json).collect()),
        Value::Object(fields) => wrapped(fields).unwrap_or_else(|| {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), value_from_json(value)));
            Bson::Document(fields.collect())
        }),
    }
}

/// A value that Extended JSON wraps into an object with one `$` key.
fn wrapped(fields: &Map<String, Value>) -> Option<Bson> {
    let mut entries = fields.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else {
        return None;
    };
    let text = || value.as_str().unwrap_or_else(|| panic!("{key} of {value}"));
    match key.as_str() {
        "$oid" => Some(ObjectId::parse_str(text()).expect("24 hex digits").into()),
        "$numberInt" => Some(text().parse::<i32>().expect("an i32").into()),
        "$numberLong" => Some(text().parse::<i64>().expect("an i64").into()),
        "$numberDouble" => Some(text().parse::<f64>().expect("an f64").into()),
        "$date" => Some(date(value).into()),
        _ => None,
    }
}

fn date(value: &Value) -> DateTime {
    match value {
        Value::String(text) => DateTime::parse_rfc3339_str(text).expect("an RFC 3339 time"),
        wrapped => match value_from_json(wrapped) {
            Bson::Int64(millis) => DateTime::from_millis(millis),
            other => panic!("{other} is not a time"),
        },
    }
}
