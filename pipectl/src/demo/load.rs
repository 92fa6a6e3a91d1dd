//! Seeded load on one address: requests at times drawn from a seed, each recorded by what came
//! back. It stands for the users, so it knows nothing of versions or weights.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Requests in flight at most; later ones wait, which the record shows as latency.
const IN_FLIGHT: usize = 64;

/// What the users saw.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Seen {
    /// Requests answered or failed.
    pub(crate) requests: u64,
    /// Answers with a status of 500 or above.
    pub(crate) server_errors: u64,
    /// Requests that got no answer at all.
    pub(crate) no_answer: u64,
    /// The first few of those, in words.
    pub(crate) problems: Vec<String>,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    /// Starts `per_second` requests a second to `url`, with gaps of an exponential distribution.
    #[must_use]
    pub(crate) fn start(client: reqwest::Client, url: String, per_second: f64, seed: u64) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(run(client, url, per_second, seed, Arc::clone(&seen), stop.clone()));
        Self { seen, stop, task }
    }

    /// What was seen so far.
    #[must_use]
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the load and waits for what is in flight.
    pub(crate) async fn stop(self) -> Seen {
        self.stop.cancel();
        let _ = self.task.await;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn run(
    client: reqwest::Client,
    url: String,
    per_second: f64,
    seed: u64,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut flights = JoinSet::new();
    let mut next = Instant::now();
    while !stop.is_cancelled() {
        let uniform: f64 = random.random::<f64>().max(f64::MIN_POSITIVE);
        next += Duration::from_secs_f64(-uniform.ln() / per_second);
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = stop.cancelled() => break,
        }
        if flights.len() >= IN_FLIGHT {
            flights.join_next().await;
        }
        flights.spawn(one(client.clone(), url.clone(), Arc::clone(&seen)));
    }
    while flights.join_next().await.is_some() {}
}

async fn one(client: reqwest::Client, url: String, seen: Arc<Mutex<Seen>>) {
    let answer = async { client.get(&url).send().await?.bytes_of_answer().await }.await;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.requests += 1;
    match answer {
        Ok(status) if status >= 500 => seen.server_errors += 1,
        Ok(_) => {}
        Err(error) => {
            seen.no_answer += 1;
            if seen.problems.len() < 5 {
                seen.problems.push(format!("{error:?}"));
            }
        }
    }
}

trait WholeAnswer {
    async fn bytes_of_answer(self) -> reqwest::Result<u16>;
}

impl WholeAnswer for reqwest::Response {
    /// The status, once the whole body has arrived: a cut body is no answer.
    async fn bytes_of_answer(self) -> reqwest::Result<u16> {
        let status = self.status().as_u16();
        self.bytes().await?;
        Ok(status)
    }
}
