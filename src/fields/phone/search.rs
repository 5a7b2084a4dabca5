//! Which text of a payload is the phone number (R14, R15).
//!
//! Must not know: how a number becomes E.164.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use crate::fields::labels::Concept;
use crate::fields::leaves::Leaf;
use crate::fields::matches::Matches;
use crate::fields::spelling::{loose, words};
use crate::model::Phone;

use super::written::Written;
use super::{Home, normalise, valid};

/// Unlabelled texts that are parsed, at most: parsing is the dearest step of an extraction.
const FALLBACK_PARSES_MAX: usize = 16;

/// By its label, else by a label that speaks of phones, else by its form.
pub(in crate::fields) fn read(matches: &Matches<'_>, home: Option<Home>) -> Option<Phone> {
    by_label(matches, home)
        .next()
        .or_else(|| by_hint(matches, home).next())
        .or_else(|| by_form(matches, home).next())
}

/// Every number that any of these ways finds.
pub(in crate::fields) fn all(matches: &Matches<'_>, home: Option<Home>) -> Vec<String> {
    let found = by_label(matches, home)
        .chain(by_hint(matches, home))
        .chain(by_form(matches, home));
    found.map(|phone| phone.number).collect()
}

fn by_label(matches: &Matches<'_>, home: Option<Home>) -> impl Iterator<Item = Phone> {
    let labelled = matches.of(Concept::Phone);
    labelled.filter_map(move |text| normalise(text, home))
}

/// `what_is_your_best_phone_number?`, `phone_number_(eg.65xxxxxxxx)`.
fn by_hint(matches: &Matches<'_>, home: Option<Home>) -> impl Iterator<Item = Phone> {
    let hinted = matches
        .unlisted()
        .filter(|leaf| speaks_of_phones(leaf.name().0));
    let candidates = hinted
        .filter(|leaf| may_be_phone(leaf))
        .take(FALLBACK_PARSES_MAX);
    candidates.filter_map(move |leaf| normalise(&leaf.text, home))
}

/// Any other string: by the specification's pattern, or valid for the country (R14).
fn by_form(matches: &Matches<'_>, home: Option<Home>) -> impl Iterator<Item = Phone> {
    let strings = matches.unlisted().filter(|leaf| leaf.is_string);
    let candidates = strings
        .filter(|leaf| may_be_phone(leaf))
        .take(FALLBACK_PARSES_MAX);
    candidates.filter_map(move |leaf| {
        let written = Written::read(&leaf.text)?;
        let is_phone = looks_like_phone(&leaf.text) || valid(&written, home).is_some();
        is_phone.then(|| normalise(&leaf.text, home)).flatten()
    })
}

fn speaks_of_phones(label: &str) -> bool {
    const STEMS: &[&str] = &[
        "phone",
        "mobile",
        "cellnumber",
        "whatsapp",
        "telef",
        "celular",
        "movil",
        "handynummer",
        "電話",
    ];
    let label = loose(label);
    STEMS.iter().any(|stem| label.contains(stem))
}

/// Digits and a phone's punctuation, no date, no IP address, and nothing a label says is another number.
fn may_be_phone(leaf: &Leaf<'_>) -> bool {
    static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^\s*[+＋(]?[\d(][\d\s()+./\-‐-―]{5,24}(?: *(?:x|ext\.?) *\d{1,6})?\s*$")
    });
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^\s*(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?:\D|$)")
    });
    let is_number = SHAPE.is_match(&leaf.text) && !DATE.is_match(&leaf.text);
    is_number && leaf.text.parse::<IpAddr>().is_err() && !counts(leaf.name().0)
}

/// Labels of numbers that are no phones, or not the submitter's.
fn counts(label: &str) -> bool {
    const OTHERS: &[&str] = &[
        "age",
        "amount",
        "birth",
        "birthday",
        "birthdate",
        "budget",
        "business",
        "card",
        "code",
        "company",
        "cost",
        "count",
        "destination",
        "dob",
        "duration",
        "fax",
        "iban",
        "income",
        "invoice",
        "lat",
        "latitude",
        "license",
        "lng",
        "longitude",
        "ltv",
        "order",
        "postal",
        "postcode",
        "price",
        "qty",
        "quantity",
        "ref",
        "reference",
        "revenue",
        "salary",
        "score",
        "size",
        "ssn",
        "tax",
        "total",
        "tracking",
        "value",
        "vat",
        "year",
        "years",
        "zip",
    ];
    words(label)
        .iter()
        .any(|word| OTHERS.contains(&word.as_str()))
}

/// The specification's pattern, Unix times left out.
fn looks_like_phone(text: &str) -> bool {
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"^\s*(?:\+?(\d{1,3}))?[-. (]*(\d{3})[-. )]*(\d{3})[-. ]*(\d{4})(?: *x(\d+))?\s*$")
    });
    !is_unix_time(text) && PATTERN.is_match(text)
}

/// Seconds or milliseconds from 2001 to 2033: bare digits from 1 on, as no national number of the pattern begins.
fn is_unix_time(text: &str) -> bool {
    let is_bare = text.bytes().all(|byte| byte.is_ascii_digit());
    is_bare && text.starts_with('1') && matches!(text.len(), 10 | 13)
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern compiles")
}
