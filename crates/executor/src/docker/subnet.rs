//! IPv4 subnets and the choice of a free one. Pure.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A range of IPv4 addresses, `10.213.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// The text isn't an IPv4 subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.213.0.0/16")]
pub struct BadSubnet(String);

impl Subnet {
    /// 10.213.0.0/16, seldom used by others.
    pub const OURS: Self = Self { base: 0x0ad5_0000, prefix: 16 };

    fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        let end = |subnet: Self| u64::from(subnet.base) + subnet.size();
        u64::from(self.base) < end(other) && u64::from(other.base) < end(self)
    }

    /// The parts of this range with `prefix` that overlap none of `used`, lowest first.
    pub(crate) fn free_parts(self, prefix: u8, used: &[Self]) -> impl Iterator<Item = Self> {
        let step = 1_u64 << (32 - u32::from(prefix));
        let count = self.size() / step;
        (0..count)
            .filter_map(move |index| {
                let base = u32::try_from(u64::from(self.base) + index * step).ok()?;
                Some(Self { base, prefix })
            })
            .filter(|part| !used.iter().any(|other| other.overlaps(*part)))
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;
    fn from_str(text: &str) -> Result<Self, BadSubnet> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let base = u32::from(address.parse::<Ipv4Addr>().ok()?);
            let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
            let subnet = Self { base, prefix };
            let host_bits = subnet.size() - 1;
            (u64::from(base) & host_bits == 0).then_some(subnet)
        };
        parse().ok_or_else(|| BadSubnet(text.to_owned()))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_free_part_overlaps_nothing_that_is_used() {
        let used = [subnet("10.213.0.0/22"), subnet("10.213.4.0/28"), subnet("10.213.4.16/30")];
        let mut free = subnet("10.213.0.0/16").free_parts(28, &used);
        assert_eq!(free.next(), Some(subnet("10.213.4.32/28")));
        assert_eq!(subnet("10.213.0.0/16").free_parts(28, &[]).count(), 4096);
        assert_eq!(subnet("10.213.0.0/16").free_parts(28, &[subnet("10.0.0.0/8")]).count(), 0);
    }

    #[test]
    fn text_that_is_no_subnet_is_refused() {
        assert_eq!(subnet("10.213.0.0/16"), Subnet::OURS);
        assert_eq!(Subnet::OURS.to_string(), "10.213.0.0/16");
        for bad in ["10.213.0.1/16", "10.213.0.0", "10.213.0.0/33", "x/8", "::/8", "0.0.0.0/0"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
