//! Where a credential may be sent: the one rule for every address that gets a token, a key, a
//! signature or orders.
//!
//! https goes anywhere. Plain http goes to this machine's loopback only, because anybody on the way
//! reads it. Everything that keeps or dials such an address parses it with [`CredentialUrl`], when
//! it is given, so that nothing is sent before it is refused.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use url::{Host, Url};

/// An address that a credential may be sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialUrl(Url);

/// Why no credential may be sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// It can't be read.
    #[error("{text:?} isn't an address: {cause}; write https://HOST:PORT")]
    NotAUrl {
        /// As it was given.
        text: String,
        /// What is wrong.
        cause: String,
    },
    /// Another scheme, or none.
    #[error("{text:?} must begin with https:// (or http:// on this machine)")]
    Scheme {
        /// As it was given.
        text: String,
    },
    /// Plain http beyond loopback.
    #[error(
        "{origin} would get a credential in clear text, which anybody on the way can read: use \
         https://, or http:// on 127.0.0.1 only"
    )]
    ClearText {
        /// Scheme, host and port.
        origin: String,
    },
    /// It carries a user or password, which would be shown and logged with it.
    #[error("{origin} is written with a user or password: give the address without them")]
    Userinfo {
        /// Scheme, host and port.
        origin: String,
    },
}

impl CredentialUrl {
    /// Reads an address by the rule.
    ///
    /// # Errors
    /// When no credential may be sent there. The message holds no password.
    pub fn parse(text: &str) -> Result<Self, UrlRefused> {
        let url = Self::parse_any(text)?;
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(UrlRefused::ClearText { origin: origin(&url) });
        }
        Ok(Self(url))
    }

    /// The same without the question of clear text: for the one place that asks it in its own way,
    /// where somebody has said openly that messages go to a private network.
    ///
    /// # Errors
    /// When it isn't an http or https address, or carries a user or password.
    pub fn parse_any(text: &str) -> Result<Url, UrlRefused> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            // What was given may hold a password before its @.
            let text = text.rsplit('@').next().unwrap_or_default();
            return Err(UrlRefused::Scheme { text: text.chars().take(80).collect() });
        }
        let url = Url::parse(text).map_err(|error| UrlRefused::NotAUrl {
            text: text.rsplit('@').next().unwrap_or_default().chars().take(80).collect(),
            cause: error.to_string(),
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefused::Userinfo { origin: origin(&url) });
        }
        Ok(url)
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// The address as a base of paths: without a slash at its end.
    #[must_use]
    pub fn base(&self) -> String {
        self.0.as_str().trim_end_matches('/').to_owned()
    }
}

/// Whether a host's name or address is this machine's loopback.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What listens for other machines as well, and lets everybody on the way read along.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "refusing to listen on {0}: other machines reach it, and tokens would cross the network in clear \
     text. Listen on 127.0.0.1, or give it a certificate (--tls-cert and --tls-key), or put a proxy \
     that ends TLS in front and say so (--trusted-proxy)"
)]
pub struct Exposed(pub SocketAddr);

/// Whether something that is sent credentials may listen there.
///
/// # Errors
/// When it may not: beyond loopback, without TLS of its own and without a proxy that ends it.
pub fn may_listen(at: SocketAddr, tls: bool, trusted_proxy: bool) -> Result<(), Exposed> {
    if at.ip().to_canonical().is_loopback() || tls || trusted_proxy {
        Ok(())
    } else {
        Err(Exposed(at))
    }
}

impl fmt::Debug for CredentialUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path or query may be a secret of its own.
        write!(f, "CredentialUrl({})", origin(&self.0))
    }
}

fn origin(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(v4)) => IpAddr::from(v4).is_loopback(),
        Some(Host::Ipv6(v6)) => IpAddr::from(v6).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_goes_by_https_or_stays_on_this_machine() {
        for good in [
            "https://ci.example.com",
            "https://10.0.0.1:8471/base/",
            "https://[2001:db8::1]/x?y=z",
            "HTTPS://ci.example.com",
            "http://127.0.0.1:8470",
            "http://127.1.2.3:1",
            "http://[::1]:8470",
            "http://LOCALHOST",
            "http://2130706433/",
        ] {
            assert!(CredentialUrl::parse(good).is_ok(), "{good}");
        }
        for clear in [
            "http://ci.example.com",
            "http://fleet",
            "http://10.0.0.1:8471",
            "http://0.0.0.0:8471",
            "http://[::]:1",
            "http://[::ffff:10.0.0.1]:1",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://localhost@example.com",
            "http://127.0.0.1:80@example.com",
            "http://example.com#@127.0.0.1",
            "http://example.com\\@127.0.0.1/",
            "HTTP://ci.example.com",
            "http:///ci.example.com",
        ] {
            let refused = CredentialUrl::parse(clear);
            assert!(
                matches!(refused, Err(UrlRefused::ClearText { .. } | UrlRefused::Userinfo { .. })),
                "{clear}: {refused:?}"
            );
        }
        for no in
            ["", "ci.example.com", "127.0.0.1:8470", "ftp://x", "file:///etc", "unix:/x", "//x"]
        {
            assert!(matches!(CredentialUrl::parse(no), Err(UrlRefused::Scheme { .. })), "{no}");
        }
        for no in ["https://", "https://exa mple.org", "https://h:99999", "http://[::1"] {
            assert!(matches!(CredentialUrl::parse(no), Err(UrlRefused::NotAUrl { .. })), "{no}");
        }
    }

    #[test]
    fn no_message_holds_a_password() {
        for text in [
            "https://bot:hunter2@example.com",
            "http://bot:hunter2@example.com",
            "ftp://bot:hunter2@example.com",
            "https://bot:hunter2@exa mple.com",
        ] {
            let refused = CredentialUrl::parse(text).unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let shown = format!("{:?}", CredentialUrl::parse("https://h/hook/s3cret?t=x").unwrap());
        assert_eq!(shown, "CredentialUrl(https://h)");
    }

    #[test]
    fn what_listens_for_others_has_tls_or_somebody_who_ends_it() {
        for here in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(may_listen(here.parse().unwrap(), false, false), Ok(()), "{here}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "169.254.1.1:1"] {
            let at = open.parse().unwrap();
            assert_eq!(may_listen(at, false, false), Err(Exposed(at)), "{open}");
            assert_eq!(may_listen(at, true, false), Ok(()));
            assert_eq!(may_listen(at, false, true), Ok(()));
        }
    }
}
