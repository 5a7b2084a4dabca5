//! Phone numbers: whatever people and platforms write, to E.164 where that can be known (rulings R12, R17, R20).
//!
//! Must not know: e-mails, names, campaigns.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;
use rlibphonenumber::{PHONE_NUMBER_UTIL, Region};

use crate::model::Phone;

use super::country;
use super::labels::Concept;
use super::leaves::Leaf;
use super::matches::Matches;
use super::spelling::loose;

mod written;

use written::Written;

/// Numbers that an unlabelled text is parsed for, at most: parsing is the dearest step of an extraction.
const FALLBACK_PARSES_MAX: usize = 16;

/// The country whose national numbers a payload writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home(Region);

impl Home {
    /// The first that names a country, in the order of ruling R17: the calling code sent beside the phone (`+1`,
    /// `44`, or an ISO code), then the countries given.
    #[must_use]
    pub fn find<'a>(
        calling_code: Option<&str>,
        countries: impl IntoIterator<Item = &'a str>,
    ) -> Option<Self> {
        let by_code = calling_code.and_then(Self::of_calling_code);
        by_code.or_else(|| countries.into_iter().find_map(Self::of_country))
    }

    /// The country a text names, if it has phones.
    #[must_use]
    pub fn of_country(text: &str) -> Option<Self> {
        let region = country::region(country::find(text)?.code)?;
        PHONE_NUMBER_UTIL.get_country_code_for_region(region)?;
        Some(Self(region))
    }

    fn of_calling_code(text: &str) -> Option<Self> {
        let digits = PHONE_NUMBER_UTIL.normalize_digits_only(text);
        let Ok(code) = digits.trim_start_matches('0').parse() else {
            return Self::of_country(text);
        };
        let region = PHONE_NUMBER_UTIL.get_region_for_country_code(code);
        region.filter(|region| *region != Region::World).map(Self)
    }

    fn calling_code(self) -> i32 {
        PHONE_NUMBER_UTIL
            .get_country_code_for_region(self.0)
            .unwrap_or_default()
    }
}

/// Reads a number: E.164 where it is valid internationally or at home, else by the specification's rule (the home's
/// calling code in front, its trunk prefix dropped), else the digits as given. `None` for what is no phone number:
/// fewer than 5 digits, more than 18, or an unfilled template.
#[must_use]
pub fn normalise(raw: &str, home: Option<Home>) -> Option<Phone> {
    if is_unfilled(raw) {
        return None;
    }
    let written = Written::read(raw);
    let valid = written.as_ref().and_then(|written| valid(written, home));
    match valid.or_else(|| vanity(raw, home?)) {
        Some(number) => Some(Phone {
            identifies: !is_placeholder(&number),
            number,
        }),
        None => written.map(|written| unverified(&written, home)),
    }
}

/// Whether two texts are the same phone line (R12): equal as phone numbers of the country, else the USA; where one
/// of them is no valid number, the shorter one's digits (at least 7) end the longer's.
#[must_use]
pub fn same_line(a: &str, b: &str, country: Option<&str>) -> bool {
    let home = country
        .and_then(Home::of_country)
        .unwrap_or(Home(Region::US));
    let read = |text| valid(&Written::read(text)?, Some(home));
    if let (Some(a), Some(b)) = (read(a), read(b)) {
        return a == b;
    }
    let mut digits = [a, b].map(|text| PHONE_NUMBER_UTIL.normalize_digits_only(text));
    digits.sort_by_key(String::len);
    let [shorter, longer] = digits;
    shorter.len() >= 7 && longer.ends_with(&shorter)
}

/// By its label, else by a label that speaks of phones, else by its form.
pub(super) fn read(matches: &Matches<'_>, home: Option<Home>) -> Option<Phone> {
    let labelled = matches
        .of(Concept::Phone)
        .find_map(|text| normalise(text, home));
    labelled
        .or_else(|| by_hint(matches, home))
        .or_else(|| by_form(matches, home))
}

/// `what_is_your_best_phone_number?`, `phone_number_(eg.65xxxxxxxx)`.
fn by_hint(matches: &Matches<'_>, home: Option<Home>) -> Option<Phone> {
    let hinted = matches
        .unlisted()
        .filter(|leaf| speaks_of_phones(leaf.name().0));
    let mut candidates = hinted
        .filter(|leaf| may_be_phone(leaf))
        .take(FALLBACK_PARSES_MAX);
    candidates.find_map(|leaf| normalise(&leaf.text, home))
}

/// Any other string: by the specification's pattern, or valid for the country (R14).
fn by_form(matches: &Matches<'_>, home: Option<Home>) -> Option<Phone> {
    let strings = matches.unlisted().filter(|leaf| leaf.is_string);
    let mut candidates = strings
        .filter(|leaf| may_be_phone(leaf))
        .take(FALLBACK_PARSES_MAX);
    candidates.find_map(|leaf| {
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
    static SHAPE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"^\s*[+＋(]?[\d(][\d\s()+./\-‐-―]{5,24}(?: *(?:x|ext\.?) *\d{1,6})?\s*$").ok()
    });
    static DATE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"^\s*(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?:\D|$)")
            .ok()
    });
    let matches = |regex: &Option<Regex>| {
        regex
            .as_ref()
            .is_some_and(|regex| regex.is_match(&leaf.text))
    };
    matches(&SHAPE)
        && !matches(&DATE)
        && leaf.text.parse::<IpAddr>().is_err()
        && !counts(leaf.name().0)
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
    super::spelling::words(label)
        .iter()
        .any(|word| OTHERS.contains(&word.as_str()))
}

/// The specification's pattern. Ten bare digits from 1 on are a Unix time, not a number of the pattern's country.
fn looks_like_phone(text: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"^\s*(?:\+?(\d{1,3}))?[-. (]*(\d{3})[-. )]*(\d{3})[-. ]*(\d{4})(?: *x(\d+))?\s*$",
        )
        .ok()
    });
    let is_time =
        text.len() == 10 && text.starts_with('1') && text.bytes().all(|byte| byte.is_ascii_digit())
            || text.len() == 13
                && text.starts_with('1')
                && text.bytes().all(|byte| byte.is_ascii_digit());
    !is_time
        && PATTERN
            .as_ref()
            .is_some_and(|pattern| pattern.is_match(text))
}

fn is_unfilled(raw: &str) -> bool {
    raw.contains("{{") || raw.contains("}}") || raw.contains("<test lead")
}

/// The number as E.164, if libphonenumber calls it valid: by its own `+`, then at home, then by an international
/// prefix that other countries dial.
fn valid(written: &Written, home: Option<Home>) -> Option<String> {
    let digits = &written.digits;
    let at_home = || home.and_then(|home| e164(digits, Some(home.0)));
    if written.has_plus {
        let names_a_country = PHONE_NUMBER_UTIL.parse(&format!("+{digits}"), None).is_ok();
        let abroad = e164(&format!("+{digits}"), None);
        return abroad.or_else(|| at_home().filter(|_| !names_a_country));
    }
    at_home().or_else(|| {
        let mut prefixes = ["0011", "011", "00"].into_iter();
        prefixes.find_map(|prefix| e164(&format!("+{}", digits.strip_prefix(prefix)?), None))
    })
}

fn e164(number: &str, region: Option<Region>) -> Option<String> {
    let parsed = PHONE_NUMBER_UTIL.parse(number, region).ok()?;
    parsed.is_valid().then(|| {
        format!(
            "+{}{}",
            parsed.country_code,
            parsed.get_national_significant_number()
        )
    })
}

/// `1-800-FLOWERS`: letters that stand for the digits on their keys.
fn vanity(raw: &str, home: Home) -> Option<String> {
    let lettered = raw.bytes().filter(u8::is_ascii_alphabetic).count() >= 3;
    let short = raw.len() <= 24 && raw.bytes().any(|byte| byte.is_ascii_digit());
    e164(raw, Some(home.0)).filter(|_| lettered && short)
}

/// A number that is not valid anywhere it could belong. It never identifies anyone (R20).
fn unverified(written: &Written, home: Option<Home>) -> Phone {
    let number = match (written.has_plus, home) {
        (true, _) => format!("+{}", written.digits),
        (false, Some(home)) => with_calling_code(&written.digits, home),
        (false, None) => written.digits.clone(),
    };
    // Putting the calling code in front can make it valid after all.
    let valid = e164(&number, None).filter(|_| number.starts_with('+'));
    let identifies = valid.as_ref().is_some_and(|number| !is_placeholder(number));
    Phone {
        number: valid.unwrap_or(number),
        identifies,
    }
}

/// The specification's rule, with the trunk prefix dropped.
fn with_calling_code(digits: &str, home: Home) -> String {
    let trunk = "0";
    let national = match digits.strip_prefix(trunk) {
        Some(national) if !national.is_empty() => national,
        _ => digits,
    };
    format!("+{}{national}", home.calling_code())
}

/// What networks show for callers who withhold their number (`ANONYMOUS`, `RESTRICTED`, `UNKNOWN` on a keypad), and
/// what people type to get past a form.
fn is_placeholder(number: &str) -> bool {
    const KEYPAD: &[&str] = &[
        "266696687",
        "2666966687",
        "7378742833",
        "8656696",
        "86282452253",
        "7748283",
        "77482832",
        "1234567890",
        "0123456789",
        "123456789",
    ];
    let Ok(parsed) = PHONE_NUMBER_UTIL.parse(number, None) else {
        return true;
    };
    let national = parsed.get_national_significant_number();
    let digits = number.trim_start_matches('+');
    let first = national.chars().next();
    KEYPAD.contains(&digits)
        || KEYPAD.contains(&&*national)
        || national.chars().all(|c| Some(c) == first)
}

#[cfg(test)]
mod tests;
