//! The relay as `smtp.url` names it.
//!
//! Must not know: how a conversation with it goes.

use std::fmt;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::Auth;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Where messages are handed to.
pub(super) struct Relay {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encryption: Encryption,
    pub(super) credentials: Option<Credentials>,
    /// What must not be shown: the password, and the forms it is sent in.
    secrets: Vec<String>,
}

/// When the connection becomes TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// From the first byte.
    Implicit,
    /// By STARTTLS, or nothing is sent.
    Required,
    /// By STARTTLS where it is offered.
    Opportunistic,
}

/// What is wrong with `smtp.url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not to be read at all.
    #[error(
        "smtp.url is no smtp or smtps URL with a host; `@`, `/`, `:`, `#`, `?` and `%` in user or password must be percent-encoded"
    )]
    Form,
    /// Only one of user and password.
    #[error("smtp.url names a user without a password, or a password without a user")]
    Credentials,
    /// Something after the host that has no meaning.
    #[error(
        "smtp.url may end in `?tls=required` or `?tls=opportunistic` (with smtp://), and in nothing else"
    )]
    Rest,
    /// A password that would leave the machine in the clear.
    #[error("smtp.url has a password and `tls=opportunistic`: it could be sent unencrypted")]
    Exposed,
}

impl Relay {
    /// Reads `smtp.url`; `email::Options::url` says how it is written.
    pub(super) fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text.trim()).map_err(|_| UrlError::Form)?;
        let host = host(&url).ok_or(UrlError::Form)?;
        let credentials = credentials(&url)?;
        let encryption = encryption(&url, credentials.is_some() && !is_loopback(&host))?;
        let is_submission = credentials.is_some() || encryption == Encryption::Required;
        let port_default = match encryption {
            Encryption::Implicit => 465,
            _ if is_submission => 587,
            _ => 25,
        };
        let (user, password) = credentials.unzip();
        let credentials = user.zip(password.clone());
        let credentials = credentials.map(|(user, password)| Credentials::new(user, password));
        Ok(Self {
            port: url.port().unwrap_or(port_default),
            encryption,
            secrets: credentials.iter().flat_map(forms).chain(password).collect(),
            credentials,
            host,
        })
    }

    /// Stars for what is secret: relays repeat in their errors what they were sent.
    pub(super) fn masked(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// Whether a password may be sent as things stand. In pairs with [`UrlError::Exposed`].
    pub(super) fn may_authenticate(&self, is_encrypted: bool) -> bool {
        is_encrypted || is_loopback(&self.host)
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

fn host(url: &Url) -> Option<String> {
    if !matches!(url.scheme(), "smtp" | "smtps") {
        return None;
    }
    match url.host()? {
        Host::Domain(name) => (!name.is_empty()).then(|| name.to_owned()),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

fn credentials(url: &Url) -> Result<Option<(String, String)>, UrlError> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(|text| text.into_owned())
            .map_err(|_| UrlError::Form)
    };
    let user = decoded(url.username())?;
    let password = decoded(url.password().unwrap_or_default())?;
    match (user.is_empty(), password.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some((user, password))),
        _ => Err(UrlError::Credentials),
    }
}

fn encryption(url: &Url, has_secret_to_keep: bool) -> Result<Encryption, UrlError> {
    let is_bare = matches!(url.path(), "" | "/") && url.fragment().is_none();
    let mut pairs = url.query_pairs();
    let tls = pairs.next();
    if !is_bare || pairs.next().is_some() || tls.as_ref().is_some_and(|(name, _)| name != "tls") {
        return Err(UrlError::Rest);
    }
    match (url.scheme(), tls.as_ref().map(|(_, value)| value.as_ref())) {
        ("smtps", None) => Ok(Encryption::Implicit),
        ("smtp", Some("required")) => Ok(Encryption::Required),
        ("smtp", Some("opportunistic")) if has_secret_to_keep => Err(UrlError::Exposed),
        ("smtp", None) if has_secret_to_keep => Ok(Encryption::Required),
        ("smtp", None | Some("opportunistic")) => Ok(Encryption::Opportunistic),
        _ => Err(UrlError::Rest),
    }
}

/// `localhost` is loopback by RFC 6761, whatever a name server says.
fn is_loopback(host: &str) -> bool {
    let is_address = || {
        host.parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    host.eq_ignore_ascii_case("localhost") || is_address()
}

/// The password as it goes over the wire, in the words of AUTH PLAIN and AUTH LOGIN.
fn forms(credentials: &Credentials) -> Vec<String> {
    let said = [
        (Mechanism::Plain, None),
        (Mechanism::Login, Some("Password".to_owned())),
    ];
    let said = said.into_iter().filter_map(|(mechanism, challenge)| {
        let command = Auth::new(mechanism, credentials.clone(), challenge).ok()?;
        let command = command.to_string();
        command.split_whitespace().last().map(str::to_owned)
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn told(url: &str) -> (String, u16, Encryption) {
        let relay = Relay::parse(url).unwrap();
        (relay.host, relay.port, relay.encryption)
    }

    fn wrong(url: &str) -> UrlError {
        Relay::parse(url).err().unwrap()
    }

    #[test]
    fn a_password_goes_encrypted_or_stays_on_the_machine() {
        use Encryption::{Implicit, Opportunistic, Required};
        let cases = [
            ("smtps://u:p@mail.example", "mail.example", 465, Implicit),
            ("smtp://u:p@mail.example", "mail.example", 587, Required),
            (
                "smtp://u:p@localhost:2525",
                "localhost",
                2525,
                Opportunistic,
            ),
            ("smtp://mail.example", "mail.example", 25, Opportunistic),
            ("smtp://[::1]:25/", "::1", 25, Opportunistic),
            ("smtp://127.0.0.1", "127.0.0.1", 25, Opportunistic),
            (
                "smtp://mail.example?tls=required",
                "mail.example",
                587,
                Required,
            ),
            (
                "smtp://127.0.0.1:25?tls=required",
                "127.0.0.1",
                25,
                Required,
            ),
        ];
        for (url, host, port, encryption) in cases {
            assert_eq!(told(url), (host.to_owned(), port, encryption), "{url}");
        }
        assert_eq!(
            wrong("smtp://u:p@mail.example?tls=opportunistic"),
            UrlError::Exposed
        );
    }

    #[test]
    fn no_password_is_sent_in_the_clear_beyond_loopback() {
        assert!(
            !Relay::parse("smtp://u:p@mail.example")
                .unwrap()
                .may_authenticate(false)
        );
        assert!(
            Relay::parse("smtp://u:p@mail.example")
                .unwrap()
                .may_authenticate(true)
        );
        assert!(
            Relay::parse("smtp://u:p@127.0.0.1")
                .unwrap()
                .may_authenticate(false)
        );
    }

    #[test]
    fn what_has_no_meaning_is_a_mistake() {
        for url in [
            "http://a",
            "smtp:",
            "smtp://",
            "mail.example:25",
            "smtp://u:%ff@a",
        ] {
            assert_eq!(wrong(url), UrlError::Form, "{url}");
        }
        for url in ["smtp://u@a", "smtp://:p@a"] {
            assert_eq!(wrong(url), UrlError::Credentials, "{url}");
        }
        for url in [
            "smtp://a/b",
            "smtp://a?tls=none",
            "smtps://a?tls=required",
            "smtp://a?x=y",
            "smtp://a#b",
            "smtp://a?tls=required&tls=required",
        ] {
            assert_eq!(wrong(url), UrlError::Rest, "{url}");
        }
    }

    #[test]
    fn the_password_shows_in_no_form() {
        let relay = Relay::parse("smtp://us%40er:hunter%2F2@mail.example").unwrap();
        // base64 of NUL us@er NUL hunter/2, and of hunter/2.
        for said in ["AHVzQGVyAGh1bnRlci8y", "aHVudGVyLzI=", "hunter/2"] {
            let answer = format!("535 not {said}!");
            assert_eq!(relay.masked(&answer), "535 not ***!");
        }
        assert!(!format!("{relay:?}").contains("hunter"));
    }
}
