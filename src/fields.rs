//! What a payload says about its submitter: name, e-mail, phone, address (rulings R14-R18).
//!
//! Every sender names its fields differently. Each concept has a list of labels in priority order (`labels`); one walk
//! over the payload (`leaves`) files every text under what its label may stand for (`matches`); then each concept
//! picks its first usable value and, failing that, e-mail and phone look at what is left.
//!
//! Pure. Must not know: platforms, campaigns, the store. It takes any JSON and never fails: what is not found is
//! absent.

use serde_json::Value;

use crate::model::erasure::{PersonKey, email_key, phone_key};
use crate::model::{ContactType, Person};

mod address;
pub mod country;
pub mod email;
mod labels;
mod leaves;
mod matches;
mod name;
pub mod phone;
mod spelling;

use labels::Concept;
use matches::Matches;
use phone::Home;

pub(crate) use leaves::labelled;
pub(crate) use spelling::loose;

/// What has to be known beside the payload.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Decides which name and which address come first (R16).
    pub contact_type: ContactType,
    /// The campaign's `country`: the last resort for phone numbers (R17).
    pub campaign_country: Option<&'a str>,
    /// A calling code sent beside the phone: `+1`, `44` (Kartra, R17).
    pub phone_country_code: Option<&'a str>,
}

/// Everything a payload says about its submitter. `fields` is any JSON: flat or nested objects, lists of
/// `{name, value}`, single values in arrays.
#[must_use]
pub fn extract(fields: &Value, context: &Context<'_>) -> Person {
    person(&Matches::read(fields), context)
}

/// The same, with every address that the payload gives.
#[must_use]
pub fn extract_with_reach(fields: &Value, context: &Context<'_>) -> (Person, Reach) {
    let matches = Matches::read(fields);
    let reach = all_addresses(&matches, context);
    (person(&matches, context), reach)
}

/// Every e-mail address and phone number that a payload may give of its submitter, where [`extract`] takes the best of
/// each: whoever is looked for by an address is found by the second one, too (R38).
#[must_use]
pub fn reach(fields: &Value, context: &Context<'_>) -> Reach {
    all_addresses(&Matches::read(fields), context)
}

/// Where a submitter can be reached, as far as a payload tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Valid e-mail addresses, as written.
    pub emails: Vec<String>,
    /// Phone numbers, E.164 where that can be known (R17).
    pub phones: Vec<String>,
}

impl Reach {
    /// The addresses as erasures know them (R38).
    #[must_use]
    pub fn keys(&self) -> Vec<PersonKey> {
        let emails = self.emails.iter().map(|email| email_key(email));
        let phones = self.phones.iter().map(|phone| phone_key(phone));
        emails.chain(phones).collect()
    }
}

fn person(matches: &Matches<'_>, context: &Context<'_>) -> Person {
    let name = name::read(matches, context.contact_type);
    Person {
        name: name.full,
        first_name: name.first,
        last_name: name.last,
        email: email::read(matches),
        phone: phone::read(matches, home(matches, context)),
        address: address::read(matches, context.contact_type),
    }
}

fn all_addresses(matches: &Matches<'_>, context: &Context<'_>) -> Reach {
    Reach {
        emails: email::all(matches),
        phones: phone::all(matches, home(matches, context)),
    }
}

/// The country of numbers that do not say theirs, in the order of ruling R17.
fn home(matches: &Matches<'_>, context: &Context<'_>) -> Option<Home> {
    let sent_beside = context
        .phone_country_code
        .filter(|code| !code.trim().is_empty());
    let calling_code = sent_beside.or_else(|| matches.of(Concept::CallingCode).next());
    let countries = matches.of(Concept::Country).chain(context.campaign_country);
    Home::find(calling_code, countries)
}

#[cfg(test)]
mod tests;
