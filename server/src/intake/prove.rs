//! What is proven of the commit that a run is asked for, by the branches that the remote has.
//!
//! The rules are the model's (`pipeyard_model::origin`); this brings the facts together. A pull
//! request of a fork is not even fetched before a person approves its run: its pipeline comes from the
//! branch that it wants to change. So does that of any other commit that can't be reached from its
//! branch, from the default branch.

use pipeyard_api::views::Event;
use pipeyard_git::{CommitInfo, GitError, Mirror, Sha, branch_of};
use pipeyard_model::origin::{Claim, Origin, Seen, was_tip};
use pipeyard_store::repos::Repo;

use super::plan::Asked;
use crate::{
    AppState,
    mirror::{self, MirrorError},
};

/// What is known of a request's commit.
#[derive(Debug)]
pub struct Proof {
    /// Where everything is read.
    pub mirror: Mirror,
    /// Whose commit it is.
    pub origin: Origin,
    /// The push was no longer the tip of its branch when its delivery was taken in.
    pub overtaken: bool,
    /// Where the branch is now, for a push.
    pub tip: Option<Sha>,
    /// The commit that the pipeline files are read from; none if there is no branch to read.
    pub files: Option<Sha>,
    /// What the commit says of itself, if it may be looked at.
    pub info: Option<CommitInfo>,
}

pub(crate) fn parse(text: &str) -> Result<Sha, GitError> {
    text.parse().map_err(|e: pipeyard_git::BadSha| GitError::Repository {
        what: "read the commit",
        message: e.to_string(),
    })
}

/// Looks at the remote's branches and says what they prove. `fresh` says that the mirror was brought to
/// the remote's state since the request came in.
///
/// # Errors
/// When the remote can't be reached, or doesn't have the commit.
pub async fn prove(
    state: &AppState,
    asked: Asked<'_>,
    mut fresh: bool,
) -> Result<Proof, MirrorError> {
    let (repo, claim) = (asked.repo, asked.claim());
    if claim == Claim::Fork {
        return fork(state, asked, fresh).await;
    }
    let sha = parse(&asked.request.after)?;
    let mut mirror = mirror::open(state, repo.id).await?;
    // A push is measured by where its branch is now. Otherwise what is proven stays so.
    if !fresh && (asked.request.event == Event::Push || !mirror.has_commit(&sha).await?) {
        mirror = mirror::fetch(state, repo).await?;
        fresh = true;
    }
    let mut origin = of(&mirror, repo, claim, &sha).await?;
    if origin.is_fork() && !fresh {
        mirror = mirror::fetch(state, repo).await?;
        origin = of(&mirror, repo, claim, &sha).await?;
    }
    let files = if origin.is_fork() {
        mirror::ask_for(state, repo, &sha).await?;
        mirror.branch(&repo.default_branch).await?
    } else {
        mirror.pin(&sha).await?;
        Some(sha.clone())
    };
    let info = Some(mirror.commit_info(&sha).await?);
    let mut proof = Proof { mirror, origin, overtaken: false, tip: None, files, info };
    if asked.request.event == Event::Push
        && let Some(branch) = branch_of(&asked.request.reference)
    {
        proof.tip = proof.mirror.branch(branch).await?;
        let seen = match asked.seen {
            None => Seen::Unknown,
            Some("") => Seen::Nowhere,
            Some(sha) => Seen::At(sha),
        };
        let (before, after) = (asked.request.before.as_deref(), asked.request.after.as_str());
        proof.overtaken = !was_tip(before, after, seen, proof.tip.as_ref().map(Sha::as_str));
    }
    Ok(proof)
}

async fn of(mirror: &Mirror, repo: &Repo, claim: Claim<'_>, sha: &Sha) -> Result<Origin, GitError> {
    let holders = match claim {
        Claim::Branch(branch) if mirror.branch_has(branch, sha).await? => vec![branch.to_owned()],
        Claim::Branch(_) | Claim::Fork => Vec::new(),
        Claim::OwnPullRequest(branch) if mirror.branch_has(branch, sha).await? => {
            vec![branch.to_owned()]
        }
        Claim::OwnPullRequest(_) | Claim::Commit => {
            let default = &repo.default_branch;
            if mirror.branch_has(default, sha).await? {
                vec![default.clone()]
            } else {
                mirror.branches_with(sha).await?
            }
        }
    };
    Ok(Origin::of(claim, &holders, &repo.default_branch))
}

/// A fork's pull request: only the repository's own branches are looked at.
async fn fork(state: &AppState, asked: Asked<'_>, fresh: bool) -> Result<Proof, MirrorError> {
    let repo = asked.repo;
    let target = branch_of(&asked.request.reference).unwrap_or(&repo.default_branch);
    let base = asked.request.pull_request.as_ref().map(|pull| parse(&pull.base_sha)).transpose()?;
    let mut mirror = mirror::open(state, repo.id).await?;
    let proven = async |mirror: &Mirror| match &base {
        Some(base) => mirror.branch_has(target, base).await,
        None => Ok(false),
    };
    let mut on_target = proven(&mirror).await?;
    if !on_target && !fresh {
        mirror = mirror::fetch(state, repo).await?;
        on_target = proven(&mirror).await?;
    }
    let files = if on_target {
        base
    } else {
        // The payload's commit isn't the target branch's: that branch's own file counts.
        match mirror.branch(target).await? {
            Some(tip) => Some(tip),
            None => mirror.branch(&repo.default_branch).await?,
        }
    };
    if let Some(files) = &files {
        mirror.pin(files).await?;
    }
    let origin = Origin::of(Claim::Fork, &[], &repo.default_branch);
    Ok(Proof { mirror, origin, overtaken: false, tip: None, files, info: None })
}
