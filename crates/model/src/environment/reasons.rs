//! The codes of the rules' answers, each with its page.

/// Code and explanation, sorted by code.
pub const ALL: &[(&str, &str)] = &[
    (
        "accepts_missing",
        "The environments file doesn't say what an environment takes, and the environment has rules. They would be lost. Write them into the file under `accepts` (the error shows them), or `accepts: []` to take nothing.",
    ),
    (
        "already_approved",
        "You have approved this deployment already. Each person counts once, so somebody else must approve it; `pipectl deploy status NUMBER` says who may.",
    ),
    (
        "author_unknown",
        "The environment wants the approval of somebody who isn't the change's author, and that can't be known. Either no forge told who pushed the commit (a plain Git repository, or a push that no webhook told of): push it through a forge whose webhook says so, or leave out `not_the_author`. Or nobody wrote down who the approving person is at the forge: an administrator does so by `pipectl users set-forge NAME github=LOGIN`. The text in a commit counts for nothing, because anybody can write it.",
    ),
    (
        "deploy_frozen",
        "The environment is frozen: a weekly window in its `freeze` covers the present. Nothing starts and nobody promotes until its end; what waits starts then by itself. A canary that is under way goes on, and going back or aborting is always possible.",
    ),
    (
        "deploy_not_accepted",
        "No rule of the environment takes what this run ships: the rule names the repository, its branches or tags, and what started the run, and all of it must hold. Nothing was asked for and nothing was touched. An administrator adds a rule by `pipectl envs allow ENVIRONMENT --repo REPO --branch BRANCH` or in the environments file; then run the deploy again by `pipectl runs rerun RUN --failed`. `pipectl envs check` tells beforehand.",
    ),
    (
        "deploy_of_fork",
        "The commit comes from a fork, or can't be reached from the branch that the run names. Such a commit never deploys, whatever the rules say: a stranger may have written it. Push it to a branch of the repository that the environment takes.",
    ),
    (
        "deploy_of_pull_request",
        "The run is of a pull request. A pull request never deploys: merge it, and the push to the branch does.",
    ),
    (
        "environments_invalid",
        "The environments file says something that can't be: an unknown repository, user or time zone, a rule that nothing can fit, approvals that nobody can give. The message names the place in the file. Nothing of the file was applied.",
    ),
    (
        "not_named",
        "The environment names who may approve, promote and go back (`approvals.of`), and you aren't named; without names only administrators may. Ask one of those whom the message names.",
    ),
    (
        "own_change",
        "You pushed this change, or started its run, and the environment wants the approval of somebody else (`not_the_author`).",
    ),
    (
        "waits_for_approval",
        "The deployment waits until enough people have approved it: `pipectl deploy status NUMBER` says who may, what is there and what is missing, `pipectl deploy approve NUMBER` approves. After seven days it ends as expired.",
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
    fn codes_are_sorted_and_their_pages_say_what_to_do() {
        assert!(ALL.is_sorted_by_key(|(code, _)| *code));
        for (code, text) in ALL {
            assert!(text.len() > 80 && text.ends_with('.'), "{code}");
            assert_eq!(explain(code), Some(*text));
        }
    }
}
