//! One walk over a payload: every text in it with the label it stands under.
//!
//! Must not know: what any label means, except which parts of a payload speak of the advertiser and not of the
//! submitter (R15).

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::spelling::loose;

/// Payloads nested deeper are cut off there; the deepest real one (a ClickFunnels purchase) has the contact at 3.
const DEPTH_MAX: usize = 8;
/// Values looked at in one payload, nearest to the root first; the largest real ones have a few hundred.
const NODES_MAX: usize = 4096;
/// A longer text is prose, no field (bytes). All of it stays in `lead_data` (R19).
const TEXT_BYTES_MAX: usize = 512;

/// One text of a payload, trimmed, neither blank nor an unfilled template.
#[derive(Debug)]
pub(super) struct Leaf<'a> {
    /// The key it stands under, as written.
    label: &'a str,
    /// The key of the object around it, where there is one.
    parent: Option<&'a str>,
    /// A string, or a number's exact digits.
    pub text: Cow<'a, str>,
    /// Whether it was a JSON string.
    pub is_string: bool,
    /// 0 at the top level.
    depth: usize,
}

impl Leaf<'_> {
    /// Its label and how deep that stands: `mobilePhone: {value: …}` is another way to write `mobilePhone: …`.
    pub(super) fn name(&self) -> (&str, usize) {
        match self.parent {
            Some(parent) if VALUE_KEYS.contains(&self.label) => {
                (parent, self.depth.saturating_sub(1))
            }
            _ => (self.label, self.depth),
        }
    }

    /// Whether it is the name of a thing, not of a person: `form.name` (R15).
    pub(super) fn names_a_thing(&self) -> bool {
        loose(self.label) == "name" && self.parent.is_some_and(has_own_name)
    }

    /// The same with the object around it: `mobilePhone.value`.
    pub(super) fn dotted_name(&self) -> Option<(String, usize)> {
        let parent = self.parent?;
        Some((
            format!("{parent}.{}", self.label),
            self.depth.saturating_sub(1),
        ))
    }
}

/// Every text of the payload, top level first.
pub(super) fn collect(fields: &Value) -> Vec<Leaf<'_>> {
    let mut walk = Walk::default();
    walk.add(Node {
        value: fields,
        label: "",
        parent: None,
        depth: 0,
    });
    while let Some(node) = walk.queue.pop_front() {
        walk.visit(node);
    }
    walk.leaves
}

#[derive(Clone, Copy)]
struct Node<'a> {
    value: &'a Value,
    label: &'a str,
    parent: Option<&'a str>,
    depth: usize,
}

#[derive(Default)]
struct Walk<'a> {
    queue: VecDeque<Node<'a>>,
    seen: usize,
    leaves: Vec<Leaf<'a>>,
}

impl<'a> Walk<'a> {
    fn add(&mut self, node: Node<'a>) {
        if self.seen < NODES_MAX && node.depth <= DEPTH_MAX {
            self.seen += 1;
            self.queue.push_back(node);
        }
    }

    fn visit(&mut self, node: Node<'a>) {
        match node.value {
            Value::String(text) => self.leaf(node, Cow::Borrowed(text.trim()), true),
            Value::Number(number) => self.leaf(node, Cow::Owned(number.to_string()), false),
            Value::Object(members) => self.object(node, members),
            Value::Array(items) => items.iter().for_each(|item| self.item(node, item)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn leaf(&mut self, node: Node<'a>, text: Cow<'a, str>, is_string: bool) {
        if is_blank(&text) {
            return;
        }
        self.leaves.push(Leaf {
            label: node.label,
            parent: node.parent,
            text,
            is_string,
            depth: node.depth,
        });
    }

    fn object(&mut self, node: Node<'a>, members: &'a Map<String, Value>) {
        let is_root = node.label.is_empty();
        for (key, value) in members.iter().filter(|(key, _)| !is_advertisers(key)) {
            self.add(Node {
                value,
                label: key,
                parent: (!is_root).then_some(node.label),
                depth: node.depth + usize::from(!is_root),
            });
        }
    }

    /// A list's texts stand under the list's own label, a `{name, value}` item under its name.
    fn item(&mut self, list: Node<'a>, item: &'a Value) {
        let inner = Node {
            value: item,
            depth: list.depth + 1,
            ..list
        };
        match item {
            Value::Object(_) => match labelled(item) {
                Some((labels, value)) => self.pair(inner, labels, value),
                None => self.add(inner),
            },
            Value::Array(_) => self.add(inner),
            _ => self.add(Node {
                value: item,
                ..list
            }),
        }
    }

    /// An item may carry a machine's and a person's name for itself (`field_3`, `Email`): it is filed under both.
    fn pair(&mut self, node: Node<'a>, labels: impl Iterator<Item = &'a str>, value: &'a Value) {
        for label in labels {
            if !is_advertisers(label) {
                self.add(Node {
                    value,
                    label,
                    parent: None,
                    ..node
                });
            }
        }
    }
}

/// Where list items keep their label (Facebook `name`, Kartra `field_identifier`, CallTrackingMetrics `id`).
const LABEL_KEYS: &[&str] = &[
    "name",
    "label",
    "field_identifier",
    "field_name",
    "field_label",
    "field",
    "key",
    "title",
    "question",
    "id",
];

/// Where they keep their value.
const VALUE_KEYS: &[&str] = &[
    "value",
    "values",
    "field_value",
    "option_value",
    "answer",
    "answers",
    "response",
];

/// The labels and the value of a `{name, value}` item, if it is one.
pub(crate) fn labelled(item: &Value) -> Option<(impl Iterator<Item = &str>, &Value)> {
    let members = item.as_object()?;
    let mut labels = LABEL_KEYS
        .iter()
        .filter_map(|key| members.get(*key)?.as_str())
        .peekable();
    labels.peek()?;
    let value = VALUE_KEYS.iter().find_map(|key| members.get(*key))?;
    Some((labels, value))
}

/// Whole subtrees that describe the advertiser's side: their names, e-mails and phones are not the submitter's.
fn is_advertisers(key: &str) -> bool {
    const SUBTREES: &[&str] = &[
        "account",
        "ad",
        "adset",
        "agent",
        "agents",
        "campaign",
        "funnel",
        "page",
        "product",
        "products",
        "website",
        "workspace",
    ];
    key.len() <= 12 && SUBTREES.contains(&loose(key).as_str())
}

/// Objects whose `name` is their own.
fn has_own_name(parent: &str) -> bool {
    const THINGS: &[&str] = &[
        "company",
        "business",
        "event",
        "form",
        "item",
        "list",
        "offer",
        "organisation",
        "organization",
        "plan",
        "purchase",
        "source",
        "survey",
        "tag",
        "tags",
    ];
    parent.len() <= 16 && THINGS.contains(&loose(parent).as_str())
}

/// Nothing, what scripts write for nothing, an unfilled template (`{{email}}`), or too long for a field.
fn is_blank(text: &str) -> bool {
    const NOTHING: &[&str] = &["null", "undefined", "N/A", "n/a", "[object Object]"];
    text.is_empty() || text.len() > TEXT_BYTES_MAX || NOTHING.contains(&text) || text.contains("{{")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn texts(fields: &Value) -> Vec<(String, String)> {
        let pair = |leaf: Leaf<'_>| (leaf.name().0.to_owned(), leaf.text.into_owned());
        collect(fields).into_iter().map(pair).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(label, text): &(&str, &str)| ((*label).to_owned(), (*text).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn the_top_level_comes_before_what_is_nested() {
        let fields = json!({"custom_fields": {"email": "b"}, "email": "a"});
        assert_eq!(texts(&fields), pairs(&[("email", "a"), ("email", "b")]));
    }

    #[test]
    fn list_items_stand_under_their_name() {
        let graph = json!({"field_data": [{"name": "email", "values": ["a@b.co"]}]});
        assert_eq!(texts(&graph), pairs(&[("email", "a@b.co")]));
        let kartra = json!([{"field_id": "1", "field_identifier": "plan",
            "field_value": [{"option_id": "44", "option_value": "Gold"}]}]);
        assert_eq!(
            texts(&kartra),
            pairs(&[("option_id", "44"), ("plan", "Gold")])
        );
    }

    #[test]
    fn numbers_keep_their_digits() {
        let fields: Value = serde_json::from_str(r#"{"phone": 44740012345678901234}"#).unwrap();
        assert_eq!(texts(&fields), pairs(&[("phone", "44740012345678901234")]));
    }

    #[test]
    fn blanks_templates_and_the_advertisers_own_are_left_out() {
        let fields = json!({"a": " ", "b": null, "c": true, "d": "{{email}}", "e": [""], "f": "null",
            "agent": {"email": "tina@agency.example"}, "Products": [{"name": "Shoe"}],
            "page": "Offer"});
        assert_eq!(texts(&fields), []);
    }

    #[test]
    fn deep_and_wide_payloads_are_cut_off() {
        let deep = (0..100).fold(json!("x"), |inner, _| json!([inner]));
        assert_eq!(texts(&deep), []);
        let wide = Value::Array(vec![json!("x"); 10_000]);
        assert_eq!(collect(&wide).len(), NODES_MAX - 1);
    }
}
