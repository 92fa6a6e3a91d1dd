//! Deploys as nodes of a run.

use pipeyard_model::{
    Actor, Clock as _, Conclusion, Epoch, ManualClock, RequestId, Status, UserId,
};

use super::{
    claims::{end, of},
    make::{claim, deploy, job, need, run, setup},
};
use crate::Store;

/// A deploy becomes ready by its needs, is never claimed by a runner, and moves its run on.
pub async fn a_deploy_is_a_node_like_a_job<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let nodes = vec![
        job("package", |_| {}),
        need(deploy("web"), &["package"]),
        need(job("smoke", |_| {}), &["web"]),
    ];
    let id = run(store, clock, made.repo, nodes).await;
    assert!(store.ready_deploys(10).await.unwrap().is_empty());
    let package = claim(store, clock, made.runner).await;
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, of(&package), success, clock.now()).await.unwrap();
    assert!(
        store.claim_jobs(made.runner, RequestId::new(), 9, clock.now()).await.unwrap().is_empty()
    );
    let ready = store.ready_deploys(10).await.unwrap();
    assert_eq!((ready.len(), ready[0].name.as_str(), ready[0].attempt), (1, "web", Epoch(1)));
    let node = ready[0].job;
    store
        .deploy_progress(node, "waiting_for_approval", "an administrator must approve", clock.now())
        .await
        .unwrap();
    assert_eq!(store.run(id).await.unwrap().unwrap().jobs[1].status, Status::Queued);
    for _ in 0..2 {
        store.deploy_started(node, 7, clock.now()).await.unwrap();
    }
    assert!(store.ready_deploys(10).await.unwrap().is_empty());
    for _ in 0..2 {
        store.deploy_progress(node, "canary", "10 % of the traffic", clock.now()).await.unwrap();
    }
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!((view.jobs[1].status, view.jobs[1].deployment), (Status::Running, Some(7)));
    assert_eq!(view.jobs[1].reason.as_ref().unwrap().message, "10 % of the traffic");
    for _ in 0..2 {
        store.deploy_finished(node, Conclusion::Success, None, clock.now()).await.unwrap();
    }
    let smoke = claim(store, clock, made.runner).await;
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, of(&smoke), success, clock.now()).await.unwrap();
    assert_eq!(store.run(id).await.unwrap().unwrap().run.conclusion, Some(Conclusion::Success));
    store.rerun(id, false, Actor::user(UserId::new()), clock.now()).await.unwrap();
    let package = claim(store, clock, made.runner).await;
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, of(&package), success, clock.now()).await.unwrap();
    assert_eq!(store.ready_deploys(10).await.unwrap()[0].attempt, Epoch(2));
}

/// A cancelled run tells the driver which deployments to end.
pub async fn a_cancelled_run_asks_for_the_end_of_its_deployments<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    let made = setup(store, clock).await;
    let id = run(store, clock, made.repo, vec![deploy("web"), deploy("worker")]).await;
    let ready = store.ready_deploys(10).await.unwrap();
    store.deploy_started(ready[0].job, 7, clock.now()).await.unwrap();
    store.cancel_run(id, Actor::user(UserId::new()), clock.now()).await.unwrap();
    assert!(store.ready_deploys(10).await.unwrap().is_empty());
    assert_eq!(store.cancelled_deploys(10).await.unwrap(), [(ready[0].job, 7)]);
    let why = Some(("cancelled".to_owned(), "a person cancelled it".to_owned()));
    store.deploy_finished(ready[0].job, Conclusion::Cancelled, why, clock.now()).await.unwrap();
    assert!(store.cancelled_deploys(10).await.unwrap().is_empty());
    assert_eq!(store.run(id).await.unwrap().unwrap().run.conclusion, Some(Conclusion::Cancelled));
}
