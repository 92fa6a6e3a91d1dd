//! Asks the model whether a release may be deployed to an environment: the one place where its rules,
//! where the release comes from, and the present meet. Used when a deploy is taken in, before it
//! starts, when people decide, and when they ask beforehand.

use pipeyard_api::deploys::{ApprovalView, DeployCheck, DeploymentView, FrozenView, ReasonView};
use pipeyard_model::{
    EnvironmentName, RunId,
    deployment::{Deployment, Purpose, Reason, State},
    environment::{self, Counted, Frozen, Given, Person, Policy, RunEvent, Source, Verdict},
};
use pipeyard_store::{StoreResult, deployments::Stored};

use crate::{AppState, http::auth::Auth};

/// The rules of a deployment's environment, and where its release comes from.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) policy: Policy,
    pub(crate) source: Result<Source, Reason>,
}

/// What is known about a release of this run and this environment; none when there is no such
/// environment.
pub(crate) async fn facts(
    state: &AppState,
    environment: &EnvironmentName,
    run: RunId,
) -> StoreResult<Option<Facts>> {
    let Some(policy) = state.store.policy(environment).await? else { return Ok(None) };
    let source = state.store.source(run).await?.ok_or_else(|| {
        let text =
            format!("run {run} or its repository is gone: nothing proves where it comes from");
        Reason::new("release_missing", text)
    });
    Ok(Some(Facts { policy, source }))
}

impl Facts {
    /// May it be deployed here now, and what is missing.
    pub(crate) fn verdict(
        &self,
        state: &AppState,
        environment: &EnvironmentName,
        asks_approval: bool,
        given: &[Given],
    ) -> Verdict {
        let now = state.clock.now();
        match &self.source {
            Ok(source) => {
                environment::decide(environment, &self.policy, source, asks_approval, given, now)
            }
            Err(reason) => Verdict {
                taken: Err(reason.clone()),
                approvals: environment::count(&self.policy, asks_approval, given),
                frozen: environment::frozen(&self.policy.freeze, now),
            },
        }
    }
}

/// The verdict about a deployment that isn't over; none where the rules have no say: when a person
/// goes back to what served before.
pub(crate) async fn verdict(state: &AppState, d: &Deployment) -> StoreResult<Option<Verdict>> {
    if d.purpose != Purpose::Ship {
        return Ok(None);
    }
    let facts = facts(state, &d.environment, d.release.run).await?;
    Ok(facts.map(|facts| facts.verdict(state, &d.environment, d.asks_approval(), &d.given())))
}

/// Who asks, as the rules see them.
pub(crate) async fn person(state: &AppState, auth: &Auth) -> StoreResult<Person> {
    let people = state.store.people().await?;
    Ok(people.into_iter().find(|person| person.id == auth.user).unwrap_or_else(|| Person {
        id: auth.user,
        name: auth.name.clone(),
        admin: false,
        identities: vec![],
    }))
}

/// Adds to the view of a deployment that waits what is met, what is missing, and by which rule.
pub(crate) async fn explain(
    state: &AppState,
    stored: &Stored,
    view: &mut DeploymentView,
) -> StoreResult<()> {
    let d = &stored.deployment;
    if !matches!(d.state, State::AwaitingApproval | State::Queued) {
        return Ok(());
    }
    if let Some(verdict) = verdict(state, d).await? {
        fill(&mut view.approval, &verdict);
    }
    Ok(())
}

fn fill(view: &mut ApprovalView, verdict: &Verdict) {
    let Counted { needed, given, who, not_the_author, by_pipeline: _ } = &verdict.approvals;
    let missing = verdict.approvals.missing();
    view.needed = *needed > 0;
    view.count = *needed;
    view.missing = missing;
    view.who = (missing > 0).then(|| who.clone());
    view.not_the_author = *not_the_author;
    view.rule = verdict.taken.clone().ok();
    for one in &mut view.given {
        one.counts = given.iter().any(|counted| counted.by == one.by && counted.at == one.at);
    }
}

/// For people.
pub(crate) fn frozen_view(frozen: Option<Frozen>) -> Option<FrozenView> {
    frozen.map(|Frozen { until, reason }| FrozenView { until, message: reason.message })
}

/// What would come of a deploy, for people who ask beforehand.
pub(crate) fn check_view(
    environment: EnvironmentName,
    source: &Source,
    verdict: Verdict,
    notes: Vec<String>,
) -> DeployCheck {
    let (rule, reason) = match verdict.taken {
        Ok(rule) => (Some(rule), None),
        Err(Reason { code, message }) => (None, Some(ReasonView { code, message })),
    };
    DeployCheck {
        environment,
        what: source.words(),
        accepted: rule.is_some(),
        rule,
        reason,
        approvals: verdict.approvals.needed,
        approvers: verdict.approvals.who,
        not_the_author: verdict.approvals.not_the_author,
        frozen: frozen_view(verdict.frozen),
        notes,
    }
}

/// What the rules want and these events can't give, a sentence each.
pub(crate) fn notes(
    environment: &EnvironmentName,
    policy: &Policy,
    repo: &str,
    forge_tells: bool,
    event: RunEvent,
) -> Vec<String> {
    let mut notes = Vec::new();
    if policy.approvals.not_the_author && !forge_tells {
        notes.push(format!(
            "{environment}: `not_the_author` can't be met for {repo}: it is a plain Git repository, and no forge tells who pushed; what needs an approval is refused"
        ));
    }
    if event == RunEvent::Schedule {
        notes.push("nothing starts runs by the clock yet".to_owned());
    }
    notes
}
