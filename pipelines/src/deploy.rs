//! Deploys: what is shipped where, how, and under which limits.

use std::time::Duration;

use pipeyard_model::{
    EnvironmentName, ServiceName,
    deployment::short,
    plan::{CanaryStep, HealthLimit, Otherwise, Strategy},
};

use crate::{
    Code, DeployRule,
    check::{Checker, Field, Fields},
    diagnostic::quote,
    value::{self, BadLimit, MEASURES},
    yaml::Span,
};

/// The most steps of a canary and the most limits.
const MAX_ITEMS: usize = 100;
/// All steps of a canary together. CodeDeploy keeps two releases side by side for 48 hours at most;
/// the rest is for steps that wait for data, and for a person who must decide.
const MAX_CANARY: Duration = Duration::from_secs(36 * 3600);

/// A deploy whose release isn't looked up yet.
#[derive(Debug)]
pub(crate) struct DeployDraft {
    /// The path as the file has it, filled in.
    pub(crate) release: (String, Span),
    pub(crate) environment: EnvironmentName,
    pub(crate) service: ServiceName,
    pub(crate) to: Span,
    pub(crate) strategy: Strategy,
    pub(crate) healthy_when: Vec<HealthLimit>,
    pub(crate) otherwise: Otherwise,
    pub(crate) approve: bool,
    pub(crate) rule: DeployRule,
}

impl<'a> Checker<'_, 'a> {
    /// A deploy without its name and needs.
    pub(crate) fn deploy(&mut self, fields: &Fields<'_, 'a>) -> Option<DeployDraft> {
        let release = self.required(fields, "release").and_then(|field| {
            let (text, span) = self.filled(field, "an artifact's path")?;
            Some((self.path((text, span), false)?, span))
        });
        let to = self.required(fields, "to").and_then(|field| self.target(field));
        let strategy = self.strategy(fields);
        let healthy_when =
            fields.get("healthy_when").map(|field| self.limits(field)).unwrap_or_default();
        if let Some(field) = fields.get("healthy_when") {
            self.judged(field, strategy.as_ref());
        }
        let otherwise = fields.get("otherwise").and_then(|field| self.otherwise(field));
        let approve = fields.get("approve").and_then(|field| self.switch(field)).unwrap_or(false);
        let rule = self.deploy_rule(fields.get("when"));
        let (environment, service, to) = to?;
        Some(DeployDraft {
            release: release?,
            environment,
            service,
            to,
            strategy: strategy?,
            healthy_when,
            otherwise: otherwise.unwrap_or(Otherwise::Rollback),
            approve,
            rule,
        })
    }

    fn target(&mut self, field: Field<'_, 'a>) -> Option<(EnvironmentName, ServiceName, Span)> {
        let (text, span) = self.filled(field, "environment/service")?;
        let parts = text.split_once('/').map(|(environment, service)| {
            (EnvironmentName::new(environment), ServiceName::new(service))
        });
        match parts {
            Some((Ok(environment), Ok(service))) => Some((environment, service, span)),
            Some((Err(bad), _) | (_, Err(bad))) => {
                let message = format!(
                    "{} is not environment/service: {} can't be a name",
                    quote(text),
                    quote(&bad.text)
                );
                self.report.error(Code::P301, span, message).help(bad.rule);
                None
            }
            None => {
                self.report
                    .error(Code::P301, span, format!("{} is not environment/service", quote(text)))
                    .help("write it like `production/web`");
                None
            }
        }
    }

    fn strategy(&mut self, fields: &Fields<'_, 'a>) -> Option<Strategy> {
        match (fields.get("canary"), fields.get("rolling")) {
            (Some(_), Some(rolling)) => {
                self.report
                    .error(Code::P105, rolling.key, "`canary` and `rolling` exclude each other")
                    .help("a deploy has one strategy; remove one of the two");
                None
            }
            (Some(canary), None) => self.canary(canary).map(|steps| Strategy::Canary { steps }),
            (None, Some(rolling)) => {
                let (text, span) = self.filled(rolling, "a batch such as `25% at a time`")?;
                match value::batch(text) {
                    Ok(batch) => Some(Strategy::Rolling { batch }),
                    Err(why) => {
                        self.report.error(
                            Code::P306,
                            span,
                            format!("{} is not a batch: {why}", quote(text)),
                        );
                        None
                    }
                }
            }
            (None, None) => Some(Strategy::AllAtOnce),
        }
    }

    fn canary(&mut self, field: Field<'_, 'a>) -> Option<Vec<CanaryStep>> {
        let mut steps: Vec<CanaryStep> = Vec::new();
        let mut good = true;
        for (text, span) in self.texts(field, "a step such as `10% for 5m`", MAX_ITEMS) {
            match value::canary_step(text) {
                Ok(step) => {
                    if let Some(last) = steps.last().filter(|last| last.weight >= step.weight) {
                        let message = format!(
                            "{}% does not grow on the {}% before it",
                            step.weight, last.weight
                        );
                        self.report
                            .error(Code::P305, span, message)
                            .help("order the steps by their share of the traffic");
                        good = false;
                    }
                    let before: Duration = steps.iter().map(|step| step.hold).sum();
                    if before <= MAX_CANARY && before + step.hold > MAX_CANARY {
                        let message = format!(
                            "with this step the canary takes more than {}",
                            short(MAX_CANARY)
                        );
                        self.report.error(Code::P312, span, message).help(
                            "shorten the steps: a provider takes a new release back after 48h",
                        );
                        good = false;
                    }
                    steps.push(step);
                }
                Err(why) => {
                    self.report.error(
                        Code::P304,
                        span,
                        format!("{} is not a canary step: {why}", quote(text)),
                    );
                    good = false;
                }
            }
        }
        (good && !steps.is_empty()).then_some(steps)
    }

    fn limits(&mut self, field: Field<'_, 'a>) -> Vec<HealthLimit> {
        let mut limits = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for (text, span) in self.texts(field, "a limit such as `error_rate < 1%`", MAX_ITEMS) {
            match value::health_limit(text) {
                Ok(limit) => {
                    let measure = MEASURES
                        .iter()
                        .copied()
                        .find(|m| text.trim_start().starts_with(m))
                        .unwrap_or("");
                    if seen.contains(&measure) {
                        let message = format!("there is already a limit on `{measure}`");
                        self.report.error(Code::P307, span, message).help("keep the stricter one");
                    }
                    seen.push(measure);
                    limits.push(limit);
                }
                Err(BadLimit::Measure(measure)) => {
                    let message = format!("{} can't be measured", quote(&measure));
                    self.unknown_word(Code::P307, (&measure, span), message, MEASURES);
                }
                Err(BadLimit::Form(why)) => {
                    self.report.error(
                        Code::P307,
                        span,
                        format!("{} is not a limit: {why}", quote(text)),
                    );
                }
            }
        }
        limits
    }

    /// Limits are judged by a canary only; elsewhere they would hold nothing up.
    fn judged(&mut self, field: Field<'_, 'a>, strategy: Option<&Strategy>) {
        let (message, help) = match strategy {
            None | Some(Strategy::Canary { .. }) => return,
            Some(Strategy::Rolling { .. }) => (
                "nothing judges these limits: a rolling deploy goes by health checks and hooks",
                "remove `healthy_when`, or for a service of containers write `canary` in place of `rolling`",
            ),
            Some(Strategy::AllAtOnce) => (
                "nothing judges these limits: all traffic moves at once",
                "add `canary: [10% for 5m]`, or remove `healthy_when`",
            ),
        };
        self.report.error(Code::P311, field.key, message).help(help);
    }

    fn otherwise(&mut self, field: Field<'_, 'a>) -> Option<Otherwise> {
        let (text, span) = self.filled(field, "`rollback` or `hold`")?;
        match text {
            "rollback" => Some(Otherwise::Rollback),
            "hold" => Some(Otherwise::Hold),
            _ => {
                let message = format!("{} can't follow a broken limit", quote(text));
                self.unknown_word(Code::P308, (text, span), message, &["rollback", "hold"]);
                None
            }
        }
    }
}
