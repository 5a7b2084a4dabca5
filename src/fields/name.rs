//! The submitter's name (ruling R16).
//!
//! Must not know: any other field.

use crate::model::ContactType;

use super::labels::Concept;
use super::matches::Matches;

/// What goes by the name of a name: the full one, and for persons its parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    pub full: Option<String>,
    pub first: Option<String>,
    pub last: Option<String>,
}

pub(super) fn read(matches: &Matches<'_>, contact_type: ContactType) -> Name {
    match contact_type {
        ContactType::Person => person(matches),
        ContactType::Business => Name {
            full: business(matches).or_else(|| person(matches).full),
            ..Name::default()
        },
    }
}

fn business(matches: &Matches<'_>) -> Option<String> {
    let texts = matches.of(Concept::BusinessName);
    texts
        .map(tidy)
        .find(|name| name.contains(char::is_alphanumeric))
}

fn person(matches: &Matches<'_>) -> Name {
    let (first, first_depth) = human(matches, Concept::FirstName);
    let (last, last_depth) = human(matches, Concept::LastName);
    let (full, full_depth) = human(matches, Concept::FullName);
    // The parts at the top level win over a full name that is nested deeper.
    let parts_first = first.is_some() && first_depth.min(last_depth) < full_depth;
    let full = full.filter(|_| !parts_first);
    complete(full, first, last)
}

/// The first text under the concept that may be a human name, and how deep it stands.
fn human(matches: &Matches<'_>, concept: Concept) -> (Option<String>, usize) {
    let texts = matches.with_depth(concept);
    let mut names = texts.map(|(text, depth)| (tidy(text), depth));
    let found = names.find(|(name, _)| name.contains(char::is_alphabetic) && !is_placeholder(name));
    found.map_or((None, usize::MAX), |(name, depth)| (Some(name), depth))
}

/// Fills what is missing from what is there.
fn complete(full: Option<String>, first: Option<String>, last: Option<String>) -> Name {
    let Some(full) = full else {
        let full = [first.as_deref(), last.as_deref()].into_iter().flatten();
        let full = full.collect::<Vec<_>>().join(" ");
        return Name {
            full: (!full.is_empty()).then_some(full),
            first,
            last,
        };
    };
    match (first, last) {
        (None, None) => split(full),
        (Some(first), None) => with_first(full, first),
        (None, Some(last)) => with_last(full, last),
        (first, last) => Name {
            full: Some(full),
            first,
            last,
        },
    }
}

/// A full name alone is split at its first blank.
fn split(full: String) -> Name {
    let (first, last) = match full.split_once(' ') {
        Some((first, last)) => (first.to_owned(), Some(last.to_owned())),
        None => (full.clone(), None),
    };
    Name {
        full: Some(full),
        first: Some(first),
        last,
    }
}

fn with_first(full: String, first: String) -> Name {
    let rest = full
        .strip_prefix(&*first)
        .and_then(|rest| rest.strip_prefix(' '));
    Name {
        last: rest.map(str::to_owned),
        first: Some(first),
        full: Some(full),
    }
}

/// A form that asks for `Name` and `Last name` has the first name in `Name`.
fn with_last(full: String, last: String) -> Name {
    if full == last {
        return Name {
            full: Some(full),
            first: None,
            last: Some(last),
        };
    }
    let rest = full
        .strip_suffix(&*last)
        .and_then(|rest| rest.strip_suffix(' '));
    let first = rest.unwrap_or(&full).to_owned();
    Name {
        full: Some(if rest.is_some() {
            full
        } else {
            format!("{full} {last}")
        }),
        first: Some(first),
        last: Some(last),
    }
}

/// Surrounding and doubled blanks collapse.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What caller identification says when it knows nothing.
fn is_placeholder(name: &str) -> bool {
    const NOBODY: &[&str] = &[
        "unknown",
        "unknown name",
        "unknown caller",
        "anonymous",
        "unavailable",
        "restricted",
        "private caller",
        "wireless caller",
        "out of area",
    ];
    NOBODY.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn person(fields: &Value) -> [Option<String>; 3] {
        let name = read(&Matches::read(fields), ContactType::Person);
        [name.full, name.first, name.last]
    }

    fn names<const N: usize>(names: [&str; N]) -> [Option<String>; N] {
        names.map(|name| (!name.is_empty()).then(|| name.to_owned()))
    }

    #[test]
    fn a_full_name_is_split_at_its_first_blank() {
        let expected = names(["Ada King Lovelace", "Ada", "King Lovelace"]);
        assert_eq!(
            person(&json!({"full_name": "  Ada  King\tLovelace "})),
            expected
        );
        assert_eq!(
            person(&json!({"Full Name*": "Cher"})),
            names(["Cher", "Cher", ""])
        );
    }

    #[test]
    fn parts_make_a_full_name() {
        let ada = names(["Ada Byron", "Ada", "Byron"]);
        assert_eq!(
            person(&json!({"firstName": "Ada", "lastName": "Byron"})),
            ada
        );
        assert_eq!(
            person(&json!({"first-name": "Ada ", "last-name": "Byron"})),
            ada
        );
        assert_eq!(person(&json!({"fname": "Ada", "LNAME": "Byron"})), ada);
        assert_eq!(person(&json!({"prénom": "Ada", "nom": "Byron"})), ada);
        assert_eq!(person(&json!({"nombre": "Ada", "apellido": "Byron"})), ada);
        assert_eq!(
            person(&json!({"Name": "Ada Byron", "Last Name": "Byron"})),
            ada
        );
        assert_eq!(
            person(&json!({"last_name": "Byron"})),
            names(["Byron", "", "Byron"])
        );
    }

    #[test]
    fn parts_at_the_top_win_over_a_nested_full_name() {
        let fields =
            json!({"contact": {"name": "Old Name"}, "first_name": "Ada", "last_name": "Byron"});
        assert_eq!(person(&fields), names(["Ada Byron", "Ada", "Byron"]));
    }

    #[test]
    fn names_of_things_are_nobodys() {
        let fields = json!({"page_name": "Spring", "form_name": "Contact", "product_name": "Shoe", "user_name": "x1",
            "campaign_name": "May", "form": {"name": "Contact"}, "products": [{"name": "Shoe"}],
            "agent": {"name": "Tina"}, "formatted_customer_name": "Unknown", "name": "+1 415 555 2671"});
        assert_eq!(person(&fields), names(["", "", ""]));
    }

    #[test]
    fn a_business_is_named_by_its_company_first() {
        let business = |fields| read(&Matches::read(&fields), ContactType::Business);
        let acme = business(json!({"name": "Ada Byron", "Company Name*": " Acme  Ltd "}));
        assert_eq!(
            [acme.full, acme.first, acme.last],
            names(["Acme Ltd", "", ""])
        );
        let ada = business(json!({"first_name": "Ada", "last_name": "Byron", "company": ""}));
        assert_eq!(
            [ada.full, ada.first, ada.last],
            names(["Ada Byron", "", ""])
        );
    }
}
