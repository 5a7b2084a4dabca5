//! Placeholders in what campaigns write: `{{first_name}}` becomes what the lead says (documents.md, `email_details`
//! and `sms_details`).
//!
//! A placeholder is a name in double braces; blanks inside are allowed, and letter case and punctuation make no
//! difference (`{{First Name}}`, `{{ first_name }}`). A name nobody knows becomes nothing. Values are data: braces in
//! them mean nothing, and in HTML they are escaped, triple braces included.
//!
//! Pure, and total. Must not know: how a message is sent, or what any name means.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::fields::{labelled, loose};

/// A longer text between braces is no name (bytes).
const NAME_BYTES_MAX: usize = 128;
/// Names of one lead; the largest real payloads have a few hundred.
const NAMES_MAX: usize = 4096;
/// Payloads nested deeper are cut off there.
const DEPTH_MAX: usize = 8;
/// A longer value is cut: a notification is no archive (bytes).
const VALUE_BYTES_MAX: usize = 4096;
/// Once this much is written, further placeholders become nothing: a template that repeats one name a thousand times
/// must not fill the memory (bytes).
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// What placeholders stand for.
#[derive(Clone, Default)]
pub struct Values {
    by_name: BTreeMap<String, String>,
}

/// A template for HTML: values are escaped for text and for quoted attributes.
#[must_use]
pub fn html(template: &str, values: &Values) -> String {
    render(template, values, push_escaped)
}

/// A template for plain text: an SMS, a subject. Values are inserted as they are, without control characters.
#[must_use]
pub fn plain(template: &str, values: &Values) -> String {
    render(template, values, push_printable)
}

/// Text as HTML shows it literally, in an element or in a quoted attribute; control characters are left out.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_escaped(&mut out, text);
    out
}

// === impl Values ===

impl Values {
    /// Nothing is known: every placeholder becomes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what `name` stands for, unless that was said before or there is nothing to say.
    pub fn add(&mut self, name: &str, value: &str) {
        let key = loose(name);
        let is_fit = !key.is_empty() && name.len() <= NAME_BYTES_MAX && !value.trim().is_empty();
        if is_fit && self.by_name.len() < NAMES_MAX {
            let value = &value[..value.floor_char_boundary(VALUE_BYTES_MAX)];
            self.by_name
                .entry(key)
                .or_insert_with(|| value.trim().to_owned());
        }
    }

    /// Adds every field of a lead's payload (`lead_data`): by its name, and by its path where it is nested
    /// (`{{contact.city}}`). Items of `{name, value}` lists are fields too; of equal names the outermost wins, and one
    /// that was added before stays. A payload stored as JSON text is read.
    pub fn add_lead_data(&mut self, lead_data: &Value) {
        match lead_data {
            Value::String(text) => {
                if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text)
                {
                    self.walk(&inner);
                }
            }
            other => self.walk(other),
        }
    }

    /// Breadth first, so that the outermost of equal names comes first.
    fn walk(&mut self, root: &Value) {
        let mut queue = VecDeque::from([(String::new(), root, 0)]);
        let mut seen = 0;
        while let Some((path, value, depth)) = queue.pop_front() {
            seen += 1;
            if seen > NAMES_MAX || depth > DEPTH_MAX || path.len() > NAME_BYTES_MAX {
                continue;
            }
            match value {
                Value::Object(members) => queue.extend(
                    members
                        .iter()
                        .map(|(key, value)| (joined(&path, key), value, depth + 1)),
                ),
                Value::Array(items) if items.iter().any(|item| text(item).is_none()) => {
                    queue.extend(items.iter().flat_map(|item| nested(&path, item, depth + 1)));
                }
                Value::Array(items) => {
                    let texts: Vec<_> = items.iter().filter_map(text).collect();
                    self.add_path(&path, &texts.join(", "));
                }
                leaf => self.add_path(&path, &text(leaf).unwrap_or_default()),
            }
        }
    }

    fn add_path(&mut self, path: &str, value: &str) {
        self.add(path, value);
        if let Some((_, name)) = path.rsplit_once('.') {
            self.add(name, value);
        }
    }

    fn of(&self, name: &str) -> &str {
        self.by_name.get(&loose(name)).map_or("", String::as_str)
    }
}

/// What a list's item adds to the walk: a labelled one its value under each of its labels, another one itself.
fn nested<'a>(path: &str, item: &'a Value, depth: usize) -> Vec<(String, &'a Value, usize)> {
    match labelled(item) {
        Some((labels, value)) => labels
            .map(|label| (label.to_owned(), value, depth))
            .collect(),
        None => vec![(path.to_owned(), item, depth)],
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A single value's text; `None` for what has parts.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// One pass from left to right: what was inserted is never looked at again.
fn render(template: &str, values: &Values, push: fn(&mut String, &str)) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match placeholder(rest) {
            Some((name, after)) => {
                if out.len() <= OUTPUT_BYTES_MAX {
                    push(&mut out, values.of(name));
                }
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The name of the placeholder that `text` opens with, and what follows it.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let (open, close) = if text.starts_with("{{{") {
        ("{{{", "}}}")
    } else {
        ("{{", "}}")
    };
    let inner = &text[open.len()..];
    let window = &inner[..inner.floor_char_boundary(NAME_BYTES_MAX + close.len())];
    let end = window.find(close)?;
    let name = &inner[..end];
    let is_name = !loose(name).is_empty() && !name.contains(['{', '}', '<', '>', '\n']);
    is_name.then(|| (name, &inner[end + close.len()..]))
}

fn push_printable(out: &mut String, value: &str) {
    out.extend(value.chars().filter(|c| is_printable(*c)));
}

fn push_escaped(out: &mut String, value: &str) {
    for c in value.chars().filter(|c| is_printable(*c)) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

fn is_printable(c: char) -> bool {
    !c.is_control() || matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests;
