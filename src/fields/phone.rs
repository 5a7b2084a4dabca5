//! Phone numbers: whatever people and platforms write, to E.164 where that can be known (rulings R12, R17, R20).
//!
//! Must not know: e-mails, names, campaigns.

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, Region};

use crate::model::Phone;

use super::country;

mod search;
mod written;

pub(super) use search::{all, read};
use written::Written;

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

    /// What is dialled before a national number: what the national format of an example has in front of it.
    fn trunk_prefix(self) -> String {
        if PHONE_NUMBER_UTIL.is_nanpa_country(self.0) {
            return "1".to_owned();
        }
        let Ok(example) = PHONE_NUMBER_UTIL.get_example_number(self.0) else {
            return String::new();
        };
        let dialled = example.format_as(PhoneNumberFormat::National);
        let dialled = PHONE_NUMBER_UTIL.normalize_digits_only(&dialled);
        let trunk = dialled.strip_suffix(&*example.get_national_significant_number());
        trunk.unwrap_or_default().to_owned()
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

fn is_unfilled(raw: &str) -> bool {
    raw.contains("{{") || raw.contains("}}") || raw.contains("<test lead")
}

/// The number as E.164, if libphonenumber calls it valid: by its own `+`, then at home, then by an international
/// prefix that other countries dial.
fn valid(written: &Written, home: Option<Home>) -> Option<String> {
    let digits = &written.digits;
    let at_home = || home.and_then(|home| e164(digits, Some(home.0)));
    if written.has_plus {
        let abroad = e164(&format!("+{digits}"), None);
        return abroad.or_else(|| at_home().filter(|_| !has_calling_code(digits)));
    }
    at_home().or_else(|| {
        let mut prefixes = ["0011", "011", "00"].into_iter();
        prefixes.find_map(|prefix| e164(&format!("+{}", digits.strip_prefix(prefix)?), None))
    })
}

/// Whether digits after a plus sign begin with any country's calling code.
fn has_calling_code(digits: &str) -> bool {
    let prefixes = (1..=3).filter_map(|length| digits.get(..length)?.parse().ok());
    let mut regions =
        prefixes.filter_map(|code| PHONE_NUMBER_UTIL.get_region_for_country_code(code));
    !digits.starts_with('0') && regions.next().is_some()
}

fn e164(number: &str, region: Option<Region>) -> Option<String> {
    let parsed = PHONE_NUMBER_UTIL.parse(number, region).ok()?;
    parsed.is_valid().then(|| international(&parsed))
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

/// The specification's rule, with the trunk prefix dropped. Where that is too long for any phone, the digits stay as
/// given.
fn with_calling_code(digits: &str, home: Home) -> String {
    let trunk = home.trunk_prefix();
    let national = digits.strip_prefix(&*trunk).unwrap_or(digits);
    let number = format!("+{}{national}", home.calling_code());
    match Written::read(&number) {
        Some(_) => number,
        None => digits.to_owned(),
    }
}

fn international(number: &PhoneNumber) -> String {
    format!(
        "+{}{}",
        number.country_code,
        number.get_national_significant_number()
    )
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
