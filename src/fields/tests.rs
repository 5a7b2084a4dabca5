//! Facts about extraction, and properties that hold for any payload.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, json};

use super::labels::LISTS;
use super::*;
use crate::model::{Address, Phone};

const PERSON: Context<'static> = Context {
    contact_type: ContactType::Person,
    campaign_country: None,
    phone_country_code: None,
};

fn email(fields: &Value) -> String {
    extract(fields, &PERSON).email.unwrap_or_default()
}

fn phone(fields: &Value) -> String {
    extract(fields, &PERSON)
        .phone
        .map(|phone| phone.number)
        .unwrap_or_default()
}

#[test]
fn a_flat_form_is_read_whole() {
    let fields = json!({"Full Name*": "Ada Byron", "E-Mail": "ada@example.com", "Mobile*": "07400 123456",
        "Country*": "United Kingdom", "city": "Bath"});
    let expected = Person {
        name: Some("Ada Byron".into()),
        first_name: Some("Ada".into()),
        last_name: Some("Byron".into()),
        email: Some("ada@example.com".into()),
        phone: Some(Phone {
            number: "+447400123456".into(),
            identifies: true,
        }),
        address: Some(Address {
            city: Some("Bath".into()),
            country: Some("United Kingdom".into()),
            ..Address::default()
        }),
    };
    assert_eq!(extract(&fields, &PERSON), expected);
}

#[test]
fn a_facebook_lead_is_read_from_its_field_data() {
    let fields = json!({"id": "1088214550913377", "created_time": "2026-01-09T09:20:01+0000", "field_data": [
        {"name": "full_name", "values": ["Grace Okafor"]}, {"name": "email", "values": ["grace@example.com"]},
        {"name": "which_services_do_you_need?", "values": ["seo", "ads"]},
        {"name": "phone_number_(eg.65xxxxxxxx)", "values": ["+6581234567"]}]});
    let person = extract(&fields, &PERSON);
    assert_eq!(person.name.as_deref(), Some("Grace Okafor"));
    assert_eq!(person.email.as_deref(), Some("grace@example.com"));
    assert_eq!(person.phone.unwrap().number, "+6581234567");
}

#[test]
fn facebooks_dummies_are_no_phone() {
    let fields = json!({"field_data": [{"name": "phone_number", "values": ["<test lead: dummy data for phone_number>"]},
        {"name": "email", "values": ["test@meta.com"]}]});
    assert_eq!(
        (phone(&fields), email(&fields)),
        (String::new(), "test@meta.com".into())
    );
}

#[test]
fn a_blank_at_the_top_makes_way_for_the_nested_value() {
    let clickfunnels =
        json!({"first-name": "Ada", "phone": "", "contact-profile": {"phone": "+14155552671"}});
    assert_eq!(phone(&clickfunnels), "+14155552671");
    let manychat = json!({"email": null, "phone": "{{phone}}", "custom_fields": {"email": "a@b.co", "Best number": 4155552671_u64}});
    assert_eq!(
        (phone(&manychat), email(&manychat)),
        ("4155552671".into(), "a@b.co".into())
    );
}

#[test]
fn the_phones_country_is_looked_for_in_the_order_of_the_rulings() {
    let number = |fields: Value, code, campaign| {
        let context = Context {
            phone_country_code: code,
            campaign_country: campaign,
            ..PERSON
        };
        extract(&fields, &context).phone.unwrap().number
    };
    let uk = json!({"phone": "07400 123456", "country": "UK"});
    assert_eq!(number(uk, None, Some("US")), "+447400123456");
    let nowhere = json!({"phone": "07400 123456", "country": "?"});
    assert_eq!(
        number(nowhere, None, Some("United Kingdom")),
        "+447400123456"
    );
    let kartra = json!({"phone": "4155552671", "country": "UK"});
    assert_eq!(number(kartra, Some("+1"), None), "+14155552671");
}

#[test]
fn an_unlabelled_phone_is_found_by_its_form() {
    assert_eq!(
        phone(&json!({"Best contact": "(415) 555-2671"})),
        "4155552671"
    );
    let fields = json!({"Wie erreichen wir Sie?": "0151 23456789", "country": "DE"});
    assert_eq!(phone(&fields), "+4915123456789");
}

#[test]
fn the_fallback_takes_no_id_time_address_or_advertisers_number_for_a_phone() {
    let fields = json!({"id": "5566778899", "page_id": "104822739105", "ig_id": "1048227391", "leadid": "4155552671",
        "unix_time": "1767951011", "submitted": "1767951011", "called_at": "2026-01-09", "when": "2026-01-09",
        "ip": "203.0.113.24", "peer": "203.0.113.24", "tracking_phone_number": "+14155559999", "budget": "4155552671",
        "agent_phone": "+14155550100", "apiSecret": "4155552671", "url": "4155552671", "zip": "4155552671"});
    assert_eq!(phone(&fields), "");
}

#[test]
fn the_contact_type_decides_which_name_comes_first() {
    let fields = json!({"name": "Ada Byron", "company": "Acme"});
    let business = Context {
        contact_type: ContactType::Business,
        ..PERSON
    };
    assert_eq!(extract(&fields, &business).name.as_deref(), Some("Acme"));
    assert_eq!(extract(&fields, &PERSON).name.as_deref(), Some("Ada Byron"));
}

/// Every way a form builder may write a label.
fn spellings(name: &str) -> Vec<String> {
    let words: Vec<String> = name.split([' ', '_', '-']).map(str::to_lowercase).collect();
    let capital = |word: &String| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|first| first.to_uppercase().chain(chars).collect::<String>())
            .unwrap_or_default()
    };
    let title: Vec<String> = words.iter().map(capital).collect();
    let camel = words[0].clone() + &title[1..].concat();
    vec![
        name.to_owned(),
        name.to_lowercase(),
        name.to_uppercase(),
        title.join(" "),
        camel,
        words.join("_"),
        words.join("-"),
        format!(" {name} * :"),
    ]
}

#[test]
fn every_listed_name_is_found_in_every_letter_case() {
    for (concept, names) in LISTS {
        for spelling in names.iter().flat_map(|name| spellings(name)) {
            let fields = Value::Object(Map::from_iter([(spelling.clone(), json!("x"))]));
            assert_eq!(
                Matches::read(&fields).of(*concept).next(),
                Some("x"),
                "{concept:?}: {spelling}"
            );
        }
    }
}

#[test]
fn depth_and_breadth_are_survived() {
    let deep = (0..120).fold(
        json!("a@b.co"),
        |inner, _| json!({"a": inner, "value": [[]]}),
    );
    assert_eq!(email(&deep), "");
    let wide = Value::Array(vec![json!({"name": "phone", "value": "12345678"}); 20_000]);
    assert_eq!(phone(&wide), "12345678");
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "\\PC{0,16}",
        "[+0-9 ().-]{5,16}",
        "[a-z]{1,8}@[a-z]{1,8}\\.[a-z]{2,3}",
        Just("{{x}}".to_owned()),
    ];
    let label = prop_oneof![
        "\\PC{0,8}".prop_map(String::from),
        prop::sample::select(vec![
            "name",
            "value",
            "values",
            "email",
            "phone",
            "country",
            "full_name",
            "first_name",
            "last_name",
            "address",
            "field_data",
            "custom_fields",
            "company"
        ])
        .prop_map(String::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((label.clone(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// The person as a flat document, as another system would send it on.
fn document(person: &Person) -> Value {
    let address = person.address.clone().unwrap_or_default();
    let phone = person.phone.as_ref().map(|phone| phone.number.clone());
    json!({"name": person.name, "first_name": person.first_name, "last_name": person.last_name,
        "email": person.email, "phone": phone, "street": address.street, "unit": address.unit, "city": address.city,
        "state_province": address.state_province, "postal_code": address.postal_code, "country": address.country})
}

proptest! {
    #[test]
    fn any_json_is_read_without_panic_and_reading_its_result_changes_nothing(fields in any_json()) {
        let context = Context { campaign_country: Some("US"), ..PERSON };
        let person = extract(&fields, &context);
        prop_assert_eq!(extract(&document(&person), &context), person);
    }
}

#[test]
fn whoever_is_looked_for_by_a_second_address_is_found_and_the_advertiser_is_not() {
    let fields = json!({
        "email": "Ada <ada@example.com>; ada@work.example",
        "Best contact": "a.byron@example.org",
        "phone": "+46 70-123 45 67",
        "whatsapp_number": "+14155552671",
        "agent_email": "tina@agency.example",
        "agent": { "email": "tom@agency.example", "phone": "+14155550100" },
    });
    let reach = reach(&fields, &PERSON);
    let person = extract(&fields, &PERSON);
    for email in ["ada@example.com", "ada@work.example", "a.byron@example.org"] {
        assert!(reach.emails.iter().any(|found| found == email), "{reach:?}");
    }
    assert!(reach.emails.contains(&person.email.unwrap()));
    assert!(reach.phones.contains(&person.phone.unwrap().number));
    assert!(
        reach.phones.iter().any(|found| found == "+14155552671"),
        "{reach:?}"
    );
    assert!(
        !reach.emails.iter().any(|found| found.contains("agency")),
        "{reach:?}"
    );
    assert!(
        !reach.phones.iter().any(|found| found == "+14155550100"),
        "{reach:?}"
    );
}
