//! The whole way from a file to a plan.

use pipeyard_model::{
    NodeName,
    plan::{DeploySpec, Node as PlanNode, NodeKind, Plan},
};
use serde::{Deserialize, Serialize};

use crate::{
    Code, Context, Diagnostic, MAX_NODES, Severity, Source, Trigger,
    check::{Checker, Field, Fields},
    diagnostic::{Report, quote},
    graph::{Draft, DraftKind, Graph},
    keys, pipeline_name,
    yaml::{self, Kind, Span},
};

/// The most names in one `needs`.
const MAX_NEEDS: usize = 10_000;
/// The most deploys in one file.
const MAX_DEPLOYS: usize = 1_000;

/// Everything that a pipeline file says, for one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    /// What to run; present if and only if no diagnostic is an error. It holds the deploys that this
    /// event lets in, and nothing that needs one of the others.
    pub plan: Option<Plan>,
    /// Which events start it; the default where `when` can't be read, so that a broken file is seen.
    pub trigger: Trigger,
    /// What this event keeps out of the plan, and why.
    pub left_out: Vec<LeftOut>,
    /// All findings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Compiled {
    /// The findings that stop the pipeline.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error)
    }
}

/// A job or deploy that isn't part of a run for this event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub name: NodeName,
    /// Why, in words.
    pub reason: String,
}

/// Compiles a pipeline file for an event.
///
/// Never fails and never panics: every mistake of the file is a diagnostic in the result.
#[must_use]
pub fn compile(source: &Source, context: &Context) -> Compiled {
    let mut report = Report::new(&source.path, &source.text);
    let Some(root) = yaml::parse(&source.text, &mut report) else {
        let diagnostics = report.finish();
        return Compiled {
            plan: None,
            trigger: Trigger::default(),
            left_out: Vec::new(),
            diagnostics,
        };
    };
    let mut checker = Checker { report, context };
    let (trigger, drafts) = checker.file(&root);
    let graph = checker.graph(&drafts);
    if checker.report.has_errors() {
        let diagnostics = checker.report.finish();
        return Compiled { plan: None, trigger, left_out: Vec::new(), diagnostics };
    }
    let name = pipeline_name(&source.path).unwrap_or("pipeyard").to_owned();
    let (plan, left_out) = assemble(name, drafts, graph, context);
    Compiled { plan: Some(plan), trigger, left_out, diagnostics: checker.report.finish() }
}

impl<'a> Checker<'_, 'a> {
    fn file<'t>(&mut self, root: &'t yaml::Node<'a>) -> (Trigger, Vec<Draft<'t>>) {
        let at = match &root.kind {
            Kind::Map(entries) => entries.first().map_or(root.span, |entry| entry.key.span),
            Kind::Null | Kind::Text { .. } | Kind::List(_) | Kind::Broken => root.span,
        };
        if matches!(root.kind, Kind::Broken) {
            return (Trigger::default(), Vec::new());
        }
        if !matches!(root.kind, Kind::Map(_)) {
            let message = format!(
                "a pipeline file is a map with the key `jobs`, and here is {}",
                root.kind.words()
            );
            self.report
                .error(Code::P008, root.span, message)
                .help("start with a line `jobs:`")
                .allowed(keys::TOP.names());
            return (Trigger::default(), Vec::new());
        }
        let Some(fields) = self.fields(Field { key: at, node: root }, &keys::TOP) else {
            return (Trigger::default(), Vec::new());
        };
        let trigger = self.trigger(fields.get("when"));
        let mut drafts = Vec::new();
        let jobs = self.required(&fields, "jobs");
        let deploys = fields.get("deploys");
        let count = |field: Option<Field<'_, '_>>| match field.map(|field| &field.node.kind) {
            Some(Kind::Map(entries)) => entries.len(),
            _ => 0,
        };
        let total = count(jobs) + count(deploys);
        if total > MAX_NODES {
            let message =
                format!("there are {total} jobs and deploys; at most {MAX_NODES} are allowed");
            self.report
                .error(Code::P106, at, message)
                .help("split the file into several under `.pipeyard/`");
            return (trigger, drafts);
        }
        if let Some(jobs) = jobs {
            for (name, field) in self.entries(jobs, "a map of jobs", MAX_NODES) {
                let Head { name, needs, fields } = self.head(name, field, &keys::JOB);
                let job = fields.and_then(|fields| self.job(&fields));
                let kind = DraftKind::Job(job.map(Box::new));
                drafts.push(Draft { raw: name.0, at: field.key, name: name.1, needs, kind });
            }
        }
        if let Some(deploys) = deploys {
            for (name, field) in self.entries(deploys, "a map of deploys", MAX_DEPLOYS) {
                let Head { name, needs, fields } = self.head(name, field, &keys::DEPLOY);
                let deploy = fields.and_then(|fields| self.deploy(&fields));
                if let Some(deploy) = &deploy {
                    self.warn_of_a_second_deploy(deploy, &drafts);
                }
                let kind = DraftKind::Deploy(deploy.map(Box::new));
                drafts.push(Draft { raw: name.0, at: field.key, name: name.1, needs, kind });
            }
        }
        (trigger, drafts)
    }

    fn warn_of_a_second_deploy(
        &mut self,
        deploy: &crate::deploy::DeployDraft,
        drafts: &[Draft<'_>],
    ) {
        let same = drafts.iter().find(|draft| match &draft.kind {
            DraftKind::Deploy(Some(other)) => {
                other.environment == deploy.environment && other.service == deploy.service
            }
            DraftKind::Deploy(None) | DraftKind::Job(_) => false,
        });
        if let Some(first) = same {
            let message = format!("{} deploys to the same place", quote(first.raw));
            self.report
                .warning(Code::P309, deploy.to, message)
                .help("if both are in one run, the second takes the place of the first");
        }
    }
}

fn assemble(
    pipeline: String,
    drafts: Vec<Draft<'_>>,
    graph: Graph,
    context: &Context,
) -> (Plan, Vec<LeftOut>) {
    let names: Vec<Option<NodeName>> = drafts.iter().map(|draft| draft.name.clone()).collect();
    let mut reasons: Vec<Option<String>> = drafts
        .iter()
        .map(|draft| match &draft.kind {
            DraftKind::Deploy(Some(deploy)) => deploy.rule.refusal(context),
            DraftKind::Deploy(None) | DraftKind::Job(_) => None,
        })
        .collect();
    spread(&mut reasons, &graph.needs, &names);
    let mut nodes = Vec::with_capacity(drafts.len());
    let mut left_out = Vec::new();
    let parts = drafts.into_iter().zip(graph.needs).zip(graph.releases).zip(reasons);
    for (((draft, needs), release), reason) in parts {
        let Some(name) = draft.name else { continue };
        if let Some(reason) = reason {
            left_out.push(LeftOut { name, reason });
            continue;
        }
        let needs = needs.into_iter().filter_map(|at| names[at].clone()).collect();
        let kind = match draft.kind {
            DraftKind::Job(Some(job)) => NodeKind::Job(*job),
            DraftKind::Deploy(Some(deploy)) => {
                let Some(release) = release else { continue };
                NodeKind::Deploy(DeploySpec {
                    release,
                    environment: deploy.environment,
                    service: deploy.service,
                    strategy: deploy.strategy,
                    healthy_when: deploy.healthy_when,
                    otherwise: deploy.otherwise,
                    approve: deploy.approve,
                })
            }
            DraftKind::Job(None) | DraftKind::Deploy(None) => continue,
        };
        nodes.push(PlanNode { name, needs, kind });
    }
    (Plan { pipeline, nodes }, left_out)
}

/// What needs something that is left out is left out too.
fn spread(reasons: &mut [Option<String>], needs: &[Vec<usize>], names: &[Option<NodeName>]) {
    let mut needed_by = vec![Vec::new(); needs.len()];
    for (at, needs) in needs.iter().enumerate() {
        for &need in needs {
            needed_by[need].push(at);
        }
    }
    let mut todo: Vec<usize> = (0..reasons.len()).filter(|at| reasons[*at].is_some()).collect();
    while let Some(out) = todo.pop() {
        for &at in &needed_by[out] {
            if reasons[at].is_none() {
                let name = names[out].as_ref().map_or("", NodeName::as_str);
                reasons[at] = Some(format!("it needs {name:?}, which isn't part of this run"));
                todo.push(at);
            }
        }
    }
}

/// What jobs and deploys have in common.
struct Head<'t, 'a> {
    /// As written, and as a name if it can be one.
    name: (&'t str, Option<NodeName>),
    needs: Vec<(&'t str, Span)>,
    /// Absent when it isn't a map.
    fields: Option<Fields<'t, 'a>>,
}

impl<'a> Checker<'_, 'a> {
    fn head<'t>(
        &mut self,
        raw: &'t str,
        field: Field<'t, 'a>,
        section: &'static keys::Section,
    ) -> Head<'t, 'a> {
        let name = match NodeName::new(raw) {
            Ok(name) => Some(name),
            Err(bad) => {
                let message = format!("{} can't name {}", quote(raw), section.what);
                self.report.error(Code::P201, field.key, message).help(bad.rule);
                None
            }
        };
        if field.is_null() {
            let what = section.what.trim_start_matches("a ");
            self.report
                .error(Code::P104, field.key, format!("the {what} {} is empty", quote(raw)))
                .help("indent its keys below it")
                .allowed(section.names());
            return Head { name: (raw, name), needs: Vec::new(), fields: None };
        }
        if matches!(field.node.kind, Kind::Text { .. }) && section.names().any(|key| key == raw) {
            let message = format!(
                "{} is a key of {}, and here it stands beside one",
                quote(raw),
                section.what
            );
            self.report
                .error(Code::P102, field.key, message)
                .help("indent it further than the name above it");
            return Head { name: (raw, name), needs: Vec::new(), fields: None };
        }
        let fields = self.fields(field, section);
        let needs = match fields.as_ref().and_then(|fields| fields.get("needs")) {
            Some(field) => self.texts(field, "the name of a job or deploy", MAX_NEEDS),
            None => Vec::new(),
        };
        Head { name: (raw, name), needs, fields }
    }
}
