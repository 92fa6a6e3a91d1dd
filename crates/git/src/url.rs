//! Where a repository is fetched from, checked once at the edge.

use std::{fmt, net::IpAddr, path::PathBuf};

/// The text can't be a remote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this can't be the address of a repository: {why}")]
pub struct BadUrl {
    /// What is wrong and what would be right.
    pub why: &'static str,
}

/// User and password for a remote over HTTPS. Never shown, logged or put on a command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; forges ignore it when the password is a token.
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How a remote is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteKind {
    /// HTTPS; or HTTP to this machine.
    Http,
    /// SSH with the server's own keys.
    Ssh,
    /// A folder on this machine.
    Local,
}

/// The address of a remote. It holds no credentials, no option and no transport that runs commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    kind: RemoteKind,
    text: String,
    host: String,
    port: u16,
    /// The addresses that its name was checked to lead to.
    pinned: Vec<IpAddr>,
}

fn bad<T>(why: &'static str) -> Result<T, BadUrl> {
    Err(BadUrl { why })
}

impl RemoteUrl {
    /// Reads an address and splits the credentials off, if it holds any.
    ///
    /// Allowed: `https://host/path`, `http://` to loopback only, `ssh://[user@]host/path`,
    /// `user@host:path`, and an absolute path or `file:///path` on this machine.
    ///
    /// # Errors
    /// For everything else.
    pub fn parse(text: &str) -> Result<(Self, Option<Credentials>), BadUrl> {
        let text = text.trim();
        if text.is_empty() || text.len() > 2048 {
            return bad("give an address of at most 2048 bytes");
        }
        if text.chars().any(char::is_control) {
            return bad("it holds a control character");
        }
        if text.starts_with('-') {
            return bad("it looks like an option");
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok((Self::local(path)?, None));
        }
        if text.starts_with('/') {
            return Ok((Self::local(text)?, None));
        }
        if text.contains(char::is_whitespace) {
            return bad("it holds a space");
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "https" => Self::http("https", rest),
                "http" => Self::http("http", rest),
                "ssh" => Ok((Self::ssh(rest)?, None)),
                _ => bad("use https://, ssh:// or an absolute path"),
            };
        }
        if text.contains("::") {
            return bad("transports that run a command are not allowed");
        }
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') => Ok((Self::scp(host, path)?, None)),
            _ => bad("use https://, ssh:// or an absolute path"),
        }
    }

    fn new(kind: RemoteKind, text: String, host: String, port: u16) -> Self {
        Self { kind, text, host, port, pinned: Vec::new() }
    }

    fn local(path: &str) -> Result<Self, BadUrl> {
        if !path.starts_with('/') {
            return bad("a path on this machine must be absolute");
        }
        if path.split('/').any(|part| part == "..") {
            return bad("a path on this machine may not hold '..'");
        }
        let trimmed = path.trim_end_matches('/');
        if trimmed.is_empty() {
            return bad("the root folder is not a repository");
        }
        Ok(Self::new(RemoteKind::Local, trimmed.to_owned(), String::new(), 0))
    }

    fn http(scheme: &str, rest: &str) -> Result<(Self, Option<Credentials>), BadUrl> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, host_port) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority),
        };
        let (host, port) = checked_host(host_port)?;
        let port = port.unwrap_or(if scheme == "http" { 80 } else { 443 });
        if scheme == "http" && !pipeyard_model::address::is_loopback_host(&host) {
            return bad("plain http:// would send credentials in clear text; use https://");
        }
        if path.is_empty() || path.contains(['?', '#']) {
            return bad("it names no repository on the host");
        }
        let credentials = match user_info {
            None => None,
            Some(user_info) => {
                let (user, password) =
                    user_info.split_once(':').unwrap_or(("x-access-token", user_info));
                let decoded = |text: &str| match urlencoding::decode(text) {
                    Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => {
                        Ok(text.into_owned())
                    }
                    _ => bad("its user or password is empty or not percent-encoded text"),
                };
                let user = decoded(user)?;
                if user.contains(':') {
                    return bad("its user holds a colon");
                }
                Some(Credentials { user, password: decoded(password)? })
            }
        };
        let text = format!("{scheme}://{host_port}/{path}");
        Ok((Self::new(RemoteKind::Http, text, host, port), credentials))
    }

    fn ssh(rest: &str) -> Result<Self, BadUrl> {
        let Some((authority, path)) = rest.split_once('/') else {
            return bad("it names no repository on the host");
        };
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| !plain_user(user)) {
            return bad("an SSH user is a plain name; SSH uses the server's keys, not a password");
        }
        let (host, port) = checked_host(host_port)?;
        if path.is_empty() || path.starts_with('-') {
            return bad("it names no repository on the host");
        }
        Ok(Self::new(RemoteKind::Ssh, format!("ssh://{rest}"), host, port.unwrap_or(22)))
    }

    fn scp(host: &str, path: &str) -> Result<Self, BadUrl> {
        let (user, name) = host.rsplit_once('@').map_or((None, host), |(u, h)| (Some(u), h));
        if user.is_some_and(|user| !plain_user(user)) {
            return bad("an SSH user is a plain name; SSH uses the server's keys, not a password");
        }
        if name.contains(':') {
            return bad("it has two ports");
        }
        let (name, _) = checked_host(name)?;
        if path.is_empty() || path.starts_with('-') {
            return bad("it names no repository on the host");
        }
        Ok(Self::new(RemoteKind::Ssh, format!("{host}:{path}"), name, 22))
    }

    /// How it is reached.
    #[must_use]
    pub fn kind(&self) -> RemoteKind {
        self.kind
    }

    /// The address without credentials: what is stored, shown and given to git.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The folder, if it is one on this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.kind == RemoteKind::Local).then(|| PathBuf::from(&self.text))
    }

    /// Host and port, if it is reached over a network.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        (self.kind != RemoteKind::Local).then_some((self.host.as_str(), self.port))
    }

    /// The same, dialed at these addresses only, where HTTP is spoken: its name was looked up, and they
    /// were found good.
    #[must_use]
    pub fn pinned(mut self, addresses: Vec<IpAddr>) -> Self {
        self.pinned = addresses;
        self
    }

    /// What curl is told of its name: `host:port:address,address`.
    pub(crate) fn resolved(&self) -> Option<String> {
        let literal = self.host.parse::<IpAddr>().is_ok();
        if self.kind != RemoteKind::Http || self.pinned.is_empty() || literal {
            return None;
        }
        let addresses = self.pinned.iter().map(|address| match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        });
        let addresses = addresses.collect::<Vec<_>>().join(",");
        Some(format!("{}:{}:{addresses}", self.host, self.port))
    }

    /// Whether it lives on github.com.
    #[must_use]
    pub fn is_github(&self) -> bool {
        self.host.eq_ignore_ascii_case("github.com")
    }

    /// A name for the repository: the address's last part without `.git`. May need checking.
    #[must_use]
    pub fn short_name(&self) -> &str {
        let last = self.text.rsplit(['/', ':']).next().unwrap_or_default();
        last.strip_suffix(".git").unwrap_or(last)
    }

    /// What `GIT_ALLOW_PROTOCOL` is set to.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.kind {
            RemoteKind::Http if self.text.starts_with("http://") => "http",
            RemoteKind::Http => "https",
            RemoteKind::Ssh => "ssh",
            RemoteKind::Local => "file",
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Host and port of `host[:port]`, in the alphabet of host names and addresses.
fn checked_host(host_port: &str) -> Result<(String, Option<u16>), BadUrl> {
    let (host, port) = if let Some(rest) = host_port.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return bad("its IPv6 address has no end");
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return bad("its host is not an IPv6 address");
        }
        match port.strip_prefix(':') {
            Some(port) => (address, Some(port)),
            None if port.is_empty() => (address, None),
            None => return bad("its port is not a number from 0 to 65535"),
        }
    } else {
        match host_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_port, None),
        }
    };
    let Ok(port) = port.map(str::parse::<u16>).transpose() else {
        return bad("its port is not a number from 0 to 65535");
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || host.starts_with(['-', '.']) || !host.bytes().all(plain) {
        return bad("its host is not a host name");
    }
    Ok((host.to_owned(), port))
}

fn plain_user(user: &str) -> bool {
    !user.is_empty()
        && !user.starts_with('-')
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<RemoteKind, BadUrl> {
        RemoteUrl::parse(text).map(|(url, _)| url.kind())
    }

    #[test]
    fn the_usual_addresses_are_understood() {
        assert_eq!(kind("https://github.com/team/shop.git"), Ok(RemoteKind::Http));
        assert_eq!(kind("http://127.0.0.1:3000/team/shop"), Ok(RemoteKind::Http));
        assert_eq!(kind("http://[::1]:3000/team/shop"), Ok(RemoteKind::Http));
        assert_eq!(kind("ssh://git@example.org:2222/team/shop"), Ok(RemoteKind::Ssh));
        assert_eq!(kind("git@github.com:team/shop.git"), Ok(RemoteKind::Ssh));
        assert_eq!(kind("/srv/git/my shop.git"), Ok(RemoteKind::Local));
        assert_eq!(kind("file:///srv/git/shop.git/"), Ok(RemoteKind::Local));
        assert_eq!(
            RemoteUrl::parse("git@github.com:team/shop.git").unwrap().0.short_name(),
            "shop"
        );
        assert!(RemoteUrl::parse("git@github.com:team/shop.git").unwrap().0.is_github());
    }

    #[test]
    fn credentials_are_split_off_and_never_shown() {
        let (url, credentials) = RemoteUrl::parse("https://bot:p%40ss@example.org/a.git").unwrap();
        assert_eq!(url.as_str(), "https://example.org/a.git");
        let credentials = credentials.unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("bot", "p@ss"));
        assert_eq!(format!("{credentials:?}"), "Credentials(..)");
        let (_, token) = RemoteUrl::parse("https://ghp_abc@github.com/a/b").unwrap();
        assert_eq!(token.unwrap().password, "ghp_abc");
    }

    #[test]
    fn what_could_run_a_command_or_leak_is_refused() {
        let refused = [
            "",
            "-x",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "ext::id",
            "fd::3",
            "git://example.org/a",
            "ftp://example.org/a",
            "http://example.org/a",
            "https://-x/a",
            "https://exa mple.org/a",
            "https://example.org",
            "https://example.org:99999/a",
            "https://a\nb.org/x",
            "ssh://-oProxyCommand=x/a",
            "ssh://-x@host/a",
            "ssh://u:p@host/a",
            "ssh://host/-x",
            "-oProxyCommand=x:a",
            "u@-x:a",
            "host:-x",
            "shop",
            "./shop",
            "../shop",
            "/",
            "/srv/../etc",
            "file://host/x",
            "https://u%0aX:p@h.org/a",
            "https://[::1/a",
            "http://[::2]/a",
        ];
        for text in refused {
            assert!(RemoteUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
