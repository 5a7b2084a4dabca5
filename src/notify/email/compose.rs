//! A message as the bytes that are sent.
//!
//! Nothing from outside reaches a header as it is: addresses are parsed, names and texts made one line, and all of it
//! encoded by the library. Bodies travel in ASCII whatever they hold, so that any relay takes them.
//!
//! Must not know: relays.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use lettre::Address;
use lettre::address::Envelope;
use lettre::message::header::{
    ContentDisposition, ContentTransferEncoding, ContentType, HeaderName, HeaderValue,
};
use lettre::message::{Body, Mailbox, MessageBuilder, MultiPart, SinglePart};

use super::{Content, Failure, Message, alternative, mailbox};
use crate::notify::attachment::{Fetched, File, Omitted};
use crate::notify::template;

/// A longer subject is cut (characters).
const SUBJECT_CHARS_MAX: usize = 250;
/// RFC 5322 2.1.1 allows 998 in a line, and an id cannot be folded (bytes).
const MESSAGE_ID_BYTES_MAX: usize = 250;
/// Years beyond 9999 cannot be written (seconds).
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// Whom the message goes to.
pub(super) fn recipient(message: &Message) -> Result<Address, Failure> {
    mailbox::address(&message.to).ok_or_else(|| Failure::Refused {
        detail: format!("`{}` is no e-mail address", one_line(&message.to)),
    })
}

/// The whole mail. `from` is the configured sender.
pub(super) fn mail(
    message: &Message,
    recipient: Address,
    from: &Mailbox,
    fetched: &Fetched,
) -> Result<lettre::Message, Failure> {
    let envelope = Envelope::new(Some(from.email.clone()), vec![recipient.clone()]);
    let builder = headers(message, recipient, from)?.envelope(envelope.map_err(unfit)?);
    let content = content(&message.content, &fetched.omitted);
    let mail = if fetched.files.is_empty() {
        match content {
            Part::Single(part) => builder.singlepart(part),
            Part::Multi(part) => builder.multipart(part),
        }
    } else {
        let mixed = MultiPart::mixed().build();
        let mixed = match content {
            Part::Single(part) => mixed.singlepart(part),
            Part::Multi(part) => mixed.multipart(part),
        };
        let files = fetched.files.iter().map(file);
        builder.multipart(files.fold(mixed, MultiPart::singlepart))
    };
    mail.map_err(unfit)
}

/// Text on one line: what ends lines becomes a blank, other control characters nothing.
pub(super) fn one_line(text: &str) -> String {
    let visible: String = text
        .chars()
        .filter(|c| c.is_whitespace() || !c.is_control())
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

enum Part {
    Single(SinglePart),
    Multi(MultiPart),
}

fn headers(
    message: &Message,
    recipient: Address,
    configured: &Mailbox,
) -> Result<MessageBuilder, Failure> {
    let from = sender(message.from.as_deref(), configured);
    let date = u64::try_from(message.date_ms / 1000).unwrap_or(0);
    let subject: String = one_line(&message.subject)
        .chars()
        .take(SUBJECT_CHARS_MAX)
        .collect();
    let mut builder = lettre::Message::builder()
        .date(UNIX_EPOCH + Duration::from_secs(date.min(DATE_SECONDS_MAX)))
        .message_id(Some(message_id(&message.message_id)?))
        .to(recipient.into())
        .subject(subject)
        // RFC 3834: nobody's absence notice should answer it.
        .raw_header(header("Auto-Submitted", "auto-generated"));
    if from.email != configured.email {
        // RFC 5322 3.6.2: who really sends it.
        builder = builder.sender(configured.clone());
    }
    if let Some(reply_to) = &message.reply_to
        && let Some(address) = mailbox::ascii_address(&reply_to.email)
    {
        let name = reply_to.name.as_deref().and_then(mailbox::name);
        builder = builder.reply_to(Mailbox::new(name, address));
    }
    Ok(builder.from(from))
}

/// The campaign's sender, else the configured one, under the campaign's name if it has nothing but a name.
fn sender(campaigns: Option<&str>, configured: &Mailbox) -> Mailbox {
    let Some(text) = campaigns else {
        return configured.clone();
    };
    mailbox::parse(text).unwrap_or_else(|| {
        let name = mailbox::name(text).filter(|name| !name.contains(['@', '<', '>']));
        let name = name.or_else(|| configured.name.clone());
        Mailbox::new(name, configured.email.clone())
    })
}

/// RFC 5322 3.6.4, in its plain form.
fn message_id(id: &str) -> Result<String, Failure> {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_fit);
    let is_id = id.len() <= MESSAGE_ID_BYTES_MAX
        && id
            .split_once('@')
            .is_some_and(|(left, right)| is_part(left) && is_part(right));
    if is_id {
        Ok(format!("<{id}>"))
    } else {
        Err(unfit("the message's id cannot be a Message-ID"))
    }
}

fn content(content: &Content, omitted: &[Omitted]) -> Part {
    match content {
        Content::Text(text) => Part::Single(SinglePart::plain(crlf(&format!(
            "{text}{}",
            notes(omitted)
        )))),
        Content::Html(html) => {
            let text = format!("{}{}", alternative::text(html).trim_end(), notes(omitted));
            let html = crlf(&with_notes(html, omitted));
            Part::Multi(MultiPart::alternative_plain_html(crlf(&text), html))
        }
    }
}

fn notes(omitted: &[Omitted]) -> String {
    let mut notes = String::new();
    if !omitted.is_empty() {
        notes.push('\n');
    }
    for Omitted { name, why } in omitted {
        write!(notes, "\nNot attached: {name} ({why}).").expect("a String takes any text");
    }
    notes
}

/// Before the body's end, where there is one.
fn with_notes(html: &str, omitted: &[Omitted]) -> String {
    let mut notes = String::new();
    for Omitted { name, why } in omitted {
        let note = template::escape(&format!("Not attached: {name} ({why})."));
        write!(notes, "<p>{note}</p>").expect("a String takes any text");
    }
    let end = html.to_ascii_lowercase().rfind("</body>");
    let (before, after) = html.split_at(end.unwrap_or(html.len()));
    format!("{before}{notes}{after}")
}

fn file(file: &File) -> SinglePart {
    let content_type = ContentType::parse(&file.content_type);
    let body = Body::new_with_encoding(file.bytes.clone(), ContentTransferEncoding::Base64);
    SinglePart::builder()
        .header(content_type.unwrap_or(ContentType::TEXT_PLAIN))
        .header(ContentDisposition::attachment(&file.name))
        .body(body.expect("base64 holds any bytes"))
}

/// Lines end as mail has it. A lone CR or LF is what lets one message be read as two (SMTP smuggling), and the library
/// takes quadratic time to mend them.
fn crlf(text: &str) -> String {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    lines.replace('\n', "\r\n")
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Nothing that was given makes this happen; should it, the message is to blame and nobody waits for it.
fn unfit(why: impl std::fmt::Display) -> Failure {
    Failure::Refused {
        detail: format!("the message cannot be composed: {why}"),
    }
}

#[cfg(test)]
mod tests;
