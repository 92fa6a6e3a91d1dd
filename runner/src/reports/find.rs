//! Which files of the workspace are reports: a path is looked up, a pattern walks the folder that it
//! begins with. A link is never followed and is told, because a report was meant to be there.

use std::{io::ErrorKind, path::Path};

use globset::{GlobBuilder, GlobMatcher};
use pipeyard_api::test_report::ReportProblem;

use super::problem;
use crate::workspace::{self, Kind};

/// More reports than that are passed over.
const MAX_REPORTS: usize = 1000;
/// Files and folders that a pattern looks at.
const MAX_WALK: usize = 500_000;

/// Paths of reports, each once, in the order of the patterns; and what is wrong with the patterns.
pub(super) fn find(workspace: &Path, patterns: &[String]) -> (Vec<String>, Vec<ReportProblem>) {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for pattern in patterns {
        let hits = if pattern.contains(['*', '?', '[', '{']) {
            matching(workspace, pattern, &mut problems)
        } else {
            at(workspace, pattern).map(|()| vec![pattern.clone()])
        };
        match hits {
            Ok(hits) => found.extend(hits),
            Err(problem) => problems.push(problem),
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.clone()));
    if found.len() > MAX_REPORTS {
        let message = format!(
            "{} reports match and the first {MAX_REPORTS} are read; write fewer, larger ones",
            found.len()
        );
        problems.push(problem("too_many_reports", &found[MAX_REPORTS], message));
        found.truncate(MAX_REPORTS);
    }
    (found, problems)
}

fn missing(pattern: &str) -> ReportProblem {
    let message = "no report is there: the steps ended before they wrote it, or write it elsewhere";
    problem("report_missing", pattern, message)
}

const LINK: &str = "it is a symbolic link, or lies behind one, and links aren't followed; write the \
                    report itself into the workspace";

/// A plain path that is a report's.
fn at(workspace: &Path, path: &str) -> Result<(), ReportProblem> {
    let unreadable = |message: String| Err(problem("report_unreadable", path, message));
    match workspace::kind(workspace, path) {
        Ok(Kind::File) => Ok(()),
        Ok(Kind::Link) => unreadable(LINK.into()),
        Ok(Kind::Folder) => unreadable(format!("it is a folder; write `{path}/*.xml`")),
        Ok(Kind::Other) => unreadable("it isn't a regular file".into()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(missing(path))
        }
        Err(error) if workspace::is_link(&error) => unreadable(LINK.into()),
        Err(error) => unreadable(format!("failed to look at it: {error}")),
    }
}

/// Files that a pattern matches, sorted.
fn matching(
    workspace: &Path,
    pattern: &str,
    problems: &mut Vec<ReportProblem>,
) -> Result<Vec<String>, ReportProblem> {
    let unreadable = |message: String| problem("report_unreadable", pattern, message);
    let matcher = matcher(pattern).map_err(&unreadable)?;
    let folder = plain_folder(pattern);
    if !folder.is_empty() {
        match workspace::kind(workspace, folder) {
            Ok(Kind::Folder) => {}
            Ok(Kind::Link) => return Err(unreadable(LINK.into())),
            Ok(_) => return Err(missing(pattern)),
            Err(error) if workspace::is_link(&error) => {
                return Err(unreadable(LINK.into()));
            }
            Err(_) => return Err(missing(pattern)),
        }
    }
    let mut hits = Vec::new();
    let mut links = Vec::new();
    let whole = workspace::walk(workspace, folder, MAX_WALK, |path, kind| {
        if matcher.is_match(path) {
            match kind {
                Kind::File => hits.push(path.to_owned()),
                Kind::Link => links.push(path.to_owned()),
                Kind::Folder | Kind::Other => {}
            }
        }
    })
    .map_err(|error| unreadable(format!("failed to look for it: {error}")))?;
    if !whole {
        let message = format!("looking for it ended after {MAX_WALK} files; name its folder");
        problems.push(unreadable(message));
    }
    let none = hits.is_empty() && links.is_empty() && whole;
    problems.extend(links.iter().map(|link| problem("report_unreadable", link, LINK)));
    if none {
        return Err(missing(pattern));
    }
    hits.sort();
    Ok(hits)
}

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("it isn't a pattern: {error}"))
}

/// The folder that everything which matches lies in: what precedes the first special character.
fn plain_folder(pattern: &str) -> &str {
    let special = pattern.find(['*', '?', '[', '{']).unwrap_or(pattern.len());
    pattern[..special].rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(dir: &Path, patterns: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
        let patterns: Vec<_> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let (paths, problems) = find(dir, &patterns);
        (paths, problems.into_iter().map(|p| (p.code, p.path)).collect())
    }

    #[test]
    fn a_report_is_found_once_by_path_or_pattern() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("target/deep")).unwrap();
        for name in ["target/b.xml", "target/a.xml", "target/deep/c.xml", "d.xml", "x.txt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let good = |patterns: &[&str]| {
            let (paths, problems) = found(dir.path(), patterns);
            assert_eq!(problems, [], "{patterns:?}");
            paths
        };
        assert_eq!(good(&["d.xml", "d.xml"]), ["d.xml"]);
        assert_eq!(good(&["target/*.xml"]), ["target/a.xml", "target/b.xml"]);
        assert_eq!(good(&["target/**/*.xml"]).len(), 3);
        assert_eq!(good(&["**/*.xml", "target/a.xml"]).len(), 4);
        assert_eq!(good(&["target/{a,b}.xml"]).len(), 2);
        for (pattern, code) in [
            ("none.xml", "report_missing"),
            ("none/*.xml", "report_missing"),
            ("target/*.html", "report_missing"),
            ("d.xml/e.xml", "report_missing"),
            ("target", "report_unreadable"),
        ] {
            let expected = (vec![], vec![(code.to_owned(), pattern.to_owned())]);
            assert_eq!(found(dir.path(), &[pattern]), expected);
        }
    }

    #[test]
    fn more_reports_than_are_read_are_told() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=MAX_REPORTS {
            fs::write(dir.path().join(format!("{n:05}.xml")), "").unwrap();
        }
        let (paths, problems) = found(dir.path(), &["*.xml"]);
        assert_eq!(paths.len(), MAX_REPORTS);
        assert_eq!(problems, [("too_many_reports".to_owned(), "01000.xml".to_owned())]);
    }
}
