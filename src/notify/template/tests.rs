//! What placeholders become.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn values(pairs: &[(&str, &str)]) -> Values {
    let mut values = Values::new();
    for (name, value) in pairs {
        values.add(name, value);
    }
    values
}

#[test]
fn a_placeholder_becomes_what_the_lead_says() {
    let values = values(&[("first_name", "Ada"), ("campaign_name", "Spring")]);
    assert_eq!(
        plain("Hi {{first_name}}, from {{ Campaign Name }}!", &values),
        "Hi Ada, from Spring!"
    );
}

#[test]
fn a_name_nobody_knows_becomes_nothing() {
    assert_eq!(plain("[{{shoe_size}}]", &Values::new()), "[]");
}

#[test]
fn what_is_no_placeholder_stays_as_it_is() {
    for text in [
        "{{",
        "{{}}",
        "{{ }}",
        "{a}",
        "{{a",
        "a}}",
        "{{<b>a</b>}}",
        "@media{a{b:c}}",
    ] {
        assert_eq!(plain(text, &values(&[("a", "x")])), text);
    }
    let long = format!("{{{{{}}}}}", "a".repeat(NAME_BYTES_MAX + 1));
    assert_eq!(plain(&long, &Values::new()), long);
}

#[test]
fn values_are_escaped_in_html_even_within_three_braces() {
    let values = values(&[("name", r#"<a href="x">Tom & 'Jerry'</a>"#)]);
    let escaped = "&lt;a href=&quot;x&quot;&gt;Tom &amp; &#39;Jerry&#39;&lt;/a&gt;";
    assert_eq!(
        html("<b>{{name}}</b>", &values),
        format!("<b>{escaped}</b>")
    );
    assert_eq!(html("{{{name}}}", &values), escaped);
}

#[test]
fn braces_in_a_value_mean_nothing() {
    let values = values(&[("a", "{{b}}"), ("b", "secret"), ("c", "{")]);
    assert_eq!(plain("{{a}} {{c}}{b}}", &values), "{{b}} {{b}}");
}

#[test]
fn what_was_said_first_stays() {
    let mut values = values(&[("email", "extracted@example.com"), ("phone", " ")]);
    values.add_lead_data(&json!({"Email": "raw@example.com", "phone": 4155550101_u64}));
    assert_eq!(
        plain("{{email}} {{phone}}", &values),
        "extracted@example.com 4155550101"
    );
}

#[test]
fn every_field_of_the_payload_has_its_name_and_its_path() {
    let mut values = Values::new();
    values.add_lead_data(&json!({
        "contact": {"city": "Turin", "plan": "inner"},
        "field_data": [{"name": "budget?", "values": ["10", "20"]}, {"name": "ok", "values": [true]}],
        "plan": "outer",
    }));
    let template = "{{city}}|{{contact.city}}|{{Budget}}|{{ok}}|{{plan}}|{{contact.plan}}";
    assert_eq!(
        plain(template, &values),
        "Turin|Turin|10, 20|true|outer|inner"
    );
}

#[test]
fn a_payload_kept_as_text_is_read() {
    let mut values = Values::new();
    values.add_lead_data(&json!(r#"{"caller": "Ada"}"#));
    assert_eq!(plain("{{caller}}", &values), "Ada");
}

#[test]
fn a_template_that_repeats_a_long_value_stays_bounded() {
    let values = values(&[("a", &"x".repeat(2 * VALUE_BYTES_MAX))]);
    let out = plain(&"{{a}}".repeat(100_000), &values);
    assert!(out.len() <= OUTPUT_BYTES_MAX + VALUE_BYTES_MAX);
}

/// Texts with much of what templates are made of.
fn texts() -> impl Strategy<Value = String> {
    "([ab{}<>&\"'\n\u{0}é.]|\\{\\{[ab]\\}\\}){0,40}"
}

proptest! {
    #[test]
    fn no_value_opens_a_tag_or_leaves_an_attribute(template in "[ab{} ]{0,60}", a in texts(), b in any::<String>()) {
        let out = html(&template, &values(&[("a", &a), ("b", &b)]));
        prop_assert!(!out.contains(['<', '>', '"', '\'', '\0']), "{out}");
    }

    #[test]
    fn without_values_every_placeholder_is_gone_and_the_rest_stays(template in texts()) {
        let out = plain(&template, &Values::new());
        prop_assert!(out.len() <= template.len());
        prop_assert_eq!(template.contains("{{"), out.len() < template.len() || out.contains("{{"));
    }

    #[test]
    fn any_text_and_any_values_render(template in any::<String>(), name in any::<String>(), value in any::<String>()) {
        let values = values(&[(&name, &value)]);
        prop_assert!(html(&template, &values).len() >= plain(&template, &values).len());
    }
}
