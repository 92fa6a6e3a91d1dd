//! The graph of jobs and deploys: names, needs, cycles, and which job's artifact a deploy ships.

use std::collections::{HashMap, HashSet};

use globset::GlobMatcher;
use pipeyard_model::{
    NodeName,
    plan::{JobSpec, ReleaseSource},
};

use crate::{
    Code,
    check::Checker,
    deploy::DeployDraft,
    diagnostic::{nearest, quote},
    value::path_glob,
    yaml::Span,
};

/// Suggestions compare with every name, so only the first findings get one.
const MAX_SUGGESTIONS: usize = 20;
/// More cycles than this are one mistake.
const MAX_CYCLES: usize = 10;

/// A job or deploy as the file has it.
#[derive(Debug)]
pub(crate) struct Draft<'t> {
    pub(crate) raw: &'t str,
    pub(crate) at: Span,
    /// Absent when the name breaks the rules.
    pub(crate) name: Option<NodeName>,
    pub(crate) needs: Vec<(&'t str, Span)>,
    pub(crate) kind: DraftKind,
}

/// What it does; nothing inside when that has errors.
#[derive(Debug)]
pub(crate) enum DraftKind {
    Job(Option<Box<JobSpec>>),
    Deploy(Option<Box<DeployDraft>>),
}

/// The edges, and the release of each deploy, by position in the list of drafts.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) needs: Vec<Vec<usize>>,
    pub(crate) releases: Vec<Option<ReleaseSource>>,
}

impl Checker<'_, '_> {
    /// Resolves every name; the report says what doesn't.
    pub(crate) fn graph(&mut self, drafts: &[Draft<'_>]) -> Graph {
        let index = self.index(drafts);
        let mut suggestions = 0;
        let mut needs = Vec::with_capacity(drafts.len());
        let mut spans = Vec::with_capacity(drafts.len());
        for (at, draft) in drafts.iter().enumerate() {
            let mut edges = Vec::with_capacity(draft.needs.len());
            let mut places = Vec::with_capacity(draft.needs.len());
            let mut seen = HashSet::new();
            for &(name, span) in &draft.needs {
                match index.get(name) {
                    Some(&target) if target == at => {
                        self.report
                            .error(Code::P204, span, format!("{} needs itself", quote(name)))
                            .help("remove it from `needs`");
                    }
                    Some(&target) if seen.insert(target) => {
                        edges.push(target);
                        places.push(span);
                    }
                    Some(_) => {
                        let message = format!("{} stands twice in the list", quote(name));
                        self.report.warning(Code::P219, span, message).help("remove one of them");
                    }
                    None => {
                        // Only names that can be one: the others may hold control characters.
                        let others = drafts.iter().filter(|other| other.name.is_some());
                        let others = others.map(|other| other.raw).filter(|raw| *raw != draft.raw);
                        let message = format!("{} is neither a job nor a deploy", quote(name));
                        let diagnostic = self.report.error(Code::P203, span, message);
                        if suggestions < MAX_SUGGESTIONS {
                            suggestions += 1;
                            diagnostic.nearest(name, others.clone());
                        }
                        if drafts.len() <= 12 {
                            diagnostic.allowed(others);
                        }
                    }
                }
            }
            needs.push(edges);
            spans.push(places);
        }
        self.cycles(drafts, &needs, &spans);
        let releases = self.releases(drafts, &needs);
        Graph { needs, releases }
    }

    fn index<'t>(&mut self, drafts: &[Draft<'t>]) -> HashMap<&'t str, usize> {
        let mut index: HashMap<&str, usize> = HashMap::with_capacity(drafts.len());
        for (at, draft) in drafts.iter().enumerate() {
            if let Some(first) = index.get(draft.raw) {
                let line = self.report.line_of(drafts[*first].at.start);
                let message =
                    format!("{} is already the name of a job; see line {line}", quote(draft.raw));
                self.report
                    .error(Code::P202, draft.at, message)
                    .help("jobs and deploys share one namespace; rename one of the two");
            } else {
                index.insert(draft.raw, at);
            }
        }
        index
    }

    /// Reports each cycle once, at the need that closes it. A walk with its own stack: a chain may be
    /// ten thousand long.
    fn cycles(&mut self, drafts: &[Draft<'_>], needs: &[Vec<usize>], spans: &[Vec<Span>]) {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            OnPath,
            Done,
        }
        let mut marks = vec![Mark::New; drafts.len()];
        let mut found = 0;
        for root in 0..drafts.len() {
            if marks[root] != Mark::New {
                continue;
            }
            let mut path: Vec<(usize, usize)> = vec![(root, 0)];
            marks[root] = Mark::OnPath;
            while let Some((node, edge)) = path.last_mut() {
                let (node, this) = (*node, *edge);
                *edge += 1;
                let Some(&next) = needs[node].get(this) else {
                    marks[node] = Mark::Done;
                    path.pop();
                    continue;
                };
                match marks[next] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[next] = Mark::OnPath;
                        path.push((next, 0));
                    }
                    Mark::OnPath => {
                        let start = path.iter().position(|(on, _)| *on == next).unwrap_or(0);
                        let names: Vec<&str> =
                            path[start..].iter().map(|(on, _)| drafts[*on].raw).collect();
                        self.cycle(&names, spans[node][this]);
                        found += 1;
                        if found == MAX_CYCLES {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn cycle(&mut self, names: &[&str], span: Span) {
        let mut shown: Vec<String> = names.iter().take(12).map(|name| quote(name)).collect();
        if names.len() > 12 {
            shown.push(format!("… {} more …", names.len() - 12));
        }
        shown.extend(names.first().map(|first| quote(first)));
        self.report
            .error(Code::P205, span, format!("these need each other: {}", shown.join(" -> ")))
            .help("remove one of these needs");
    }

    /// Finds the job whose artifact each deploy ships: the nearest one up its needs.
    fn releases(
        &mut self,
        drafts: &[Draft<'_>],
        needs: &[Vec<usize>],
    ) -> Vec<Option<ReleaseSource>> {
        let mut kept = Kept::default();
        let mut releases = Vec::with_capacity(drafts.len());
        for (at, draft) in drafts.iter().enumerate() {
            let DraftKind::Deploy(Some(deploy)) = &draft.kind else {
                releases.push(None);
                continue;
            };
            releases.push(self.release(at, deploy, drafts, needs, &mut kept));
        }
        releases
    }

    fn release(
        &mut self,
        deploy_at: usize,
        deploy: &DeployDraft,
        drafts: &[Draft<'_>],
        needs: &[Vec<usize>],
        kept: &mut Kept,
    ) -> Option<ReleaseSource> {
        let (path, span) = &deploy.release;
        let mut seen: HashSet<usize> = HashSet::from([deploy_at]);
        let mut level = needs[deploy_at].clone();
        let mut offered: Vec<&str> = Vec::new();
        while !level.is_empty() {
            level.retain(|at| seen.insert(*at));
            let mut matching = Vec::new();
            for &at in &level {
                match &drafts[at].kind {
                    DraftKind::Job(Some(job)) => {
                        if kept.holds(at, job, path) {
                            matching.push(at);
                        }
                        offered.extend(job.artifacts.iter().take(20).map(String::as_str));
                    }
                    // A job with errors of its own may well keep it: no second finding for one mistake.
                    DraftKind::Job(None) => return None,
                    DraftKind::Deploy(_) => {}
                }
            }
            match matching[..] {
                [] => level = level.iter().flat_map(|at| needs[*at].iter().copied()).collect(),
                [one] => {
                    let job = drafts[one].name.clone()?;
                    return Some(ReleaseSource::Artifact { job, path: path.clone() });
                }
                [one, two, ..] => {
                    let (one, two) = (quote(drafts[one].raw), quote(drafts[two].raw));
                    self.report
                        .error(
                            Code::P303,
                            *span,
                            format!("{one} and {two} both keep {}", quote(path)),
                        )
                        .help("keep it in one of them, or give the files different names");
                    return None;
                }
            }
        }
        let message = format!("no job that this deploy needs keeps {}", quote(path));
        let near = nearest(path, offered.iter().copied()).map(str::to_owned);
        let elsewhere = drafts.iter().enumerate().find(|(at, draft)| match &draft.kind {
            DraftKind::Job(Some(job)) => kept.holds(*at, job, path),
            DraftKind::Job(None) | DraftKind::Deploy(_) => false,
        });
        let diagnostic = self.report.error(Code::P302, *span, message);
        diagnostic.suggestion = near;
        match elsewhere {
            Some((_, job)) => {
                diagnostic.help(format!("add {} to this deploy's `needs`", quote(job.raw)))
            }
            None => diagnostic.help(
                "list it under `artifacts` of a job, and that job under this deploy's `needs`",
            ),
        };
        offered.truncate(20);
        diagnostic.allowed(offered);
        None
    }
}

/// The artifact patterns of the jobs that were asked, compiled once each.
#[derive(Debug, Default)]
struct Kept(HashMap<usize, Vec<GlobMatcher>>);

impl Kept {
    fn holds(&mut self, at: usize, job: &JobSpec, path: &str) -> bool {
        if job.artifacts.iter().any(|artifact| artifact == path) {
            return true;
        }
        let globs = self.0.entry(at).or_insert_with(|| {
            let patterns = job.artifacts.iter().filter(|a| a.contains(['*', '?', '[', '{']));
            patterns.filter_map(|a| Some(path_glob(a).ok()?.compile_matcher())).collect()
        });
        globs.iter().any(|glob| glob.is_match(path))
    }
}
