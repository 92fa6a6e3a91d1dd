//! The codes of refusals about people, credentials, runners and keys, each with its page.

/// Code and explanation, sorted by code.
pub const ALL: &[(&str, &str)] = &[
    (
        "bad_days",
        "A token lasts 1 to 365 days; 90 if nobody says. There is none that never ends: make a new one before the old one ends, and revoke the old one.",
    ),
    (
        "bad_label",
        "A runner may have the labels that its enrolment token gives, and no other: a job finds a machine by a label and trusts it. An administrator makes a token with the label, `pipectl runners token --label LABEL`, or one with which the runner names its own, `--any-label`. The refused token is still good.",
    ),
    (
        "bad_token",
        "An enrolment token registers one runner, once, and ends after an hour if nobody says otherwise. This one is unknown, was used, or is over. An administrator makes another: `pipectl runners token`. A runner that was registered before needs none: it has a key in its data folder.",
    ),
    (
        "built_in",
        "The user `admin` is who `pipectl login-code` signs in on the server's machine, the way back when nobody else can sign in. It can't be removed and stays an administrator. It has no password; whoever may read the server's data folder may sign in as it.",
    ),
    (
        "forbidden",
        "Your role doesn't allow this. A developer reads, starts, cancels and reruns runs, ends deployments, and opens and closes incidents; the rest is for administrators, and decisions about deployments are for whom the environment names. `pipectl users list` shows roles to administrators; `pipectl users set-role NAME admin` changes one.",
    ),
    (
        "identity_taken",
        "A login at a forge is one person. Take it from the other user first: `pipectl users set-forge NAME` with what should stay.",
    ),
    (
        "key_missing",
        "The server's master key isn't where it should be, and the database holds what was sealed with it: secrets, webhook secrets, tokens of forges. The server doesn't start and makes no new key, because nothing sealed would open with that. Put the file back from your backup, or name it with `--key-file`. If the key is lost for good, nothing brings the sealed values back: start with a new data folder, or restore a backup whose key you have.",
    ),
    (
        "key_wrong",
        "The server's master key isn't the one that the secrets in its database were sealed with: a file of another installation, or a backup of the database beside a key of another time. The server doesn't start and changes nothing. Put the right key back, or name it with `--key-file`.",
    ),
    (
        "outlives_parent",
        "A token never lasts longer than the session or token that makes it, so that revoking or losing one ends what came of it. Ask for fewer days, leave them out, or sign in for longer first: `pipectl login --days DAYS` with a one-time login.",
    ),
    (
        "runner_is_live",
        "Two processes use one runner's identity, usually because its data folder was copied. They would take each other's jobs and remove each other's containers, so the second is refused while the first lives, and touches nothing. Give the second a data folder of its own and register it: `pipectl runners token`. After a crash the same runner goes on by itself: at once in the same folder on the same machine, otherwise when the first was silent for 30 seconds.",
    ),
    (
        "unknown_runner",
        "The runner's key is unknown to the server, or its runner was removed. Remove `identity.json` in the runner's data folder and register it again with a token of `pipectl runners token`.",
    ),
];

/// The page of a code.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_stand_once() {
        assert!(ALL.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(explain("key_missing").is_some_and(|text| text.contains("--key-file")));
        assert!(explain("no_such_code").is_none());
    }
}
