//! From a commit to its runs: reads the pipeline files at the commit and compiles them for the
//! event. Decides nothing about when; writes nothing.
//!
//! The pipeline of a stranger's commit is read from the branch that it wants to change: a stranger
//! can't bring steps of their own.

use pipeyard_api::views::{DiagnosticView, Event};
use pipeyard_git::{CommitInfo, Entry, GitError, Mirror, Sha, branch_of};
use pipeyard_model::{
    Timestamp, UserId, admission,
    job::Reason,
    origin::{Claim, Origin},
};
use pipeyard_pipelines::{
    Code, Compiled, Context, Diagnostic, Event as Trigger, MAX_BYTES, Severity, Source, compile,
    missing_file, pipeline_files, pipeline_name, render,
};
use pipeyard_store::{
    intake::NewRunRequest,
    repos::Repo,
    runs::{NewRun, RunContent},
};

use super::prove::{Proof, parse};

/// The most pipeline files of one repository.
const MAX_FILES: usize = 100;

/// What a commit asks for.
#[derive(Debug)]
pub enum Planned {
    /// These runs: at least one.
    Runs(Vec<NewRun>),
    /// There are pipelines, and none is for this event.
    NotTriggered(String),
    /// There is no pipeline file. The run that would say so, if somebody is waiting for one.
    NoFile(Box<NewRun>),
}

/// A request with what it is about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The repository.
    pub repo: &'a Repo,
    /// The stored request's number; a person's run has none.
    pub id: Option<i64>,
    /// What is asked for.
    pub request: &'a NewRunRequest,
    /// When the push was received.
    pub received_at: Timestamp,
    /// The person who starts it by hand.
    pub started_by: Option<UserId>,
    /// Where its ref was last seen before; empty if it wasn't, none if nobody knows.
    pub seen: Option<&'a str>,
    /// A person named the commit, and no branch.
    pub by_commit: bool,
}

impl<'a> Asked<'a> {
    /// What is said of the commit.
    #[must_use]
    pub fn claim(&self) -> Claim<'a> {
        match &self.request.pull_request {
            Some(pull) if pull.is_fork() => Claim::Fork,
            Some(pull) => Claim::OwnPullRequest(&pull.head_branch),
            None if self.by_commit => Claim::Commit,
            None => Claim::Branch(branch_of(&self.request.reference).unwrap_or_default()),
        }
    }

    /// A title and an author: the commit's own, or, of one that isn't looked at before the approval,
    /// what the forge says.
    fn told(&self, info: Option<&CommitInfo>) -> (String, String) {
        match (info, &self.request.pull_request) {
            (Some(info), _) => (info.title.clone(), info.author_name.clone()),
            (None, Some(pull)) => (format!("Pull request {}", pull.number), pull.author.clone()),
            (None, None) => Default::default(),
        }
    }

    fn context(&self, author: String) -> Context {
        let target =
            branch_of(&self.request.reference).unwrap_or(&self.request.reference).to_owned();
        let (event, branch) = match (self.request.event, &self.request.pull_request) {
            (Event::PullRequest, Some(pull)) => {
                (Trigger::PullRequest { base: target }, pull.head_branch.clone())
            }
            (Event::Push | Event::PullRequest, _) => (Trigger::Push, target),
            (Event::Manual, _) => (Trigger::Manual, target),
        };
        Context {
            event,
            sha: self.request.after.clone(),
            branch,
            author,
            default_branch: self.repo.default_branch.clone(),
        }
    }

    /// A run that ends before it begins; nothing is proven of its commit.
    #[must_use]
    pub fn failed_run(&self, code: &str, message: String) -> NewRun {
        let content =
            RunContent::DoesNotCompile { code: code.into(), message, diagnostics: Vec::new() };
        let nobody = Origin::Branch(String::new());
        self.new_run(self.told(None), nobody, false, "pipeyard", content)
    }

    fn new_run(
        &self,
        (title, author): (String, String),
        origin: Origin,
        overtaken: bool,
        pipeline: &str,
        content: RunContent,
    ) -> NewRun {
        NewRun {
            repo: self.repo.id,
            request: self.id,
            pipeline: pipeline.to_owned(),
            event: self.request.event,
            reference: self.request.reference.clone(),
            pull_request: self.request.pull_request.as_ref().map(|pull| pull.number),
            commit: self.request.after.clone(),
            before: self.request.before.clone(),
            title,
            author,
            origin,
            overtaken,
            forge_user: self.request.forge_user.clone(),
            started_by: self.started_by,
            received_at: self.received_at,
            content,
        }
    }
}

/// A pipeline file as it was found.
enum Found {
    Source(Source),
    /// It can't be compiled, and this is why.
    Bad {
        path: String,
        why: Box<Diagnostic>,
    },
    TooLarge {
        path: String,
    },
}

/// Reads and compiles the pipelines for a commit of which this is proven.
///
/// # Errors
/// When the mirror lacks a commit or can't be read.
pub async fn plan(asked: Asked<'_>, proof: &Proof) -> Result<Planned, GitError> {
    parse(&asked.request.after)?;
    let told = asked.told(proof.info.as_ref());
    let new_run = |pipeline: &str, content| {
        asked.new_run(told.clone(), proof.origin.clone(), proof.overtaken, pipeline, content)
    };
    let found = match &proof.files {
        Some(from) => read(&proof.mirror, from).await?,
        None => Vec::new(),
    };
    if found.is_empty() {
        let missing = missing_file();
        let content = RunContent::DoesNotCompile {
            code: "pipeline_missing".into(),
            message: format!(
                "{}. Add a file `.pipeyard.yml` and push it.",
                sentence(&missing.message)
            ),
            diagnostics: vec![view(&missing, "")],
        };
        return Ok(Planned::NoFile(Box::new(new_run("pipeyard", content))));
    }
    let context = asked.context(told.1.clone());
    let compiling = tokio::task::spawn_blocking(move || compile_all(found, &context));
    let pipelines = compiling.await.map_err(|e| GitError::Repository {
        what: "compile the pipeline",
        message: e.to_string(),
    })?;
    let mut runs = Vec::new();
    let mut quiet = Vec::new();
    for (name, outcome) in pipelines {
        match outcome {
            Ok(content) => runs.push(new_run(&name, content)),
            Err(reason) => quiet.push(format!("{name}: {reason}")),
        }
    }
    if runs.is_empty() {
        quiet.truncate(5);
        return Ok(Planned::NotTriggered(quiet.join("; ")));
    }
    Ok(Planned::Runs(runs))
}

async fn read(mirror: &Mirror, sha: &Sha) -> Result<Vec<Found>, GitError> {
    let mut paths: Vec<String> = [".pipeyard.yml", ".pipeyard.yaml"].map(str::to_owned).to_vec();
    if let Some(entries) = mirror.list_dir(sha, ".pipeyard").await? {
        let files = entries.into_iter().filter(|entry| entry.file);
        paths.extend(files.map(|Entry { name, .. }| format!(".pipeyard/{name}")));
    }
    let mut found = Vec::new();
    for path in pipeline_files(paths.iter().map(String::as_str)).into_iter().take(MAX_FILES) {
        match mirror.read_file(sha, path, MAX_BYTES).await {
            Ok(None) => {}
            Ok(Some(bytes)) => found.push(match Source::from_bytes(path, &bytes) {
                Ok(source) => Found::Source(source),
                Err(why) => Found::Bad { path: path.to_owned(), why },
            }),
            Err(GitError::TooLarge { .. }) => found.push(Found::TooLarge { path: path.to_owned() }),
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

/// Each pipeline by its name: what to run, or why this event doesn't start it. Once they are more than
/// one push may ask for, the rest isn't read, and what there is is one run that says so.
fn compile_all(found: Vec<Found>, context: &Context) -> Vec<(String, Result<RunContent, String>)> {
    let (mut all, mut nodes) = (Vec::with_capacity(found.len()), 0);
    for found in found {
        let one = compile_one(found, context);
        if let Ok(RunContent::Plan { plan, .. }) = &one.1 {
            nodes += plan.nodes.len();
        }
        if let Err(Reason { code, message }) = admission::admit(nodes, 0, false) {
            let content = RunContent::DoesNotCompile { code, message, diagnostics: Vec::new() };
            return vec![(one.0, Ok(content))];
        }
        all.push(one);
    }
    all
}

fn compile_one(found: Found, context: &Context) -> (String, Result<RunContent, String>) {
    let name = |path: &str| pipeline_name(path).unwrap_or("pipeyard").to_owned();
    // A file that can't be read has no trigger of its own: it fails where the default would start it.
    let unreadable = |path: &str, diagnostic: DiagnosticView| {
        let starts = pipeyard_pipelines::Trigger::default().starts(context);
        let outcome = if starts {
            Ok(broken(path, std::slice::from_ref(&diagnostic)))
        } else {
            Err("it can't be read, and this event doesn't start it".to_owned())
        };
        (name(path), outcome)
    };
    match found {
        Found::Bad { path, why } => unreadable(&path, view(&why, "")),
        Found::TooLarge { path } => {
            let message = format!("the file is larger than {MAX_BYTES} bytes");
            let rendered = format!(
                "error[{}]: {message}\n --> {path}\n help: split it into several files under `.pipeyard/`\n",
                Code::P004
            );
            let diagnostic = DiagnosticView {
                code: Code::P004.to_string(),
                severity: "error".into(),
                path: path.clone(),
                line: 1,
                column: 1,
                message,
                rendered,
            };
            unreadable(&path, diagnostic)
        }
        Found::Source(source) => {
            let Compiled { plan, trigger, left_out, diagnostics } = compile(&source, context);
            if !trigger.starts(context) {
                return (name(&source.path), Err("its `when` doesn't name this event".into()));
            }
            let views: Vec<_> = diagnostics.iter().map(|d| view(d, &source.text)).collect();
            let outcome = match plan {
                None => Ok(broken(&source.path, &views)),
                Some(plan) if plan.nodes.is_empty() => {
                    let why = left_out.first().map_or("it has no jobs", |out| out.reason.as_str());
                    Err(format!("nothing of it is for this event: {why}"))
                }
                Some(plan) => Ok(RunContent::Plan { plan, diagnostics: views }),
            };
            (name(&source.path), outcome)
        }
    }
}

fn broken(path: &str, diagnostics: &[DiagnosticView]) -> RunContent {
    let errors: Vec<_> = diagnostics.iter().filter(|d| d.severity == "error").collect();
    let message = match errors.as_slice() {
        [] => format!("{path} doesn't compile"),
        [one] => format!("{path}:{}: {} [{}]", one.line, one.message, one.code),
        [first, ..] => {
            let more = errors.len() - 1;
            format!("{path}:{}: {} [{}], and {more} more", first.line, first.message, first.code)
        }
    };
    RunContent::DoesNotCompile {
        code: "pipeline_invalid".into(),
        message,
        diagnostics: diagnostics.to_vec(),
    }
}

fn view(diagnostic: &Diagnostic, text: &str) -> DiagnosticView {
    DiagnosticView {
        code: diagnostic.code.to_string(),
        severity: match diagnostic.severity {
            Severity::Error => "error".into(),
            Severity::Warning => "warning".into(),
        },
        path: diagnostic.path.clone(),
        line: diagnostic.line,
        column: diagnostic.column,
        message: diagnostic.message.clone(),
        rendered: render(diagnostic, text, false),
    }
}

/// With a capital at its start.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
