//! A phone number's digits out of the text people write around them.
//!
//! Must not know: countries and what is valid in them.

use std::sync::LazyLock;

use regex::Regex;
use rlibphonenumber::PHONE_NUMBER_UTIL;

/// E.164 allows 15 digits; an international prefix adds up to four.
const DIGITS_MAX: usize = 18;
/// The shortest subscriber numbers that are still dialled from abroad.
const DIGITS_MIN: usize = 5;
/// From here on a part of a text is a number of its own.
const WHOLE_DIGITS_MIN: usize = 7;

/// One number: ASCII digits, and whether a plus sign stood before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub has_plus: bool,
    pub digits: String,
}

impl Written {
    /// The first number of the text, without extension; `None` where there is none.
    pub(super) fn read(raw: &str) -> Option<Self> {
        let text = without_extension(first_of_several(raw));
        let first_digit = text.find(is_digit)?;
        let written = Self {
            has_plus: text[..first_digit].contains(['+', '＋']),
            digits: digits(text),
        };
        (DIGITS_MIN..=DIGITS_MAX)
            .contains(&written.digits.len())
            .then_some(written)
    }
}

/// `0151 23456789 / 030 1234567`, `… or …`: the first part that is a number of its own; a single number stays whole.
fn first_of_several(text: &str) -> &str {
    static SEPARATOR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)[,;|\n]|\s[/&]\s|\s(?:or|and|oder|und|ou|et|o|y)\s")
            .expect("a constant pattern compiles")
    });
    let mut parts = SEPARATOR.split(text);
    let part = parts.find(|part| is_whole(part)).unwrap_or(text);
    cut_at_slash(cut_at_second_plus(cut_at_blank(part)))
}

/// `0151/23456789` is one number, `4155552671/4155552672` are two.
fn cut_at_slash(text: &str) -> &str {
    match text.split_once('/') {
        Some((first, second)) if is_whole(first) && is_whole(second) => first,
        _ => text,
    }
}

fn cut_at_second_plus(text: &str) -> &str {
    let pluses = text.match_indices('+').map(|(at, _)| &text[..at]);
    pluses
        .into_iter()
        .find(|before| is_whole(before))
        .unwrap_or(text)
}

/// Blanks group the digits of one number, unless together they are too many for one.
fn cut_at_blank(text: &str) -> &str {
    if digits(text).len() <= DIGITS_MAX {
        return text;
    }
    text.split_whitespace()
        .find(|part| is_whole(part))
        .unwrap_or(text)
}

fn without_extension(text: &str) -> &str {
    static EXTENSION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)\s*(?:ext(?:ension|n)?|x|#|poste|durchwahl)[\s.:]*\d{1,7}\s*$")
            .expect("a constant pattern compiles")
    });
    let extension = EXTENSION.find(text);
    match extension.map(|found| &text[..found.start()]) {
        Some(number) if number.contains(is_digit) => number,
        _ => text,
    }
}

fn is_whole(part: &str) -> bool {
    digits(part).len() >= WHOLE_DIGITS_MIN
}

/// ASCII digits, whatever script they are written in.
fn digits(text: &str) -> String {
    PHONE_NUMBER_UTIL.normalize_digits_only(text)
}

fn is_digit(c: char) -> bool {
    let mut utf8 = [0; 4];
    !digits(c.encode_utf8(&mut utf8)).is_empty()
}
