//! One intent gives one deployment, whatever is cut, late or killed.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use pipeyard_deploy::fake::Fault;
use pipeyard_model::deployment::Outcome;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{super::run_once, canary, harness::Harness};

/// Polls the future so many times, then drops it where it is: between an effect and its row, or
/// between a row and the next effect.
async fn killed_after(polls: u32, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(true);
        }
        left -= 1;
        future.as_mut().poll(cx).map(|_| false)
    })
    .await
}

fn fault(rng: &mut StdRng) -> Fault {
    match rng.random_range(0..3) {
        0 => Fault::CutBefore,
        1 => Fault::CutAfter,
        _ => Fault::Late(Duration::from_millis(rng.random_range(100..4_000))),
    }
}

#[tokio::test]
async fn one_intent_gives_one_deployment_over_200_seeds_of_faults_and_kills() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.fake.set_traffic(0.0, 1_000);
    let (mut kills, mut faults) = (0, 0);
    let mut ids = vec![];
    for seed in 0..200_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let id = h.ship("web", "b", canary(&[(10, 2)])).await;
        ids.push(id);
        for _ in 0..400 {
            if rng.random_range(0..3) == 0 {
                h.fake.fail_next(&[fault(&mut rng)]);
                faults += 1;
            }
            if rng.random_range(0..2) == 0 {
                let polls = rng.random_range(1..40);
                kills += u32::from(killed_after(polls, run_once(&h.state)).await);
            } else {
                run_once(&h.state).await.unwrap();
            }
            h.clock.advance(Duration::from_millis(rng.random_range(200..2_000)));
            if h.outcome(id).await.is_some() {
                break;
            }
        }
        assert_eq!(h.outcome(id).await, Some(Outcome::Succeeded), "seed {seed}");
    }
    println!("{kills} kills, {faults} faults");
    assert!(kills >= 200 && faults >= 200, "{kills} kills, {faults} faults");
    let mut started: BTreeMap<_, u32> = BTreeMap::new();
    for id in h.started_order().await {
        *started.entry(id).or_default() += 1;
    }
    for id in ids {
        assert_eq!(started.get(&id), Some(&1), "deployment {id}");
    }
}

#[tokio::test]
async fn bad_canaries_are_taken_back_over_faults_and_kills() {
    let h = Harness::new().await;
    let good = h.shipped("web", "a").await;
    h.fake.set_traffic(0.5, 1_000);
    for seed in 0..20_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let id = h.ship("web", "b", canary(&[(10, 60)])).await;
        for _ in 0..400 {
            if rng.random_range(0..3) == 0 {
                h.fake.fail_next(&[fault(&mut rng)]);
            }
            let polls = rng.random_range(5..80);
            killed_after(polls, run_once(&h.state)).await;
            h.clock.advance(Duration::from_millis(rng.random_range(200..2_000)));
            if h.outcome(id).await.is_some() {
                break;
            }
        }
        assert_eq!(h.outcome(id).await, Some(Outcome::RolledBack), "seed {seed}");
        assert_eq!(h.fake.weight(&h.group("web")), 0);
    }
    let place = ("production".parse().unwrap(), "web".parse().unwrap());
    let serving = h.state.store.serving(&place.0, &place.1).await.unwrap().unwrap();
    assert_eq!(serving.id, good);
}
