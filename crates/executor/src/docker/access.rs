//! Which repositories may use which private images. What the runner may pull with its own login isn't
//! everybody's: an administrator says which repositories a registry, or a part of it, is for. An image
//! that a rule names is for those repositories only, also when it lies on the machine already.

use std::str::FromStr;

/// The host of Docker's own registry in full names.
const HUB: &str = "docker.io";

/// Who may use the runner's login at registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Every job: the runner is its user's own.
    Everybody,
    /// The jobs that a rule names; without one nobody.
    Rules(Vec<RegistryRule>),
}

/// `IMAGES=REPOSITORIES`: `ghcr.io/acme=acme/shop,acme/tools`; `*` stands for every repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRule {
    images: String,
    /// None: every repository.
    repos: Option<Vec<String>>,
}

/// The text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} doesn't say whose images these are: write REGISTRY/PATH=REPOSITORY,... such as \
     ghcr.io/acme=acme/shop, with * for every repository"
)]
pub struct BadAccess(String);

impl FromStr for RegistryRule {
    type Err = BadAccess;

    fn from_str(text: &str) -> Result<Self, BadAccess> {
        let parse = || {
            let (images, repos) = text.split_once('=')?;
            let images = images.trim().trim_end_matches('/');
            let plain = |text: &str| {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
            };
            let repos: Vec<String> = repos.split(',').map(|repo| repo.trim().to_owned()).collect();
            if !plain(images) || !repos.iter().all(|repo| plain(repo)) || images.contains('@') {
                return None;
            }
            let is_all = repos.iter().any(|repo| repo == "*");
            Some(Self { images: full(images, true), repos: (!is_all).then_some(repos) })
        };
        parse().ok_or_else(|| BadAccess(text.chars().take(120).collect()))
    }
}

/// What a job may do to get an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Use it where it is, pull it without a login.
    Public,
    /// Use it where it is, pull it with the runner's login.
    Granted,
    /// It is others': only what the registry gives to everybody.
    AskRegistry,
}

impl RegistryAccess {
    pub(crate) fn of(&self, image: &str, repo: &str) -> Access {
        let Self::Rules(rules) = self else { return Access::Granted };
        let image = full(image, false);
        let mut about = rules.iter().filter(|rule| rule.covers(&image)).peekable();
        if about.peek().is_none() {
            return Access::Public;
        }
        let named = about.any(|rule| {
            rule.repos.as_ref().is_none_or(|repos| repos.iter().any(|known| known == repo))
        });
        if named { Access::Granted } else { Access::AskRegistry }
    }
}

impl RegistryRule {
    fn covers(&self, image: &str) -> bool {
        image
            .strip_prefix(&self.images)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
    }
}

/// An image's name, or the beginning of names, with its registry. A lone word is a registry where a
/// rule has it and looks like one.
fn full(name: &str, is_rule: bool) -> String {
    let (first, rest) = match name.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    let is_host = first.contains(['.', ':']) || first == "localhost";
    match rest {
        Some(rest) if is_host && first == "index.docker.io" => format!("{HUB}/{rest}"),
        Some(rest) if first == HUB && !rest.contains('/') && !is_rule => {
            format!("{HUB}/library/{rest}")
        }
        Some(_) if is_host => name.to_owned(),
        Some(_) => format!("{HUB}/{name}"),
        None if is_rule && is_host => name.to_owned(),
        None if is_rule => format!("{HUB}/{name}"),
        None => format!("{HUB}/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_a_rule_names_are_for_its_repositories() {
        let rules =
            ["ghcr.io/acme=acme/shop,acme/tools", "10.0.0.5:5000=*", "docker.io/team=acme/shop"];
        let access = RegistryAccess::Rules(rules.map(|rule| rule.parse().unwrap()).to_vec());
        for (image, repo, expected) in [
            ("ghcr.io/acme/base:1", "acme/shop", Access::Granted),
            ("ghcr.io/acme/base:1", "evil/repo", Access::AskRegistry),
            ("ghcr.io/acme/base@sha256:00", "acme/tools", Access::Granted),
            ("ghcr.io/acmeish/base", "acme/shop", Access::Public),
            ("ghcr.io/acme/base:1", "acme/shop2", Access::AskRegistry),
            ("10.0.0.5:5000/x", "evil/repo", Access::Granted),
            ("team/private", "evil/repo", Access::AskRegistry),
            ("docker.io/team/private:2", "acme/shop", Access::Granted),
            ("index.docker.io/team/private:2", "evil/repo", Access::AskRegistry),
            ("busybox", "evil/repo", Access::Public),
            ("", "", Access::Public),
        ] {
            assert_eq!(access.of(image, repo), expected, "{image} for {repo}");
        }
        let nobody = RegistryAccess::Rules(vec![]);
        assert_eq!(nobody.of("ghcr.io/acme/base", "acme/shop"), Access::Public);
        assert_eq!(RegistryAccess::Everybody.of("ghcr.io/x", ""), Access::Granted);
    }

    #[test]
    fn a_rule_that_says_nothing_is_refused() {
        for bad in [
            "",
            "ghcr.io",
            "=acme/shop",
            "ghcr.io=",
            "ghcr.io=a,,b",
            "ghcr.io/a b=x",
            "x@sha256:0=a",
        ] {
            assert!(bad.parse::<RegistryRule>().is_err(), "{bad}");
        }
    }
}
