//! Who submitted: what field extraction finds in a payload (rulings R14-R18).

/// Whether a campaign makes persons or businesses (`add_person_or_business`; absent: person, R16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub enum ContactType {
    /// A human being: name split into first and last.
    Person,
    /// A company.
    Business,
}

impl ContactType {
    /// The value of the document's `type` field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ContactType::Person => "person",
            ContactType::Business => "business",
        }
    }
}

/// What a payload says about its submitter. Every text is trimmed and not empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Person {
    /// The full name (person) or the company's name (business).
    pub name: Option<String>,
    /// Persons only.
    pub first_name: Option<String>,
    /// Persons only.
    pub last_name: Option<String>,
    /// A valid e-mail address, as written.
    pub email: Option<String>,
    /// The phone number, E.164 where that can be known (R17).
    pub phone: Option<Phone>,
    /// Whatever parts of a postal address were found.
    pub address: Option<Address>,
}

/// A phone number.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Phone {
    /// E.164 where it can be known, else the digits as given (R17).
    pub number: String,
    /// Whether the number may identify a person: valid by libphonenumber and no placeholder for withheld callers (R20).
    pub identifies: bool,
}

/// A postal address (`getAddressFields`); at least one part is present.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Address {
    /// Street and number.
    pub street: Option<String>,
    /// Apartment, suite.
    pub unit: Option<String>,
    /// City or town.
    pub city: Option<String>,
    /// State, province, region.
    pub state_province: Option<String>,
    /// ZIP or postal code.
    pub postal_code: Option<String>,
    /// The country as written in the payload.
    pub country: Option<String>,
}

/// A country as `getCountryCodes` answers it (R18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Country {
    /// The English short name: `United States`.
    pub country: String,
    /// ISO 3166-1 alpha-2: `US`.
    pub code: &'static str,
    /// International calling codes with their plus sign: `["+1"]`; empty where the country has none.
    pub country_codes: Vec<String>,
}
