//! E-mail over SMTP: composes one message, fetches its attachments, hands it to the relay, and says what became of it.
//!
//! One connection per message. A node sends few of them, a connection that is never used again is never stale, and
//! whatever goes wrong on it is about this message alone.
//!
//! Must not know: the store, the pipeline, campaigns, leads. Who is written to and what, is given; who waits or sends
//! again, is decided by the deliveries. The relay's password leaves it in no error, debug print or log line.

mod alternative;
mod compose;
mod conversation;
mod mailbox;
mod relay;

use std::fmt;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;

use super::attachment::{Fetcher, Link, Omitted};
use super::{Failure, Receipt};
use crate::late::Late;
use relay::{Encryption, Relay};

pub use relay::UrlError;

/// Hands messages to one relay. Cheap to share behind a reference.
pub struct EmailSender {
    relay: Relay,
    tls: Late<TlsParameters>,
    from: Mailbox,
    hello: ClientId,
    timeouts: Timeouts,
    fetcher: Fetcher,
}

/// How to reach the relay (interface.md, `[smtp]`).
pub struct Options {
    /// `smtp.url`: `smtps://` for TLS from the first byte (port 465), `smtp://` for STARTTLS (port 587 with a user or
    /// `tls=required`, else 25). `[user:password@]host[:port]`, percent-encoded where needed, and `?tls=`:
    ///
    /// * `required`: STARTTLS with a verified certificate, or no mail. The default with a password, unless the host is
    ///   loopback: a password never leaves the machine in the clear.
    /// * `opportunistic`: STARTTLS where it is offered, by whatever certificate. The default otherwise, for relays
    ///   nearby. It keeps out listeners, not impostors: those could as well not offer it.
    pub url: String,
    /// `smtp.from`, such as `Leads <leads@example.com>`: the sender where a campaign names none, and always the
    /// envelope's, so that bounces come back to those who run the node. Its domain greets the relay (EHLO).
    pub from: String,
    /// How long each part may take.
    pub timeouts: Timeouts,
    /// Whose certificates are good.
    pub trust: Trust,
    /// Fetches attachments.
    pub fetcher: Fetcher,
}

/// How long the parts of a conversation may take. All together a message without attachments takes at most some seven
/// minutes; one that goes well, a second.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For each address of the relay, until a connection stands.
    pub connect: Duration,
    /// For each answer.
    pub answer: Duration,
    /// For the message's bytes.
    pub transfer: Duration,
    /// For the answer to the message. Long, since giving up here means not to know (RFC 5321 4.5.3.2.6).
    pub acceptance: Duration,
}

/// Whose certificates are good.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Those that the system's roots vouch for.
    #[default]
    System,
    /// Those that this certificate (PEM) vouches for, and no others: for tests, no configuration key leads here.
    Only(Vec<u8>),
}

/// The options make no sender.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `smtp.url`.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// `smtp.from`.
    #[error("smtp.from is no e-mail address")]
    From,
}

/// One message to one person.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// `Message-ID`, `part@domain`: the same whenever the message is sent again, so that mailboxes can tell (R26).
    pub message_id: String,
    /// `Date`, milliseconds since the Unix epoch: when there was something to tell, not when it was sent.
    pub date_ms: i64,
    /// The recipient's address.
    pub to: String,
    /// The sender the campaign names, `Sales <sales@example.com>` or an address. Absent or no address: the configured
    /// one; what is no address but a name becomes its name.
    pub from: Option<String>,
    /// Where answers go. What is no address is left out.
    pub reply_to: Option<ReplyTo>,
    /// One line; line breaks become blanks.
    pub subject: String,
    /// What it says.
    pub content: Content,
    /// Files to fetch. One that cannot be had is named at the end of the mail, with the reason: the news of a lead does
    /// not wait for a brochure.
    pub attachments: Vec<Link>,
}

/// Where answers go (documents.md, `email_details.reply_to`).
#[derive(Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// The person's name.
    pub name: Option<String>,
    /// The address.
    pub email: String,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// HTML; it gets a plain-text alternative.
    Html(String),
}

/// A message that the relay took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The relay's answer; most name the id in their queue.
    pub receipt: Receipt,
    /// Attachments it went without.
    pub omitted: Vec<Omitted>,
}

impl From<Sent> for Receipt {
    fn from(sent: Sent) -> Self {
        sent.receipt
    }
}

impl Timeouts {
    /// The whole conversation: connection and greeting, STARTTLS, AUTH, MAIL, RCPT, DATA, the message, the answer to
    /// it, and a last word.
    fn total(&self) -> Duration {
        self.connect + self.answer * 6 + self.transfer + self.acceptance + conversation::AFTERWARDS
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            transfer: Duration::from_secs(120),
            acceptance: Duration::from_secs(120),
        }
    }
}

// === impl EmailSender ===

impl EmailSender {
    /// A sender; nothing is connected yet.
    ///
    /// # Errors
    /// [`OptionsError`] names the option that is wrong.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let relay = Relay::parse(&options.url)?;
        let from = mailbox::parse(&options.from).ok_or(OptionsError::From)?;
        let (host, encryption, trust) = (relay.host.clone(), relay.encryption, options.trust);
        Ok(Self {
            tls: Late::new("TLS with the relay", move || tls(&host, encryption, &trust)),
            hello: ClientId::Domain(from.email.domain().to_owned()),
            relay,
            from,
            timeouts: options.timeouts,
            fetcher: options.fetcher,
        })
    }

    /// Why nothing can be sent for now, if that is known without sending.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let needs_tls = self.relay.encryption != Encryption::Opportunistic;
        self.tls.get().err().filter(|_| needs_tls)
    }

    /// Whether `url` can be an `smtp.url`, for those who check a configuration.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong and names no secret.
    pub fn check_url(url: &str) -> Result<(), UrlError> {
        Relay::parse(url).map(drop)
    }

    /// Whether `from` can be an `smtp.from`.
    #[must_use]
    pub fn is_sender(from: &str) -> bool {
        mailbox::parse(from).is_some()
    }

    /// How long [`EmailSender::send`] takes at most: every part at the end of its patience, attachments included.
    #[must_use]
    pub fn send_max(&self) -> Duration {
        self.fetcher.limits().all + self.timeouts.total()
    }

    /// Sends one message, once.
    ///
    /// # Errors
    /// * [`Failure::Unavailable`]: nothing was handed over and the message is not to blame. No connection, no answer in
    ///   time, or the connection broke before the last byte of the message; a `4xx` or `5xx` to our greeting, our
    ///   encryption, our password or our own address as the envelope's sender; `421`, `530`, `534`, `535` and `538` at
    ///   any time.
    /// * [`Failure::Deferred`]: any other `4xx` for the recipient or for the message, such as greylisting.
    /// * [`Failure::Refused`]: a `5xx` for the recipient or for the message, or a recipient that is no address.
    /// * [`Failure::Unknown`]: all bytes of the message were handed to the connection and then it broke, or no answer
    ///   came in time, or one that cannot be read. The relay may have taken it.
    pub async fn send(&self, message: &Message) -> Result<Sent, Failure> {
        let recipient = compose::recipient(message)?;
        let fetched = self.fetcher.fetch_all(&message.attachments).await;
        let mail = compose::mail(message, recipient, &self.from, &fetched)?;
        let answer = self.hand_over(mail.envelope(), &mail.formatted()).await?;
        Ok(Sent {
            receipt: Receipt { id: Some(answer) },
            omitted: fetched.omitted,
        })
    }
}

impl fmt::Debug for EmailSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailSender")
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL carries the password.
        f.debug_struct("Options")
            .field("from", &self.from)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is people's data.
        f.debug_struct("Message")
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

fn tls(
    host: &str,
    encryption: Encryption,
    trust: &Trust,
) -> Result<TlsParameters, lettre::transport::smtp::Error> {
    let builder = TlsParameters::builder(host.to_owned());
    let builder = match trust {
        Trust::System => builder,
        Trust::Only(pem) => builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(Certificate::from_pem(pem)?),
    };
    // RFC 7435: who goes on without encryption where none is offered, gains nothing by refusing an odd certificate,
    // such as the one that Debian's Postfix makes for itself.
    let is_unverified = encryption == Encryption::Opportunistic;
    builder
        .dangerous_accept_invalid_certs(is_unverified)
        .build()
}
