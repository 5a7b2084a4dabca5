//! Facts about phone numbers: the table of what people write, country by country.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn number(raw: &str, country: &str) -> String {
    let phone = normalise(raw, Home::of_country(country));
    phone.map_or_else(|| "none".into(), |phone| phone.number)
}

fn identifies(raw: &str, country: &str) -> bool {
    normalise(raw, Home::of_country(country))
        .unwrap()
        .identifies
}

/// National number, country, E.164: the table of what each country writes.
const NATIONAL: &[(&str, &str, &str)] = &[
    ("07400 123456", "United Kingdom", "+447400123456"),
    ("0151 23456789", "Germany", "+4915123456789"),
    ("06 12 34 56 78", "France", "+33612345678"),
    ("06 12345678", "Netherlands", "+31612345678"),
    ("0450 00 12 34", "Belgium", "+32450001234"),
    ("078 123 45 67", "Switzerland", "+41781234567"),
    ("0664 123456", "Austria", "+43664123456"),
    ("085 012 3456", "Ireland", "+353850123456"),
    ("070-123 45 67", "Sweden", "+46701234567"),
    ("041 2345678", "Finland", "+358412345678"),
    ("0412 345 678", "Australia", "+61412345678"),
    ("021 123 4567", "New Zealand", "+64211234567"),
    ("081234 56789", "India", "+918123456789"),
    ("0301 2345678", "Pakistan", "+923012345678"),
    ("01812-345678", "Bangladesh", "+8801812345678"),
    ("0905 123 4567", "Philippines", "+639051234567"),
    ("0812-345-678", "Indonesia", "+62812345678"),
    ("012-345 6789", "Malaysia", "+60123456789"),
    ("081 234 5678", "Thailand", "+66812345678"),
    ("091 234 56 78", "Vietnam", "+84912345678"),
    ("090-1234-5678", "Japan", "+819012345678"),
    ("010-2000-0000", "South Korea", "+821020000000"),
    ("0501 234 56 78", "Turkey", "+905012345678"),
    ("050-234-5678", "Israel", "+972502345678"),
    ("050 123 4567", "UAE", "+971501234567"),
    ("051 234 5678", "Saudi Arabia", "+966512345678"),
    ("0100 123 4567", "Egypt", "+201001234567"),
    ("0802 123 4567", "Nigeria", "+2348021234567"),
    ("0712 123456", "Kenya", "+254712123456"),
    ("071 123 4567", "South Africa", "+27711234567"),
    ("050 123 4567", "Ukraine", "+380501234567"),
    ("0 11 96123-4567", "Brazil", "+5511961234567"),
    ("1 (415) 555-2671", "USA", "+14155552671"),
    ("1 (415) 555-2671", "Canada", "+14155552671"),
    ("8 (912) 345-67-89", "Russia", "+79123456789"),
    ("8 (912) 345-67-89", "Kazakhstan", "+79123456789"),
    ("06 20 123 4567", "Hungary", "+36201234567"),
    ("011 15-2345-6789", "Argentina", "+5491123456789"),
    ("02 1234 5678", "Italy", "+390212345678"),
    ("312 345 6789", "Italy", "+393123456789"),
    ("612 34 56 78", "Spain", "+34612345678"),
];

#[test]
fn national_numbers_become_e164() {
    for (raw, country, expected) in NATIONAL {
        assert_eq!(number(raw, country), *expected, "{raw} in {country}");
        assert!(identifies(raw, country), "{raw} in {country}");
    }
}

#[test]
fn the_specifications_examples_hold() {
    assert_eq!(number("4155551234", "United States"), "+14155551234");
    assert_eq!(number("+14155551234", "United States"), "+14155551234");
}

#[test]
fn other_spellings_are_understood() {
    for raw in [
        "+44 (0)7400 123456",
        "0044 7400 123456",
        "011 44 7400 123456",
        "0011 44 7400 123456",
        "447400123456",
        "(+44) 7400-123456",
        "+44\u{a0}7400\u{a0}123456",
        "０７４００ １２３４５６",
        "＋44 7400 123456",
        "p:+447400123456",
        "tel:07400123456",
        "07400.123456",
        "07400/123456",
        "07400 123456 ext. 12",
        "07400 123456x12",
        "07400123456 #3",
        "07400 123456, 07400 654321",
        "07400 123456 / 07400 654321",
        "07400123456/07400654321",
        "07400 123456 or 07400 654321",
        "+44 7400 123456 +44 7400 654321",
        "07400123456 07400654321",
        "+44-7400-123456",
        "++447400123456",
        "+07400 123456",
        "call 07400 123456 thanks",
    ] {
        assert_eq!(number(raw, "UK"), "+447400123456", "{raw}");
    }
    assert_eq!(number("0151/23456789", "Germany"), "+4915123456789");
    assert_eq!(number("415.555.2671", "US"), "+14155552671");
    assert_eq!(number("1-800-FLOWERS", "US"), "+18003569377");
}

#[test]
fn an_own_prefix_wins_over_the_country() {
    assert_eq!(number("+44 7400 123456", "US"), "+447400123456");
    assert_eq!(number("0044 7400 123456", "US"), "+447400123456");
    assert_eq!(number("011 44 7400 123456", ""), "+447400123456");
}

#[test]
fn an_invalid_number_gets_the_calling_code_and_loses_its_trunk_prefix() {
    assert_eq!(number("0123", "UK"), "none");
    assert_eq!(number("01234 5", "UK"), "+4412345");
    assert_eq!(number("555-0100", "US"), "+15550100");
    assert!(!identifies("555-0100", "US"));
}

#[test]
fn without_a_country_the_digits_stay_as_given() {
    assert_eq!(number("(415) 555-2671", ""), "4155552671");
    assert_eq!(number("07400 123456", ""), "07400123456");
    assert!(!identifies("(415) 555-2671", ""));
}

#[test]
fn what_is_no_number_is_none() {
    for raw in [
        "",
        "call me",
        "5pm",
        "{{phone}}",
        "{{cuf_12345678}}",
        "<test lead: dummy data for phone_number>",
        "1234567890123456789012",
    ] {
        assert_eq!(number(raw, "US"), "none", "{raw}");
    }
}

#[test]
fn placeholders_of_withheld_callers_identify_nobody() {
    for raw in [
        "+266696687",
        "2666966687",
        "7378742833",
        "+17378742833",
        "+18656696",
        "8656696",
        "5555555555",
        "+12222222222",
        "1234567890",
        "+447777777777",
    ] {
        assert!(!identifies(raw, "US"), "{raw}");
    }
    assert!(identifies("+1 415 555 2671", "US"));
}

#[test]
fn the_calling_code_beside_the_phone_comes_first() {
    let home = |code| Home::find(code, ["Germany"]);
    assert_eq!(home(Some("+44")), Home::of_country("UK"));
    assert_eq!(home(Some("44")), Home::of_country("UK"));
    assert_eq!(home(Some("GB")), Home::of_country("UK"));
    assert_eq!(home(Some("1")), Home::of_country("US"));
    assert_eq!(home(Some("+999")), Home::of_country("Germany"));
    assert_eq!(home(None), Home::of_country("Germany"));
}

#[test]
fn tracking_numbers_are_compared_as_phone_lines() {
    assert!(same_line("(415) 555-9999", "+14155559999", None));
    assert!(same_line("020 7946 0018", "+442079460018", Some("UK")));
    assert!(same_line("4155559999", "1-415-555-9999", Some("US")));
    assert!(same_line("5559999", "+14155559999", None));
    assert!(!same_line("559999", "+14155559999", None));
    assert!(!same_line("+14155559998", "+14155559999", None));
    assert!(!same_line("", "", None));
}

fn country_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NATIONAL).prop_map(|(_, country, _)| country)
}

proptest! {
    #[test]
    fn a_normalised_number_is_its_own_normal_form(raw in "[+0-9 ()/.x-]{0,24}|\\PC{0,24}", country in country_name()) {
        let home = Home::of_country(country);
        if let Some(once) = normalise(&raw, home) {
            prop_assert_eq!(normalise(&once.number, home), Some(once));
        }
        if let Some(once) = normalise(&raw, None) {
            prop_assert_eq!(normalise(&once.number, None), Some(once));
        }
    }

    #[test]
    fn a_valid_e164_number_stays_itself_everywhere(row in prop::sample::select(NATIONAL), country in country_name()) {
        let phone = normalise(row.2, Home::of_country(country)).unwrap();
        prop_assert_eq!(phone.number, row.2);
        prop_assert!(phone.identifies);
    }
}
