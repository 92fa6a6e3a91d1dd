//! `envs allow` and `envs check`: the rules of an environment, one at a time.

use pipeyard_api::{
    client::{Client, escape},
    deploys::{Allowed, DeployCheck},
};
use pipeyard_model::{
    EnvironmentName, RepoName,
    environment::{Accept, RefPattern, RunEvent, TakenEvent},
};

use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// What an environment should take.
#[derive(Debug, clap::Args)]
pub struct Allow {
    /// The environment.
    environment: EnvironmentName,
    /// The repository.
    #[arg(long)]
    repo: RepoName,
    /// Its branches, by a pattern: `*` stops at a slash, `**` doesn't. May be given several times.
    #[arg(long, value_name = "PATTERN", conflicts_with = "tag")]
    branch: Vec<RefPattern>,
    /// Its tags, by a pattern. May be given several times.
    #[arg(long, value_name = "PATTERN")]
    tag: Vec<RefPattern>,
    /// What starts the run: push (if absent), manual, schedule. May be given several times.
    #[arg(long)]
    event: Vec<TakenEvent>,
}

impl Allow {
    pub(super) async fn run(self, context: &Context, client: &Client) -> Outcome {
        let Self { environment, repo, branch, tag, event } = self;
        let rule =
            Accept::new(repo, branch, tag, event).map_err(|e| Failure::usage(e.to_string()))?;
        let path = format!("/api/environments/{}/accepts", escape(environment.as_str()));
        let allowed: Allowed = client.post(&path, &rule).await?;
        if !context.for_people() {
            context.print(&allowed, &[])?;
            return Ok(Exit::Ok);
        }
        let word = if allowed.known { "takes already" } else { "takes now" };
        term::print(&format!("{environment} {word}: {}\n", allowed.rule));
        // The file is what `envs apply` goes by.
        term::say(
            "write it into your environments file too, or the next `pipectl envs apply` of it asks:",
        );
        term::print(&format!("    accepts:\n{}", yaml(&allowed.accepts)));
        Ok(Exit::Ok)
    }
}

/// Rules as the environments file writes them. Every value is also a JSON text, which YAML reads.
fn yaml(rules: &[Accept]) -> String {
    rules
        .iter()
        .filter_map(|rule| serde_json::to_string(rule).ok())
        .map(|rule| format!("      - {rule}\n"))
        .collect()
}

/// A deploy to ask about.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The environment.
    environment: EnvironmentName,
    /// The repository.
    #[arg(long)]
    repo: RepoName,
    /// The branch that the run is on; the default branch if absent.
    #[arg(long, conflicts_with = "tag")]
    branch: Option<String>,
    /// The tag that the run is on.
    #[arg(long)]
    tag: Option<String>,
    /// What starts the run: push (if absent), manual, schedule, pull_request.
    #[arg(long, value_parser = event, default_value = "push")]
    event: RunEvent,
    /// As if the pipeline said `approve: true`.
    #[arg(long)]
    approve: bool,
}

fn event(text: &str) -> Result<RunEvent, String> {
    [RunEvent::Push, RunEvent::Manual, RunEvent::Schedule, RunEvent::PullRequest]
        .into_iter()
        .find(|event| event.as_str() == text)
        .ok_or_else(|| "it can be push, manual, schedule or pull_request".to_owned())
}

impl Check {
    pub(super) async fn run(self, context: &Context, client: &Client) -> Outcome {
        let Self { environment, repo, branch, tag, event, approve } = self;
        let at = match (branch, tag) {
            (Some(branch), _) => Some(("branch", branch)),
            (None, Some(tag)) => Some(("tag", tag)),
            (None, None) => None,
        };
        let told = ask(client, &environment, &repo, at, event, approve).await?;
        if context.for_people() {
            term::print(&format!("{}\n", words(&told)));
        } else {
            context.print(
                &told,
                &[
                    Column("ENVIRONMENT", |r| cell(&r["environment"])),
                    Column("ACCEPTED", |r| cell(&r["accepted"])),
                ],
            )?;
        }
        Ok(if told.accepted { Exit::Ok } else { Exit::Failed })
    }
}

/// Asks the server what would come of a deploy.
pub(super) async fn ask(
    client: &Client,
    environment: &EnvironmentName,
    repo: &RepoName,
    at: Option<(&str, String)>,
    event: RunEvent,
    approve: bool,
) -> Result<DeployCheck, Failure> {
    let at = at.map(|(kind, name)| format!("&{kind}={}", escape(&name))).unwrap_or_default();
    let path = format!(
        "/api/environments/{}/check?repo={}&event={}&approve={approve}{at}",
        escape(environment.as_str()),
        escape(repo.as_str()),
        event.as_str()
    );
    Ok(client.get(&path).await?)
}

/// The answer in a few lines.
pub(super) fn words(told: &DeployCheck) -> String {
    let mut lines = match (&told.rule, &told.reason) {
        (Some(rule), _) => {
            let taken = format!("{} takes {}: {rule}", told.environment, told.what);
            let author = if told.not_the_author { ", but not of the change's author" } else { "" };
            let approval = match told.approvals {
                0 => "starts without an approval".to_owned(),
                1 => format!("needs the approval of {}{author}", told.approvers),
                count => format!("needs {count} approvals of {}{author}", told.approvers),
            };
            vec![taken, approval]
        }
        (None, Some(reason)) => vec![reason.message.clone()],
        (None, None) => vec![format!("{} doesn't take {}", told.environment, told.what)],
    };
    lines.extend(told.frozen.as_ref().map(|frozen| frozen.message.clone()));
    lines.extend(told.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_printed_as_a_file_can_hold_them() {
        let rule: Accept =
            serde_json::from_str(r#"{"repo": "acme/shop", "branches": ["main", "release/*"]}"#)
                .unwrap();
        let text = format!("accepts:\n{}", yaml(std::slice::from_ref(&rule)));
        let read: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(serde_json::from_value::<Vec<Accept>>(read["accepts"].clone()).unwrap(), [rule]);
    }
}
