//! Mistakes that only show between keys, or between a key and the machine.
//!
//! Must not know: where a value was written; [`Settings::require`] finds that out.

use std::io;
use std::path::PathBuf;

use super::source::Settings;
use super::{Config, Secret};
use crate::notify::email::EmailSender;
use crate::notify::sms::SmsSender;

/// A key for HS256 is at least as long as its hash (RFC 7518 3.2).
const EVENTS_SECRET_BYTES_MIN: usize = 32;

/// Notes every mistake between keys.
pub(super) fn all(config: &Config, settings: &mut Settings) {
    listeners(config, settings);
    rate_limit(config, settings);
    tls(config, settings);
    pipeline(config, settings);
    mongodb(config, settings);
    facebook(config, settings);
    notifications(config, settings);
    events(config, settings);
}

fn listeners(config: &Config, settings: &mut Settings) {
    let admin = &config.admin;
    settings.require(
        admin.listen.ip().to_canonical().is_loopback() || admin.token.is_some(),
        &["admin.listen", "admin.token"],
        "`admin.listen` is open beyond this machine, and there is no `admin.token`",
        "set `admin.token`, or listen on 127.0.0.1",
    );
    let is_chosen_by_system = admin.listen.port() == 0;
    settings.require(
        admin.listen != config.intake.listen || is_chosen_by_system,
        &["admin.listen", "intake.listen"],
        "`admin.listen` and `intake.listen` are the same address",
        "give one of them another port",
    );
}

fn rate_limit(config: &Config, settings: &mut Settings) {
    let limit = &config.intake.rate_limit;
    settings.require(
        (limit.per_second == 0) == (limit.burst == 0),
        &["intake.rate_limit.per_second", "intake.rate_limit.burst"],
        "of `intake.rate_limit.per_second` and `burst` one is 0 and the other is not",
        "set both to turn the limit on, or both to 0 to turn it off",
    );
}

fn tls(config: &Config, settings: &mut Settings) {
    settings.require(
        config.tls.cert.is_some() == config.tls.key.is_some(),
        &["tls.cert", "tls.key"],
        "of `tls.cert` and `tls.key` only one is set",
        "set both, or neither for plain HTTP",
    );
    is_there("tls.cert", config.tls.cert.as_ref(), settings);
    is_there("tls.key", config.tls.key.as_ref(), settings);
}

fn pipeline(config: &Config, settings: &mut Settings) {
    settings.require(
        config.pipeline.backoff <= config.pipeline.backoff_max,
        &["pipeline.backoff", "pipeline.backoff_max"],
        "`pipeline.backoff` is longer than `pipeline.backoff_max`",
        "make the first pause the shorter one",
    );
}

fn mongodb(config: &Config, settings: &mut Settings) {
    settings.require(
        config.mongodb.uri.is_none() || config.mongodb.database_name().is_some(),
        &["mongodb.uri", "mongodb.database"],
        "`mongodb.uri` names no database, and neither does `mongodb.database`",
        "set `mongodb.database = \"crm\"`, or end the URI's path with it",
    );
}

fn facebook(config: &Config, settings: &mut Settings) {
    settings.require(
        config.facebook.app_id.is_none() || config.facebook.app_secret.is_some(),
        &["facebook.app_id", "facebook.app_secret"],
        "`facebook.app_id` is set without `facebook.app_secret`: tokens cannot be refreshed",
        "set `facebook.app_secret` or `facebook.app_secret_file`",
    );
}

fn notifications(config: &Config, settings: &mut Settings) {
    settings.require(
        config.smtp.url.is_none() || config.smtp.from.is_some(),
        &["smtp.url", "smtp.from"],
        "`smtp.url` is set without `smtp.from`: the standard e-mail has no sender",
        "set `smtp.from = \"Leads <leads@example.com>\"`",
    );
    if let Some(url) = &config.smtp.url
        && let Err(wrong) = EmailSender::check_url(url.expose())
    {
        settings.require(
            false,
            &["smtp.url"],
            &wrong.to_string(),
            "write `smtps://user:password@host`, or `smtp://host:25` for a relay nearby",
        );
    }
    let from = config.smtp.from.as_deref();
    settings.require(
        from.is_none_or(EmailSender::is_sender),
        &["smtp.from"],
        "`smtp.from` is no address that mail can be sent from",
        "write `Leads <leads@example.com>`, or the address alone",
    );
    let sid = config.twilio.account_sid.as_deref();
    settings.require(
        sid.is_none_or(SmsSender::is_account_sid),
        &["twilio.account_sid"],
        "`twilio.account_sid` is not letters and digits alone",
        "copy it from Twilio's console, where it begins with `AC`",
    );
    settings.require(
        config.twilio.account_sid.is_some() == config.twilio.auth_token.is_some(),
        &["twilio.account_sid", "twilio.auth_token"],
        "of `twilio.account_sid` and `twilio.auth_token` only one is set",
        "set both, or neither for no SMS",
    );
    is_there(
        "fcm.service_account",
        config.fcm.service_account.as_ref(),
        settings,
    );
}

/// Whoever has a client's token may try secrets on it as fast as they can.
fn events(config: &Config, settings: &mut Settings) {
    let secret = config.events.secret.as_ref().map(Secret::expose);
    settings.require(
        secret.is_none_or(|secret| secret.len() >= EVENTS_SECRET_BYTES_MIN),
        &["events.secret"],
        "`events.secret` has fewer than 32 bytes: it can be guessed from any client's token",
        "set 32 random bytes or more, such as `openssl rand -base64 32` makes",
    );
}

/// A path that leads nowhere is a mistake; one this user may not look at need not be.
fn is_there(name: &'static str, path: Option<&PathBuf>, settings: &mut Settings) {
    let Some(path) = path else { return };
    let is_missing = std::fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let what = format!(
        "`{name}` names `{}`, and there is no such file",
        path.display()
    );
    settings.require(!is_missing, &[name], &what, "name a file that is there");
}
