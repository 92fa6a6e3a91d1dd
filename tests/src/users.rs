//! Users: they ask again and again, and count what they didn't get.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Default)]
struct Counted {
    asked: AtomicU64,
    failed: AtomicU64,
}

/// Users of one address.
#[derive(Debug)]
pub struct Users {
    counted: Arc<Counted>,
    stop: CancellationToken,
    visits: Vec<JoinHandle<()>>,
}

impl Users {
    /// Two of them, each about fifty times a second.
    #[must_use]
    pub fn of(url: &str) -> Self {
        let (counted, stop) = (Arc::<Counted>::default(), CancellationToken::new());
        let visits = (0..2)
            .map(|_| tokio::spawn(visit(url.to_owned(), Arc::clone(&counted), stop.clone())))
            .collect();
        Self { counted, stop, visits }
    }

    /// How often they asked so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.counted.asked.load(Ordering::SeqCst)
    }

    /// How often they got an error or nothing so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.counted.failed.load(Ordering::SeqCst)
    }

    /// Ends them; answers how often they asked, and how often in vain.
    ///
    /// # Panics
    /// When one of them did.
    pub async fn leave(self) -> (u64, u64) {
        self.stop.cancel();
        for visit in self.visits {
            visit.await.expect("a user");
        }
        let Counted { asked, failed } = &*self.counted;
        (asked.load(Ordering::SeqCst), failed.load(Ordering::SeqCst))
    }
}

async fn visit(url: String, counted: Arc<Counted>, stop: CancellationToken) {
    let http =
        reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    while !stop.is_cancelled() {
        let answer = http.get(&url).send().await;
        counted.asked.fetch_add(1, Ordering::SeqCst);
        if !answer.is_ok_and(|a| a.status().is_success()) {
            counted.failed.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
