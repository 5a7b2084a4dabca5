//! A Twilio of our own, on real HTTP: it takes SMS, counts them, and misbehaves on demand (platforms.md 10).
//!
//! Must not know: the node that asks.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::scripted::{Asked, Said, Scripted, Step, lock};

/// The one account it knows.
pub(crate) const ACCOUNT_SID: &str = "AC0123456789abcdef0123456789abcdef";

/// That account's token; characters that a form, a URL or a header would change are in it on purpose.
pub(crate) const AUTH_TOKEN: &str = "hush/auth+token&1";

/// A running fake Twilio.
pub(crate) struct Twilio {
    server: Scripted,
    taken: Arc<Mutex<Vec<Sms>>>,
}

/// An SMS as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sms {
    /// Its id, `SM…`.
    pub(crate) sid: String,
    /// The recipient.
    pub(crate) to: String,
    /// The sender's number or name, empty where a messaging service sends.
    pub(crate) from: String,
    /// The messaging service, empty where there is none.
    pub(crate) messaging_service: String,
    /// The text.
    pub(crate) body: String,
}

impl Twilio {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        let taken = Arc::default();
        let list = Arc::clone(&taken);
        Self {
            server: Scripted::start(move |asked| answer(asked, &list)).await,
            taken,
        }
    }

    /// The value of `twilio.base_url`.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// The next requests meet these steps, one each; afterwards Twilio takes what it gets.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.server.script(steps);
    }

    /// The SMS taken so far, whether or not anybody was told.
    pub(crate) fn taken(&self) -> Vec<Sms> {
        lock(&self.taken).clone()
    }

    /// Every request that was read so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.server.asked()
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Connections are refused and open ones broken, until [`Twilio::resume`].
    pub(crate) fn go_away(&mut self) {
        self.server.go_away();
    }

    /// Listens again, on the address it always had.
    pub(crate) async fn resume(&mut self) {
        self.server.resume().await;
    }
}

/// Twilio's own form of an error.
pub(crate) fn error(status: u16, code: i64, message: &str) -> Said {
    let body = json!({
        "code": code,
        "message": message,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": status,
    });
    Said::new(status, body).header("content-type", "application/json")
}

fn answer(asked: &Asked, taken: &Mutex<Vec<Sms>>) -> Said {
    let credentials = STANDARD.encode(format!("{ACCOUNT_SID}:{AUTH_TOKEN}"));
    if asked.header("authorization") != format!("Basic {credentials}") {
        return error(401, 20003, "Authenticate");
    }
    if asked.path != format!("/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json") {
        return error(404, 20404, "The requested resource was not found");
    }
    let mut taken = lock(taken);
    let sms = Sms {
        sid: format!("SM{:032x}", taken.len() + 1),
        to: asked.field("To"),
        from: asked.field("From"),
        messaging_service: asked.field("MessagingServiceSid"),
        body: asked.field("Body"),
    };
    if let Some(refusal) = refusal(&sms) {
        return refusal;
    }
    let said = resource(&sms);
    taken.push(sms);
    said
}

/// What Twilio itself would not take.
fn refusal(sms: &Sms) -> Option<Said> {
    if !sms.to.starts_with('+') {
        let message = format!("The 'To' number {} is not a valid phone number.", sms.to);
        return Some(error(400, 21211, &message));
    }
    if sms.body.is_empty() {
        return Some(error(400, 21602, "Message body is required."));
    }
    if sms.body.encode_utf16().count() > 1_600 {
        return Some(error(
            400,
            21617,
            "The concatenated message body exceeds the 1600 character limit",
        ));
    }
    let is_sender_clear = sms.from.is_empty() != sms.messaging_service.is_empty();
    (!is_sender_clear).then(|| error(400, 21603, "A 'From' phone number is required."))
}

fn resource(sms: &Sms) -> Said {
    let body = json!({
        "sid": sms.sid,
        "account_sid": ACCOUNT_SID,
        "to": sms.to,
        "from": sms.from,
        "body": sms.body,
        "status": "queued",
        "num_segments": "1",
        "num_media": "0",
        "direction": "outbound-api",
        "api_version": "2010-04-01",
        "error_code": null,
        "error_message": null,
    });
    Said::new(201, body).header("content-type", "application/json")
}
