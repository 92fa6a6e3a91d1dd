//! Credentials for registries, from where `docker login` puts them: the auths and the helpers of
//! Docker's `config.json`. Nothing of them is kept.
//!
//! Whatever is wrong with them means no credentials: the registry's answer then says what is missing.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// How long a helper may take.
const HELPER: Duration = Duration::from_secs(10);
/// The name of Docker's own registry in the file.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

/// The credentials for the registry of `image`. `folder`: where `config.json` is; by default
/// `$DOCKER_CONFIG` or `~/.docker`.
pub(crate) async fn of(image: &str, folder: Option<&Path>) -> Option<DockerCredentials> {
    let folder = folder.map(Path::to_owned).or_else(default_folder)?;
    let text = tokio::fs::read(folder.join("config.json")).await.ok()?;
    let config: Config = serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!(%error, "Docker's config.json can't be read"))
        .ok()?;
    let server = server(image);
    let helper = config.helpers.get(server).or(config.store.as_ref());
    if let Some(helper) = helper
        && let Some(found) = ask(helper, server).await
    {
        return Some(found);
    }
    let (_, auth) = config.auths.into_iter().find(|(name, _)| host(name) == host(server))?;
    let text = String::from_utf8(STANDARD.decode(auth.auth).ok()?).ok()?;
    let (username, password) = text.split_once(':').unwrap_or_default();
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.to_owned()),
        serveraddress: Some(server.to_owned()),
        identitytoken: auth.identitytoken,
        ..DockerCredentials::default()
    })
}

fn default_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))
}

/// The registry that an image's name means.
fn server(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            if first == "docker.io" { HUB } else { first }
        }
        Some(_) | None => HUB,
    }
}

/// Names in the file may be addresses: only the host counts.
fn host(name: &str) -> &str {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    name.split_once('/').map_or(name, |(host, _)| host)
}

/// Asks Docker's credential helper.
async fn ask(helper: &str, server: &str) -> Option<DockerCredentials> {
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return None;
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .inspect_err(|error| tracing::warn!(helper, %error, "a credential helper doesn't start"))
        .ok()?;
    let mut input = child.stdin.take()?;
    let answer = async move {
        input.write_all(server.as_bytes()).await.ok()?;
        drop(input);
        child.wait_with_output().await.ok()
    };
    let output = timeout(HELPER, answer).await.ok()??;
    let secret: Secret = serde_json::from_slice(&output.stdout).ok()?;
    let is_token = secret.username == "<token>";
    let serveraddress = Some(server.to_owned());
    Some(if is_token {
        let identitytoken = Some(secret.secret);
        DockerCredentials { identitytoken, serveraddress, ..DockerCredentials::default() }
    } else {
        DockerCredentials {
            username: Some(secret.username),
            password: Some(secret.secret),
            serveraddress,
            ..DockerCredentials::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_registry() {
        for (image, expected) in [
            ("busybox", HUB),
            ("team/tools:1", HUB),
            ("docker.io/library/busybox", HUB),
            ("ghcr.io/team/tools", "ghcr.io"),
            ("localhost/tools", "localhost"),
            ("127.0.0.1:5000/tools", "127.0.0.1:5000"),
        ] {
            assert_eq!(server(image), expected, "{image}");
        }
    }

    #[tokio::test]
    async fn credentials_are_found_by_host_and_only_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let auth = STANDARD.encode("ann:pass:word");
        let text =
            format!(r#"{{"auths": {{"https://ghcr.io/v2/": {{"auth": "{auth}"}}}}, "x": 1}}"#);
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let found = of("ghcr.io/team/tools:1", Some(folder.path())).await.unwrap();
        assert_eq!(found.username.as_deref(), Some("ann"));
        assert_eq!(found.password.as_deref(), Some("pass:word"));
        assert_eq!(of("busybox", Some(folder.path())).await, None);
        std::fs::write(folder.path().join("config.json"), "not json").unwrap();
        assert_eq!(of("ghcr.io/team/tools:1", Some(folder.path())).await, None);
    }
}
