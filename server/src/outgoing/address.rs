//! Where what goes out may go: notifications to public addresses, by TLS; repositories are fetched from
//! what the administrator allows (`pipeyard_model::net`). A name is resolved once and the connection is
//! pinned to what was checked, so that it can't point elsewhere a moment later.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use pipeyard_git::{RemoteKind, RemoteUrl};
use pipeyard_model::net::{Reach, reach};
use reqwest::Url;

use crate::ServerConfig;

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
    if found.iter().any(|address| reach(address.ip()) == Reach::Never) {
        let what = "a link-local or reserved address, which is never dialed";
        return Err(Refused::Remote(host.to_owned(), what));
    }
    // A private network is somebody's own; the rest of the world reads along.
    if url.scheme() == "http" && found.iter().any(|address| is_public(address.ip())) {
        return Err(Refused::Scheme);
    }
    Ok(found)
}

/// Why something may not go there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
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
    /// A repository's remote isn't one that may be dialed.
    #[error("{0} leads to {1}")]
    Remote(String, &'static str),
}

impl Refused {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unresolved(_) => "remote_unreachable",
            Self::Scheme | Self::NoHost | Self::Private(_) | Self::Remote(..) => "remote_refused",
        }
    }
}

/// For looking a name up.
const LOOKUP: Duration = Duration::from_secs(10);

/// Checks where a repository is fetched from, and pins its name to the addresses that were checked. A
/// proxy of the environment looks names up by itself: what can't be resolved here is left to it, and so
/// is a name that only SSH's own configuration knows. `known` is a repository that was added before: a
/// folder or a loopback address among them goes on.
///
/// # Errors
/// When the address may not be dialed.
pub(crate) async fn check_remote(
    config: &ServerConfig,
    url: RemoteUrl,
    known: bool,
) -> Result<RemoteUrl, Refused> {
    let mut allowed = config.remotes_allowed();
    if let Some(folder) = url.local_path() {
        return check_folder(config, &folder, known || allowed.local).await.map(|()| url);
    }
    let Some((host, port)) = url.host_and_port() else { return Err(Refused::NoHost) };
    // An address of this machine that an administrator wrote out goes on; a name that leads here doesn't.
    allowed.local |= known && host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let looked = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((bare.as_str(), port))).await;
    let found: Vec<IpAddr> = match looked {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    if found.is_empty() {
        let elsewhere = url.kind() == RemoteKind::Ssh || proxied();
        return if elsewhere { Ok(url) } else { Err(Refused::Unresolved(bare.clone())) };
    }
    // All of them: nobody knows which one is taken.
    if let Some(bad) = found.iter().find(|address| !allowed.dial(**address)) {
        return Err(Refused::Remote(
            bare.clone(),
            match reach(*bad) {
                Reach::Loopback => "this machine; the administrator can allow that by git_local",
                Reach::Private | Reach::Public => {
                    "a private address; the administrator can allow that by git_private"
                }
                Reach::Never => "a link-local or reserved address, which is never dialed",
            },
        ));
    }
    Ok(url.pinned(found))
}

/// A folder on this machine: one that the administrator may name, and never one of the server's own.
async fn check_folder(config: &ServerConfig, folder: &Path, allowed: bool) -> Result<(), Refused> {
    let name = || folder.display().to_string();
    if !allowed {
        return Err(Refused::Remote(
            name(),
            "a folder on the server's machine; the administrator can allow that by git_local",
        ));
    }
    let real = |path: PathBuf| async move { tokio::fs::canonicalize(&path).await.unwrap_or(path) };
    let (folder, data) = (real(folder.to_owned()).await, real(config.data_dir.clone()).await);
    if folder.starts_with(&data) {
        return Err(Refused::Remote(name(), "the server's own data"));
    }
    Ok(())
}

fn proxied() -> bool {
    ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn is_public(address: IpAddr) -> bool {
    reach(address) == Reach::Public
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_remote_is_what_the_administrator_allows_and_never_a_metadata_service() {
        let alone = ServerConfig::default();
        let shared = ServerConfig { trusted_proxy: true, ..Default::default() };
        let asked = ServerConfig { git_local: Some(true), ..shared.clone() };
        let closed = ServerConfig { git_private: false, ..Default::default() };
        let check = async |config: &ServerConfig, text: &str| {
            let (url, _) = RemoteUrl::parse(text).unwrap();
            check_remote(config, url, false).await.is_ok()
        };
        for never in [
            "https://169.254.169.254/latest",
            "https://[fe80::1]/x",
            "https://[::ffff:169.254.169.254]/x",
            "https://0.0.0.0/x",
            "ssh://git@169.254.169.254/x",
            "git@169.254.169.254:x",
            "https://2852039166/x",
        ] {
            assert!(!check(&alone, never).await && !check(&asked, never).await, "{never}");
        }
        for here in [
            "http://127.0.0.1:9/x",
            "https://localhost/x",
            "https://[::1]/x",
            "https://2130706433/x",
            "/srv/git/shop.git",
        ] {
            assert!(check(&alone, here).await && check(&asked, here).await, "{here}");
            assert!(!check(&shared, here).await, "{here}");
        }
        assert!(
            check(&alone, "https://10.0.0.1/x").await
                && !check(&closed, "https://10.0.0.1/x").await
        );
        let own = ServerConfig { data_dir: "/srv/git".into(), ..Default::default() };
        assert!(
            !check(&own, "/srv/git/mirrors/1.git").await,
            "its own mirrors are nobody's remote"
        );
        // What was added before goes on, whatever the setting is now.
        let (folder, _) = RemoteUrl::parse("/srv/git/shop.git").unwrap();
        assert!(check_remote(&shared, folder, true).await.is_ok());
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
