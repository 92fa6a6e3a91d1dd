use super::*;
use crate::{
    UserId,
    environment::{Author, Identity, Person, may_approve, may_command},
};

const NOW: Timestamp = Timestamp::from_seconds(1_772_366_400);

fn production() -> EnvironmentName {
    "production".parse().unwrap()
}

fn policy(json: serde_json::Value) -> Policy {
    let policy: Policy = serde_json::from_value(json).unwrap();
    policy.check(NOW).unwrap();
    policy
}

fn by(login: Option<&str>) -> Author {
    let forge = login.map(|login| Identity { forge: "github".into(), login: login.into() });
    Author { forge: forge.into_iter().collect(), starter: None }
}

fn source(event: RunEvent, reference: &str) -> Source {
    Source {
        repo: "shop".parse().unwrap(),
        default_branch: "main".into(),
        event,
        reference: reference.into(),
        fork: false,
        author: by(Some("octocat")),
    }
}

fn person(n: u128, name: &str, admin: bool, login: Option<&str>) -> Person {
    let identity = |login: &str| Identity { forge: "github".into(), login: login.into() };
    Person {
        id: UserId(uuid::Uuid::from_u128(n)),
        name: name.into(),
        admin,
        identities: login.map(identity).into_iter().collect(),
    }
}

fn given(person: &Person, own: Option<bool>) -> Given {
    Given { user: Some(person.id), by: person.name.clone(), at: NOW, own, comment: None }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Reason>) -> String {
    answer.unwrap_err().code
}

#[test]
fn without_rules_nothing_is_taken_and_the_fix_is_named() {
    let refused = decide(
        &production(),
        &Policy::default(),
        &source(RunEvent::Push, "refs/heads/main"),
        false,
        &[],
        NOW,
    );
    assert!(!refused.may_start());
    let reason = refused.taken.unwrap_err();
    assert_eq!(reason.code, "deploy_not_accepted");
    assert_eq!(
        reason.message,
        "production doesn't take branch main of shop (push): no rule says what it takes (`accepts` is empty). An administrator can take it in: `pipectl envs allow production --repo shop`"
    );
}

#[test]
fn the_rule_that_fits_is_named_and_what_fits_none_names_those_of_its_repository() {
    let rules = policy(serde_json::json!({"accepts": [
        {"repo": "blog", "branches": "main"}, {"repo": "shop", "branches": "release/*"}]}));
    let at = |reference| accepts(&production(), &rules, &source(RunEvent::Push, reference));
    assert_eq!(
        at("refs/heads/release/1").unwrap(),
        "accepts[1]: shop, branches release/*, by push"
    );
    let reason = at("refs/heads/fix").unwrap_err();
    assert!(reason.message.contains("accepts[1]: shop, branches release/*, by push"), "{reason:?}");
    assert!(reason.message.ends_with("`pipectl envs allow production --repo shop --branch fix`"));
    let hostile = at("refs/heads/x;`reboot`").unwrap_err().message;
    assert!(hostile.ends_with("--branch NAME`"), "{hostile}");
    let manual = accepts(&production(), &rules, &source(RunEvent::Manual, "refs/tags/v1"));
    assert!(manual.unwrap_err().message.ends_with("--repo shop --tag v1 --event manual`"));
}

#[test]
fn pull_requests_and_forks_never_deploy_whatever_the_rules_say() {
    let open = policy(serde_json::json!({"accepts": [
        {"repo": "shop", "branches": "**", "events": ["push", "manual", "schedule"]}]}));
    let pull = source(RunEvent::PullRequest, "refs/heads/main");
    assert_eq!(code(accepts(&production(), &open, &pull)), "deploy_of_pull_request");
    for event in [RunEvent::Push, RunEvent::Manual, RunEvent::Schedule] {
        let mut fork = source(event, "refs/heads/main");
        assert!(accepts(&production(), &open, &fork).is_ok());
        fork.fork = true;
        assert_eq!(code(accepts(&production(), &open, &fork)), "deploy_of_fork");
    }
}

#[test]
fn a_pipeline_may_tighten_and_never_loosen() {
    let main = source(RunEvent::Push, "refs/heads/main");
    let needed =
        |json, asks| decide(&production(), &policy(json), &main, asks, &[], NOW).approvals.needed;
    let none = serde_json::json!({"accepts": [{"repo": "shop"}]});
    let two = serde_json::json!({"accepts": [{"repo": "shop"}], "approvals": {"count": 2}});
    assert_eq!([needed(none.clone(), false), needed(none, true)], [0, 1]);
    assert_eq!([needed(two.clone(), false), needed(two, true)], [2, 2]);
}

#[test]
fn approvals_count_people_and_only_those_that_the_rules_of_now_name() {
    let rules = |of: &[&str], count| {
        policy(serde_json::json!({"accepts": [{"repo": "shop"}],
            "approvals": {"count": count, "of": of, "not_the_author": true}}))
    };
    let (ann, ben) = (person(1, "ann", false, None), person(2, "ben", true, None));
    let main = source(RunEvent::Push, "refs/heads/main");
    let both = [given(&ann, Some(false)), given(&ben, Some(false))];
    let stands = |policy: &Policy, given: &[Given]| {
        let verdict = decide(&production(), policy, &main, false, given, NOW);
        (verdict.approvals.missing(), verdict.may_start())
    };
    let two = rules(&["ann", "ben"], 2);
    assert_eq!(stands(&two, &[]), (2, false));
    assert_eq!(stands(&two, &both[..1]), (1, false));
    assert_eq!(stands(&two, &both), (0, true));
    // Ben was taken from the list afterwards, or it turned out that the change is his.
    assert_eq!(stands(&rules(&["ann", "cem"], 2), &both), (1, false));
    assert_eq!(stands(&two, &[given(&ann, Some(false)), given(&ben, Some(true))]), (1, false));
    assert_eq!(stands(&two, &[given(&ann, Some(false)), given(&ben, None)]), (1, false));
    let waits = decide(&production(), &two, &main, false, &both[..1], NOW).approvals.waits();
    assert_eq!(
        waits.unwrap().message,
        "1 of 2 approvals are there (by ann); 1 more of ann or ben, but not of the change's author"
    );
}

#[test]
fn who_is_not_named_may_not_decide_be_it_an_administrator() {
    let named = policy(serde_json::json!({"approvals": {"of": ["ann", "ben"]}}));
    let (ann, boss) = (person(1, "ann", false, None), person(2, "boss", true, None));
    assert_eq!(may_command(&production(), &named, &ann), Ok(()));
    let refused = may_command(&production(), &named, &boss).unwrap_err();
    assert_eq!(refused.code, "not_named");
    assert!(refused.message.ends_with("only ann or ben may"), "{}", refused.message);
    // Without names it is for administrators.
    let open = Policy::default();
    assert_eq!(may_command(&production(), &open, &boss), Ok(()));
    assert_eq!(code(may_command(&production(), &open, &ann)), "not_named");
}

#[test]
fn the_author_is_the_forges_user_and_must_be_known() {
    let rules = policy(serde_json::json!({"approvals": {"not_the_author": true}}));
    let ask = |author: &Author, given: &[Given], person: &Person| {
        may_approve(&production(), &rules, author, given, person)
    };
    let ann = person(1, "ann", true, Some("OctoCat"));
    let ben = person(2, "ben", true, Some("ben-gh"));
    let cem = person(3, "cem", true, None);
    let pushed = by(Some("octocat"));
    assert_eq!(code(ask(&pushed, &[], &ann)), "own_change");
    assert_eq!(ask(&pushed, &[], &ben), Ok(Some(false)));
    let unknown = ask(&pushed, &[], &cem).unwrap_err();
    assert_eq!(unknown.code, "author_unknown");
    assert!(unknown.message.contains("set-forge cem github=LOGIN"), "{}", unknown.message);
    // Plain Git tells nobody.
    assert_eq!(code(ask(&by(None), &[], &ben)), "author_unknown");
    // Who started the run by hand approves it no more than who pushed it.
    let started = Author { starter: Some(ben.id), ..by(Some("octocat")) };
    assert_eq!(code(ask(&started, &[], &ben)), "own_change");
    let once = [given(&ben, Some(false))];
    assert_eq!(code(ask(&pushed, &once, &ben)), "already_approved");
    // Another forge's user of the same name is somebody else, and not known here.
    let mut elsewhere = cem;
    elsewhere.identities = vec![Identity { forge: "gitlab".into(), login: "octocat".into() }];
    assert_eq!(code(ask(&pushed, &[], &elsewhere)), "author_unknown");
}

#[test]
fn an_approval_that_nobody_could_give_is_refused_before_anybody_is_asked() {
    let rules = policy(serde_json::json!({"accepts": [{"repo": "shop"}],
        "approvals": {"not_the_author": true}}));
    let mut git = source(RunEvent::Push, "refs/heads/main");
    git.author = by(None);
    let verdict = decide(&production(), &rules, &git, false, &[], NOW);
    assert_eq!(verdict.taken.unwrap_err().code, "author_unknown");
}

#[test]
fn a_freeze_holds_back_what_is_approved() {
    // NOW is a Sunday.
    let rules = policy(serde_json::json!({"accepts": [{"repo": "shop"}],
        "freeze": [{"begin": "Sat 00:00", "end": "Mon 00:00", "zone": "UTC"}]}));
    let main = source(RunEvent::Push, "refs/heads/main");
    let at = |now| decide(&production(), &rules, &main, false, &[], now);
    assert!(at(NOW).frozen.is_some() && !at(NOW).may_start() && at(NOW).taken.is_ok());
    assert!(at(NOW + std::time::Duration::from_secs(86_400)).may_start());
}

#[test]
fn approvals_that_can_not_be_met_are_refused_when_they_are_written() {
    for (json, words) in [
        (serde_json::json!({"of": []}), "of: is empty"),
        (serde_json::json!({"of": ["ann", "ann"]}), "of[1]: \"ann\" stands twice"),
        (serde_json::json!({"count": 3, "of": ["ann", "ben"]}), "count: 3"),
        (serde_json::json!({"count": 21}), "at most 20"),
        (serde_json::json!({"of": ["@ops"]}), "teams"),
        (serde_json::json!({"of": ["team:ops"]}), "teams"),
    ] {
        let policy: Policy =
            serde_json::from_value(serde_json::json!({"approvals": json})).unwrap();
        let why = policy.check(NOW).unwrap_err();
        assert!(why.starts_with("approvals.") && why.contains(words), "{why}");
    }
    let unknown = serde_json::from_value::<Approvals>(serde_json::json!({"second_factor": true}));
    assert!(unknown.unwrap_err().to_string().contains("unknown field `second_factor`"));
    let twice = serde_json::json!({"accepts": [{"repo": "a"}, {"repo": "a"}]});
    let why = serde_json::from_value::<Policy>(twice).unwrap().check(NOW).unwrap_err();
    assert!(why.starts_with("accepts[1]: is accepts[0] again"), "{why}");
}
