//! The ways to notify representatives by, as far as the configuration sets them up.
//!
//! None of them keeps a node from starting: leads matter more. A way that is not there says why, and what is to go by
//! it fails at once with that reason; what can be mended in its place, a credential or the machine's root certificates,
//! is waited for.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Config, Fcm, Secret, Smtp, Twilio};
use crate::detail::with_causes;
use crate::model::Channel;
use crate::notify::attachment::Fetcher;
use crate::notify::email::{self, EmailSender, Timeouts, Trust};
use crate::notify::push::{self, PushSender, ServiceAccount};
use crate::notify::sms::{self, SmsSender};
use crate::notify::ways::{ByEmail, ByPush, BySms};
use crate::notify::{NotSetUp, Watched};

/// A way for each channel.
pub(super) struct Ways {
    pub(super) email: Result<ByEmail, NotSetUp>,
    pub(super) sms: Result<BySms, NotSetUp>,
    pub(super) push: Result<ByPush, NotSetUp>,
    /// How each is doing, in the channels' order.
    pub(super) watched: Vec<Watched>,
}

impl Ways {
    /// Builds the senders; nothing is connected yet.
    pub(super) fn new(config: &Config, clock: &Arc<dyn Clock>) -> Self {
        let email = email(&config.smtp);
        let sms = sms(&config.twilio);
        let push = push(&config.fcm, clock);
        let email = set_up(Channel::Email, "smtp.url", email);
        let sms = set_up(Channel::Sms, "twilio.account_sid", sms);
        let push = set_up(Channel::Push, "fcm.service_account", push);
        let watched = vec![
            watched(Channel::Email, &email),
            watched(Channel::Sms, &sms),
            watched(Channel::Push, &push),
        ];
        let troubles = [
            email.as_ref().ok().and_then(ByEmail::trouble),
            sms.as_ref().ok().and_then(BySms::trouble),
            key_file_trouble(&config.fcm).or(push.as_ref().ok().and_then(ByPush::trouble)),
        ];
        for (one, trouble) in watched.iter().zip(troubles) {
            if let Some(trouble) = trouble {
                tracing::error!(channel = %one.channel, "{trouble}");
                one.health.ill(trouble, clock.now_ms());
            }
        }
        Self {
            email,
            sms,
            push,
            watched,
        }
    }
}

/// `None` where it is not configured; an error where it cannot be used as it is.
type Built<W> = Option<Result<W, String>>;

fn email(smtp: &Smtp) -> Built<ByEmail> {
    let url = smtp.url.as_ref()?;
    let options = email::Options {
        url: url.expose().to_owned(),
        from: smtp.from.clone().unwrap_or_default(),
        timeouts: Timeouts::default(),
        trust: Trust::System,
        fetcher: Fetcher::public(),
    };
    Some(EmailSender::new(options).map(ByEmail::new).map_err(told))
}

fn sms(twilio: &Twilio) -> Built<BySms> {
    let auth_token = twilio.auth_token.as_ref().map(Secret::expose);
    let options = sms::Options {
        account_sid: twilio.account_sid.clone()?,
        auth_token: auth_token.unwrap_or_default().to_owned(),
        base_url: twilio.base_url.to_string(),
        ..sms::Options::default()
    };
    Some(SmsSender::new(options).map(BySms::new).map_err(told))
}

fn push(fcm: &Fcm, clock: &Arc<dyn Clock>) -> Built<ByPush> {
    let options = push::Options {
        service_account: fcm.service_account.clone()?,
        base_url: fcm.base_url.to_string(),
        ..push::Options::default()
    };
    let sender = PushSender::new(options, Arc::clone(clock));
    Some(sender.map(ByPush::new).map_err(told))
}

/// The file is read again for each access token, so a broken one may be mended while pushes wait.
fn key_file_trouble(fcm: &Fcm) -> Option<String> {
    let loaded = ServiceAccount::load(fcm.service_account.as_ref()?);
    loaded.err().map(|error| error.with_remedy())
}

fn set_up<W>(channel: Channel, key: &str, built: Built<W>) -> Result<W, NotSetUp> {
    let why = match built {
        Some(Ok(way)) => return Ok(way),
        None => format!("`{key}` is not set"),
        Some(Err(why)) => {
            tracing::error!(%channel, why, "notifications by this way are off");
            why
        }
    };
    Err(NotSetUp { channel, why })
}

fn watched<W>(channel: Channel, way: &Result<W, NotSetUp>) -> Watched {
    Watched {
        channel,
        health: Arc::default(),
        not_set_up: way.as_ref().err().map(|not_set_up| not_set_up.why.clone()),
    }
}

fn told(error: impl std::error::Error) -> String {
    with_causes(&error)
}
