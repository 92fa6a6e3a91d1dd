//! The demo's ports: all follow from the first.

use std::net::SocketAddr;

/// The first port where nobody names another.
pub(crate) const USUAL: u16 = 8470;
/// How many ports a demo takes at most.
pub(crate) const SPAN: u16 = 30;
/// Hosts of the rolling service.
pub(crate) const HOSTS: u16 = 3;
/// From the first port to the first host's program.
const HOST: u16 = 21;

/// A demo's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports(u16);

impl From<u16> for Ports {
    fn from(first: u16) -> Self {
        Self(first.min(u16::MAX - SPAN))
    }
}

impl Ports {
    fn at(self, distance: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.0 + distance).into()
    }

    /// UI, API and webhooks.
    pub(crate) fn server(self) -> SocketAddr {
        self.at(0)
    }

    /// The embedded CodeDeploy.
    pub(crate) fn fleet(self) -> SocketAddr {
        self.at(1)
    }

    /// The proxy's own control address.
    pub(crate) fn proxy_admin(self) -> SocketAddr {
        self.at(2)
    }

    /// Where a host's program answers; hosts are counted from 0.
    pub(crate) fn host(self, n: u16) -> SocketAddr {
        self.at(HOST + n)
    }

    /// Where a service listens whose file says `written`: what is in the usual range moves along.
    pub(crate) fn of_service(self, written: u16) -> u16 {
        match written.checked_sub(USUAL) {
            Some(distance) if distance < SPAN => self.0 + distance,
            _ => written,
        }
    }

    /// Every address but the services', and what is there.
    pub(crate) fn parts(self) -> Vec<(SocketAddr, String)> {
        let mut all = vec![
            (self.server(), "UI and API".to_owned()),
            (self.fleet(), "fleet".to_owned()),
            (self.proxy_admin(), "proxy".to_owned()),
        ];
        all.extend((0..HOSTS).map(|n| (self.host(n), format!("program of host {}", n + 1))));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_used_twice_and_none_is_beyond_the_last() {
        for first in [USUAL, 1024, u16::MAX - SPAN, u16::MAX] {
            let ports = Ports::from(first);
            let mut all: Vec<_> = ports.parts().into_iter().map(|(address, _)| address).collect();
            let services = [8480, 8481].map(|p| ports.of_service(p));
            all.extend(services.map(|p| SocketAddr::from(([127, 0, 0, 1], p))));
            let many = all.len();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), many, "{first}");
        }
        assert_eq!(Ports::from(9000).of_service(80), 80);
        assert_eq!(Ports::from(9000).of_service(8499), 9029);
        assert_eq!(Ports::from(9000).of_service(8500), 8500);
    }
}
