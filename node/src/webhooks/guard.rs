//! Which addresses webhooks are sent to: who may name a URL must not reach what only this machine
//! and its neighbours may.
//!
//! Judged are the addresses a name was resolved to, at each connection, and the connection goes to
//! the very address that was judged; so a name that points elsewhere the second time gains nothing.
//!
//! Source: IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890), and the
//! addresses at which clouds serve machines their own credentials.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why an address is not one of the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressClass {
    /// The machine itself.
    Loopback,
    /// A network behind a router: RFC 1918.
    Private,
    /// The same for IPv6: RFC 4193.
    UniqueLocal,
    /// One cable: RFC 3927, RFC 4291.
    LinkLocal,
    /// Behind a carrier's translation: RFC 6598.
    CarrierGrade,
    /// No address of anybody: `0.0.0.0/8`, `::`.
    Unspecified,
    /// Many at once.
    Multicast,
    /// For books.
    Documentation,
    /// A cloud's service that hands out credentials.
    Metadata,
    /// Anything else that is not given out to hosts.
    Reserved,
}

impl AddressClass {
    /// Whether `webhook.allow_private` lets it be reached: networks that an operator may well run a
    /// receiver in.
    pub fn is_private_network(self) -> bool {
        matches!(
            self,
            Self::Loopback
                | Self::Private
                | Self::UniqueLocal
                | Self::LinkLocal
                | Self::CarrierGrade
        )
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::UniqueLocal => "a unique local address",
            Self::LinkLocal => "a link-local address",
            Self::CarrierGrade => "an address behind a carrier's translation",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Documentation => "an address for documentation",
            Self::Metadata => "a cloud's metadata service",
            Self::Reserved => "a reserved address",
        })
    }
}

/// Why nothing is sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The address may not be reached.
    #[error("{address} is {class}{remedy}", remedy = remedy(*.class))]
    Address {
        /// It.
        address: IpAddr,
        /// What it is.
        class: AddressClass,
    },
    /// The public internet, without encryption.
    #[error("{address} is a public address: only https is sent there")]
    PlainText {
        /// It.
        address: IpAddr,
    },
}

fn remedy(class: AddressClass) -> &'static str {
    match class.is_private_network() {
        true => "; set webhook.allow_private if a receiver runs there",
        false => "",
    }
}

/// What kind of address `address` is; `None` for one of the public internet.
pub fn class_of(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(address) => class_of_v4(address),
        IpAddr::V6(address) => class_of_v6(address),
    }
}

/// Judges all addresses that a name has. One that may not be reached is enough to refuse: who puts
/// it beside a public one has no good reason.
///
/// # Errors
///
/// [`Refused`] with the first that is not allowed.
pub fn judge(addresses: &[SocketAddr], allow_private: bool, is_https: bool) -> Result<(), Refused> {
    for address in addresses.iter().map(SocketAddr::ip) {
        match class_of(address) {
            Some(class) if !(allow_private && class.is_private_network()) => {
                return Err(Refused::Address { address, class });
            }
            None if !is_https => return Err(Refused::PlainText { address }),
            _ => {}
        }
    }
    Ok(())
}

/// Where clouds serve metadata, and credentials with them.
const METADATA_V4: [Ipv4Addr; 5] = [
    // Amazon, Google, Azure, OpenStack and most others; then Amazon's containers.
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    // Azure's host agent: a public address that is answered by the host.
    Ipv4Addr::new(168, 63, 129, 16),
    // Alibaba.
    Ipv4Addr::new(100, 100, 100, 200),
    // Oracle.
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The same over IPv6: Amazon, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn class_of_v4(address: Ipv4Addr) -> Option<AddressClass> {
    use AddressClass as C;
    if METADATA_V4.contains(&address) {
        return Some(C::Metadata);
    }
    match address.octets() {
        [0, ..] => Some(C::Unspecified),
        [127, ..] => Some(C::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(C::Private),
        [100, 64..=127, ..] => Some(C::CarrierGrade),
        [169, 254, ..] => Some(C::LinkLocal),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(C::Documentation),
        // Protocol assignments, 6to4 relays, benchmarks.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] => Some(C::Reserved),
        [224..=239, ..] => Some(C::Multicast),
        // Class E, and the broadcast address.
        [240..=255, ..] => Some(C::Reserved),
        _ => None,
    }
}

fn class_of_v6(address: Ipv6Addr) -> Option<AddressClass> {
    use AddressClass as C;
    if METADATA_V6.contains(&address) {
        return Some(C::Metadata);
    }
    if address.is_unspecified() {
        return Some(C::Unspecified);
    }
    if address.is_loopback() {
        return Some(C::Loopback);
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let last = Ipv4Addr::from(u32::from(g) << 16 | u32::from(h));
    match [a, b, c, d, e, f] {
        // IPv4 in another form: mapped, compatible, translated (RFC 2765, RFC 6052).
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => class_of_v4(last),
        [0, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0xffff, 0] => class_of_v4(last).or(Some(C::Reserved)),
        // A translation of the operator's own (RFC 8215).
        [0x64, 0xff9b, 1, ..] => Some(C::Private),
        [0xfc00..=0xfdff, ..] => Some(C::UniqueLocal),
        [0xfe80..=0xfebf, ..] => Some(C::LinkLocal),
        [0xff00..=0xffff, ..] => Some(C::Multicast),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(C::Documentation),
        // Protocol assignments, among them Teredo, and 6to4: tunnels to who knows where.
        [0x2001, 0..=0x1ff, ..] | [0x2002, ..] => Some(C::Reserved),
        [0x2000..=0x3fff, ..] => None,
        // Nothing else has been given out.
        _ => Some(C::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use AddressClass as C;

    use super::*;

    fn class(text: &str) -> Option<AddressClass> {
        class_of(text.parse().unwrap())
    }

    #[test]
    fn each_class_is_known_at_both_ends_of_its_range() {
        for (text, expected) in [
            ("0.0.0.0", C::Unspecified),
            ("0.255.255.255", C::Unspecified),
            ("10.0.0.0", C::Private),
            ("10.255.255.255", C::Private),
            ("172.16.0.0", C::Private),
            ("172.31.255.255", C::Private),
            ("192.168.0.0", C::Private),
            ("192.168.255.255", C::Private),
            ("100.64.0.0", C::CarrierGrade),
            ("100.127.255.255", C::CarrierGrade),
            ("127.0.0.1", C::Loopback),
            ("127.255.255.255", C::Loopback),
            ("169.254.0.0", C::LinkLocal),
            ("169.254.255.255", C::LinkLocal),
            ("192.0.2.0", C::Documentation),
            ("198.51.100.255", C::Documentation),
            ("203.0.113.1", C::Documentation),
            ("192.0.0.1", C::Reserved),
            ("192.88.99.1", C::Reserved),
            ("198.18.0.0", C::Reserved),
            ("198.19.255.255", C::Reserved),
            ("224.0.0.0", C::Multicast),
            ("239.255.255.255", C::Multicast),
            ("240.0.0.0", C::Reserved),
            ("255.255.255.255", C::Reserved),
            ("169.254.169.254", C::Metadata),
            ("169.254.170.2", C::Metadata),
            ("168.63.129.16", C::Metadata),
            ("100.100.100.200", C::Metadata),
            ("192.0.0.192", C::Metadata),
            ("::", C::Unspecified),
            ("::1", C::Loopback),
            ("fc00::", C::UniqueLocal),
            ("fdff:ffff::1", C::UniqueLocal),
            ("fe80::1", C::LinkLocal),
            ("febf::1", C::LinkLocal),
            ("fec0::1", C::Reserved),
            ("ff02::1", C::Multicast),
            ("2001:db8::1", C::Documentation),
            ("3fff::1", C::Documentation),
            ("3fff:fff::1", C::Documentation),
            ("2001::1", C::Reserved),
            ("2001:1ff::1", C::Reserved),
            ("2002:7f00:1::", C::Reserved),
            ("100::1", C::Reserved),
            ("4000::1", C::Reserved),
            ("fd00:ec2::254", C::Metadata),
            ("fd20:ce::254", C::Metadata),
        ] {
            assert_eq!(class(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_in_another_form_is_the_same_address() {
        for (text, expected) in [
            ("::ffff:127.0.0.1", Some(C::Loopback)),
            ("::ffff:10.1.2.3", Some(C::Private)),
            ("::ffff:169.254.169.254", Some(C::Metadata)),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::192.168.1.1", Some(C::Private)),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some(C::Private)),
            ("::127.0.0.1", Some(C::Loopback)),
            ("::8.8.8.8", Some(C::Reserved)),
            ("::ffff:0:10.0.0.1", Some(C::Private)),
            ("::ffff:0:8.8.8.8", Some(C::Reserved)),
        ] {
            assert_eq!(class(text), expected, "{text}");
        }
    }

    #[test]
    fn neighbours_of_special_ranges_are_public() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2003::1",
            "2606:4700::1111",
            "3ffe:ffff::1",
        ] {
            assert_eq!(class(text), None, "{text}");
        }
    }

    fn at(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
    }

    #[test]
    fn one_bad_address_among_good_ones_is_enough() {
        assert_eq!(judge(&at(&["8.8.8.8", "2606:4700::1111"]), false, true), Ok(()));
        let refused = judge(&at(&["8.8.8.8", "10.0.0.1"]), false, true).unwrap_err();
        let expected = Refused::Address { address: "10.0.0.1".parse().unwrap(), class: C::Private };
        assert_eq!(refused, expected);
        assert!(refused.to_string().contains("webhook.allow_private"), "{refused}");
    }

    #[test]
    fn a_private_receiver_may_be_allowed_but_never_a_clouds_metadata() {
        for text in ["127.0.0.1", "::1", "10.0.0.1", "100.64.0.1", "169.254.1.1", "fd12::1"] {
            assert!(judge(&at(&[text]), false, true).is_err(), "{text}");
            for is_https in [true, false] {
                assert_eq!(judge(&at(&[text]), true, is_https), Ok(()), "{text}");
            }
        }
        for text in
            ["169.254.169.254", "fd00:ec2::254", "224.0.0.1", "0.0.0.0", "192.0.2.1", "240.0.0.1"]
        {
            let refused = judge(&at(&[text]), true, true).unwrap_err();
            assert!(!refused.to_string().contains("allow_private"), "{refused}");
        }
    }

    #[test]
    fn the_public_internet_gets_https_alone() {
        let refused = judge(&at(&["8.8.8.8"]), true, false).unwrap_err();
        assert_eq!(refused, Refused::PlainText { address: "8.8.8.8".parse().unwrap() });
    }
}
