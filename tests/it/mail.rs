//! E-mail over real sockets: a relay that misbehaves at every step, and one that others wrote.

mod attachments;
mod outcomes;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use inlet::notify::Failure;
use inlet::notify::attachment::{Fetcher, Limits};
use inlet::notify::email::{Content, EmailSender, Message, Options, Timeouts, Trust};

use crate::support::names::Names;
use crate::support::smtp::Smtp;

const MESSAGE_ID: &str = "6512bd43d9caa6e02c990b0a@edge-1.inlet";

/// Longer than loopback takes on the busiest machine: nothing waits it out.
const QUICK: Timeouts = Timeouts {
    connect: Duration::from_secs(20),
    answer: Duration::from_secs(20),
    transfer: Duration::from_secs(20),
    acceptance: Duration::from_secs(20),
};

/// For waits that end in nothing.
const HASTY: Timeouts = Timeouts {
    connect: Duration::from_millis(500),
    answer: Duration::from_millis(500),
    transfer: Duration::from_secs(2),
    acceptance: Duration::from_secs(2),
};

/// A sender for this `smtp.url` that trusts nobody but the owner of this certificate.
fn sender(url: &str, certificate: &str, timeouts: Timeouts) -> EmailSender {
    let fetcher = Fetcher::permitting(Limits::default(), Arc::new(Names::default()), Vec::new());
    EmailSender::new(Options {
        url: url.to_owned(),
        from: "Leads <leads@inlet.example>".to_owned(),
        timeouts,
        trust: Trust::Only(certificate.as_bytes().to_vec()),
        fetcher,
    })
    .unwrap()
}

/// A sender for this relay, by its own URL with something behind it.
fn sender_to(smtp: &Smtp, rest: &str, timeouts: Timeouts) -> EmailSender {
    let url = format!("{}{rest}", smtp.url());
    sender(&url, &smtp.certificate().pem(), timeouts)
}

fn message() -> Message {
    Message {
        message_id: MESSAGE_ID.to_owned(),
        date_ms: 1_768_000_000_000,
        to: "rep@agency.example".to_owned(),
        from: None,
        reply_to: None,
        subject: "A new lead".to_owned(),
        content: Content::Text("Ada Byron\n.\nasks for a call".to_owned()),
        attachments: Vec::new(),
    }
}

/// More than sockets buffer: somebody has to read it.
fn large_message() -> Message {
    Message {
        content: Content::Text("0123456789abcde\n".repeat(1 << 20)),
        ..message()
    }
}

fn is_unavailable<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::Unavailable { .. }))
}

fn is_deferred<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::Deferred { .. }))
}

fn is_refused<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::Refused { .. }))
}

fn is_unknown<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::Unknown { .. }))
}
