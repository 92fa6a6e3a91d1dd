//! What would come of the deploys of a pipeline file, and which of its secrets a job wouldn't get, told by
//! the server to somebody who is signed in.

use std::time::Duration;

use pipeyard_api::{
    client::{Client, escape},
    views::{CheckSecrets, RefusedSecret, RepoView},
};
use pipeyard_model::{
    EnvironmentName, RepoName, SecretName, ServiceName,
    environment::RunEvent,
    origin::Event,
    plan::{Node, NodeKind},
};
use pipeyard_pipelines::{Source, compile};
use serde_json::{Value, json};

use super::{env_rules, lint};
use crate::{context::Context, exit::Failure, profile::Profiles, term};

/// `lint` waits no longer for a server.
const PATIENCE: Duration = Duration::from_secs(5);

/// Secrets that are asked about.
const MOST_SECRETS: usize = 200;

/// Whom to ask, and about which ref.
pub(super) struct Asked {
    client: Client,
    repo: RepoName,
    branch: Option<String>,
}

/// What the server says about one deploy.
pub(super) struct Told {
    pub(super) accepted: bool,
    pub(super) words: String,
    code: String,
    path: String,
    line: usize,
}

impl Told {
    /// As the findings of the file are printed for programs.
    pub(super) fn finding(&self) -> Value {
        json!({
            "path": self.path, "line": self.line, "column": 1, "severity": "warning",
            "code": self.code, "message": self.words,
        })
    }
}

impl Asked {
    /// None for somebody who isn't signed in, or whose folder is of no repository that the server
    /// knows.
    pub(super) async fn of(
        context: &Context,
        repo: Option<RepoName>,
        branch: Option<String>,
    ) -> Result<Option<Self>, Failure> {
        if repo.is_none() && !signed_in(context) {
            return Ok(None);
        }
        let client = context.client()?;
        if let Some(repo) = repo {
            return Ok(Some(Self { client, repo, branch }));
        }
        let known: Vec<RepoView> = match tokio::time::timeout(PATIENCE, client.get("/api/repos"))
            .await
        {
            Ok(Ok(known)) => known,
            Ok(Err(_)) | Err(_) => {
                term::say("the server wasn't reached: whether deploys would be taken isn't known");
                return Ok(None);
            }
        };
        let here = remotes();
        let found = known.into_iter().find(|repo| here.iter().any(|url| same(url, &repo.url)));
        Ok(found.map(|repo| Self { client, repo: repo.name, branch }))
    }

    /// About every deploy of this file, in their order.
    pub(super) async fn about(&self, path: &str, bytes: &[u8]) -> Vec<Told> {
        let Ok(source) = Source::from_bytes(path, bytes) else { return vec![] };
        let Some(plan) = compile(&source, &lint::pushed()).plan else { return vec![] };
        let mut told = self.secrets(path, &source.text, &plan.nodes).await;
        for Node { name, kind, .. } in &plan.nodes {
            let NodeKind::Deploy(spec) = kind else { continue };
            let (environment, service) = (&spec.environment, &spec.service);
            let at = self.branch.clone().map(|branch| ("branch", branch));
            let asked = env_rules::ask(
                &self.client,
                environment,
                &self.repo,
                at,
                RunEvent::Push,
                spec.approve,
            );
            let (accepted, code, words) = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(check)) => {
                    let code = check.reason.as_ref().map(|reason| reason.code.clone());
                    (check.accepted, code.unwrap_or_default(), env_rules::words(&check))
                }
                Ok(Err(failure)) => {
                    (false, failure.code.unwrap_or_else(|| "not_asked".into()), failure.message)
                }
                Err(_) => (false, "not_asked".into(), "the server didn't answer in time".into()),
            };
            told.push(Told {
                accepted,
                words: format!("deploy {name} to {environment}/{service}: {words}"),
                code,
                path: path.to_owned(),
                line: line_of(&source.text, environment, service),
            });
        }
        told
    }
}

impl Asked {
    /// The secrets of all jobs that a push to this branch wouldn't get.
    async fn secrets(&self, path: &str, text: &str, nodes: &[Node]) -> Vec<Told> {
        let mut names: Vec<SecretName> = Vec::new();
        for Node { kind, .. } in nodes {
            if let NodeKind::Job(job) = kind {
                names.extend(job.secrets.iter().cloned());
            }
        }
        names.sort();
        names.dedup();
        names.truncate(MOST_SECRETS);
        if names.is_empty() {
            return vec![];
        }
        let ask = CheckSecrets { branch: self.branch.clone(), event: Event::Push, names };
        let at = format!("/api/secrets/check?repo={}", escape(self.repo.as_str()));
        let answer = tokio::time::timeout(PATIENCE, self.client.post(&at, &ask)).await;
        let refused: Vec<RefusedSecret> = match answer {
            Ok(Ok(refused)) => refused,
            Ok(Err(_)) | Err(_) => {
                term::say("the server didn't say which secrets jobs would get");
                return vec![];
            }
        };
        let line = |name: &SecretName| {
            let named = |line: &str| line.contains(name.as_str());
            text.lines().position(named).map_or(1, |n| n + 1)
        };
        let told = |refused: RefusedSecret| Told {
            accepted: false,
            line: line(&refused.name),
            words: refused.message,
            code: refused.code,
            path: path.to_owned(),
        };
        refused.into_iter().map(told).collect()
    }
}

/// Where the file names the place.
fn line_of(text: &str, environment: &EnvironmentName, service: &ServiceName) -> usize {
    let place = format!("{environment}/{service}");
    text.lines().position(|line| line.contains("to:") && line.contains(&place)).map_or(1, |n| n + 1)
}

fn signed_in(context: &Context) -> bool {
    context.global.server.is_some()
        || Profiles::read(&context.config_path())
            .is_ok_and(|profiles| profiles.profiles.contains_key(context.profile_name()))
}

/// The addresses that the repository of this folder is fetched from and pushed to.
fn remotes() -> Vec<String> {
    let out = std::process::Command::new("git").args(["remote", "-v"]).output();
    let text = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
}

/// Whether two addresses are of one repository: written for HTTPS, SSH or as a path.
fn same(one: &str, other: &str) -> bool {
    let plain = |url: &str| {
        let url = url.trim_end_matches('/').trim_end_matches(".git");
        let url = url.split_once("://").map_or(url, |(_, rest)| rest);
        let url = url.split_once('@').map_or(url, |(_, rest)| rest);
        url.replacen(':', "/", usize::from(!url.starts_with('/'))).to_ascii_lowercase()
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_the_servers_repository_however_it_is_written() {
        let https = "https://github.com/acme/shop.git";
        for url in [
            "git@github.com:acme/shop.git",
            "ssh://git@github.com/acme/shop",
            "https://x@GitHub.com/acme/shop/",
        ] {
            assert!(same(https, url), "{url}");
        }
        assert!(same("/srv/git/shop.git", "/srv/git/shop"));
        assert!(!same(https, "https://github.com/acme/shops"));
        assert!(!same(https, "https://gitlab.com/acme/shop"));
    }
}
