//! One deployment in the hands of one pass: an event is applied and stored before anything else.

use pipeyard_api::deploys::SampleView;
use pipeyard_deploy::provider::ProviderError;
use pipeyard_model::{
    Timestamp,
    deployment::{Event, Reason, Refusal, State, limit_text},
};
use pipeyard_store::{
    StoreError,
    deployments::{Change, Look, Stored},
};

use crate::AppState;

/// Why a pass over a place ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The store failed, or the row was moved by somebody else.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state machine refused an event: a mistake of ours.
    #[error("deployment {id}: {refusal}")]
    Refused {
        /// The deployment.
        id: pipeyard_model::DeploymentId,
        /// Why.
        refusal: Refusal,
    },
    /// The provider or the proxy failed: people are told, and it is tried again in the next pass.
    #[error("deployment {id}: {error}")]
    Provider {
        /// The deployment.
        id: pipeyard_model::DeploymentId,
        /// Why.
        error: ProviderError,
    },
}

impl Trouble {
    /// Somebody else moved the row.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict { code: "stale_deployment", .. }))
    }
}

/// What is stored together with an event.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) judge: Option<String>,
    pub(super) sample: Option<SampleView>,
}

/// One deployment in the hands of one pass.
pub(super) struct Carry<'s> {
    pub(super) state: &'s AppState,
    pub(super) stored: Stored,
    /// Changed by looking; stored with the next event.
    pub(super) look: Look,
}

impl<'s> Carry<'s> {
    pub(super) fn new(state: &'s AppState, stored: Stored) -> Self {
        let look = stored.look.clone();
        Self { state, stored, look }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state.clock.now()
    }

    /// Applies and stores.
    pub(super) async fn apply(&mut self, event: Event) -> Result<(), Trouble> {
        self.apply_with(event, Beside::default()).await
    }

    pub(super) async fn apply_with(&mut self, event: Event, beside: Beside) -> Result<(), Trouble> {
        let now = self.now();
        let id = self.stored.deployment.id;
        let measured = matches!(event, Event::Watched { .. } | Event::WeightSet);
        let applied = self
            .stored
            .deployment
            .apply(event, now)
            .map_err(|refusal| Trouble::Refused { id, refusal })?;
        let quiet = measured && applied.entries.is_empty();
        for entry in &applied.entries {
            tracing::info!(deployment.id = %id, code = entry.code, "{}", entry.message);
        }
        self.note_step(now);
        let change = Change {
            look: (self.look != self.stored.look).then(|| self.look.clone()),
            judge: beside.judge.clone(),
            sample: beside.sample,
            quiet,
            ..Change::of(applied)
        };
        let next = change.next.clone();
        let moved = next.state.as_str() != self.stored.deployment.state.as_str()
            || next.reason != self.stored.deployment.reason
            || next.trouble != self.stored.deployment.trouble;
        self.state.store.change_deployment(change, now).await?;
        self.stored.deployment = next;
        self.stored.look = self.look.clone();
        if beside.judge.is_some() {
            self.stored.judge = beside.judge;
        }
        if moved {
            self.show(now).await?;
        }
        Ok(())
    }

    /// Stores what was seen, if it differs.
    pub(super) async fn seen(&mut self) -> Result<(), Trouble> {
        if self.look == self.stored.look {
            return Ok(());
        }
        let mut next = self.stored.deployment.clone();
        next.version += 1;
        let look = Some(self.look.clone());
        // What was counted is read when somebody looks; hosts and containers are told of.
        let quiet = self.look.targets == self.stored.look.targets;
        let change =
            Change { next, entries: vec![], look, judge: None, sample: None, by: None, quiet };
        self.state.store.change_deployment(change, self.now()).await?;
        self.stored.deployment.version += 1;
        self.stored.look = self.look.clone();
        Ok(())
    }

    /// Tells why it waits, once.
    pub(super) async fn wait(&mut self, reason: Reason) -> Result<(), Trouble> {
        if self.stored.deployment.reason.as_ref() == Some(&reason) {
            return Ok(());
        }
        self.apply(Event::Waits(reason)).await
    }

    pub(super) fn provider_trouble(&self, error: ProviderError) -> Trouble {
        Trouble::Provider { id: self.stored.deployment.id, error }
    }

    /// The run's node shows where its deployment stands.
    async fn show(&self, now: Timestamp) -> Result<(), Trouble> {
        let d = &self.stored.deployment;
        let (Some(job), false) = (d.job, d.is_finished()) else { return Ok(()) };
        let weight = match &d.state {
            State::Shifting(_, shift) | State::Holding(_, shift) => {
                format!(" at {} %", shift.weight)
            }
            _ => String::new(),
        };
        let trouble = d.trouble.as_ref().map(|t| &t.message);
        let why = trouble.or(d.reason.as_ref().map(|r| &r.message));
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let text =
            format!("deployment {} is {}{weight}{why}", d.id, d.state.as_str().replace('_', " "));
        Ok(self.state.store.deploy_progress(job, d.state.as_str(), &text, now).await?)
    }

    /// Keeps what a canary's step saw, for the picture of all steps.
    fn note_step(&mut self, now: Timestamp) {
        let State::Shifting(_, shift) = &self.stored.deployment.state else { return };
        let steps = shift.step + 1;
        let look = &mut self.look;
        look.watched_seconds.resize(steps.max(look.watched_seconds.len()), 0);
        look.measured_steps.resize(steps.max(look.measured_steps.len()), None);
        look.steps_at.resize(steps.max(look.steps_at.len()), None);
        look.watched_seconds[shift.step] = shift.watched().as_secs();
        if shift.set.is_some() {
            look.measured_steps[shift.step] = look.measured_weight;
        }
        look.steps_at[shift.step] = shift.set.or(look.steps_at[shift.step]).or(Some(now));
    }

    /// The limits, for people who read the log.
    pub(super) fn limits_text(&self) -> String {
        let limits: Vec<String> = self.stored.deployment.limits.iter().map(limit_text).collect();
        limits.join(", ")
    }
}
