//! Which network addresses the server may dial, by what they are. One rule for everything that goes out:
//! messages, and the remotes of repositories.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who can be reached at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Anybody on the internet can reach it.
    Public,
    /// A network that outsiders can't see.
    Private,
    /// This machine.
    Loopback,
    /// Nobody should be dialed here: link-local addresses, where clouds give out credentials, their
    /// other metadata services, and what isn't one host's address.
    Never,
}

/// Metadata services outside of the link-local range.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// What this address is. IPv4 addresses inside of IPv6 ones are what they are by themselves.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(v4: Ipv4Addr) -> Reach {
    let [a, b, c, _] = v4.octets();
    if v4.is_loopback() {
        Reach::Loopback
    } else if v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || METADATA_V4.contains(&v4)
        || a == 0
        || a >= 240
        || (a == 192 && b == 0 && c == 0)
    {
        Reach::Never
    } else if v4.is_private()
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
    {
        Reach::Private
    } else {
        Reach::Public
    }
}

fn reach_v6(v6: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        // IPv4 in its mapped and compatible forms
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => embedded(high, low),
        // NAT64 and 6to4
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // documentation, Teredo, local NAT64, a cloud's metadata service
        [0x2001, 0xdb8 | 0, ..] | [0x64, 0xff9b, 1, ..] | [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => {
            Reach::Never
        }
        // link local, site local, multicast
        [first, ..] if first >> 8 == 0xff || matches!(first >> 6, 0x3fa | 0x3fb) => Reach::Never,
        // unique local
        [first, ..] if matches!(first >> 8, 0xfc | 0xfd) => Reach::Private,
        _ => Reach::Public,
    }
}

/// What the administrator allows of remotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Private addresses.
    pub private: bool,
    /// This machine.
    pub local: bool,
}

impl Allowed {
    /// Whether an address may be dialed.
    #[must_use]
    pub fn dial(self, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Private => self.private,
            Reach::Loopback => self.local,
            Reach::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Reach {
        reach(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_what_it_is_however_it_is_written() {
        for public in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert_eq!(of(public), Reach::Public, "{public}");
        }
        for private in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "fc00::1",
            "fd12::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert_eq!(of(private), Reach::Private, "{private}");
        }
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::7f00:1"] {
            assert_eq!(of(here), Reach::Loopback, "{here}");
        }
        for never in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "203.0.113.1",
            "2001:db8::1",
            "fec0::1",
            "2002:a9fe:a9fe::",
        ] {
            assert_eq!(of(never), Reach::Never, "{never}");
        }
    }

    #[test]
    fn what_is_never_dialed_is_not_allowed_by_any_setting() {
        let dial = |private, local, address: &str| {
            Allowed { private, local }.dial(address.parse().unwrap())
        };
        assert!(!dial(true, true, "169.254.169.254"));
        assert!(dial(true, false, "10.0.0.1") && !dial(false, true, "10.0.0.1"));
        assert!(dial(false, true, "127.0.0.1") && !dial(true, false, "::1"));
        assert!(dial(false, false, "1.1.1.1"));
    }
}
