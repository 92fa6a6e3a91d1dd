//! Health checks: one GET that must answer 2xx.

use std::{net::SocketAddr, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(2);

/// None if the program is healthy; otherwise what it did instead.
pub(super) async fn probe(
    http: &reqwest::Client,
    address: SocketAddr,
    path: &str,
) -> Option<String> {
    let url = format!("http://{address}{path}");
    match http.get(&url).timeout(TIMEOUT).send().await {
        Ok(response) if response.status().is_success() => None,
        Ok(response) => Some(format!("{url} answered {}", response.status())),
        Err(error) if error.is_timeout() => Some(format!("{url} didn't answer within 2 s")),
        // The client names the address itself, some causes further down.
        Err(error) => Some(format!("{url} gave no answer: {}", crate::chain(&error.without_url()))),
    }
}
