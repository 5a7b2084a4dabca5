//! The conversion of payloads to BSON (ruling R19): our own, and total.
//!
//! serde's way is no way here: serde_json's `arbitrary_precision` would leak a private key into the document, and
//! bson's own conversion reads `{"$oid": ...}` as an ObjectId. A payload is only ever data.

use bson::{Bson, Document, RawBson};
use serde_json::{Number, Value};

/// Levels of nesting that a document may have. MongoDB refuses more than 100; a payload sits a few levels deep itself.
const NESTING_MAX: usize = 90;

/// Bytes of BSON. MongoDB refuses more than 16 MiB; a lead is more than its payload.
const BYTES_MAX: usize = 12 << 20;

/// Stands for NUL in keys, which BSON cannot hold.
const REPLACEMENT: &str = "\u{FFFD}";

/// A payload as `lead_data` stores it: a document where it can be one, else (or where `as_text` demands it, as for
/// CallTrackingMetrics) its JSON text. What nests deeper than 90 levels or is larger than 12 MiB is stored as text.
#[must_use]
pub fn document(payload: &Value, as_text: bool) -> RawBson {
    if as_text {
        return RawBson::String(payload.to_string());
    }
    RawBson::try_from(to_bson(payload))
        .ok()
        .filter(|raw| bytes_of(raw) <= BYTES_MAX)
        .unwrap_or_else(|| RawBson::String(payload.to_string()))
}

/// Any JSON value as BSON. Integers that fit become Int64, every other number its exact text, `$oid` and its like stay
/// plain keys, NUL in keys becomes U+FFFD; of keys that are one then, the last wins. Too deep: the whole as JSON text.
#[must_use]
pub fn to_bson(value: &Value) -> Bson {
    nested(value, 0).unwrap_or_else(|| Bson::String(value.to_string()))
}

/// `None` where it goes too deep.
fn nested(value: &Value, depth: usize) -> Option<Bson> {
    if depth > NESTING_MAX {
        return None;
    }
    Some(match value {
        Value::Null => Bson::Null,
        Value::Bool(it) => Bson::Boolean(*it),
        Value::Number(it) => number(it),
        Value::String(it) => Bson::String(it.clone()),
        Value::Array(list) => {
            let items = list.iter().map(|item| nested(item, depth + 1));
            Bson::Array(items.collect::<Option<_>>()?)
        }
        Value::Object(object) => {
            let mut document = Document::new();
            for (key, value) in object {
                document.insert(key.replace('\0', REPLACEMENT), nested(value, depth + 1)?);
            }
            Bson::Document(document)
        }
    })
}

fn number(number: &Number) -> Bson {
    match number.as_i64() {
        Some(integer) => Bson::Int64(integer),
        None => Bson::String(number.to_string()),
    }
}

fn bytes_of(raw: &RawBson) -> usize {
    match raw {
        RawBson::Document(document) => document.as_bytes().len(),
        RawBson::Array(array) => array.as_bytes().len(),
        RawBson::String(text) => text.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bson::doc;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn integers_that_fit_are_integers_and_other_numbers_their_exact_text() {
        let text = r#"{"a":9007199254740993,"b":12345678901234567890,"c":1.10,"d":-1,"e":1e400}"#;
        let expected = doc! {
            "a": 9_007_199_254_740_993_i64, "b": "12345678901234567890", "c": "1.10", "d": -1_i64,
            "e": parsed(text)["e"].to_string(),
        };
        assert_eq!(to_bson(&parsed(text)), Bson::Document(expected));
    }

    #[test]
    fn extended_json_means_nothing_inside_payloads() {
        let payload = json!({"a": {"$oid": "65a1b2c3d4e5f60718293a4b"}, "b": {"$numberLong": "1"}, "$set": {"x": null}});
        let expected = doc! {
            "a": { "$oid": "65a1b2c3d4e5f60718293a4b" }, "b": { "$numberLong": "1" }, "$set": { "x": null },
        };
        assert_eq!(to_bson(&payload), Bson::Document(expected));
    }

    #[test]
    fn nul_is_replaced_in_keys_and_kept_in_values() {
        let payload = json!({"a\0": "first", "b": "x\0y", "a\u{FFFD}": "last"});
        let expected = doc! { "a\u{FFFD}": "last", "b": "x\0y" };
        assert_eq!(to_bson(&payload), Bson::Document(expected.clone()));
        let RawBson::Document(raw) = document(&payload, false) else {
            panic!("not a document");
        };
        assert_eq!(Document::try_from(raw).unwrap(), expected);
    }

    fn nesting(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, level| {
            if level % 2 == 0 {
                json!({ "a": inner })
            } else {
                json!([inner])
            }
        })
    }

    #[test]
    fn what_nests_too_deep_or_grows_too_large_is_stored_as_text() {
        assert!(matches!(
            document(&nesting(NESTING_MAX), false),
            RawBson::Document(_) | RawBson::Array(_)
        ));
        let deep = nesting(NESTING_MAX + 1);
        assert_eq!(document(&deep, false), RawBson::String(deep.to_string()));
        let large = Value::Array(vec![json!(1); 1 << 20]);
        assert_eq!(document(&large, false), RawBson::String(large.to_string()));
    }

    #[test]
    fn a_payload_that_has_to_be_text_reads_back_as_the_same_json() {
        let payload = parsed(r#"{"id":4379952365,"n":1.50,"s":"\u0000\"é"}"#);
        let RawBson::String(text) = document(&payload, true) else {
            panic!("not text");
        };
        assert_eq!(parsed(&text), payload);
    }

    /// Any JSON, with the keys that hurt: empty, dotted, dollars, NUL, and those that collide once NUL is replaced.
    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            "[a-c\0\u{FFFD}$.]{0,2}",
            Just("$oid".to_owned()),
            Just("_id".to_owned()),
            any::<String>(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "-?[1-9][0-9]{0,30}(\\.[0-9]{1,20})?(e[1-9][0-9]{0,3})?".prop_map(|text| parsed(&text)),
            any::<String>().prop_map(Value::from),
        ];
        let tree = leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        });
        (tree, 0..120_usize)
            .prop_map(|(tree, levels)| (0..levels).fold(tree, |it, _| json!({ "k": it })))
    }

    /// What is promised to read back.
    fn expected(value: &Value) -> Bson {
        match value {
            Value::Null => Bson::Null,
            Value::Bool(it) => Bson::Boolean(*it),
            Value::Number(it) => match it.to_string().parse::<i64>() {
                Ok(integer) => Bson::Int64(integer),
                Err(_) => Bson::String(it.to_string()),
            },
            Value::String(it) => Bson::String(it.clone()),
            Value::Array(list) => list.iter().map(expected).collect(),
            Value::Object(object) => {
                let clean = |(key, value): (&String, &Value)| {
                    (key.replace('\0', REPLACEMENT), expected(value))
                };
                Bson::Document(object.iter().map(clean).collect())
            }
        }
    }

    proptest! {
        #[test]
        fn any_json_encodes_and_reads_back(value in any_json()) {
            let raw = document(&value, false);
            let bytes = bson::rawdoc! { "lead_data": raw }.into_bytes();
            let mut read = Document::from_reader(bytes.as_slice()).unwrap();
            match read.remove("lead_data").unwrap() {
                Bson::String(text) if !value.is_string() && !value.is_number() => {
                    prop_assert_eq!(parsed(&text), value);
                }
                back => prop_assert_eq!(back, expected(&value)),
            }
        }
    }
}
