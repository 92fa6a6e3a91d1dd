//! GitHub's payloads. Only what is used is read; lists of commits and everything else are skipped
//! without being kept, at any depth. A key that is used and comes twice is refused.

use pipeyard_api::views::Event;
use pipeyard_git::{Sha, check_ref};
use pipeyard_store::intake::{Disposition, NewRunRequest, PullRequest};
use serde::{Deserialize, de::DeserializeOwned};

use super::{BadPayload, Moved, Parsed, moved};

#[derive(Debug, Deserialize)]
struct Repository {
    id: i64,
}

/// What every payload may say.
#[derive(Debug, Deserialize)]
struct Any {
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    repository: Option<Repository>,
    /// Who did it: GitHub's user, not the text in a commit.
    #[serde(default)]
    sender: Option<User>,
}

#[derive(Debug, Deserialize)]
struct Push {
    r#ref: String,
    before: String,
    after: String,
    #[serde(default)]
    pusher: Option<Pusher>,
}

/// The same user by another key; a push by a deploy key has no `sender`.
#[derive(Debug, Deserialize)]
struct Pusher {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Pull {
    number: u64,
    pull_request: PullBody,
}

#[derive(Debug, Deserialize)]
struct PullBody {
    head: Head,
    base: Base,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Debug, Deserialize)]
struct Head {
    r#ref: String,
    sha: String,
    /// Null when the fork was deleted.
    #[serde(default)]
    repo: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct Base {
    r#ref: String,
    sha: String,
    repo: Repository,
}

#[derive(Debug, Deserialize)]
struct User {
    login: String,
}

/// Reads the payload of a verified delivery.
///
/// # Errors
/// When it isn't JSON, or isn't what GitHub sends for this event.
pub fn parse(event: &str, body: &[u8]) -> Result<Parsed, BadPayload> {
    let any: Any = read(body)?;
    let repository = match any.repository {
        Some(Repository { id }) if id <= 0 => {
            return Err(BadPayload(format!("{id} is not the id of a repository")));
        }
        other => other.map(|repository| repository.id),
    };
    let sender = any.sender.map(|user| user.login);
    let disposition = match (event, any.action.as_deref()) {
        ("push", _) => push(&read(body)?, sender)?,
        ("pull_request", Some("opened" | "synchronize" | "reopened")) => {
            pull(read(body)?, repository, sender.as_deref())?
        }
        ("pull_request", action) => {
            let action: String = action.unwrap_or("without action").chars().take(40).collect();
            Disposition::Ignored(format!("pull request {action:?} starts nothing"))
        }
        ("ping", _) => Disposition::Ignored("ping".into()),
        (other, _) => Disposition::Ignored(format!("events of kind {other:?} start nothing")),
    };
    if repository.is_none() && matches!(disposition, Disposition::Requests(_)) {
        return Err(BadPayload("the payload names no repository".into()));
    }
    Ok(Parsed { repository, disposition })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadPayload> {
    serde_json::from_slice(body).map_err(|e| BadPayload(format!("the payload can't be read: {e}")))
}

/// A user of the forge. A longer text, or one with something else in it than a login has, is nobody.
fn login(text: &str) -> Option<String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.[]".contains(&b));
    (plain && (1..=100).contains(&text.len())).then(|| text.to_owned())
}

fn push(push: &Push, sender: Option<String>) -> Result<Disposition, BadPayload> {
    let pusher = || push.pusher.as_ref().and_then(|pusher| pusher.name.clone());
    let forge_user = sender.or_else(pusher).as_deref().and_then(login);
    Ok(match moved(&push.r#ref, &push.before, &push.after)? {
        Moved::Nothing(reason) => Disposition::Ignored(reason),
        Moved::Branch { before, after } => Disposition::Requests(vec![NewRunRequest {
            event: Event::Push,
            reference: push.r#ref.clone(),
            before,
            after,
            pull_request: None,
            forge_user,
        }]),
    })
}

fn pull(
    pull: Pull,
    repository: Option<i64>,
    sender: Option<&str>,
) -> Result<Disposition, BadPayload> {
    let Pull { number, pull_request: PullBody { head, base, user } } = pull;
    if repository != Some(base.repo.id) {
        return Err(BadPayload(
            "the pull request goes to another repository than the payload's".into(),
        ));
    }
    let reference = format!("refs/heads/{}", base.r#ref);
    for name in [&reference, &format!("refs/heads/{}", head.r#ref)] {
        if let Err(bad) = check_ref(name) {
            return Ok(Disposition::Ignored(bad.to_string()));
        }
    }
    let sha = |text: &str| text.parse::<Sha>().map_err(|e| BadPayload(e.to_string()));
    Ok(Disposition::Requests(vec![NewRunRequest {
        event: Event::PullRequest,
        reference,
        before: None,
        after: sha(&head.sha)?.into(),
        pull_request: Some(PullRequest {
            number,
            head_repo: head.repo.map(|repo| repo.id),
            base_repo: base.repo.id,
            base_sha: sha(&base.sha)?.into(),
            head_branch: head.r#ref,
            author: user.map(|user| user.login.chars().take(100).collect()).unwrap_or_default(),
        }),
        forge_user: sender.and_then(login),
    }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn push_body(reference: &str, before: &str, after: &str) -> Vec<u8> {
        let body = serde_json::json!({
            "ref": reference, "before": before, "after": after, "repository": { "id": 7 }, "commits": [{ "id": 1 }],
        });
        serde_json::to_vec(&body).unwrap()
    }

    fn requests(parsed: Parsed) -> Vec<NewRunRequest> {
        match parsed.disposition {
            Disposition::Requests(requests) => requests,
            Disposition::Ignored(reason) => panic!("ignored: {reason}"),
        }
    }

    fn ignored(event: &str, body: &[u8]) -> String {
        match parse(event, body).unwrap().disposition {
            Disposition::Ignored(reason) => reason,
            Disposition::Requests(requests) => panic!("{requests:?}"),
        }
    }

    #[test]
    fn a_push_to_a_branch_asks_for_a_run_of_its_last_commit() {
        let parsed = parse("push", &push_body("refs/heads/main", A, B)).unwrap();
        assert_eq!(parsed.repository, Some(7));
        let [request] = &requests(parsed)[..] else { panic!() };
        assert_eq!((request.before.as_deref(), request.after.as_str()), (Some(A), B));
        let created = requests(parse("push", &push_body("refs/heads/new", ZERO, B)).unwrap());
        assert_eq!(created[0].before, None);
    }

    #[test]
    fn whose_push_it_is_says_the_forge_and_not_the_commit() {
        let user = |more: serde_json::Value| {
            let mut body: serde_json::Value =
                serde_json::from_slice(&push_body("refs/heads/main", A, B)).unwrap();
            body["head_commit"] = serde_json::json!({"author": {"username": "ann"}});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let parsed = parse("push", &serde_json::to_vec(&body).unwrap()).unwrap();
            requests(parsed)[0].forge_user.clone()
        };
        let sender = serde_json::json!({"login": "octocat", "id": 1});
        assert_eq!(user(serde_json::json!({"sender": sender})).as_deref(), Some("octocat"));
        let both = serde_json::json!({"sender": sender, "pusher": {"name": "other"}});
        assert_eq!(user(both).as_deref(), Some("octocat"));
        let pusher = serde_json::json!({"pusher": {"name": "octocat", "email": "x@y"}});
        assert_eq!(user(pusher).as_deref(), Some("octocat"));
        for nobody in [
            serde_json::json!({}),
            serde_json::json!({"sender": null}),
            serde_json::json!({"sender": {"login": "octo cat"}}),
            serde_json::json!({"pusher": {"name": ""}}),
            serde_json::json!({"pusher": {"email": "ann@example.com"}}),
        ] {
            assert_eq!(user(nobody), None);
        }
    }

    #[test]
    fn deletions_tags_and_deceiving_names_are_ignored_with_the_reason() {
        assert_eq!(ignored("push", &push_body("refs/heads/x", A, ZERO)), "the branch was deleted");
        assert!(ignored("push", &push_body("refs/tags/main", ZERO, B)).contains("branches"));
        for name in [
            "refs/heads/--upload-pack=x",
            "refs/heads/a\nb",
            "refs/heads/\u{202e}x",
            "--upload-pack=x",
            "main",
        ] {
            assert!(
                ignored("push", &push_body(name, A, B)).starts_with("the ref's name"),
                "{name:?}"
            );
        }
        assert_eq!(ignored("ping", b"{\"zen\": \"x\"}"), "ping");
        assert!(ignored("star", b"{}").contains("star"));
    }

    fn pull_body(action: &str, head_repo: Option<i64>) -> Vec<u8> {
        let body = serde_json::json!({
            "action": action, "number": 5, "repository": { "id": 7 },
            "pull_request": {
                "head": { "ref": "fix", "sha": B, "repo": head_repo.map(|id| serde_json::json!({ "id": id })) },
                "base": { "ref": "main", "sha": A, "repo": { "id": 7 } },
                "user": { "login": "ann" },
            },
        });
        serde_json::to_vec(&body).unwrap()
    }

    #[test]
    fn forkness_comes_from_the_ids_and_a_deleted_fork_is_one() {
        let fork = |repo| {
            let requests = requests(parse("pull_request", &pull_body("opened", repo)).unwrap());
            requests[0].pull_request.clone().unwrap().is_fork()
        };
        assert!(!fork(Some(7)));
        assert!(fork(Some(8)));
        assert!(fork(None));
        assert!(ignored("pull_request", &pull_body("closed", Some(7))).contains("closed"));
    }

    #[test]
    fn what_is_no_payload_is_refused() {
        let deep = format!("{{\"repository\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let push = |repository: &str| {
            format!(
                "{{\"ref\":\"refs/heads/main\",\"before\":\"{A}\",\"after\":\"{B}\",\"repository\":{repository}}}"
            )
        };
        let twice = push("{\"id\":7},\"after\":\"x\"");
        let bad = [
            "",
            "x",
            "[]",
            "null",
            "{}",
            &deep,
            &twice,
            &push("null"),
            &push("{\"id\":-1}"),
            &push("{\"id\":9223372036854775808}"),
            &push("{\"id\":1,\"id\":2}"),
            &push("{\"id\":7}").replace(B, "HEAD"),
        ];
        for body in bad {
            assert!(parse("push", body.as_bytes()).is_err(), "{}", &body[..body.len().min(200)]);
        }
        let elsewhere = String::from_utf8(pull_body("opened", Some(7)))
            .unwrap()
            .replacen("\"id\":7", "\"id\":9", 1);
        assert!(parse("pull_request", elsewhere.as_bytes()).is_err());
    }

    #[test]
    fn depth_in_what_is_not_read_does_no_harm() {
        let body = push_body("refs/heads/main", A, B);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = String::from_utf8(body).unwrap().replace("[{\"id\":1}]", &deep);
        assert!(body.len() > 200_000);
        assert!(parse("push", body.as_bytes()).is_ok());
    }
}
