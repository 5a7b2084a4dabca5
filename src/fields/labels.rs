//! The labels that payloads use for what we look for: the specification's priority lists, then what is met in the
//! wild (R14). Order is priority; the specification's names keep its order.
//!
//! Must not know: values.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::spelling::loose;

/// What a label can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concept {
    BusinessName,
    FullName,
    FirstName,
    LastName,
    Email,
    Phone,
    CallingCode,
    Country,
    BusinessStreet,
    BusinessUnit,
    BusinessCity,
    BusinessState,
    BusinessPostalCode,
    Street,
    Unit,
    City,
    State,
    PostalCode,
}

impl Concept {
    pub(super) const COUNT: usize = Concept::PostalCode as usize + 1;
}

/// A label's place in a concept's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub concept: Concept,
    /// As the list spells it.
    pub name: &'static str,
    /// 0 is looked at first.
    pub rank: usize,
}

/// Everything a label may stand for, however it is spelled.
pub(super) fn listed(label: &str) -> &'static [Listed] {
    static BY_LOOSE_NAME: LazyLock<HashMap<String, Vec<Listed>>> = LazyLock::new(|| {
        let mut table = HashMap::<String, Vec<Listed>>::new();
        for (concept, names) in LISTS {
            for (rank, name) in names.iter().enumerate() {
                let listed = Listed {
                    concept: *concept,
                    name,
                    rank,
                };
                table.entry(loose(name)).or_default().push(listed);
            }
        }
        table
    });
    BY_LOOSE_NAME.get(&loose(label)).map_or(&[], Vec::as_slice)
}

/// Every concept with its labels, in priority order.
pub(super) const LISTS: &[(Concept, &[&str])] = &[
    (Concept::BusinessName, BUSINESS_NAME),
    (Concept::FullName, FULL_NAME),
    (Concept::FirstName, FIRST_NAME),
    (Concept::LastName, LAST_NAME),
    (Concept::Email, EMAIL),
    (Concept::Phone, PHONE),
    (Concept::CallingCode, CALLING_CODE),
    (Concept::Country, COUNTRY),
    (Concept::BusinessStreet, BUSINESS_STREET),
    (Concept::BusinessUnit, BUSINESS_UNIT),
    (Concept::BusinessCity, BUSINESS_CITY),
    (Concept::BusinessState, BUSINESS_STATE),
    (Concept::BusinessPostalCode, BUSINESS_POSTAL_CODE),
    (Concept::Street, STREET),
    (Concept::Unit, UNIT),
    (Concept::City, CITY),
    (Concept::State, STATE),
    (Concept::PostalCode, POSTAL_CODE),
];

#[rustfmt::skip]
const BUSINESS_NAME: &[&str] = &[
    "Company Name*", "Business Name*", "company_name", "companyName", "business_name",
    "businessName", "company", "business", "Company Name", "Business Name", "Company", "Business",
    "name_of_business", "name_of_company", "your_company", "your_business", "Your Company Name",
    "Your Business Name", "lead_company", "company.name", "business.name", "organization",
    "organisation", "organization_name", "organisation_name", "organization.name",
    "organisation.name", "practice_name", "practice", "firm", "firm_name", "employer",
    "shop_name", "store_name", "trading_name", "inf_field_Company", "empresa",
    "nombre de la empresa", "nombre_empresa", "negocio", "nome da empresa", "nome_empresa",
    "azienda", "nome azienda", "ragione sociale", "Firma", "Firmenname", "Unternehmen",
    "Unternehmensname", "société", "entreprise", "nom de l'entreprise", "nom de la société",
    "raison sociale", "bedrijf", "bedrijfsnaam", "会社名",
];

#[rustfmt::skip]
const FULL_NAME: &[&str] = &[
    "name", "Name", "full_name", "Full Name", "fullName", "fullname", "Name*", "Full Name*",
    "your_name", "Your Name", "your_full_name", "what_is_your_name", "what's your name",
    "first_and_last_name", "first_name_and_last_name", "contact_name", "contact_full_name",
    "customer_full_name", "lead_name", "person_name", "client_name", "display_name",
    "formatted_customer_name", "customer_name", "cnam", "callername", "caller_name",
    "nombre_completo", "nombre y apellido", "nombre y apellidos", "nombre", "tu nombre",
    "nome completo", "nome e cognome", "nome", "nom complet", "nom et prénom", "prénom et nom",
    "votre nom", "Vor- und Nachname", "vollständiger Name", "dein Name", "Ihr Name",
    "volledige naam", "naam", "お名前", "氏名", "名前",
];

#[rustfmt::skip]
const FIRST_NAME: &[&str] = &[
    "firstName", "first_name", "First Name*", "First Name", "FirstName", "fname", "FNAME",
    "first", "given_name", "forename", "contact_first", "contact_first_name", "your_first_name",
    "your-first-name", "customer_first_name", "lead_first_name", "client_first_name",
    "inf_field_FirstName", "primer nombre", "nombres", "prénom", "votre prénom", "Vorname",
    "voornaam", "primeiro nome", "名",
];

#[rustfmt::skip]
const LAST_NAME: &[&str] = &[
    "lastName", "last_name", "Last Name*", "Last Name", "LastName", "lname", "LNAME", "last",
    "family_name", "surname", "second_name", "contact_last", "contact_last_name",
    "your_last_name", "your-last-name", "customer_last_name", "lead_last_name",
    "client_last_name", "inf_field_LastName", "apellido", "apellidos", "nom de famille", "nom",
    "Nachname", "Familienname", "achternaam", "sobrenome", "cognome", "姓",
];

#[rustfmt::skip]
const EMAIL: &[&str] = &[
    "Business Email*", "Email*", "email", "Email", "email_address", "emailAddress",
    "business_email", "Work Email", "EMAIL", "e-mail", "E-Mail", "Email Address",
    "Email Address*", "work_email", "Business Email", "Work Email*", "your_email", "your-email",
    "Your Email", "your_email_address", "what_is_your_email", "best_email", "primary_email",
    "personal_email", "email_1", "email1", "EmailAddress1", "email_addr", "contact_email",
    "contact_email_address", "user_email", "customer_email", "lead_email", "client_email",
    "company_email", "inf_field_Email", "email.value", "mail", "mail_address", "correo",
    "correo electrónico", "tu correo", "email_2", "email2", "secondary_email", "other_email",
    "courriel", "Adresse e-mail", "adresse mail", "adresse électronique", "E-Mail-Adresse",
    "Mailadresse", "e-mailadres", "mailadres", "endereço de e-mail", "indirizzo e-mail",
    "posta elettronica", "メールアドレス",
];

#[rustfmt::skip]
const PHONE: &[&str] = &[
    "Phone*", "Mobile*", "mobilePhone.value", "phone", "Phone", "customer_phone_number",
    "contact_number", "caller_number", "caller_number_complete", "callernum", "business_number",
    "mobile", "cell", "telephone", "PHONE", "phone_number", "phoneNumber", "Phone Number",
    "Phone Number*", "Mobile Number", "Mobile Number*", "mobile_phone", "mobilePhone",
    "mobile_phone_number", "cell_phone", "Cell Phone", "cell_number", "cell_phone_number",
    "cellular", "tel", "telephone_number", "primary_phone", "main_phone", "best_phone",
    "best_phone_number", "Best Number", "best_contact_number", "daytime_phone", "Daytime Phone",
    "evening_phone", "home_phone", "personal_phone", "work_phone_number", "work_phone",
    "business_phone", "business_phone_number", "office_phone", "company_phone", "your_phone",
    "your-phone", "your_phone_number", "your_number", "what_is_your_phone_number",
    "contact_phone", "contact_phone_number", "contact_mobile", "customer_phone",
    "customer_number", "lead_phone", "client_phone", "user_phone", "user_phone_number",
    "caller_id", "caller_phone", "caller_phone_number", "from_number", "phone_1", "phone1", "ph1",
    "ph", "phone_number_1", "phone_num", "phone_no", "mobile_no", "contact_no", "tel_no", "sms",
    "sms_number", "text_number", "whatsapp", "whatsapp_phone", "whatsapp_number",
    "whatsapp_phone_number", "whatsapp_id", "inf_field_Phone1", "phone.value", "phone_2",
    "phone2", "phone_number_2", "phone_number_2_optional", "secondary_phone", "alternate_phone",
    "other_phone", "teléfono", "telefono", "número de teléfono", "numero de telefono",
    "teléfono móvil", "móvil", "celular", "número de celular", "telefone", "número de telefone",
    "telemóvel", "cellulare", "numero di telefono", "numero di cellulare", "Numéro de téléphone",
    "téléphone", "téléphone portable", "portable", "Telefon", "Telefonnummer", "Handy",
    "Handynummer", "Mobilnummer", "Mobiltelefon", "Rufnummer", "Telefoon", "telefoonnummer",
    "mobiel", "mobiel nummer", "電話番号", "電話", "携帯電話",
];

#[rustfmt::skip]
const CALLING_CODE: &[&str] = &[
    "phone_country_code", "phone_country", "phone_code", "dial_code", "dialling_code",
    "dialing_code", "calling_code", "country_calling_code", "country_dial_code",
    "mobile_country_code",
];

#[rustfmt::skip]
const COUNTRY: &[&str] = &[
    "Country*", "Shipping Country", "country", "Country", "country_name", "shipping_country",
    "your_country", "business_country", "billing_country", "home_country", "address_country",
    "country_of_residence", "inf_field_Country", "country.name", "país", "pais", "pays", "Land",
    "paese", "国", "country_code", "country_iso",
];

#[rustfmt::skip]
const BUSINESS_STREET: &[&str] = &[
    "Business Street*", "shipping_street", "address", "business_street", "business_address",
    "Business Address*", "business_street_address", "business_address_1", "business_address1",
    "company_street", "company_address", "office_address", "work_address", "shipping_address",
    "shipping_address1", "shipping_address_1", "shipping_street_address", "Address", "Address*",
];

#[rustfmt::skip]
const BUSINESS_UNIT: &[&str] = &[
    "Business Unit*", "business_unit", "business_suite", "business_address_2",
    "business_address2", "shipping_unit", "shipping_address2", "shipping_address_2",
];

#[rustfmt::skip]
const BUSINESS_CITY: &[&str] = &[
    "Business City*", "shipping_city", "business_city", "company_city", "office_city",
    "work_city",
];

#[rustfmt::skip]
const BUSINESS_STATE: &[&str] = &[
    "Business State*", "shipping_state", "business_state", "business_state_province",
    "business_province", "business_region", "company_state", "shipping_province",
    "shipping_region",
];

#[rustfmt::skip]
const BUSINESS_POSTAL_CODE: &[&str] = &[
    "Business ZIP*", "shipping_zip", "business_zip", "business_zip_code", "business_postal_code",
    "business_postcode", "company_zip", "company_postal_code", "shipping_postal_code",
    "shipping_zip_code", "shipping_postcode",
];

#[rustfmt::skip]
const STREET: &[&str] = &[
    "Street*", "street", "Street Address", "street_address", "Street", "Street Address*",
    "address1", "address_1", "address_line_1", "address_line1", "addressLine1", "line1",
    "address_addr1", "addr1", "street1", "street_1", "street_name", "address_street",
    "home_address", "mailing_address", "billing_address", "billing_address1", "billing_street",
    "full_address", "property_address", "your_address", "postal_address",
    "inf_field_StreetAddress1", "dirección", "calle", "endereço", "morada", "rua", "indirizzo",
    "via", "Straße", "Strasse", "Straße und Hausnummer", "Adresse", "Anschrift", "rue",
    "adresse postale", "straat", "adres", "住所",
];

#[rustfmt::skip]
const UNIT: &[&str] = &[
    "Unit*", "unit", "Apartment Number", "apartment_number", "apartment", "Apartment", "apt",
    "apt_number", "unit_number", "suite", "suite_number", "address2", "address_2",
    "address_line_2", "address_line2", "addressLine2", "line2", "address_addr2", "addr2",
    "street2", "street_2", "floor", "flat", "inf_field_StreetAddress2",
];

#[rustfmt::skip]
const CITY: &[&str] = &[
    "City*", "city", "City", "town", "city_town", "town_city", "suburb", "locality",
    "municipality", "address_city", "billing_city", "home_city", "your_city", "inf_field_City",
    "ciudad", "localidad", "cidade", "città", "comune", "ville", "Ort", "Stadt", "Wohnort",
    "stad", "plaats", "woonplaats", "市区町村",
];

#[rustfmt::skip]
const STATE: &[&str] = &[
    "State/Province*", "state", "State", "state_province", "State/Province", "state_or_province",
    "province", "region", "state_region", "address_state", "billing_state", "home_state",
    "your_state", "state_code", "county", "prefecture", "territory", "inf_field_State", "estado",
    "provincia", "Bundesland", "Kanton", "département", "provincie", "都道府県", "st",
];

#[rustfmt::skip]
const POSTAL_CODE: &[&str] = &[
    "Postal Code*", "postal_code", "zip", "Postal Code", "Zip", "ZIP", "zip_code", "Zip Code",
    "zipcode", "post_code", "postcode", "zip_postal_code", "zip_or_postal_code", "address_zip",
    "postal", "billing_zip", "billing_postal_code", "your_zip_code", "pin_code", "pincode",
    "eircode", "inf_field_PostalCode", "código postal", "CEP", "CAP", "code postal", "PLZ",
    "Postleitzahl", "CP", "郵便番号",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// How many labels a list holds that are really different.
    fn different(names: &[&str]) -> usize {
        names
            .iter()
            .map(|name| loose(name))
            .collect::<HashSet<_>>()
            .len()
    }

    #[test]
    fn the_lists_are_written_out_in_full() {
        assert!(different(BUSINESS_NAME) >= 15);
        assert!(different(EMAIL) >= 20);
        assert!(different(PHONE) >= 30);
        assert!(
            LISTS
                .iter()
                .map(|(concept, _)| *concept as usize)
                .eq(0..Concept::COUNT)
        );
    }

    #[test]
    fn no_name_is_listed_twice() {
        for (concept, names) in LISTS {
            let once: HashSet<_> = names.iter().collect();
            assert_eq!(once.len(), names.len(), "{concept:?}");
        }
    }

    #[test]
    fn the_traps_are_in_no_list() {
        for trap in [
            "page_name",
            "form_name",
            "product_name",
            "campaign_name",
            "user_name",
            "agent_email",
            "agent_name",
            "websiteName",
            "ip_country",
            "tracking_number",
            "tracking_phone_number",
            "business_phone_number_id",
            "id",
            "ip_address",
            "unix_time",
        ] {
            assert!(listed(trap).is_empty(), "{trap}");
        }
    }
}
