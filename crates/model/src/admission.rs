//! How much one push and one repository may ask for. Whoever pushes writes the pipeline files: without
//! a limit one push could fill the queue, the disk and the server's memory for everybody.

use crate::job::Reason;

/// The most jobs and deploys that one push, pull request or start asks for, in all of its pipelines:
/// as many as one file may have.
pub const OF_PUSH: usize = 10_000;
/// The most jobs and deploys of a repository that aren't over. Those that wait for a person's approval
/// are counted apart.
pub const OPEN_OF_REPO: u64 = 30_000;
/// The most jobs and deploys of a repository that wait for the approval of their run: strangers bring
/// them.
pub const HELD_OF_REPO: u64 = 5_000;

/// Whether `new` jobs may be added to the `open` ones of the same kind, held or not.
///
/// # Errors
/// With the limit that is exceeded and what to do.
pub fn admit(new: usize, open: u64, held: bool) -> Result<(), Reason> {
    if new > OF_PUSH {
        let text = format!(
            "the pipelines of this commit have {new} jobs and deploys in all; at most {OF_PUSH} are \
             taken of one push. Fix: join jobs, or let fewer pipelines start at once by their `when`"
        );
        return Err(Reason::new("push_too_large", text));
    }
    let (most, which, fix) = if held {
        (HELD_OF_REPO, "wait for the approval of their run", "approve or cancel held runs")
    } else {
        (
            OPEN_OF_REPO,
            "aren't over",
            "wait until some have ended, or cancel runs that nobody needs",
        )
    };
    // An empty repository takes any push that is small enough by itself.
    if open > 0 && open.saturating_add(new as u64) > most {
        let text = format!(
            "{open} jobs of this repository {which}; with these {new} it would be more than {most}. Fix: {fix}"
        );
        return Err(Reason::new("repository_queue_full", text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_and_a_repository_have_an_end() {
        let code = |new, open, held| admit(new, open, held).err().map(|reason| reason.code);
        assert_eq!(code(OF_PUSH, 0, false), None);
        assert_eq!(code(OF_PUSH + 1, 0, false).as_deref(), Some("push_too_large"));
        assert_eq!(code(1, OPEN_OF_REPO - 1, false), None);
        assert_eq!(code(1, OPEN_OF_REPO, false).as_deref(), Some("repository_queue_full"));
        assert_eq!(code(1, HELD_OF_REPO, true).as_deref(), Some("repository_queue_full"));
        assert_eq!(code(OF_PUSH, 0, true), None, "a first one is taken");
        assert_eq!(code(1, u64::MAX, false).as_deref(), Some("repository_queue_full"));
    }
}
