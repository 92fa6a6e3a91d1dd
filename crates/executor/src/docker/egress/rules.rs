//! The rules about where a job may connect to, as text for `iptables-restore`. Pure.
//!
//! Two chains hold them: one for what passes through the machine, one for what is meant for it. Both
//! see only what comes from jobs. In this order: answers, the job's own sidecars, names (port 53 of
//! the machine's resolvers, which on some clouds have the address of the metadata service), what the
//! administrator allows; then the machine itself, link-local addresses and metadata services are
//! refused.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use super::super::subnet::Subnet;

/// What passes through.
pub(super) const PASSING: &str = "PIPEYARD-JOBS";
/// What is meant for the machine.
pub(super) const ARRIVING: &str = "PIPEYARD-HOST";
/// What administrators allow, of every runner on the machine.
pub(super) const ALLOWED: &str = "PIPEYARD-ALLOW";
/// Bridges of our networks begin so.
pub(crate) const BRIDGE: &str = "pyd";

/// Refused beside the machine's own addresses: link-local ones with the metadata services in them,
/// and metadata services elsewhere (Alibaba, Oracle, Azure).
const REFUSED_4: &[&str] =
    &["169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"];
/// The same of IPv6 (Amazon, Google).
const REFUSED_6: &[&str] = &["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"];

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// What tells that a packet is a job's. Our networks have no IPv6 addresses, so there the bridge
    /// tells.
    fn of_jobs(self, range: Subnet) -> String {
        match self {
            Self::V4 => format!("-s {range}"),
            Self::V6 => format!("-i {BRIDGE}+"),
        }
    }
}

/// Addresses that an administrator allows: `10.0.0.0/8`, `10.1.2.3:5432`, `[fd00::/8]:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    address: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

/// The text names no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} isn't an address that jobs could be allowed: write ADDRESS, ADDRESS:PORT or CIDR, such as \
     10.0.0.0/8, 10.1.2.3:5432 or [fd00::/8]:443"
)]
pub struct BadDestination(String);

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let parse = || {
            let (network, port) = match text.strip_prefix('[') {
                Some(rest) => {
                    let (network, port) = rest.split_once(']')?;
                    match port {
                        "" => (network, None),
                        port => (network, Some(port.strip_prefix(':')?)),
                    }
                }
                None if text.matches(':').count() == 1 => {
                    let (network, port) = text.split_once(':')?;
                    (network, Some(port))
                }
                None => (text, None),
            };
            let port = match port {
                Some(port) => Some(port.parse().ok().filter(|port: &u16| *port > 0)?),
                None => None,
            };
            let (address, prefix) = match network.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix)),
                None => (network, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let prefix = match prefix {
                Some(prefix) => prefix.parse().ok().filter(|prefix: &u8| *prefix <= most)?,
                None => most,
            };
            let (bits, width) = match address {
                IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
                IpAddr::V6(address) => (u128::from(address), 128),
            };
            let host = u32::from(width - prefix);
            let has_host_bits = host > 0 && bits.trailing_zeros() < host && bits != 0;
            (!has_host_bits).then_some(Self { address, prefix, port })
        };
        parse().ok_or_else(|| BadDestination(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix, port } = self;
        match port {
            Some(port) if address.is_ipv4() => write!(f, "{address}/{prefix}:{port}"),
            Some(port) => write!(f, "[{address}/{prefix}]:{port}"),
            None => write!(f, "{address}/{prefix}"),
        }
    }
}

/// The lines of the two chains.
pub(super) fn chains(family: Family, range: Subnet, resolvers: &[IpAddr]) -> Vec<String> {
    let reject = match family {
        Family::V4 => "REJECT --reject-with icmp-admin-prohibited",
        Family::V6 => "REJECT --reject-with icmp6-adm-prohibited",
    };
    let mut lines = Vec::new();
    for chain in [PASSING, ARRIVING] {
        let mut add = |rule: String| lines.push(format!("-A {chain} {rule}"));
        add("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned());
        if chain == PASSING && family == Family::V4 {
            // A job and its sidecars. Docker keeps its networks apart from each other.
            add(format!("-d {range} -j RETURN"));
        }
        for resolver in resolvers.iter().filter(|address| family.has(**address)) {
            for protocol in ["udp", "tcp"] {
                add(format!("-d {resolver} -p {protocol} -m {protocol} --dport 53 -j RETURN"));
            }
        }
        add(format!("-j {ALLOWED}"));
        if chain == ARRIVING {
            add(format!("-j {reject}"));
            continue;
        }
        // A published port of this machine has become a container's address by now.
        add(format!("-m conntrack --ctstate DNAT -j {reject}"));
        let refused = if family == Family::V4 { REFUSED_4 } else { REFUSED_6 };
        for network in refused {
            add(format!("-d {network} -j {reject}"));
        }
        add(format!("-m addrtype --dst-type LOCAL -j {reject}"));
        add("-j RETURN".to_owned());
    }
    lines
}

/// What jobs of this runner are allowed beyond. `owner` marks the lines as the runner's.
pub(super) fn allowances(family: Family, allowed: &[Destination], owner: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for Destination { address, prefix, port } in allowed {
        if !family.has(*address) {
            continue;
        }
        // By the address that the job asked for, before a published port was looked up.
        let to = format!("-m conntrack --ctorigdst {address}/{prefix}");
        let tail = format!("-m comment --comment {owner} -j ACCEPT");
        match port {
            None => lines.push(format!("-A {ALLOWED} {to} {tail}")),
            Some(port) => lines.extend(["tcp", "udp"].map(|protocol| {
                format!("-A {ALLOWED} -p {protocol} {to} --ctorigdstport {port} {tail}")
            })),
        }
    }
    lines
}

/// Where packets of jobs come into the chains.
pub(super) fn hooks(family: Family, range: Subnet, has_docker_user: bool) -> [(String, String); 2] {
    let jobs = family.of_jobs(range);
    let through = if has_docker_user { "DOCKER-USER" } else { "FORWARD" };
    [
        (through.to_owned(), format!("{jobs} -j {PASSING}")),
        ("INPUT".to_owned(), format!("{jobs} -j {ARRIVING}")),
    ]
}

/// Servers for names in a `resolv.conf`. Those on loopback aren't reached from containers.
pub(super) fn resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("nameserver")?;
            let address = rest.split_whitespace().next()?;
            address.split('%').next()?.parse::<IpAddr>().ok()
        })
        .filter(|address| !address.is_loopback())
        .chain([
            // To these Docker turns where the machine's resolvers are all on loopback.
            IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
            IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
        ])
        .fold(Vec::new(), |mut all, address| {
            if !all.contains(&address) {
                all.push(address);
            }
            all
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lines: &[String], part: &str) -> usize {
        let found = lines.iter().position(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("{part} in {lines:#?}"))
    }

    #[test]
    fn names_come_before_what_is_refused() {
        // On this cloud the resolver is the metadata service.
        let resolvers = resolvers("nameserver 169.254.169.254\nnameserver 127.0.0.53\n");
        let lines = chains(Family::V4, Subnet::OURS, &resolvers);
        for chain in [PASSING, ARRIVING] {
            let of: Vec<String> = lines.iter().filter(|l| l.contains(chain)).cloned().collect();
            let names = place(&of, "-d 169.254.169.254 -p udp -m udp --dport 53 -j RETURN");
            let allowed = place(&of, "-j PIPEYARD-ALLOW");
            let refused = place(&of, "REJECT");
            assert!(names < allowed && allowed < refused, "{of:#?}");
        }
        assert!(place(&lines, "-d 169.254.0.0/16 -j REJECT") > 0);
        assert!(place(&lines, "--dst-type LOCAL -j REJECT") > 0);
        assert!(place(&lines, "--ctstate DNAT -j REJECT") > 0);
        let six = chains(Family::V6, Subnet::OURS, &[]);
        assert!(place(&six, "fd00:ec2::254/128 -j REJECT") > 0);
        assert!(!six.iter().any(|line| line.contains("10.213")), "{six:#?}");
    }

    #[test]
    fn allowances_are_read_strictly_and_marked() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3:5432", "10.1.2.3/32:5432"),
            ("10.0.0.0/8:443", "10.0.0.0/8:443"),
            ("fd00::/8", "fd00::/8"),
            ("[fd00::1]:443", "[fd00::1/128]:443"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "host",
            "host:443",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.1:0",
            "10.0.0.1:x",
            "[fd00::1",
            "1.2.3.4 -j ACCEPT",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
        let allowed = ["10.1.2.3:5432".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let lines = allowances(Family::V4, &allowed, "me");
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains("-p tcp")
                && lines[0].contains("--ctorigdst 10.1.2.3/32 --ctorigdstport 5432")
        );
        assert!(lines.iter().all(|line| line.contains("--comment me")));
        assert_eq!(allowances(Family::V6, &allowed, "me").len(), 1);
    }
}
