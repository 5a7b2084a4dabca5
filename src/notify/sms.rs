//! SMS by Twilio's Messages API (platforms.md 10).
//!
//! Must not know: leads, deliveries, attempts. It asks once: there is no idempotency key, so whether an SMS goes out a
//! second time is never decided here. The auth token leaves it in no error, debug print or log line.

mod verdict;

use std::fmt;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use unicode_segmentation::UnicodeSegmentation;

use super::{Failure, Receipt, http};
use crate::late::Late;

/// Twilio's bound (error 21617). Characters outside Unicode's first plane, such as emoji, are counted as two: Twilio
/// says they may count as more than one, and a text one character too long would be refused for good.
const BODY_UNITS_MAX: usize = 1_600;

/// Hands SMS to one Twilio account. Cheap to share behind a reference.
pub struct SmsSender {
    client: Late<Client>,
    url: Url,
    account_sid: String,
    auth_token: String,
}

/// How to reach Twilio (interface.md, `[twilio]`).
pub struct Options {
    /// `twilio.account_sid`.
    pub account_sid: String,
    /// `twilio.auth_token`.
    pub auth_token: String,
    /// `twilio.base_url`; a path in it is kept as a prefix.
    pub base_url: String,
    /// Until the connection stands, TLS included: shorter than `timeout`, so that it is known that nothing was sent.
    pub connect_timeout: Duration,
    /// Until the answer's last byte. As long as a drain permits ([`super::SEND_MAX`]): past it nobody knows whether the
    /// SMS went out.
    pub timeout: Duration,
}

/// One SMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The recipient's number, E.164.
    pub to: String,
    /// The sender: a number, an alphanumeric id, or the SID of a messaging service (`MG…`).
    pub from: String,
    /// The text; what is beyond 1,600 characters is cut off.
    pub body: String,
}

/// The options make no sender.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// `base_url` is no address that can be asked.
    #[error("twilio.base_url is no http or https address")]
    Url,
    /// `account_sid` is empty or holds what no SID holds.
    #[error("twilio.account_sid must be letters and digits, as Twilio's console shows it (AC…)")]
    AccountSid,
}

impl SmsSender {
    /// A sender; nothing is sent yet.
    ///
    /// # Errors
    /// [`OptionsError`] names the option that is wrong.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let (connect_timeout, timeout) = (options.connect_timeout, options.timeout);
        let client = move || {
            http::client(connect_timeout, timeout)
                // Each SMS has a connection of its own. On one kept open the server's closing may cross our request,
                // and nobody could say whether it was taken: an SMS lost for nothing.
                .pool_max_idle_per_host(0)
                .retry(reqwest::retry::never())
                .build()
        };
        Ok(Self {
            client: Late::new("the Twilio client", client),
            url: messages_url(&options)?,
            account_sid: options.account_sid,
            auth_token: options.auth_token,
        })
    }

    /// Whether `sid` can be a `twilio.account_sid`: it becomes part of an address.
    #[must_use]
    pub fn is_account_sid(sid: &str) -> bool {
        !sid.is_empty() && sid.chars().all(|c| c.is_ascii_alphanumeric())
    }

    /// Why nothing can be sent for now, if that is known without sending.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.client.get().err()
    }

    /// Hands one SMS over; the receipt's id is Twilio's `sid` of it.
    ///
    /// # Errors
    /// [`Failure`] says what became of it; [`Failure::Unknown`] must not be followed by another attempt (R26).
    pub async fn send(&self, message: &Message) -> Result<Receipt, Failure> {
        let client = self.client.get().map_err(http::unavailable)?;
        let request = client
            .post(self.url.clone())
            .basic_auth(&self.account_sid, Some(&self.auth_token))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(message));
        let handed_over = match http::exchange(request).await {
            Ok(answer) => verdict::judge(&answer),
            Err(no_answer) => Err(no_answer.into_failure()),
        };
        handed_over.map_err(|failure| http::fit_to_tell(failure, &[&self.auth_token]))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            account_sid: String::new(),
            auth_token: String::new(),
            base_url: "https://api.twilio.com".to_owned(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for SmsSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmsSender")
            .field("account_sid", &self.account_sid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("account_sid", &self.account_sid)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn messages_url(options: &Options) -> Result<Url, OptionsError> {
    let sid = options.account_sid.as_str();
    if !SmsSender::is_account_sid(sid) {
        return Err(OptionsError::AccountSid);
    }
    let mut url = http::base_url(&options.base_url).ok_or(OptionsError::Url)?;
    // Without `.json` this API answers XML.
    let path = ["2010-04-01", "Accounts", sid, "Messages.json"];
    http::extend_path(&mut url, path);
    Ok(url)
}

fn form(message: &Message) -> String {
    let sender = if is_messaging_service(&message.from) {
        "MessagingServiceSid"
    } else {
        "From"
    };
    form_urlencoded::Serializer::new(String::new())
        .append_pair("To", &message.to)
        .append_pair(sender, &message.from)
        .append_pair("Body", cut(&message.body))
        .finish()
}

/// SIDs are lower-case hex behind their prefix; an alphanumeric sender may well be called `MG Motors`.
fn is_messaging_service(from: &str) -> bool {
    let sid = from.strip_prefix("MG").unwrap_or_default();
    let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    !sid.is_empty() && sid.chars().all(is_hex)
}

/// As much of the text as Twilio takes, never half of what a reader sees as one character. No ellipsis: a single one
/// would make the whole SMS UCS-2, and twice as many segments to pay for.
fn cut(body: &str) -> &str {
    let mut units = 0;
    for (start, grapheme) in body.grapheme_indices(true) {
        units += grapheme.encode_utf16().count();
        if units > BODY_UNITS_MAX {
            return &body[..start];
        }
    }
    body
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_text_is_cut_where_twilio_would_refuse_it_and_never_inside_a_character() {
        let full = "x".repeat(1_600);
        assert_eq!(cut(&full), full);
        assert_eq!(cut(&format!("{full}y")), full);
        assert_eq!(cut(&"é".repeat(2_000)), "é".repeat(1_600));
        assert_eq!(cut(&"👋".repeat(2_000)), "👋".repeat(800));
        let family = "👩\u{200d}👩\u{200d}👧";
        let before = "x".repeat(1_595);
        assert_eq!(cut(&format!("{before}{family}")), before);
        let accent = format!("{}e\u{301}", "x".repeat(1_599));
        assert_eq!(cut(&accent), "x".repeat(1_599));
        assert_eq!(cut(""), "");
    }

    #[test]
    fn only_a_messaging_service_is_named_as_one() {
        assert!(is_messaging_service("MG0123456789abcdef0123456789abcdef"));
        for from in ["+14155550100", "MG", "MG Motors", "MGMotors", "Acme", ""] {
            assert!(!is_messaging_service(from), "{from}");
        }
    }

    #[test]
    fn options_that_make_no_sender_are_named() {
        let with = |sid: &str, url: &str| {
            SmsSender::new(Options {
                account_sid: sid.to_owned(),
                base_url: url.to_owned(),
                ..Options::default()
            })
        };
        let error = |sid, url| with(sid, url).unwrap_err().to_string();
        assert!(error("", "https://api.twilio.com").contains("twilio.account_sid"));
        assert!(error("AC/../x", "https://api.twilio.com").contains("twilio.account_sid"));
        assert!(error("AC1", "ftp://api.twilio.com").contains("twilio.base_url"));
        let sender = with("AC1", "http://localhost/prefix/").unwrap();
        assert_eq!(
            sender.url.path(),
            "/prefix/2010-04-01/Accounts/AC1/Messages.json"
        );
    }
}
