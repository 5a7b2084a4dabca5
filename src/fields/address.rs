//! The submitter's postal address (`getAddressFields`).
//!
//! Must not know: whether such a place exists.

use crate::model::{Address, ContactType};

use super::labels::Concept;
use super::matches::Matches;

/// Whatever parts there are; `None` if there is none. A business is asked for its business address first, a person
/// for the personal one; each part falls back to the other.
pub(super) fn read(matches: &Matches<'_>, contact_type: ContactType) -> Option<Address> {
    let part = |personal, business| match contact_type {
        ContactType::Person => [personal, business],
        ContactType::Business => [business, personal],
    };
    let find = |concepts: [Concept; 2]| {
        concepts
            .into_iter()
            .find_map(|concept| first(matches, concept))
    };
    let address = Address {
        street: find(part(Concept::Street, Concept::BusinessStreet)),
        unit: find(part(Concept::Unit, Concept::BusinessUnit)),
        city: find(part(Concept::City, Concept::BusinessCity)),
        state_province: find(part(Concept::State, Concept::BusinessState)),
        postal_code: find(part(Concept::PostalCode, Concept::BusinessPostalCode)),
        country: country(matches),
    };
    (address != Address::default()).then_some(address)
}

fn first(matches: &Matches<'_>, concept: Concept) -> Option<String> {
    let mut texts = matches.of(concept);
    let found = texts.find(|text| text.contains(char::is_alphanumeric) && !text.contains('@'))?;
    Some(found.to_owned())
}

/// A `country_code` may be a calling code: that is no country as people write it.
fn country(matches: &Matches<'_>) -> Option<String> {
    let mut texts = matches.of(Concept::Country);
    let found = texts.find(|text| text.contains(char::is_alphabetic))?;
    Some(found.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn address(fields: &Value, contact_type: ContactType) -> Address {
        read(&Matches::read(fields), contact_type).unwrap_or_default()
    }

    #[test]
    fn each_part_is_found_under_its_own_labels() {
        let fields = json!({"Street Address": "1 Main St", "Apartment Number": "4b", "City*": "Oakland",
            "State/Province*": "CA", "zip": 94607, "Country": "USA"});
        let expected = Address {
            street: Some("1 Main St".into()),
            unit: Some("4b".into()),
            city: Some("Oakland".into()),
            state_province: Some("CA".into()),
            postal_code: Some("94607".into()),
            country: Some("USA".into()),
        };
        assert_eq!(address(&fields, ContactType::Person), expected);
    }

    #[test]
    fn the_contact_type_decides_whose_address_comes_first() {
        let fields = json!({"Street*": "Home 1", "Business Street*": "Work 2", "City*": "Bath"});
        let person = address(&fields, ContactType::Person);
        let business = address(&fields, ContactType::Business);
        assert_eq!(person.street.as_deref(), Some("Home 1"));
        assert_eq!(business.street.as_deref(), Some("Work 2"));
        assert_eq!(business.city.as_deref(), Some("Bath"));
    }

    #[test]
    fn an_address_object_is_read_by_its_parts() {
        let fields =
            json!({"address": {"line1": "1 Main St", "town": "Bath", "postcode": "BA1 1AA"}});
        let address = address(&fields, ContactType::Person);
        assert_eq!(address.street.as_deref(), Some("1 Main St"));
        assert_eq!(address.city.as_deref(), Some("Bath"));
        assert_eq!(address.postal_code.as_deref(), Some("BA1 1AA"));
    }

    #[test]
    fn nothing_found_is_no_address() {
        let fields = json!({"ip_country": "US", "city": " ", "country_code": "+1", "email_address": "a@b.co"});
        assert_eq!(read(&Matches::read(&fields), ContactType::Person), None);
    }
}
