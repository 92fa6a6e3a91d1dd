//! What the story must have shown, written by hand.
//!
//! Three versions, two services. v1 is each service's first release. v2 reaches both. v3 answers 8 %
//! of the requests with errors: the judge takes it back from `web`, and because `worker` needs
//! `web`, v3 never gets there.
//!
//! - Deployments that count: v1 and v2 of both services: **4**. v3's aborted canary is no
//!   deployment of the frequency.
//! - Change fail rate: v3 reached users and was taken back: **1 of 5**. The incident that was opened
//!   for it doesn't make it two.
//! - Lead time: a first deployment has no baseline, so v1 gives no samples; v2 has one commit for
//!   each service: **2 samples**. v3's commit was never delivered.
//! - Recovery: one failed deployment: **1 sample**.
//! - Rework: nothing was shipped to repair something: **0 of 5**.
//! - Time to restore: the one incident.

use serde_json::Value;

/// What isn't as it should be.
pub(crate) fn problems(facts: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |what: &str, found: &Value, wanted: Value| {
        if *found != wanted {
            problems.push(format!("{what} is {found}, not {wanted}"));
        }
    };
    for (run, conclusion) in [("v1", "success"), ("v2", "success"), ("v3", "failure")] {
        check(
            &format!("the conclusion of {run}'s run"),
            &facts["runs"][run]["conclusion"],
            conclusion.into(),
        );
    }
    for (name, strategy, state) in [
        ("v1/web", "canary", "succeeded"),
        ("v1/worker", "rolling", "succeeded"),
        ("v2/web", "canary", "succeeded"),
        ("v2/worker", "rolling", "succeeded"),
        ("v3/web", "canary", "rolled_back"),
    ] {
        check(
            &format!("the strategy of {name}"),
            &facts["deployments"][name]["strategy"],
            strategy.into(),
        );
        check(&format!("the end of {name}"), &facts["deployments"][name]["state"], state.into());
    }
    check("v3 of worker", &facts["deployments"]["v3/worker"], Value::Null);
    check("the judge's word on v2", &facts["deployments"]["v2/web"]["verdict"], "healthy".into());
    check("the judge's word on v3", &facts["deployments"]["v3/web"]["verdict"], "broken".into());

    // The version that users get at the end is v2, everywhere.
    check("the version that web serves", &facts["serving"]["web"], "v2".into());
    check("the version that worker serves", &facts["serving"]["worker"], "v2".into());

    // Users: nobody went without an answer, and only v3 answered with errors.
    check("requests without an answer", &facts["users"]["web"]["no_answer"], 0.into());
    check("errors before v3", &facts["users"]["errors_before_v3"], 0.into());
    check("requests without an answer at worker", &facts["users"]["worker"]["no_answer"], 0.into());
    check("errors at worker", &facts["users"]["worker"]["server_errors"], 0.into());

    let dora = &facts["dora"];
    check("deployments that count", &dora["deployment_frequency"]["n"], 4.into());
    check("samples of lead time", &dora["change_lead_time"]["n"], 2.into());
    check("deployments in the fail rate", &dora["change_fail_rate"]["n"], 5.into());
    check("failed deployments", &dora["change_fail_rate"]["numerator"], 1.into());
    check("samples of recovery", &dora["failed_deployment_recovery_time"]["n"], 1.into());
    check("deployments in the rework rate", &dora["rework_rate"]["n"], 5.into());
    check("rework", &dora["rework_rate"]["numerator"], 0.into());
    check("restored incidents", &dora["time_to_restore"]["n"], 1.into());
    for name in ["change_lead_time", "failed_deployment_recovery_time", "time_to_restore"] {
        let seconds = dora[name]["value"].as_f64().unwrap_or(-1.0);
        if !(0.0..=600.0).contains(&seconds) || seconds == 0.0 {
            problems.push(format!(
                "{name} is {seconds} s; it took more than nothing and less than ten minutes"
            ));
        }
    }
    let web = facts["users"]["web"]["server_errors"].as_u64().unwrap_or(0);
    if web == 0 {
        problems.push(
            "nobody saw an error of v3: it got no traffic, or the load didn't reach it".into(),
        );
    }
    problems
}
