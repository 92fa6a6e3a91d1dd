//! Where a notification may go: to public addresses, by TLS. A name is resolved once and the
//! connection is pinned to what was checked, so that it can't point elsewhere a moment later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;

/// The addresses that `url` leads to, each of them checked.
///
/// # Errors
/// When the scheme isn't allowed, the name can't be resolved or leads to a private address.
pub(super) async fn check(url: &Url, private: bool) -> Result<Vec<SocketAddr>, Refused> {
    match url.scheme() {
        "https" => {}
        "http" if private => {}
        _ => return Err(Refused::Scheme),
    }
    let host = url.host_str().ok_or(Refused::NoHost)?;
    let port = url.port_or_known_default().ok_or(Refused::NoHost)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|_| Refused::Unresolved(host.to_owned()))?
        .collect();
    if found.is_empty() {
        return Err(Refused::Unresolved(host.to_owned()));
    }
    if !private && found.iter().any(|address| !is_public(address.ip())) {
        return Err(Refused::Private(host.to_owned()));
    }
    // A private network is somebody's own; the rest of the world reads along.
    if url.scheme() == "http" && found.iter().any(|address| is_public(address.ip())) {
        return Err(Refused::Scheme);
    }
    Ok(found)
}

/// Why a notification may not go there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Only https, or http to private addresses where those are allowed.
    #[error(
        "notify_url must begin with https://, unless it leads to a private network and notify_private says so"
    )]
    Scheme,
    /// It names no host.
    #[error("notify_url names no host")]
    NoHost,
    /// The name has no address now.
    #[error("{0} can't be resolved")]
    Unresolved(String),
    /// It leads into a network that outsiders can't see.
    #[error("{0} leads to a private address; set notify_private if that is meant")]
    Private(String),
}

/// Whether anybody on the internet can reach this address.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let parts = v6.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // ::, ::1 and IPv4 in its mapped and compatible forms
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => high != 0 && embedded(high, low),
        // NAT64 and 6to4
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // documentation, Teredo, local NAT64
        [0x2001, 0xdb8 | 0, ..] | [0x64, 0xff9b, 1, ..] => false,
        // unique local, link local, site local, multicast
        [first, ..] => {
            !(matches!(first >> 8, 0xfc | 0xfd | 0xff) || matches!(first >> 6, 0x3fa | 0x3fb))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_everybody_can_reach_are_public() {
        for public in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.1",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[tokio::test]
    async fn a_private_address_is_refused_however_it_is_written() {
        for url in [
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://localhost/x",
            "https://2130706433/",
            "https://0x7f.1/",
        ] {
            let refused = check(&url.parse().unwrap(), false).await;
            assert!(matches!(refused, Err(Refused::Private(_))), "{url}: {refused:?}");
        }
        let http = check(&"http://1.1.1.1/".parse().unwrap(), false).await;
        assert_eq!(http, Err(Refused::Scheme));
        assert!(check(&"http://127.0.0.1:9/".parse().unwrap(), true).await.is_ok());
        let public = check(&"http://1.1.1.1/".parse().unwrap(), true).await;
        assert_eq!(public, Err(Refused::Scheme), "private networks were meant");
        assert_eq!(check(&"file:///etc/passwd".parse().unwrap(), true).await, Err(Refused::Scheme));
    }
}
