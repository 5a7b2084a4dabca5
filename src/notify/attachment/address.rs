//! Which addresses an attachment may be fetched from: those of the public internet, and no others.
//!
//! Pure. Must not know: names, URLs, sockets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not of the public internet (IANA's registries of special-purpose addresses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, unique local and site-local IPv6, locally used NAT64.
    Private,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Where cloud providers tell a machine its credentials.
    Metadata,
    /// `100.64.0.0/10`, behind a provider's NAT.
    Shared,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// Addresses for books.
    Documentation,
    /// IPv6 within IPv4 within IPv6: a way around any table of networks.
    Tunnel,
    /// Everything else that nobody on the internet has.
    Reserved,
}

/// What keeps `address` from being public; `None` where it is. An address that carries an IPv4 address (mapped,
/// NAT64, 6to4, ISATAP) is judged by that, since that is where its packets end.
pub(super) fn class(address: IpAddr) -> Option<Class> {
    match address {
        IpAddr::V4(address) => class_of_v4(address),
        IpAddr::V6(address) => class_of_v6(address),
    }
}

fn class_of_v4(address: Ipv4Addr) -> Option<Class> {
    Some(match address.octets() {
        // The address of all large clouds; Amazon's containers; Azure's, in the midst of public ones; Alibaba's;
        // Oracle's.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [168, 63, 129, 16]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192] => Class::Metadata,
        [0, ..] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [169, 254, ..] => Class::LinkLocal,
        [100, 64..=127, ..] => Class::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [224..=239, ..] => Class::Multicast,
        // Protocol assignments, 6to4 relays, benchmarking, and the class that was kept for later.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [240..=255, ..] => Class::Reserved,
        _ => return None,
    })
}

fn class_of_v6(address: Ipv6Addr) -> Option<Class> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0, 0, 0, 0, 0, 0xffff, high, low] => return class_of_v4(v4(high, low)),
        // A network without IPv4 reaches the internet of IPv4 through this prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return class_of_v4(v4(high, low)),
        [0x64, 0xff9b, 1, ..] => Class::Private,
        [0x2002, high, low, ..] => class_of_v4(v4(high, low)).unwrap_or(Class::Tunnel),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => {
            class_of_v4(v4(high, low)).unwrap_or(Class::Tunnel)
        }
        // Amazon's and Google's.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Class::Metadata
        }
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        [0x2001, 0, ..] => Class::Tunnel,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Documentation,
        [0x2001, 0..=0x1ff, ..] => Class::Reserved,
        // All that has ever been given out.
        [0x2000..=0x3fff, ..] => return None,
        _ => Class::Reserved,
    })
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
    Ipv4Addr::new(a, b, c, d)
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata address",
            Self::Shared => "a shared (carrier's) address",
            Self::Multicast => "a multicast address",
            Self::Documentation => "a documentation address",
            Self::Tunnel => "a tunnel's address",
            Self::Reserved => "a reserved address",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn expect(class_expected: Option<Class>, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(class(address.parse().unwrap()), class_expected, "{address}");
        }
    }

    #[test]
    fn public_addresses_are_public() {
        expect(
            None,
            &[
                "1.1.1.1",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "128.0.0.1",
                "169.253.255.255",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.1",
                "192.167.255.255",
                "223.255.255.255",
                "2606:4700:4700::1111",
                "2001:4860:4860::8888",
                "2400:cb00::1",
                "::ffff:1.1.1.1",
                "64:ff9b::1.1.1.1",
            ],
        );
    }

    #[test]
    fn each_class_is_told_at_both_ends_of_its_networks() {
        expect(
            Some(Class::Unspecified),
            &["0.0.0.0", "0.255.255.255", "::"],
        );
        expect(
            Some(Class::Loopback),
            &["127.0.0.0", "127.255.255.255", "::1"],
        );
        expect(
            Some(Class::Private),
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
                "fc00::",
                "fdff:ffff::1",
                "fec0::1",
                "64:ff9b:1::1.1.1.1",
            ],
        );
        expect(
            Some(Class::LinkLocal),
            &["169.254.0.0", "169.254.255.255", "fe80::1", "febf::1"],
        );
        expect(
            Some(Class::Metadata),
            &[
                "169.254.169.254",
                "169.254.170.2",
                "168.63.129.16",
                "100.100.100.200",
                "fd00:ec2::254",
                "fd20:ce::254",
            ],
        );
        expect(Some(Class::Shared), &["100.64.0.0", "100.127.255.255"]);
        expect(
            Some(Class::Multicast),
            &["224.0.0.0", "239.255.255.255", "ff02::1"],
        );
        expect(
            Some(Class::Documentation),
            &[
                "192.0.2.1",
                "198.51.100.1",
                "203.0.113.1",
                "2001:db8::1",
                "3fff:fff::1",
            ],
        );
        expect(
            Some(Class::Reserved),
            &[
                "192.0.0.1",
                "192.88.99.1",
                "198.18.0.0",
                "198.19.255.255",
                "240.0.0.0",
                "255.255.255.255",
                "::2",
                "::127.0.0.1",
                "100::1",
                "2001:2::1",
                "4000::1",
                "5f00::1",
            ],
        );
        expect(Some(Class::Tunnel), &["2001::1", "2002:101:101::1"]);
    }

    #[test]
    fn an_address_within_an_address_is_what_counts() {
        expect(
            Some(Class::Loopback),
            &[
                "::ffff:127.0.0.1",
                "64:ff9b::127.0.0.1",
                "2002:7f00:1::",
                "2606:4700::5efe:7f00:1",
            ],
        );
        expect(
            Some(Class::Metadata),
            &[
                "::ffff:169.254.169.254",
                "64:ff9b::a9fe:a9fe",
                "2002:a9fe:a9fe::1",
            ],
        );
        expect(
            Some(Class::Private),
            &["::ffff:10.0.0.1", "2606:4700::200:5efe:a00:1"],
        );
    }
}
