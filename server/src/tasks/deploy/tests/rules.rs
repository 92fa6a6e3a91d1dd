//! What an environment takes, whose word it wants, and when nothing starts.

use std::time::Duration;

use pipeyard_api::views::Event;
use pipeyard_model::{
    DeploymentId, RunId,
    deployment::{Outcome, State},
    plan::{DeploySpec, Node, NodeKind, Otherwise, ReleaseSource, Strategy},
};
use serde_json::{Value, json};

use super::{
    canary,
    harness::{Harness, environments},
};

/// A deploy to production that a pipeline asks for, whatever its `when` says.
fn deploy() -> Vec<Node> {
    let spec = DeploySpec {
        release: ReleaseSource::Artifact { job: "web".parse().unwrap(), path: "x".into() },
        environment: "production".parse().unwrap(),
        service: "web".parse().unwrap(),
        strategy: Strategy::AllAtOnce,
        healthy_when: vec![],
        otherwise: Otherwise::Rollback,
        approve: false,
    };
    vec![Node { name: "web".parse().unwrap(), needs: vec![], kind: NodeKind::Deploy(spec) }]
}

/// Why the deploy of a run ended. One that is taken fails later, because it has nothing to ship.
async fn ended(h: &Harness, run: RunId) -> (String, String) {
    h.pass().await;
    let job = h.state.store.job(run, &"web".parse().unwrap()).await.unwrap().unwrap();
    let reason = job.reason.unwrap();
    (reason.code, reason.message)
}

const TAKEN: &str = "release_missing";

#[tokio::test]
async fn what_no_rule_takes_is_refused_before_there_is_a_deployment() {
    let h = Harness::new().await;
    h.add_repo("other").await;
    for (repo, event, reference, code) in [
        ("shop", Event::Push, "refs/heads/main", TAKEN),
        ("shop", Event::Push, "refs/heads/feature", "deploy_not_accepted"),
        ("shop", Event::Push, "refs/heads/refs/heads/main", "deploy_not_accepted"),
        ("shop", Event::Push, "refs/tags/main", "deploy_not_accepted"),
        ("shop", Event::Manual, "refs/heads/main", "deploy_not_accepted"),
        ("shop", Event::PullRequest, "refs/heads/main", "deploy_of_pull_request"),
        ("other", Event::Push, "refs/heads/main", "deploy_not_accepted"),
    ] {
        let run = h.run_on(repo, event, reference, deploy()).await;
        let (found, message) = ended(&h, run).await;
        assert_eq!(found, code, "{repo} {reference}: {message}");
    }
    let run = h.run_on("other", Event::Push, "refs/heads/main", deploy()).await;
    let (_, message) = ended(&h, run).await;
    assert!(message.contains("`pipectl envs allow production --repo other`"), "{message}");
    assert_eq!(h.state.store.latest_deployment().await.unwrap(), None);
    assert!(h.fake.made().is_empty());
}

#[tokio::test]
async fn a_rule_that_is_allowed_lets_it_in_and_one_that_goes_lets_it_out() {
    let h = Harness::new().await;
    h.add_repo("other").await;
    let other = async || {
        let run = h.run_on("other", Event::Push, "refs/heads/main", deploy()).await;
        ended(&h, run).await.0
    };
    assert_eq!(other().await, "deploy_not_accepted");
    let rule = r#"{"repo": "other"}"#;
    let allowed = h.post("/api/environments/production/accepts", rule).await;
    assert_eq!(
        (&allowed["rule"], &allowed["known"]),
        (&"other, branches main, by push".into(), &false.into())
    );
    assert_eq!(h.post("/api/environments/production/accepts", rule).await["known"], true);
    assert_eq!(other().await, TAKEN);
    let audit = h.get("/api/audit").await;
    let rows = audit["items"].as_array().unwrap();
    let allowed: Vec<_> = rows.iter().filter(|r| r["action"] == "environment.allow").collect();
    assert_eq!(allowed.len(), 1, "what changes nothing isn't recorded");
    assert_eq!(allowed[0]["target"], "environment production: other, branches main, by push");
    // The run that was taken is tried again after the rule is gone.
    h.apply(environments()).await;
    assert_eq!(other().await, "deploy_not_accepted");
}

#[tokio::test]
async fn the_rules_are_asked_again_before_the_start() {
    let h = Harness::new().await;
    let mut new = h.new_deployment("web", "a", Strategy::AllAtOnce).await;
    new.needs_approval = true;
    new.asks_approval = true;
    let awaits = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    h.pass().await;
    assert_eq!(h.stored(awaits).await.deployment.state, State::AwaitingApproval);
    h.rules(json!({"accepts": [{"repo": "shop", "branches": "release/*"}]})).await;
    let approve = h.refused(&format!("/api/deployments/{awaits}/approve"), "{}").await;
    assert_eq!(approve, (409, "deploy_not_accepted".into()));
    let queued = h.ship("web", "b", Strategy::AllAtOnce).await;
    h.pass().await;
    for id in [awaits, queued] {
        assert_eq!(h.outcome(id).await, Some(Outcome::Rejected));
        assert_eq!(h.stored(id).await.deployment.reason.unwrap().code, "deploy_not_accepted");
    }
    assert!(h.fake.made().is_empty());
}

#[tokio::test]
async fn one_that_is_not_taken_any_more_pushes_out_none_that_is() {
    let h = Harness::new().await;
    let feature = h.run_on("shop", Event::Push, "refs/heads/feature", vec![]).await;
    let older = h.ship("web", "a", Strategy::AllAtOnce).await;
    let mut new = h.new_deployment("web", "b", Strategy::AllAtOnce).await;
    new.release.run = feature;
    let newer = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    assert_eq!(h.until_over(older).await, Outcome::Succeeded);
    assert_eq!(h.outcome(newer).await, Some(Outcome::Rejected));
}

#[tokio::test]
async fn rules_that_tighten_ask_again_and_rules_that_loosen_let_go() {
    let h = Harness::new().await;
    h.rules(json!({"approvals": {"count": 2}})).await;
    let id = h.ship("web", "a", Strategy::AllAtOnce).await;
    h.pass().await;
    let path = format!("/api/deployments/{id}");
    let seen = h.get(&path).await;
    assert_eq!(seen["state"], "awaiting_approval");
    assert_eq!(seen["reason"]["message"], "needs 2 approvals of an administrator");
    assert_eq!((&seen["approval"]["count"], &seen["approval"]["missing"]), (&2.into(), &2.into()));
    assert_eq!(seen["approval"]["rule"], "accepts[0]: shop, branches main, by push");
    let one = h.post(&format!("{path}/approve"), r#"{"comment": "fine"}"#).await;
    assert_eq!(
        (&one["state"], &one["approval"]["missing"]),
        (&"awaiting_approval".into(), &1.into())
    );
    assert_eq!(one["approval"]["given"][0]["comment"], "fine");
    let again = h.refused(&format!("{path}/approve"), "{}").await;
    assert_eq!(again, (409, "already_approved".into()));
    // Whom the rules don't name any more doesn't count, and may not decide.
    h.rules(json!({"approvals": {"of": ["ann", "ben"]}})).await;
    h.pass().await;
    assert_eq!(h.get(&path).await["approval"]["given"][0]["counts"], false);
    for verb in ["approve", "promote"] {
        let (status, body) = h.send("POST", &format!("{path}/{verb}"), "{}").await;
        assert_eq!((status, &body["error"]["code"]), (403, &"not_named".into()), "{verb}");
        assert!(body["error"]["message"].as_str().unwrap().contains("only ann or ben may"));
    }
    let back = h.refused("/api/environments/production/web/rollback", "{}").await;
    assert_eq!(back, (403, "not_named".into()));
    h.apply(environments()).await;
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
    assert!(h.timeline(id).await.contains(&"approval_met".to_owned()));
}

#[tokio::test]
async fn without_a_forge_that_says_who_pushed_nobody_can_be_somebody_else() {
    let h = Harness::new().await;
    let rules = json!({"approvals": {"not_the_author": true},
        "accepts": [{"repo": "shop", "branches": "main", "events": ["push", "manual"]}]});
    h.rules(rules).await;
    let manual = h.run_on("shop", Event::Manual, "refs/heads/main", deploy()).await;
    assert_eq!(ended(&h, manual).await.0, "author_unknown");
    // A push is known, but nobody wrote down who the administrator is at the forge.
    let id = h.ship("web", "a", Strategy::AllAtOnce).await;
    h.pass().await;
    let approve = h.refused(&format!("/api/deployments/{id}/approve"), "{}").await;
    assert_eq!(approve, (403, "author_unknown".into()));
}

#[tokio::test]
async fn two_people_approve_and_none_of_them_is_the_author() {
    let h = Harness::new().await;
    let ann = h.user("ann", Some("OctoCat")).await;
    let ben = h.user("ben", Some("ben-gh")).await;
    let cem = h.user("cem", Some("cem-gh")).await;
    let dan = h.user("dan", None).await;
    let rules = json!({"approvals":
        {"count": 2, "of": ["ann", "ben", "cem", "dan"], "not_the_author": true}});
    let mut file = environments();
    let production = file["environments"]["production"].as_object_mut().unwrap();
    production.extend(rules.as_object().unwrap().clone());
    let (status, applied) = h.send("PUT", "/api/environments", &file.to_string()).await;
    assert_eq!(status, 200, "{applied}");
    // Octocat pushed it; what the commit says of its author is anybody's word.
    let mut new = h.new_deployment("web", "a", Strategy::AllAtOnce).await;
    new.requested_by = "ben".into();
    let id = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    h.pass().await;
    let approve = async |token: &str| {
        let path = format!("/api/deployments/{id}/approve");
        let (status, body) = h.send_as(token, "POST", &path, "{}").await;
        (status, body["error"]["code"].as_str().unwrap_or("ok").to_owned())
    };
    assert_eq!(approve(&ann).await, (403, "own_change".into()));
    assert_eq!(approve(&dan).await, (403, "author_unknown".into()));
    assert_eq!(approve(&ben).await, (200, "ok".into()));
    assert_eq!(approve(&ben).await, (409, "already_approved".into()));
    // An administrator who isn't named is nobody here.
    let path = format!("/api/deployments/{id}/approve");
    assert_eq!(h.refused(&path, "{}").await, (403, "not_named".into()));
    for _ in 0..3 {
        h.pass().await;
    }
    assert!(h.fake.made().is_empty());
    assert_eq!(approve(&cem).await, (200, "ok".into()));
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
    let given = h.get(&format!("/api/deployments/{id}")).await["approval"]["given"].clone();
    let by: Vec<&str> = given.as_array().unwrap().iter().filter_map(|g| g["by"].as_str()).collect();
    assert_eq!(by, ["ben", "cem"]);
    let audit = h.get("/api/audit").await;
    let approvals = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["action"] == "deployment.approve");
    assert_eq!(approvals.count(), 2);
    // Who is named goes back, though no administrator; who isn't, doesn't.
    let id = h.ship("web", "b", Strategy::AllAtOnce).await;
    h.pass().await;
    for token in [&ben, &cem] {
        let path = format!("/api/deployments/{id}/approve");
        assert_eq!(h.send_as(token, "POST", &path, "{}").await.0, 200);
    }
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
    let back = "/api/environments/production/web/rollback";
    assert_eq!(h.refused(back, "{}").await, (403, "not_named".into()));
    assert_eq!(h.send_as(&dan, "POST", back, "{}").await.0, 200);
}

/// The harness begins on a Sunday, at noon.
fn weekend() -> Value {
    json!({"freeze": [{"begin": "Sat 00:00", "end": "Mon 00:00", "zone": "UTC"}]})
}

#[tokio::test]
async fn a_freeze_holds_starts_and_promotions_and_neither_a_canary_nor_the_way_back() {
    let h = Harness::new().await;
    let first = h.shipped("web", "a").await;
    h.shipped("web", "b").await;
    let canary = h.ship("web", "c", canary(&[(10, 60)])).await;
    h.until(canary, |s| matches!(s, State::Shifting(..))).await;
    h.rules(weekend()).await;
    let promote = h.refused(&format!("/api/deployments/{canary}/promote"), "{}").await;
    assert_eq!(promote, (409, "deploy_frozen".into()));
    assert_eq!(h.until_over(canary).await, Outcome::Succeeded);

    let mut new = h.new_deployment("web", "d", Strategy::AllAtOnce).await;
    new.needs_approval = true;
    new.asks_approval = true;
    let frozen = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    h.post(&format!("/api/deployments/{frozen}/approve"), "{}").await;
    for _ in 0..5 {
        h.pass().await;
    }
    let seen = h.get(&format!("/api/deployments/{frozen}")).await;
    assert_eq!(
        (&seen["state"], &seen["reason"]["code"]),
        (&"queued".into(), &"deploy_frozen".into())
    );
    let until = "frozen until Mon 2026-03-02 00:00 UTC (Sat 00:00 to Mon 00:00 UTC)";
    assert_eq!(seen["reason"]["message"], until);
    assert_eq!(h.get("/api/environments").await[0]["frozen"]["message"], until);

    let back = h.post("/api/environments/production/web/rollback", r#"{"to": 1}"#).await;
    assert_eq!(first, DeploymentId(1));
    let back = DeploymentId(back["id"].as_i64().unwrap());
    assert_eq!(h.until_over(back).await, Outcome::Succeeded);
    assert_eq!(h.outcome(frozen).await, None);

    h.clock.advance(Duration::from_secs(12 * 3_600));
    assert_eq!(h.until_over(frozen).await, Outcome::Succeeded);
}

#[tokio::test]
async fn an_abort_needs_no_open_window() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", canary(&[(10, 600)])).await;
    h.until(id, |s| matches!(s, State::Shifting(..))).await;
    h.rules(weekend()).await;
    h.post(&format!("/api/deployments/{id}/abort"), "{}").await;
    assert_eq!(h.until_over(id).await, Outcome::Aborted);
}

#[tokio::test]
async fn what_is_written_wrong_is_refused_whole_with_its_place_and_the_fix() {
    let h = Harness::new().await;
    let before = h.get("/api/environments").await;
    for (rules, place, fix) in [
        (
            json!({"accepts": [{"repo": "Shop"}]}),
            "production.accepts[0].repo",
            "\"shop\" is meant?",
        ),
        (json!({"accepts": [{"repo": "acme/shop"}]}), "accepts[0].repo", "\"shop\" is meant?"),
        (json!({"approvals": {"of": ["nina"]}}), "approvals.of[0]", "there is no user \"nina\""),
        (json!({"approvals": {"of": ["team:ops"]}}), "approvals.of[0]", "teams"),
        (
            json!({"freeze": [{"begin": "Fri 17:00", "end": "Mon 08:00", "zone": "KST"}]}),
            "freeze[0].zone",
            "Asia/Seoul",
        ),
        (json!({"accepts": null}), "environments.production.accepts", "accepts: []"),
    ] {
        let mut file = environments();
        let production = file["environments"]["production"].as_object_mut().unwrap();
        production.extend(rules.as_object().unwrap().clone());
        file["environments"]["new"] = file["environments"]["production"].clone();
        file["environments"]["new"]["services"] = json!({});
        file["environments"]["new"]["accepts"] = json!([]);
        let (status, body) = h.send("PUT", "/api/environments", &file.to_string()).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(status, 400, "{body}");
        assert!(message.contains(place) && message.contains(fix), "{message}");
    }
    assert_eq!(h.get("/api/environments").await, before);
    let mut file = environments();
    file["environments"]["production"]["accepts"] = json!([]);
    let (status, body) = h.send("PUT", "/api/environments", &file.to_string()).await;
    assert_eq!(
        (status, body["changes"][0]["fields"][0].as_str()),
        (200, Some("accepts: - shop, branches main, by push"))
    );
    assert!(body["notes"][0].as_str().unwrap().contains("takes nothing"), "{body}");
}

#[tokio::test]
async fn what_would_come_of_a_deploy_is_told_beforehand() {
    let h = Harness::new().await;
    h.rules(json!({"approvals": {"count": 2}})).await;
    let check =
        async |query: &str| h.get(&format!("/api/environments/production/check?{query}")).await;
    let main = check("repo=shop").await;
    assert_eq!((&main["accepted"], &main["approvals"]), (&true.into(), &2.into()));
    assert_eq!(main["rule"], "accepts[0]: shop, branches main, by push");
    for (query, code) in [
        ("repo=shop&branch=feature", "deploy_not_accepted"),
        ("repo=shop&tag=main", "deploy_not_accepted"),
        ("repo=shop&event=manual", "deploy_not_accepted"),
        ("repo=shop&event=pull_request", "deploy_of_pull_request"),
    ] {
        let told = check(query).await;
        assert_eq!((&told["accepted"], &told["reason"]["code"]), (&false.into(), &code.into()));
    }
    let (status, body) =
        h.send("GET", "/api/environments/production/check?repo=shop&branch=a%20b", "").await;
    assert_eq!((status, &body["error"]["code"]), (400, &"bad_check".into()));
}
