//! Pages behind the codes of what is refused before it runs. The message of a reason says the same of
//! the case at hand.

/// Code and explanation, sorted by code.
pub const ALL: &[(&str, &str)] = &[
    (
        "commit_not_found",
        "No branch of the remote has the commit, and the remote doesn't give it by its name either: a \
         forced push took it away, or it never was there. Push it to a branch again.",
    ),
    (
        "deploy_refused_to_fork",
        "The run's commit comes from a fork, or can't be reached from the branch that it was said to be \
         of, so a stranger may have written it. Such a run deploys nothing, approved or not. Push the \
         commit to a branch of the repository: that push is a run of its own.",
    ),
    (
        "fetch_too_large",
        "The remote sends more than a fetch may bring. For a stranger's commit the limit is the server's \
         setting max_stranger_bytes; large files belong into an object store or Git LFS, not into a \
         pull request.",
    ),
    (
        "push_overtaken",
        "The branch was elsewhere already when this push was told of: an old message came late, or \
         somebody sent it again. Its jobs run, and it deploys nothing. Pushes that come while it runs \
         overtake nothing. If it is what should be deployed, run it again: `pipectl runs rerun RUN`.",
    ),
    (
        "push_too_large",
        "The pipelines of one commit ask for more than 10,000 jobs and deploys in all. Join jobs, or let \
         fewer pipelines start at once by their `when`.",
    ),
    (
        "remote_refused",
        "The address leads to where the server doesn't dial: a link-local address or a cloud's metadata \
         service, never; a private address if git_private is false; this machine itself, or a folder on \
         it, unless git_local allows it (it does on a server that listens on loopback without a proxy in front); a folder inside \
         of the server's own data, never.",
    ),
    (
        "repository_queue_full",
        "The repository has 30,000 jobs and deploys that aren't over, or 5,000 that wait for the approval \
         of their run. Wait until some have ended, cancel runs that nobody needs, approve or cancel held \
         ones.",
    ),
    (
        "secret_missing",
        "The job asks for a secret that is set neither for its repository nor for all of them. Set it: \
         `pipectl secrets set NAME --repo REPO`.",
    ),
    (
        "secret_not_for_branch",
        "The secret is limited to other branches than the one that the run's commit is on. What counts is \
         the branch from which the commit can be reached; a pull request has the one that it comes from. \
         Leave the secret out of jobs that run elsewhere, or set it with `--branch`. Secrets of all \
         repositories that an earlier version kept are limited to default branches.",
    ),
    (
        "secret_not_for_event",
        "The secret is limited to runs that are started otherwise: by push, pull_request or manual. Leave \
         it out of such jobs, or set it with `--event`.",
    ),
    (
        "secret_refused_to_fork",
        "The run's commit comes from a fork, or can't be reached from the branch that it was said to be \
         of. Such a run gets no secret, approved or not.",
    ),
    (
        "secret_unreadable",
        "The server's key file isn't the one that the secret was set with. Set it again.",
    ),
];

/// The explanation of a code.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_found() {
        assert!(ALL.is_sorted_by(|a, b| a.0 < b.0));
        assert!(explain("push_overtaken").is_some() && explain("x").is_none());
    }
}
