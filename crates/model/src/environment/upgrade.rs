//! The rules of an environment that is older than rules: what it took until then it goes on to take.

use std::collections::BTreeMap;

use super::{Accept, RefPattern, RunEvent, TakenEvent};
use crate::RepoName;

/// The most branches of a repository that are taken over; more would be no rule any more.
const BRANCHES: usize = 20;

/// A deployment that succeeded, or that isn't over: where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// The repository.
    pub repo: RepoName,
    /// Its default branch.
    pub default_branch: String,
    /// What started its run.
    pub event: RunEvent,
    /// The full ref that the run was on.
    pub reference: String,
    /// It isn't over: its rule may not be left out.
    pub open: bool,
}

/// For each repository the branches that its deployments came from, and its default branch, by push;
/// for runs by hand the branches that these came from. Newest first. Beside the rules: what was left
/// out, in words.
#[must_use]
pub fn rules_of_history(came: &[Came]) -> (Vec<Accept>, Vec<String>) {
    let mut branches: BTreeMap<(&RepoName, TakenEvent), Vec<(&str, bool)>> = BTreeMap::new();
    for Came { repo, default_branch, event, reference, open } in came {
        let event = match event {
            RunEvent::Push => TakenEvent::Push,
            RunEvent::Manual => TakenEvent::Manual,
            RunEvent::Schedule => TakenEvent::Schedule,
            RunEvent::PullRequest => continue,
        };
        let pushed = branches.entry((repo, TakenEvent::Push)).or_default();
        if !pushed.iter().any(|(name, _)| name == default_branch) {
            pushed.insert(0, (default_branch, true));
        }
        let Some(branch) = reference.strip_prefix("refs/heads/") else { continue };
        let known = branches.entry((repo, event)).or_default();
        match known.iter_mut().find(|(name, _)| *name == branch) {
            Some((_, needed)) => *needed |= *open,
            None => known.push((branch, *open)),
        }
    }
    let mut rules = Vec::new();
    let mut left_out = Vec::new();
    for ((repo, event), mut names) in branches {
        // Those that must stay come first; the order among equals stays.
        names.sort_by_key(|(_, needed)| !*needed);
        let needed = names.iter().filter(|(_, needed)| *needed).count();
        let kept = names.len().min(BRANCHES.max(needed));
        if names.len() > kept {
            left_out.push(format!(
                "{} older branches of {repo} (by {}) are not taken any more",
                names.len() - kept,
                event.as_str()
            ));
        }
        let patterns: Vec<RefPattern> =
            names[..kept].iter().filter_map(|(name, _)| RefPattern::exactly(name).ok()).collect();
        // A rule has a bounded number of patterns.
        for some in patterns.chunks(100) {
            rules.extend(Accept::new(repo.clone(), some.to_vec(), vec![], vec![event]));
        }
    }
    (rules, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(repo: &str, event: RunEvent, reference: &str) -> Came {
        Came {
            repo: repo.parse().unwrap(),
            default_branch: "main".into(),
            event,
            reference: reference.into(),
            open: false,
        }
    }

    fn words(came: &[Came]) -> Vec<String> {
        rules_of_history(came).0.iter().map(Accept::words).collect()
    }

    #[test]
    fn each_repository_keeps_its_default_branch_and_those_it_came_from() {
        let all = [
            came("shop", RunEvent::Push, "refs/heads/release/1"),
            came("shop", RunEvent::Push, "refs/heads/main"),
            came("shop", RunEvent::Manual, "refs/heads/hotfix"),
            came("blog", RunEvent::Push, "refs/heads/main"),
            came("odd", RunEvent::PullRequest, "refs/heads/main"),
        ];
        assert_eq!(
            words(&all),
            [
                "blog, branches main, by push",
                "shop, branches main, release/1, by push",
                "shop, branches hotfix, by manual",
            ]
        );
        assert_eq!(words(&[]), [""; 0]);
    }

    #[test]
    fn a_name_is_taken_as_it_is_and_not_as_a_pattern() {
        let (rules, _) = rules_of_history(&[came("shop", RunEvent::Push, "refs/heads/fix-[x]")]);
        let patterns = &rules[0].branches;
        assert!(patterns.iter().any(|p| p.matches("fix-[x]")));
        assert!(!patterns.iter().any(|p| p.matches("fix-x")));
    }

    #[test]
    fn a_thousand_branches_become_no_thousand_rules_but_open_ones_stay() {
        let mut all: Vec<Came> = (0..1_000)
            .map(|n| came("shop", RunEvent::Push, &format!("refs/heads/feature-{n}")))
            .collect();
        all[900].open = true;
        let (rules, left_out) = rules_of_history(&all);
        assert_eq!(rules[0].branches.len(), BRANCHES);
        for name in ["main", "feature-0", "feature-900"] {
            assert!(rules[0].branches.iter().any(|p| p.matches(name)), "{name}");
        }
        assert_eq!(left_out, ["981 older branches of shop (by push) are not taken any more"]);
    }
}
