//! Encryption, passwords, and what arrives.

use std::sync::Arc;

use inlet::notify::attachment::{Fetcher, Limits, Link};
use inlet::notify::email::{Content, EmailSender, Message, Options, ReplyTo, Timeouts, Trust};
use serde_json::json;

use crate::support::aiosmtpd::Aiosmtpd;
use crate::support::names::Names;
use crate::support::smtp::{Act, Certificate, Security, Smtp, Step};
use crate::support::web::Web;

use super::{MESSAGE_ID, QUICK, is_refused, is_unavailable, message, sender, sender_to};

#[tokio::test]
async fn a_message_arrives_as_it_was_written() {
    let smtp = Smtp::start(Security::None).await;
    sender_to(&smtp, "", QUICK).send(&message()).await.unwrap();
    let [taken] = &smtp.taken()[..] else {
        panic!("not one message");
    };
    assert_eq!(taken.from, "leads@inlet.example");
    assert_eq!(taken.to, ["rep@agency.example"]);
    assert!(
        taken
            .text
            .ends_with("\r\n\r\nAda Byron\r\n.\r\nasks for a call\r\n\r\n"),
        "{}",
        taken.text
    );
    assert!(smtp.commands().contains(&"EHLO inlet.example".to_owned()));
}

#[tokio::test]
async fn a_password_travels_encrypted_by_starttls_and_by_implicit_tls() {
    for (security, rest) in [
        (Security::StartTls, "?tls=required"),
        (Security::Implicit, ""),
    ] {
        let smtp = Smtp::start(security).await;
        smtp.demand("inlet", "hunter22");
        sender_to(&smtp, rest, QUICK)
            .send(&message())
            .await
            .unwrap();
        let taken = smtp.taken();
        assert!(taken[0].is_encrypted, "{security:?}");
        assert_eq!(taken[0].user.as_deref(), Some("inlet"), "{security:?}");
    }
}

#[tokio::test]
async fn a_relay_that_knows_only_auth_login_is_spoken_to_in_its_way() {
    let smtp = Smtp::start(Security::None).await;
    smtp.demand("inlet", "hunter22");
    smtp.script(Step::Ehlo, [Act::Say("250-relay.test\r\n250 AUTH LOGIN")]);
    sender_to(&smtp, "", QUICK).send(&message()).await.unwrap();
    assert_eq!(smtp.taken()[0].user.as_deref(), Some("inlet"));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_the_conversation_where_encryption_is_required()
{
    for (security, rest) in [
        (Security::StartTls, "?tls=required"),
        (Security::Implicit, ""),
    ] {
        let smtp = Smtp::start(security).await;
        smtp.demand("inlet", "hunter22");
        let stranger = Certificate::new().pem();
        let sender = sender(&format!("{}{rest}", smtp.url()), &stranger, QUICK);
        let outcome = sender.send(&message()).await;
        assert!(is_unavailable(&outcome), "{security:?}: {outcome:?}");
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains("certificate"), "{told}");
        let commands = smtp.commands();
        assert!(
            !commands.iter().any(|it| it.starts_with("AUTH")),
            "{commands:?}"
        );
    }
}

#[tokio::test]
async fn a_relay_nearby_is_encrypted_by_whatever_certificate_it_has() {
    let smtp = Smtp::start(Security::StartTls).await;
    let sender = sender(&smtp.url(), &Certificate::new().pem(), QUICK);
    sender.send(&message()).await.unwrap();
    assert!(smtp.taken()[0].is_encrypted);
}

#[tokio::test]
async fn without_starttls_nothing_is_said_where_it_is_required() {
    let smtp = Smtp::start(Security::None).await;
    smtp.demand("inlet", "hunter22");
    let outcome = sender_to(&smtp, "?tls=required", QUICK)
        .send(&message())
        .await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    assert!(outcome.unwrap_err().to_string().contains("no STARTTLS"));
    assert_eq!(smtp.commands(), ["EHLO inlet.example"]);
}

#[tokio::test]
async fn a_wrong_password_is_our_fault_and_shows_nowhere() {
    let smtp = Smtp::start(Security::StartTls).await;
    smtp.demand("inlet", "right");
    let url = format!("smtp://inlet:hunter22@{}?tls=required", smtp.address());
    let sender = sender(&url, &smtp.certificate().pem(), QUICK);
    let outcome = sender.send(&message()).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    let told = format!("{:?} {sender:?}", outcome.unwrap_err());
    assert!(
        told.contains("does not take our user and password: 535"),
        "{told}"
    );
    // In the clear, and as the relay repeats it: base64 of NUL inlet NUL hunter22.
    for secret in ["hunter22", "AGlubGV0AGh1bnRlcjIy"] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(
        smtp.commands()
            .iter()
            .any(|it| it.contains("AGlubGV0AGh1bnRlcjIy"))
    );
}

#[tokio::test]
async fn an_international_address_goes_only_to_a_relay_that_knows_of_them() {
    let smtp = Smtp::start(Security::None).await;
    let sender = sender_to(&smtp, "", QUICK);
    let to = |to: &str| Message {
        to: to.to_owned(),
        ..message()
    };
    sender.send(&to("jörg@müller.example")).await.unwrap();
    assert_eq!(smtp.taken()[0].to, ["jörg@xn--mller-kva.example"]);
    smtp.withhold("SMTPUTF8");
    let outcome = sender.send(&to("jörg@agency.example")).await;
    assert!(is_refused(&outcome), "{outcome:?}");
    sender.send(&to("rep@müller.example")).await.unwrap();
    assert_eq!(smtp.taken()[1].to, ["rep@xn--mller-kva.example"]);
}

#[tokio::test]
async fn a_server_that_others_wrote_reads_everything_as_it_was_meant() {
    let server = Aiosmtpd::start("in@let", "hunter/22").await;
    let web = Web::start().await;
    web.file(
        "/list.csv",
        "text/csv; charset=utf-8",
        "Größe;1\n.\n".as_bytes(),
    );
    let permitted = vec![web.address()];
    let fetcher = Fetcher::permitting(Limits::default(), Arc::new(Names::default()), permitted);
    let sender = EmailSender::new(Options {
        url: format!(
            "smtp://in%40let:hunter%2F22@{}?tls=required",
            server.address()
        ),
        from: "Leads <leads@inlet.example>".to_owned(),
        timeouts: Timeouts::default(),
        trust: Trust::Only(server.certificate().pem().into_bytes()),
        fetcher,
    });
    let message = Message {
        from: Some("Verkäufe, Nord <sales@agency.example>".to_owned()),
        reply_to: Some(ReplyTo {
            name: Some("Ada".to_owned()),
            email: "ada@agency.example".to_owned(),
        }),
        subject: "Ein neuer Lead: Jörg Müller 🎉".to_owned(),
        content: Content::Html("<p>Grüße,<br>.<br>Inlet</p>".to_owned()),
        attachments: vec![
            Link {
                name: Some("Preisliste März".to_owned()),
                url: web.url("/list.csv"),
            },
            Link {
                name: None,
                url: web.url("/gone.pdf"),
            },
        ],
        ..message()
    };
    let sent = sender.unwrap().send(&message).await.unwrap();
    assert_eq!(sent.receipt.id.as_deref(), Some("2.0.0 taken"));
    assert_eq!(sent.omitted[0].name, "gone.pdf");
    let note = "Not attached: gone.pdf (its server answered with status 404).";
    let expected = json!({
        "from": "leads@inlet.example",
        "to": ["rep@agency.example"],
        "message_id": format!("<{MESSAGE_ID}>"),
        "subject": "Ein neuer Lead: Jörg Müller 🎉",
        "sender": "\"Verkäufe, Nord\" <sales@agency.example>",
        "defects": [],
        "text": format!("Grüße,\r\n.\r\nInlet\r\n\r\n{note}"),
        "html": format!("<p>Grüße,<br>.<br>Inlet</p><p>{note}</p>"),
        "attachments": [{"name": "Preisliste März.csv", "type": "text/csv", "text": "Größe;1\n.\n"}],
    });
    assert_eq!(server.taken(), [expected]);
}
