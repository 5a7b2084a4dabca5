//! The submitter's e-mail address (rulings R14, R15).
//!
//! Must not know: any other field.

use email_address::{EmailAddress, Options};

use super::labels::Concept;
use super::matches::Matches;

/// Whether the text is an e-mail address that mail can be sent to: one `@`, a local part, a domain with a top level.
#[must_use]
pub fn is_valid(text: &str) -> bool {
    let options = Options::default()
        .with_required_tld()
        .without_domain_literal()
        .without_display_text();
    text.contains('@')
        && has_top_level(text)
        && EmailAddress::parse_with_options(text, options).is_ok()
}

/// By its label, else by its pattern.
pub(super) fn read(matches: &Matches<'_>) -> Option<String> {
    let labelled = matches.of(Concept::Email).find_map(first_address);
    let found = labelled.or_else(|| {
        let alone = matches.scannable().map(|leaf| bare(&leaf.text));
        alone
            .into_iter()
            .find(|text| is_valid(text) && !text.contains('/'))
    });
    found.map(str::to_owned)
}

/// Every address that stands under its label or alone, in fields that may be the submitter's.
pub(super) fn all(matches: &Matches<'_>) -> Vec<String> {
    let labelled = matches.of(Concept::Email).flat_map(addresses);
    let alone = matches.scannable().map(|leaf| bare(&leaf.text));
    let alone = alone.filter(|text| is_valid(text) && !text.contains('/'));
    labelled.chain(alone).map(str::to_owned).collect()
}

/// The first address in a field made for one: `Ada <ada@example.com>; other@example.com`.
fn first_address(text: &str) -> Option<&str> {
    addresses(text).next()
}

fn addresses(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| c.is_whitespace() || ",;<>".contains(c));
    parts.map(bare).filter(|part| is_valid(part))
}

/// Without what surrounds an address in prose and links.
fn bare(text: &str) -> &str {
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    text.trim_matches(|c: char| c.is_whitespace() || "<>()[]\"'.,;:".contains(c))
}

/// A top level has at least two characters and is no number.
fn has_top_level(text: &str) -> bool {
    let top = text.rsplit('.').next().unwrap_or_default();
    top.chars().nth(1).is_some() && top.chars().any(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(fields: &Value) -> Option<String> {
        read(&Matches::read(fields))
    }

    #[test]
    fn addresses_are_told_from_what_only_looks_like_one() {
        for valid in [
            "a@b.co",
            "grace+inlet@example.com",
            "o'hara@mail.example.ie",
            "ünal@example.com",
        ] {
            assert!(is_valid(valid), "{valid}");
        }
        for invalid in [
            "",
            "@",
            "a@b",
            "a@b.c",
            "a b@example.com",
            "a@b@example.com",
            "a@example..com",
            "a@1.2.3.4",
            "a@[1.2.3.4]",
            "Ada <a@b.co>",
            "{{email}}",
            "<test lead: dummy data for email>",
        ] {
            assert!(!is_valid(invalid), "{invalid}");
        }
    }

    #[test]
    fn an_invalid_address_makes_way_for_a_later_name() {
        let fields =
            json!({"Email*": "none", "email": "", "correo electrónico": "una@example.com"});
        assert_eq!(found(&fields).as_deref(), Some("una@example.com"));
    }

    #[test]
    fn the_first_of_several_addresses_is_taken() {
        let fields = json!({"email": "Ada <ada@example.com>; bob@example.com"});
        assert_eq!(found(&fields).as_deref(), Some("ada@example.com"));
    }

    #[test]
    fn an_unlisted_label_is_found_by_its_value() {
        let fields =
            json!({"id": "5566778899", "custom_fields": {"Best contact": "una@example.com"}});
        assert_eq!(found(&fields).as_deref(), Some("una@example.com"));
    }

    #[test]
    fn the_advertisers_addresses_are_not_the_submitters() {
        let fields = json!({"agent_email": "tina@agency.example", "agent": {"email": "tina@agency.example"},
            "page_url": "a@b.co", "reply_to": "x@example.com", "source": "www.example.com/?mail=a@b.co"});
        assert_eq!(found(&fields), None);
    }
}
