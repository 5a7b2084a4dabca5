//! One conversation with the relay, step by step, so that it is known how far it came when it fails.
//!
//! The library's own transport reports an error without saying whether the message was already handed over, and that
//! is all that matters afterwards: before its last line nothing was taken, after it anything may have been. So the
//! steps are taken one by one here, and the message is written through an iterator that notes when it was read to its
//! end: from then on the line with the dot is on its way.
//!
//! Must not know: what the message says.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use lettre::transport::smtp::{Error, response::Code};
use tokio::time::timeout;

use super::relay::Encryption;
use super::{EmailSender, Failure};

/// The message is written in pieces of this size (bytes).
const PIECE_BYTES: usize = 64 << 10;
/// A good-bye is polite, and nothing depends on it.
const GOODBYE: Duration = Duration::from_secs(1);
/// A relay that closes the connection in the middle of a message may have said why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What the two may add to a conversation.
pub(super) const AFTERWARDS: Duration = GOODBYE.saturating_add(LAST_WORDS);
/// A relay's text is cut there (characters).
const ANSWER_CHARS_MAX: usize = 500;

/// How far the conversation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A connection and a greeting.
    Connect,
    /// STARTTLS.
    Encrypt,
    /// Our user and password.
    Authenticate,
    /// The envelope's sender, which is ours.
    Sender,
    /// The recipient.
    Recipient,
    /// Whether the message may come.
    Data,
    /// The message, but for its last line.
    Transfer,
    /// The answer to the message.
    Acceptance,
}

/// What went wrong.
enum Trouble {
    /// The library's error: a negative answer, or none.
    Error(Error),
    /// Nothing in time.
    Silence,
    /// Something that makes no sense, or that we do not want.
    Odd(String),
}

impl EmailSender {
    /// Hands the mail over, and returns the relay's answer.
    pub(super) async fn hand_over(
        &self,
        envelope: &Envelope,
        mail: &[u8],
    ) -> Result<String, Failure> {
        let mut connection = self.connect().await?;
        let outcome = self.submit(&mut connection, envelope, mail).await;
        if matches!(
            outcome,
            Ok(_) | Err(Failure::Refused { .. } | Failure::Deferred { .. })
        ) {
            // Whatever comes of it, the outcome stands.
            let _ = timeout(GOODBYE, connection.abort()).await;
        }
        outcome
    }

    /// A connection on which mail may be sent: encrypted as it should be, and authenticated.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let relay = &self.relay;
        let implicit = relay.encryption == Encryption::Implicit;
        let tls = implicit.then(|| self.tls()).transpose()?;
        let connecting = AsyncSmtpConnection::connect_tokio1(
            (relay.host.as_str(), relay.port),
            Some(self.timeouts.connect),
            &self.hello,
            tls,
            None,
        );
        let within = self.timeouts.connect + self.timeouts.answer;
        let mut connection = self.step(Step::Connect, within, connecting).await?;
        if !implicit {
            self.encrypt(&mut connection).await?;
        }
        self.authenticate(&mut connection).await?;
        Ok(connection)
    }

    async fn encrypt(&self, connection: &mut AsyncSmtpConnection) -> Result<(), Failure> {
        if !connection.can_starttls() {
            let is_needed = self.relay.encryption == Encryption::Required;
            let why = "it offers no STARTTLS, and nothing is sent unencrypted";
            return self.demand(!is_needed, Step::Encrypt, why);
        }
        let encrypting = connection.starttls(self.tls()?, &self.hello);
        self.step(Step::Encrypt, self.timeouts.answer, encrypting)
            .await
    }

    fn tls(&self) -> Result<TlsParameters, Failure> {
        let tls = self.tls.get().cloned();
        tls.map_err(|why| self.failure(Step::Encrypt, Trouble::Odd(why)))
    }

    async fn authenticate(&self, connection: &mut AsyncSmtpConnection) -> Result<(), Failure> {
        let Some(credentials) = &self.relay.credentials else {
            return Ok(());
        };
        let may = self.relay.may_authenticate(connection.is_encrypted());
        let why = "the connection is not encrypted, and no password is sent over it";
        self.demand(may, Step::Authenticate, why)?;
        let mechanisms = [Mechanism::Plain, Mechanism::Login];
        let authenticating = connection.auth(&mechanisms, credentials);
        self.step(Step::Authenticate, self.timeouts.answer, authenticating)
            .await
            .map(drop)
    }

    async fn submit(
        &self,
        connection: &mut AsyncSmtpConnection,
        envelope: &Envelope,
        mail: &[u8],
    ) -> Result<String, Failure> {
        let is_international = envelope.to().iter().any(|to| !to.user().is_ascii());
        let mut parameters = Vec::new();
        if is_international {
            takes_international_mail(connection)?;
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let answer = self.timeouts.answer;
        let sender = Mail::new(envelope.from().cloned(), parameters);
        self.step(Step::Sender, answer, connection.command(sender))
            .await?;
        for to in envelope.to() {
            let recipient = Rcpt::new(to.clone(), Vec::new());
            self.step(Step::Recipient, answer, connection.command(recipient))
                .await?;
        }
        let go_ahead = self
            .step(Step::Data, answer, connection.command(Data))
            .await?;
        let may = go_ahead.has_code(354);
        self.demand(may, Step::Data, "it answered DATA, but not with 354")?;
        self.transfer(connection, mail).await
    }

    async fn transfer(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &[u8],
    ) -> Result<String, Failure> {
        let is_written = AtomicBool::new(false);
        let outcome = self.write(connection, mail, &is_written).await;
        let outcome = match outcome {
            // Writing may fail because the relay has said no and gone; then that is what counts.
            Err(Trouble::Error(error)) if !is_written.load(Ordering::Relaxed) => {
                let last_words = timeout(LAST_WORDS, connection.read_response()).await;
                let refusal = last_words.ok().and_then(Result::err);
                let refusal = refusal.filter(|refusal| refusal.status().is_some());
                Err(Trouble::Error(refusal.unwrap_or(error)))
            }
            outcome => outcome,
        };
        let step = if is_written.load(Ordering::Relaxed) {
            Step::Acceptance
        } else {
            Step::Transfer
        };
        let response = outcome.map_err(|trouble| self.failure(step, trouble))?;
        if response.code().severity != Severity::PositiveCompletion {
            let odd = Trouble::Odd(format!("it answered the message with {}", response.code()));
            return Err(self.failure(Step::Acceptance, odd));
        }
        Ok(self.told(&text(&response)))
    }

    /// Writes the message and waits for the answer; `is_written` tells when only the last line was left.
    async fn write(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &[u8],
        is_written: &AtomicBool,
    ) -> Result<Response, Trouble> {
        let mut pieces = mail.chunks(PIECE_BYTES);
        let pieces = std::iter::from_fn(|| {
            let piece = pieces.next();
            is_written.fetch_or(piece.is_none(), Ordering::Relaxed);
            piece
        });
        let mut writing = pin!(connection.message_iter(pieces));
        let outcome = match timeout(self.timeouts.transfer, &mut writing).await {
            Ok(outcome) => outcome,
            Err(_) if !is_written.load(Ordering::Relaxed) => return Err(Trouble::Silence),
            Err(_) => timeout(self.timeouts.acceptance, &mut writing)
                .await
                .map_err(|_| Trouble::Silence)?,
        };
        outcome.map_err(Trouble::Error)
    }

    async fn step<T>(
        &self,
        step: Step,
        within: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let trouble = match timeout(within, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => Trouble::Error(error),
            Err(_) => Trouble::Silence,
        };
        Err(self.failure(step, trouble))
    }

    fn demand(&self, is_met: bool, step: Step, why: &str) -> Result<(), Failure> {
        if is_met {
            return Ok(());
        }
        Err(self.failure(step, Trouble::Odd(why.to_owned())))
    }

    fn failure(&self, step: Step, trouble: Trouble) -> Failure {
        let code = match &trouble {
            Trouble::Error(error) => error.status(),
            Trouble::Silence | Trouble::Odd(_) => None,
        };
        let what = match trouble {
            Trouble::Error(error) => with_causes(&error),
            Trouble::Silence => "no answer in time".to_owned(),
            Trouble::Odd(what) => what,
        };
        let detail = self.told(&format!("{}: {what}", step.failed(code)));
        judge(step, code, detail)
    }

    /// A text fit to be shown: masked before it is cut, so that no half of a secret remains.
    fn told(&self, text: &str) -> String {
        let masked = self.relay.masked(text);
        let line = super::compose::one_line(&masked);
        line.chars().take(ANSWER_CHARS_MAX).collect()
    }
}

/// An address in other letters than ASCII needs a relay that knows of them (RFC 6531).
fn takes_international_mail(connection: &AsyncSmtpConnection) -> Result<(), Failure> {
    let info = connection.server_info();
    if info.supports_feature(Extension::SmtpUtfEight) {
        return Ok(());
    }
    Err(Failure::Refused {
        detail: "the relay takes no addresses in other letters than ASCII".to_owned(),
    })
}

impl Step {
    fn failed(self, code: Option<Code>) -> &'static str {
        match self {
            Self::Connect => "the relay cannot be reached",
            Self::Encrypt => "no encrypted connection to the relay",
            Self::Authenticate => "the relay does not take our user and password",
            _ if is_about_credentials(code) => "the relay wants a user and password",
            Self::Sender => "the relay does not take our address as the sender",
            Self::Recipient => "the relay does not take the recipient",
            Self::Data | Self::Transfer => "the relay does not take the message",
            Self::Acceptance if code.is_some() => "the relay does not take the message",
            Self::Acceptance => "the message was sent, and may have been taken",
        }
    }
}

/// What to do about it (R26, R28).
fn judge(step: Step, code: Option<Code>, detail: String) -> Failure {
    let severity = code
        .filter(|code| !is_about_the_relay(*code))
        .map(|code| code.severity);
    match (step, severity) {
        (
            Step::Recipient | Step::Data | Step::Transfer | Step::Acceptance,
            Some(Severity::PermanentNegativeCompletion),
        ) => Failure::Refused { detail },
        // Another message may well be taken.
        (
            Step::Recipient | Step::Data | Step::Transfer | Step::Acceptance,
            Some(Severity::TransientNegativeCompletion),
        ) => Failure::Deferred {
            detail,
            retry_after: None,
        },
        (Step::Acceptance, _) if code.is_none() => Failure::Unknown { detail },
        _ => Failure::Unavailable {
            detail,
            retry_after: None,
        },
    }
}

/// Whatever was asked: it is closing (RFC 5321 3.8), or wants a password.
fn is_about_the_relay(code: Code) -> bool {
    u16::from(code) == 421 || is_about_credentials(Some(code))
}

/// RFC 4954 6: whoever answers with these misses something of ours.
fn is_about_credentials(code: Option<Code>) -> bool {
    code.is_some_and(|code| matches!(u16::from(code), 530 | 534 | 535 | 538))
}

fn text(response: &Response) -> String {
    response.message().collect::<Vec<_>>().join(" ")
}

/// A negative answer as it came, else the error and what caused it.
fn with_causes(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    let mut texts: Vec<_> = match error.status() {
        Some(code) => vec![code.to_string()],
        None => Vec::new(),
    };
    // The library's own texts repeat their causes.
    texts.extend(causes.skip(1).map(ToString::to_string));
    if texts.is_empty() {
        texts.push(error.to_string());
    }
    texts.join(" ")
}
