//! Kinds of values: how each is written, and read from TOML or from text.
//!
//! Any value may be written as text, since that is all an environment variable or a secret's file can hold; a list
//! as text is a TOML array or its items with commas between them. Empty text is an absent value where a kind allows
//! absence.
//!
//! Must not know: any key's name, or where a value was written.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use email_address::{EmailAddress, Options};
use ipnet::IpNet;
use toml::de::DeValue;

use super::value::{BaseUrl, LogFormat, Raw, Secret};

/// A kind of value.
pub(super) struct Kind<T> {
    /// What it is, with its article: "a duration".
    pub(super) noun: &'static str,
    /// One, as it is written in TOML.
    pub(super) example: &'static str,
    /// Whether it may be shown, and read from a file.
    pub(super) secrecy: Secrecy,
    /// Reads one; `None` where it is none.
    pub(super) read: fn(&Raw) -> Option<T>,
}

/// Whether values may be shown, and read from files of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// No secret.
    Open,
    /// A secret: the whole file is its value.
    One,
    /// A list of secrets: each line of a file is one.
    Many,
}

/// Smaller bodies would refuse ordinary forms.
const BODY_BYTES_MIN: u64 = 1 << 10;
/// A lead keeps its payload, and MongoDB takes no document above 16 MiB.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// A thousand years: "for ever", and still far from where milliseconds overflow.
const DURATION_MAX: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);
/// Below a second, pulling is a load on MongoDB that no cache is worth.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Above it, a webhook would be tried for weeks at the longest pause: that is an outage, and those do not count.
const ATTEMPTS_MAX: u32 = 1000;
/// MongoDB's own limit on a database's name.
const DATABASE_NAME_BYTES_MAX: usize = 63;
/// A node's name is in every webhook's id, and those are typed and read by people.
const NODE_ID_BYTES_MAX: usize = 64;

pub(super) const ADDRESS: Kind<SocketAddr> = Kind {
    noun: "an address with a port",
    example: r#""127.0.0.1:8080""#,
    secrecy: Secrecy::Open,
    read: parsed,
};
pub(super) const BODY_SIZE: Kind<u64> = Kind {
    noun: "a size from 1KiB to 16MiB",
    example: r#""1MiB""#,
    secrecy: Secrecy::Open,
    read: |raw| size(raw).filter(|size| (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(size)),
};
pub(super) const SIZE: Kind<u64> = Kind {
    noun: "a size",
    example: r#""512MiB""#,
    secrecy: Secrecy::Open,
    read: size,
};
pub(super) const COUNT: Kind<u64> = Kind {
    noun: "a whole number above 0",
    example: "10000",
    secrecy: Secrecy::Open,
    read: |raw| number(raw).filter(|count| *count > 0),
};
pub(super) const RATE: Kind<u32> = Kind {
    noun: "a whole number",
    example: "50",
    secrecy: Secrecy::Open,
    read: number,
};
pub(super) const ATTEMPTS: Kind<u32> = Kind {
    noun: "a whole number from 1 to 1000",
    example: "3",
    secrecy: Secrecy::Open,
    read: |raw| number(raw).filter(|attempts| (1..=ATTEMPTS_MAX).contains(attempts)),
};
pub(super) const FAILURE_STATUS: Kind<u16> = Kind {
    noun: "an HTTP status from 400 to 599",
    example: "503",
    secrecy: Secrecy::Open,
    read: |raw| number(raw).filter(|status| (400..600).contains(status)),
};
pub(super) const FLAG: Kind<bool> = Kind {
    noun: "true or false",
    example: "true",
    secrecy: Secrecy::Open,
    read: flag,
};
pub(super) const DURATION: Kind<Duration> = Kind {
    noun: "a duration",
    example: r#""30d" or "10m""#,
    secrecy: Secrecy::Open,
    read: duration,
};
pub(super) const PAUSE: Kind<Duration> = Kind {
    noun: "a duration above 0",
    example: r#""1s""#,
    secrecy: Secrecy::Open,
    read: |raw| duration(raw).filter(|pause| !pause.is_zero()),
};
pub(super) const INTERVAL: Kind<Duration> = Kind {
    noun: "a duration of at least 1s",
    example: r#""30s""#,
    secrecy: Secrecy::Open,
    read: |raw| duration(raw).filter(|interval| *interval >= INTERVAL_MIN),
};
pub(super) const AGE: Kind<Option<Duration>> = Kind {
    noun: "a duration",
    example: r#""5m", or "0s" for none"#,
    secrecy: Secrecy::Open,
    read: |raw| duration(raw).map(|age| (!age.is_zero()).then_some(age)),
};
pub(super) const TEXT: Kind<Option<String>> = Kind {
    noun: "text",
    example: r#""…""#,
    secrecy: Secrecy::Open,
    read: |raw| optional(raw, |text| Some(text.to_owned())),
};
pub(super) const PATH: Kind<PathBuf> = Kind {
    noun: "a file's path",
    example: r#""/var/lib/inlet/inlet.redb""#,
    secrecy: Secrecy::Open,
    read: |raw| {
        text(raw)
            .map(PathBuf::from)
            .filter(|path| path.file_name().is_some())
    },
};
pub(super) const FILE: Kind<Option<PathBuf>> = Kind {
    noun: "a file's path",
    example: r#""/etc/inlet/tls.pem""#,
    secrecy: Secrecy::Open,
    read: |raw| optional(raw, |text| Some(PathBuf::from(text))),
};
pub(super) const BASE_URL: Kind<BaseUrl> = Kind {
    noun: "an http or https URL",
    example: r#""https://graph.facebook.com""#,
    secrecy: Secrecy::Open,
    read: |raw| BaseUrl::parse(text(raw)?),
};
pub(super) const NETWORKS: Kind<Vec<IpNet>> = Kind {
    noun: "a list of networks",
    example: r#"["10.0.0.0/8", "192.0.2.7"]"#,
    secrecy: Secrecy::Open,
    read: |raw| list(raw)?.iter().map(|item| network(item)).collect(),
};
pub(super) const NODE_ID: Kind<Option<String>> = Kind {
    noun: "a name of at most 64 letters, digits, `-`, `_` and `.`",
    example: r#""edge-1""#,
    secrecy: Secrecy::Open,
    read: |raw| optional(raw, node_id),
};
pub(super) const DATABASE: Kind<Option<String>> = Kind {
    noun: "a database's name",
    example: r#""crm""#,
    secrecy: Secrecy::Open,
    read: |raw| optional(raw, database_name),
};
pub(super) const API_VERSION: Kind<String> = Kind {
    noun: "a version of the Graph API",
    example: r#""v18.0""#,
    secrecy: Secrecy::Open,
    read: |raw| {
        text(raw)
            .filter(|text| is_api_version(text))
            .map(str::to_owned)
    },
};
pub(super) const MAILBOX: Kind<Option<String>> = Kind {
    noun: "a sender",
    example: r#""Leads <leads@example.com>""#,
    secrecy: Secrecy::Open,
    read: |raw| optional(raw, mailbox),
};
pub(super) const LOG_FORMAT: Kind<LogFormat> = Kind {
    noun: "a log format",
    example: r#""json" or "text""#,
    secrecy: Secrecy::Open,
    read: |raw| match text(raw)? {
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    },
};
pub(super) const LOG_LEVEL: Kind<String> = Kind {
    noun: "a log level",
    example: r#""info" or "info,inlet::pipeline=debug""#,
    secrecy: Secrecy::Open,
    read: |raw| {
        text(raw)
            .filter(|text| are_log_levels(text))
            .map(str::to_owned)
    },
};
pub(super) const SECRET: Kind<Option<Secret>> = Kind {
    noun: "text",
    example: r#""…""#,
    secrecy: Secrecy::One,
    read: |raw| optional(raw, Secret::parse),
};
pub(super) const SECRETS: Kind<Vec<Secret>> = Kind {
    noun: "a list of texts that are not empty",
    example: r#"["…", "…"]"#,
    secrecy: Secrecy::Many,
    read: |raw| list(raw)?.iter().map(|item| Secret::parse(item)).collect(),
};
pub(super) const MONGODB_URI: Kind<Option<Secret>> = Kind {
    noun: "a MongoDB connection string",
    example: r#""mongodb://host:27017/crm" or "mongodb+srv://host/crm""#,
    secrecy: Secrecy::One,
    read: |raw| optional(raw, |uri| after_mongodb_scheme(uri).and(Secret::parse(uri))),
};
pub(super) const SMTP_URL: Kind<Option<Secret>> = Kind {
    noun: "an SMTP URL",
    example: r#""smtps://user:password@host" or "smtp://host:25""#,
    secrecy: Secrecy::One,
    read: |raw| optional(raw, |url| is_smtp_url(url).then(|| Secret::parse(url))?),
};

// === impl Kind ===

impl<T> Kind<T> {
    /// Reads the default of a key's line.
    pub(super) fn default(&self, default: &'static str) -> T {
        (self.read)(&Raw::Text(default.to_owned())).expect("a test reads every default")
    }
}

/// The database in a connection string's path.
pub(super) fn database_in(uri: &str) -> Option<String> {
    let (_hosts, path) = after_mongodb_scheme(uri)?.split_once('/')?;
    let name = path.split('?').next()?;
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    database_name(&name)
}

fn text(raw: &Raw) -> Option<&str> {
    raw.text().map(str::trim)
}

fn optional<T>(raw: &Raw, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text(raw)? {
        "" => Some(None),
        text => read(text).map(Some),
    }
}

fn parsed<T: FromStr>(raw: &Raw) -> Option<T> {
    text(raw)?.parse().ok()
}

fn number<T: FromStr + TryFrom<i64>>(raw: &Raw) -> Option<T> {
    match raw {
        Raw::Integer(integer) => T::try_from(*integer).ok(),
        _ => parsed(raw),
    }
}

fn flag(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Flag(flag) => Some(*flag),
        _ => parsed(raw),
    }
}

fn size(raw: &Raw) -> Option<u64> {
    number(raw).or_else(|| parsed::<ByteSize>(raw).map(|size| size.as_u64()))
}

fn duration(raw: &Raw) -> Option<Duration> {
    let duration = humantime::parse_duration(text(raw)?).ok()?;
    (duration <= DURATION_MAX).then_some(duration)
}

/// The items of an array of texts, or of a text that lists them.
fn list(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::List(items) => items
            .iter()
            .map(|item| Some(text(item)?.to_owned()))
            .collect(),
        Raw::Text(listed) if listed.trim_start().starts_with('[') => {
            let array = DeValue::parse(listed.trim()).ok()?;
            list(&Raw::of(array.get_ref()))
        }
        Raw::Text(listed) => {
            let items = listed
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Some(items.map(str::to_owned).collect())
        }
        _ => None,
    }
}

fn network(text: &str) -> Option<IpNet> {
    let host = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| host()).ok()
}

fn node_id(text: &str) -> Option<String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (text.len() <= NODE_ID_BYTES_MAX && text.chars().all(is_fit)).then(|| text.to_owned())
}

fn database_name(text: &str) -> Option<String> {
    let is_unfit = |c: char| c.is_control() || "/\\. \"$*<>:|?".contains(c);
    let is_name = !text.is_empty() && text.len() <= DATABASE_NAME_BYTES_MAX;
    (is_name && !text.contains(is_unfit)).then(|| text.to_owned())
}

fn is_api_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('v')
        .and_then(|version| version.split_once('.'))
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

fn mailbox(text: &str) -> Option<String> {
    let options = Options::default().with_display_text();
    EmailAddress::parse_with_options(text, options)
        .is_ok()
        .then(|| text.to_owned())
}

/// The subscriber's filter takes `inof` for a module's name and then logs nothing; here it is a mistake.
fn are_log_levels(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |text: &str| LEVELS.contains(&text.to_ascii_lowercase().as_str());
    text.split(',')
        .all(|part| match part.trim().split_once('=') {
            Some((module, level)) => !module.trim().is_empty() && is_level(level.trim()),
            None => is_level(part.trim()),
        })
}

fn after_mongodb_scheme(uri: &str) -> Option<&str> {
    let rest = uri
        .strip_prefix("mongodb://")
        .or_else(|| uri.strip_prefix("mongodb+srv://"))?;
    let has_host = !rest.starts_with(['/', '?']) && !rest.is_empty();
    has_host.then_some(rest)
}

fn is_smtp_url(text: &str) -> bool {
    reqwest::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "smtp" | "smtps") && url.has_host())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn raw(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn sizes_are_numbers_or_have_units() {
        assert_eq!(size(&raw("1MiB")), Some(1 << 20));
        assert_eq!(size(&raw("512 MB")), Some(512_000_000));
        assert_eq!(size(&raw("4096")), Some(4096));
        assert_eq!(size(&raw("much")), None);
    }

    #[test]
    fn a_body_limit_beyond_what_mongodb_takes_is_refused() {
        assert_eq!((BODY_SIZE.read)(&raw("16MiB")), Some(16 << 20));
        assert_eq!((BODY_SIZE.read)(&raw("17MiB")), None);
    }

    #[test]
    fn a_list_may_be_written_with_commas_or_as_an_array() {
        let expected = vec![Secret::parse("a"), Secret::parse("b")];
        for written in ["a, b", r#"["a", "b"]"#] {
            let secrets = (SECRETS.read)(&raw(written)).unwrap();
            assert_eq!(
                secrets.into_iter().map(Some).collect::<Vec<_>>(),
                expected,
                "{written}"
            );
        }
        assert_eq!((SECRETS.read)(&raw(r#"["a", ""]"#)), None);
    }

    #[test]
    fn a_single_address_is_a_network_of_one() {
        assert_eq!(network("192.0.2.7"), "192.0.2.7/32".parse().ok());
        assert_eq!(network("10.0.0.0/8"), "10.0.0.0/8".parse().ok());
        assert_eq!(network("10.0.0.0/33"), None);
    }

    #[test]
    fn the_database_is_found_behind_credentials_and_several_hosts() {
        let uri = "mongodb://user:p%2Fw@a:27017,b:27017/crm?replicaSet=rs0";
        assert_eq!(database_in(uri), Some("crm".to_owned()));
        assert_eq!(database_in("mongodb+srv://a/?tls=true"), None);
        assert_eq!(database_in("mongodb://a"), None);
    }

    #[test]
    fn a_misspelt_log_level_is_not_taken_for_a_module() {
        assert!(are_log_levels("info"));
        assert!(are_log_levels("warn, inlet::pipeline=debug"));
        assert!(!are_log_levels("inof"));
        assert!(!are_log_levels("inlet=loud"));
    }

    #[test]
    fn base_urls_lose_the_slash_at_their_end() {
        let url = BaseUrl::parse("http://127.0.0.1:9000/graph/").unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9000/graph");
        for text in ["graph.facebook.com", "ftp://a", "http://", "http://a?b"] {
            assert_eq!(BaseUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let secret = Secret::parse("hunter2").unwrap();
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn senders_may_have_a_name() {
        assert!(mailbox("Leads <leads@example.com>").is_some());
        assert!(mailbox("leads@example.com").is_some());
        assert!(mailbox("leads").is_none());
    }
}
