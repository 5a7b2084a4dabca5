//! Addresses with names, as people write them.
//!
//! Pure. Must not know: where in a mail they go.

use lettre::Address;
use lettre::message::Mailbox;
use url::Host;

/// A longer name is no name (characters).
const NAME_CHARS_MAX: usize = 100;

/// Reads `Name <address>` or an address. More forgiving than RFC 5322 about the name (`Sales, North <a@b.example>`),
/// which is encoded anyway.
pub(super) fn parse(text: &str) -> Option<Mailbox> {
    let text = text.trim();
    if text.contains(char::is_control) {
        return None;
    }
    match text
        .strip_suffix('>')
        .and_then(|text| text.rsplit_once('<'))
    {
        Some((name, address)) => Some(Mailbox::new(self::name(name), ascii_address(address)?)),
        None => ascii_address(text).map(Mailbox::from),
    }
}

/// An address that a mail can be sent to. A domain in other letters than ASCII is written in its ASCII form, which
/// every relay understands.
pub(super) fn address(text: &str) -> Option<Address> {
    let (user, domain) = text.trim().rsplit_once('@')?;
    // Quoted local parts may hold these; nobody has such an address, and commands and headers end in them.
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "<>\"\\".contains(c);
    if user.contains(is_odd) || domain.contains(is_odd) {
        return None;
    }
    let domain = match Host::parse(domain) {
        Ok(Host::Domain(ascii)) => ascii,
        _ if domain.is_ascii() => domain.to_owned(),
        _ => return None,
    };
    Address::new(user, domain).ok()
}

/// An address that may stand in any mail's headers: others than the recipient's need not be understood by the relay.
pub(super) fn ascii_address(text: &str) -> Option<Address> {
    address(text).filter(|address| address.user().is_ascii())
}

/// A name fit to stand before an address: on one line, without its quotes; `None` where nothing is left.
pub(super) fn name(text: &str) -> Option<String> {
    let name = super::compose::one_line(text);
    let name = name.trim_matches(['"', ' ']);
    let is_name = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(Option<String>, String)> {
        parse(text).map(|mailbox| (mailbox.name, mailbox.email.to_string()))
    }

    #[test]
    fn a_name_may_stand_before_an_address() {
        let named = |name: &str, email: &str| Some((Some(name.to_owned()), email.to_owned()));
        assert_eq!(read("Ada <ada@a.example>"), named("Ada", "ada@a.example"));
        assert_eq!(
            read("\"Sales, North\" <a@b.example>"),
            named("Sales, North", "a@b.example")
        );
        assert_eq!(
            read("Sales, North<a@b.example> "),
            named("Sales, North", "a@b.example")
        );
        assert_eq!(
            read("Müller <m@müller.example>"),
            named("Müller", "m@xn--mller-kva.example")
        );
        assert_eq!(
            read(" <a@b.example>"),
            Some((None, "a@b.example".to_owned()))
        );
        assert_eq!(read("a@b.example"), Some((None, "a@b.example".to_owned())));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "Sales",
            "a@",
            "@b.example",
            "a@b@c <x>",
            "a b@c.example",
            "a@b.example\r\nRCPT TO:<c@d.example>",
            "<a@b.example",
            "\"a\r\n\"@b.example",
            "\"<a>\"@b.example",
            "a@b.example,c@d.example",
            "müller@b.example",
            "a@🡠%",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
