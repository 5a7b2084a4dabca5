//! Countries as people write them (ruling R18): names, ISO codes, the usual aliases, and names inside longer texts.
//!
//! Must not know: payloads and their labels.

use std::collections::HashMap;
use std::sync::LazyLock;

use rlibphonenumber::{PHONE_NUMBER_UTIL, Region};
use rust_iso3166::{ALL, CountryCode};

use crate::model::Country;

use super::spelling::words;

mod names;

use names::{ALIASES, SHORT_NAMES};

/// The longest country name has this many words.
const NAME_WORDS_MAX: usize = 8;
/// Words of a text that are looked at; the country stands near its end.
const TEXT_WORDS_MAX: usize = 32;

/// `getCountryCodes`: the country a text names, whatever its letter case. An exact name, code or alias comes first,
/// then a country's name between word boundaries in the text (the last one: `Atlanta, Georgia, USA`), then the text
/// as a word of exactly one country's name (`Emirates`).
#[must_use]
pub fn find(text: &str) -> Option<Country> {
    let words = spell(text);
    let code = exact(&words)
        .or_else(|| inside(&words))
        .or_else(|| part(&words))?;
    Some(country(code))
}

/// Names, ISO codes and aliases to alpha-2 codes.
static NAMES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let codes = ALL
        .iter()
        .flat_map(|iso| [(iso.alpha2, iso.alpha2), (iso.alpha3, iso.alpha2)]);
    let names = ALL.iter().flat_map(|iso| {
        [
            (iso.name.to_owned(), iso.alpha2),
            (short_name(iso), iso.alpha2),
        ]
    });
    let known = codes
        .map(|(name, code)| (name.to_owned(), code))
        .chain(names);
    let aliases = ALIASES
        .iter()
        .map(|(name, code)| ((*name).to_owned(), *code));
    known
        .chain(aliases)
        .map(|(name, code)| (spell(&name).join(" "), code))
        .collect()
});

/// Single words of country names, where only one country has them. Long names are those of remote islands and
/// territories, which nobody means by `British` or `Indian`.
static PARTS: LazyLock<HashMap<String, Option<&'static str>>> = LazyLock::new(|| {
    let mut parts = HashMap::new();
    for iso in ALL {
        let name = spell(&short_name(iso));
        if (2..=3).contains(&name.len()) {
            for word in name.into_iter().filter(|word| word.len() >= 4) {
                let meaning = parts.entry(word).or_insert(Some(iso.alpha2));
                *meaning = meaning.filter(|code| *code == iso.alpha2);
            }
        }
    }
    parts
});

fn exact(words: &[String]) -> Option<&'static str> {
    NAMES.get(&words.join(" ")).copied()
}

/// The last, then longest, run of words that is a country's name. Two letters are too little: `in`, `no` and `me` are
/// words.
fn inside(words: &[String]) -> Option<&'static str> {
    let words = &words[words.len().saturating_sub(TEXT_WORDS_MAX)..];
    let runs = (1..=words.len()).rev().flat_map(|end| {
        let start_min = end.saturating_sub(NAME_WORDS_MAX);
        (start_min..end).map(move |start| &words[start..end])
    });
    let named = runs
        .map(|run| run.join(" "))
        .filter(|run| run.chars().count() > 2);
    named.into_iter().find_map(|run| NAMES.get(&run).copied())
}

fn part(words: &[String]) -> Option<&'static str> {
    let [word] = words else { return None };
    PARTS.get(word).copied().flatten()
}

/// Lower-case words without camel case, which country names do not have.
fn spell(text: &str) -> Vec<String> {
    words(&text.to_lowercase())
}

fn country(code: &'static str) -> Country {
    let name =
        rust_iso3166::from_alpha2(code).map_or_else(|| code.to_owned(), |iso| short_name(&iso));
    let calling_code =
        region(code).and_then(|region| PHONE_NUMBER_UTIL.get_country_code_for_region(region));
    Country {
        country: name,
        code,
        country_codes: calling_code
            .map(|code| format!("+{code}"))
            .into_iter()
            .collect(),
    }
}

/// The country for libphonenumber.
pub(super) fn region(code: &str) -> Option<Region> {
    Region::from_code(code).ok()
}

/// The name people use: ISO's without what it adds in parentheses.
fn short_name(iso: &CountryCode) -> String {
    let natural = SHORT_NAMES.iter().find(|(code, _)| *code == iso.alpha2);
    natural.map_or_else(
        || without_parentheses(iso.name),
        |(_, name)| (*name).to_owned(),
    )
}

fn without_parentheses(name: &str) -> String {
    let Some((before, rest)) = name.split_once(" (") else {
        return name.to_owned();
    };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn code(text: &str) -> &'static str {
        find(text).map_or("none", |country| country.code)
    }

    #[test]
    fn the_answer_has_name_code_and_calling_codes() {
        let expected = Country {
            country: "United States".into(),
            code: "US",
            country_codes: vec!["+1".into()],
        };
        assert_eq!(find("united states"), Some(expected));
        assert_eq!(find("Bouvet Island").unwrap().country_codes, [""; 0]);
    }

    #[test]
    fn names_codes_and_aliases_mean_the_same_in_every_letter_case() {
        for (text, expected) in [
            ("us", "US"),
            ("USA", "US"),
            ("U.S.", "US"),
            ("u.s.a.", "US"),
            ("United States of America", "US"),
            ("UK", "GB"),
            ("GBR", "GB"),
            ("England", "GB"),
            ("Great Britain", "GB"),
            ("Holland", "NL"),
            ("The Netherlands", "NL"),
            ("UAE", "AE"),
            ("DEUTSCHLAND", "DE"),
            ("España", "ES"),
            ("espana", "ES"),
            ("Schweiz", "CH"),
            ("Russia", "RU"),
            ("Russian Federation", "RU"),
            ("South Korea", "KR"),
            ("Korea (Republic of)", "KR"),
            ("Vietnam", "VN"),
            ("Viet Nam", "VN"),
            ("Czech Republic", "CZ"),
            ("Czechia", "CZ"),
            ("Ivory Coast", "CI"),
            ("cote d'ivoire", "CI"),
            ("Türkiye", "TR"),
            ("Turkey", "TR"),
            ("  new   zealand ", "NZ"),
            ("日本", "JP"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_is_found_between_word_boundaries() {
        assert_eq!(code("Atlanta, Georgia, USA"), "US");
        assert_eq!(code("United Kingdom (GB)"), "GB");
        assert_eq!(code("Papua New Guinea (PNG)"), "PG");
        assert_eq!(code("I live in Nigeria"), "NG");
        assert_eq!(code("Emirates"), "AE");
        assert_eq!(code("Herzegovina"), "BA");
    }

    #[test]
    fn what_names_no_country_finds_none() {
        for text in [
            "", " ", "+1", "Islands", "Republic", "New", "Omantel", "come in", "x", "🦀",
        ] {
            assert_eq!(code(text), "none", "{text}");
        }
    }

    #[test]
    fn every_country_is_found_by_its_own_answer() {
        for iso in ALL {
            let found = find(iso.name).unwrap();
            assert_eq!(found.code, iso.alpha2, "{}", iso.name);
            assert!(!found.country.contains('('), "{}", found.country);
            for text in [iso.alpha2, iso.alpha3, &found.country] {
                assert_eq!(code(text), iso.alpha2, "{text}");
            }
        }
    }
}
