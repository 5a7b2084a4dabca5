//! Who is to be erased, as somebody asks for it, read as the pipeline reads a submission's addresses.
//!
//! Must not know: the store. It is pure, so that the command line can refuse before it asks a node.

use bson::oid::ObjectId;
use serde::{Deserialize, Serialize};

use crate::fields::email;
use crate::fields::phone::{Home, normalise};
use crate::model::erasure::{PersonKey, email_key, phone_key};

/// Who is to be erased, known by any of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// Phone numbers.
    pub phones: Vec<String>,
    /// The country of phone numbers that do not say theirs: a name or a code (R18).
    pub country: Option<String>,
    /// Only this account's data, by its hexadecimal `_id`.
    pub account: Option<String>,
    /// Only tell what would go.
    pub dry_run: bool,
}

/// Why nobody can be found by what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Neither e-mail nor phone.
    #[error("say who is to be erased: an e-mail address or a phone number")]
    Nobody,
    /// No e-mail address.
    #[error("`{0}` is no e-mail address")]
    Email(String),
    /// No country.
    #[error("`{0}` is no country: say its name or its code, such as SE")]
    Country(String),
    /// A national number, of a country that nobody knows.
    #[error(
        "`{0}` does not say its country: write it as +46..., or say the country (--country SE)"
    )]
    NoCountry(String),
    /// Nobody's number.
    #[error("`{0}` is no valid number, or one that stands for withheld callers: many may have it")]
    Phone(String),
    /// No account.
    #[error("`{0}` is no account: 24 hexadecimal digits are expected")]
    Account(String),
}

impl Asked {
    /// What the person is known by.
    ///
    /// # Errors
    /// When any of it cannot be read: who asks has to know that nobody was looked for by it.
    pub fn keys(&self) -> Result<Vec<PersonKey>, Unreadable> {
        let home = self.home()?;
        let emails = self.emails.iter().map(|email| read_email(email));
        let phones = self.phones.iter().map(|phone| read_phone(phone, home));
        let mut keys = emails.chain(phones).collect::<Result<Vec<_>, _>>()?;
        keys.sort_unstable();
        keys.dedup();
        match keys.is_empty() {
            true => Err(Unreadable::Nobody),
            false => Ok(keys),
        }
    }

    /// The account's `_id`.
    ///
    /// # Errors
    /// When it is none.
    pub fn account_id(&self) -> Result<Option<ObjectId>, Unreadable> {
        let parse = |text: &String| {
            ObjectId::parse_str(text.trim()).map_err(|_| Unreadable::Account(text.clone()))
        };
        self.account.as_ref().map(parse).transpose()
    }

    fn home(&self) -> Result<Option<Home>, Unreadable> {
        let find =
            |text: &String| Home::of_country(text).ok_or_else(|| Unreadable::Country(text.clone()));
        self.country.as_ref().map(find).transpose()
    }
}

fn read_email(text: &str) -> Result<PersonKey, Unreadable> {
    match email::is_valid(text.trim()) {
        true => Ok(email_key(text)),
        false => Err(Unreadable::Email(text.to_owned())),
    }
}

/// Only a number that may identify a person: any other is many people's (R20).
fn read_phone(text: &str, home: Option<Home>) -> Result<PersonKey, Unreadable> {
    match normalise(text, home) {
        Some(phone) if phone.identifies => Ok(phone_key(&phone.number)),
        Some(phone) if home.is_none() && !phone.number.starts_with('+') => {
            Err(Unreadable::NoCountry(text.to_owned()))
        }
        _ => Err(Unreadable::Phone(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(email: &str, phone: &str, country: Option<&str>) -> Asked {
        let some = |text: &str| {
            let present = Some(text.to_owned()).filter(|text| !text.is_empty());
            present.into_iter().collect()
        };
        Asked {
            emails: some(email),
            phones: some(phone),
            country: country.map(str::to_owned),
            ..Asked::default()
        }
    }

    #[test]
    fn a_person_is_read_as_the_pipeline_reads_a_submission() {
        let written = asked(" Ada@Example.se ", "070-123 45 67", Some("Sweden"));
        let plain = asked("ada@example.se", "+46701234567", None);
        assert_eq!(written.keys(), plain.keys());
        assert_eq!(plain.keys().map(|keys| keys.len()), Ok(2));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_passed_over() {
        let no_country = asked("", "070-123 45 67", None).keys();
        assert_eq!(
            no_country,
            Err(Unreadable::NoCountry("070-123 45 67".to_owned()))
        );
        let withheld = asked("", "+1 266 696 6687", None).keys();
        assert!(
            matches!(withheld, Err(Unreadable::Phone(_))),
            "{withheld:?}"
        );
        let country = asked("a@b.co", "", Some("Atlantis")).keys();
        assert!(
            matches!(country, Err(Unreadable::Country(_))),
            "{country:?}"
        );
        let email = asked("ada at example", "", None).keys();
        assert!(matches!(email, Err(Unreadable::Email(_))), "{email:?}");
        assert_eq!(asked("", "", None).keys(), Err(Unreadable::Nobody));
    }
}
