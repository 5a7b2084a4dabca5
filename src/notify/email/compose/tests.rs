//! What a message becomes, as bytes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::notify::attachment::Refusal;
use crate::notify::email::ReplyTo;

fn message() -> Message {
    Message {
        message_id: "delivery-1@edge-1.inlet".to_owned(),
        date_ms: 1_768_000_000_000,
        to: "rep@example.com".to_owned(),
        from: None,
        reply_to: None,
        subject: "A new lead".to_owned(),
        content: Content::Text("Hello".to_owned()),
        attachments: Vec::new(),
    }
}

fn composed(message: &Message, fetched: &Fetched) -> Result<String, Failure> {
    let configured = mailbox::parse("Leads <leads@inlet.example>").unwrap();
    let mail = mail(message, recipient(message)?, &configured, fetched)?;
    assert_eq!(
        mail.envelope().from().unwrap().to_string(),
        "leads@inlet.example"
    );
    Ok(String::from_utf8(mail.formatted()).unwrap())
}

fn text(message: &Message) -> String {
    composed(message, &Fetched::default()).unwrap()
}

fn header<'a>(mail: &'a str, name: &str) -> Option<&'a str> {
    let head = mail.split("\r\n\r\n").next().unwrap();
    head.split("\r\n")
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_plain_message_says_who_what_and_when() {
    let mail = text(&message());
    let expected = [
        ("From", "Leads <leads@inlet.example>"),
        ("To", "rep@example.com"),
        ("Subject", "A new lead"),
        ("Message-ID", "<delivery-1@edge-1.inlet>"),
        ("Date", "Fri, 09 Jan 2026 23:06:40 +0000"),
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&mail, name), Some(value), "{mail}");
    }
    assert_eq!(header(&mail, "Sender"), None);
    assert!(mail.ends_with("\r\n\r\nHello\r\n"), "{mail}");
}

#[test]
fn a_message_is_the_same_when_it_is_sent_again() {
    assert_eq!(text(&message()), text(&message()));
}

#[test]
fn the_campaigns_sender_is_shown_and_the_configured_one_named_as_who_sends() {
    let mail = text(&Message {
        from: Some("Sales <sales@agency.example>".to_owned()),
        reply_to: Some(ReplyTo {
            name: Some("Ada, Sales".to_owned()),
            email: "ada@agency.example".to_owned(),
        }),
        ..message()
    });
    assert_eq!(header(&mail, "From"), Some("Sales <sales@agency.example>"));
    assert_eq!(header(&mail, "Sender"), Some("Leads <leads@inlet.example>"));
    assert_eq!(
        header(&mail, "Reply-To"),
        Some("=?utf-8?b?QWRhLCBTYWxlcw==?= <ada@agency.example>")
    );
}

#[test]
fn a_sender_that_is_no_address_lends_its_name_to_the_configured_one() {
    let from = |text: &str| {
        let mail = text_from(text);
        header(&mail, "From").unwrap().to_owned()
    };
    assert_eq!(from("Agency"), "Agency <leads@inlet.example>");
    assert_eq!(from("sales@"), "Leads <leads@inlet.example>");
    assert_eq!(from(" "), "Leads <leads@inlet.example>");
}

fn text_from(from: &str) -> String {
    text(&Message {
        from: Some(from.to_owned()),
        ..message()
    })
}

#[test]
fn a_reply_address_that_is_none_is_left_out() {
    let mail = text(&Message {
        reply_to: Some(ReplyTo {
            name: None,
            email: "x\r\nBcc: y@z.example".to_owned(),
        }),
        ..message()
    });
    assert_eq!(header(&mail, "Reply-To"), None);
}

#[test]
fn html_has_a_plain_alternative_and_any_letters_travel_in_ascii() {
    let mail = text(&Message {
        subject: "Größe 😀".to_owned(),
        content: Content::Html(
            "<p>Many friendly Grüße &amp; <b>Küsse</b> from all of us</p>".to_owned(),
        ),
        ..message()
    });
    assert!(mail.is_ascii());
    assert!(header(&mail, "Subject").unwrap().starts_with("=?utf-8?b?"));
    assert!(
        header(&mail, "Content-Type")
            .unwrap()
            .starts_with("multipart/alternative")
    );
    let plain = mail.find("text/plain").unwrap();
    assert!(
        plain < mail.find("text/html").unwrap(),
        "the last one is preferred"
    );
    assert!(
        mail.contains("\r\nMany friendly Gr=C3=BC=C3=9Fe & K=C3=BCsse from"),
        "{mail}"
    );
}

#[test]
fn what_could_not_be_attached_is_named_in_both_texts() {
    let fetched = Fetched {
        files: vec![File {
            name: "Liste ä.pdf".to_owned(),
            content_type: "application/pdf".to_owned(),
            bytes: b".\r\nQUIT\r\n".to_vec(),
        }],
        omitted: vec![Omitted {
            name: "a&b.pdf".to_owned(),
            why: Refusal::Status(404),
        }],
    };
    let message = Message {
        content: Content::Html("<body><p>Hi</p></BODY>".to_owned()),
        ..message()
    };
    // Lines that were broken to fit are joined again.
    let mail = composed(&message, &fetched).unwrap().replace("=\r\n", "");
    let why = "its server answered with status 404";
    assert!(
        mail.contains(&format!("Not attached: a&b.pdf ({why}).")),
        "{mail}"
    );
    assert!(
        mail.contains(&format!("<p>Not attached: a&amp;b.pdf ({why}).</p></BODY>")),
        "{mail}"
    );
    assert!(
        header(&mail, "Content-Type")
            .unwrap()
            .starts_with("multipart/mixed")
    );
    assert!(mail.contains("Content-Type: application/pdf\r\n") && mail.contains("Lg0KUVVJVA0K"));
}

#[test]
fn a_subject_with_line_breaks_stays_one_header() {
    let mail = text(&Message {
        subject: "Hi\r\nBcc: x@y.example\r\n\r\nbody\u{0}".to_owned(),
        ..message()
    });
    assert_eq!(header(&mail, "Subject"), Some("Hi Bcc: x@y.example body"));
}

#[test]
fn lone_line_ends_never_reach_the_relay() {
    let mail = text(&Message {
        content: Content::Text("a\n.\r\nb\r.\rc\n\n".to_owned()),
        ..message()
    });
    assert!(
        mail.ends_with("a\r\n.\r\nb\r\n.\r\nc\r\n\r\n\r\n"),
        "{mail:?}"
    );
}

#[test]
fn no_address_and_no_id_is_no_message() {
    for to in ["", "rep", "a@b.example\r\nDATA", "<>"] {
        let refused = composed(
            &Message {
                to: to.to_owned(),
                ..message()
            },
            &Fetched::default(),
        );
        assert!(matches!(refused, Err(Failure::Refused { .. })), "{to}");
    }
    for id in ["", "x", "a@b@c", "<a@b>", "a@b\r\nBcc: c@d", "ä@b"] {
        let message = Message {
            message_id: id.to_owned(),
            ..message()
        };
        let refused = composed(&message, &Fetched::default());
        assert!(matches!(refused, Err(Failure::Refused { .. })), "{id}");
    }
}

/// Texts made to break out of a header.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a@<>\"\\\\,:;()ä \r\n\t\u{0}\u{85}\u{2028}=?]{0,60}"
    ]
}

proptest! {
    #[test]
    fn nothing_from_outside_makes_a_header_of_its_own(
        subject in hostile(), from in hostile(), name in hostile(), id in "[a-z]{1,9}@[a-z]{1,9}",
        file in hostile(),
    ) {
        let message = Message {
            message_id: id,
            subject,
            from: Some(from),
            reply_to: Some(ReplyTo { name: Some(name), email: "r@s.example".to_owned() }),
            ..message()
        };
        let fetched = Fetched {
            files: vec![File { name: file, content_type: "a/b".to_owned(), bytes: Vec::new() }],
            omitted: Vec::new(),
        };
        let mail = composed(&message, &fetched).unwrap();
        prop_assert!(mail.is_ascii() && !mail.replace("\r\n", "").contains(['\r', '\n']), "{}", mail);
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        for line in head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])) {
            let known = [
                "Date", "Message-ID", "To", "Subject", "Auto-Submitted", "Sender", "Reply-To", "From",
                "MIME-Version", "Content-Type",
            ];
            prop_assert!(known.iter().any(|name| line.starts_with(&format!("{name}: "))), "{}", mail);
        }
        prop_assert_eq!(body.matches("Content-Disposition: ").count(), 1);
        prop_assert_eq!(body.matches("\r\n\r\n").count(), 2, "{}", mail);
    }
}
