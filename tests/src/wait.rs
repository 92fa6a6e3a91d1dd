//! Waiting for a marker, with a deadline and a reason.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none before `within`; the message says what was waited for.
pub async fn until<T, F, Fut>(what: &str, within: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(250));
    }
}
