use super::*;
use crate::environment::Identity;

fn source(repo: &str, event: RunEvent, reference: &str) -> Source {
    Source {
        repo: repo.parse().unwrap(),
        default_branch: "main".into(),
        event,
        reference: reference.into(),
        fork: false,
        author: Author {
            forge: vec![Identity { forge: "github".into(), login: "octocat".into() }],
            starter: None,
        },
    }
}

fn rule(json: serde_json::Value) -> Accept {
    serde_json::from_value(json).unwrap()
}

fn refused(json: serde_json::Value) -> String {
    serde_json::from_value::<Accept>(json).unwrap_err().to_string()
}

#[test]
fn all_of_a_rule_must_hold() {
    let release = rule(serde_json::json!({"repo": "shop", "branches": ["main", "release/*"]}));
    for (taken, repo, event, reference) in [
        (true, "shop", RunEvent::Push, "refs/heads/main"),
        (true, "shop", RunEvent::Push, "refs/heads/release/1"),
        (false, "shop", RunEvent::Push, "refs/heads/release/1/fix"),
        (false, "shop", RunEvent::Push, "refs/heads/release"),
        (false, "shop", RunEvent::Push, "refs/heads/feature"),
        (false, "Shop", RunEvent::Push, "refs/heads/main"),
        (false, "team/shop", RunEvent::Push, "refs/heads/main"),
        (false, "shop", RunEvent::Manual, "refs/heads/main"),
        (false, "shop", RunEvent::Schedule, "refs/heads/main"),
        (false, "shop", RunEvent::PullRequest, "refs/heads/main"),
        // A tag named like the branch, a branch named like the ref, and what is neither.
        (false, "shop", RunEvent::Push, "refs/tags/main"),
        (false, "shop", RunEvent::Push, "refs/heads/refs/heads/main"),
        (false, "shop", RunEvent::Push, "refs/heads/MAIN"),
        (false, "shop", RunEvent::Push, "refs/heads/main\n"),
        (false, "shop", RunEvent::Push, "main"),
        (false, "shop", RunEvent::Push, "refs/pull/1/head"),
    ] {
        assert_eq!(release.takes(&source(repo, event, reference)), taken, "{repo} {reference}");
    }
}

#[test]
fn tags_are_no_branches_and_events_are_named() {
    let tags =
        rule(serde_json::json!({"repo": "shop", "tags": "v*", "events": ["push", "manual"]}));
    assert!(tags.takes(&source("shop", RunEvent::Push, "refs/tags/v1.2")));
    assert!(tags.takes(&source("shop", RunEvent::Manual, "refs/tags/v1.2")));
    assert!(!tags.takes(&source("shop", RunEvent::Schedule, "refs/tags/v1.2")));
    assert!(!tags.takes(&source("shop", RunEvent::Push, "refs/heads/v1.2")));
    assert!(!tags.takes(&source("shop", RunEvent::Push, "refs/tags/v1/2")));
}

#[test]
fn a_rule_without_refs_takes_the_default_branch_only() {
    let plain = rule(serde_json::json!({"repo": "shop"}));
    assert!(plain.takes(&source("shop", RunEvent::Push, "refs/heads/main")));
    assert!(!plain.takes(&source("shop", RunEvent::Push, "refs/heads/feature")));
    assert!(!plain.takes(&source("shop", RunEvent::Push, "refs/tags/main")));
    let all = rule(serde_json::json!({"repo": "shop", "branches": "**"}));
    assert!(all.takes(&source("shop", RunEvent::Push, "refs/heads/a/b/c")));
    assert!(!all.takes(&source("shop", RunEvent::Push, "refs/tags/v1")));
}

#[test]
fn what_can_never_hold_or_seems_to_mean_more_is_refused_when_it_is_written() {
    for (json, words) in [
        (serde_json::json!({"branches": "main"}), "missing field `repo`"),
        (serde_json::json!({"repo": "shop", "branch": "main"}), "unknown field `branch`"),
        (serde_json::json!({"repo": "shop", "branches": []}), "branches: is empty"),
        (serde_json::json!({"repo": "shop", "events": []}), "events: is empty"),
        (serde_json::json!({"repo": "shop", "branches": "main", "tags": "v*"}), "write two rules"),
        (serde_json::json!({"repo": "shop", "events": "pull_request"}), "never deploys"),
        (serde_json::json!({"repo": "shop", "events": "deploy"}), "push, manual or schedule"),
        (serde_json::json!({"repo": "shop", "branches": "refs/heads/main"}), "write the name only"),
        (serde_json::json!({"repo": "shop", "tags": "refs/tags/v1"}), "\"v1\""),
        (serde_json::json!({"repo": "shop", "branches": "!main"}), "`!`"),
        (serde_json::json!({"repo": "shop", "branches": "release/[1"}), "release/[1"),
        (serde_json::json!({"repo": "shop", "branches": "a b"}), "blanks"),
        (serde_json::json!({"repo": "shop", "branches": ""}), "1 to 200"),
        (serde_json::json!({"repo": "*", "branches": "main"}), "repository name"),
    ] {
        let why = refused(json);
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn a_rule_survives_being_stored() {
    let rule =
        rule(serde_json::json!({"repo": "shop", "tags": ["v*"], "events": ["manual", "push"]}));
    let text = serde_json::to_string(&rule).unwrap();
    assert_eq!(text, r#"{"repo":"shop","tags":["v*"],"events":["push","manual"]}"#);
    assert_eq!(serde_json::from_str::<Accept>(&text).unwrap(), rule);
}
