//! Health checks: one GET that must answer 2xx.

use std::{net::SocketAddr, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(2);

/// None if the program is healthy; otherwise what it did instead.
pub(super) async fn probe(
    http: &reqwest::Client,
    address: SocketAddr,
    path: &str,
) -> Option<String> {
    match http.get(format!("http://{address}{path}")).timeout(TIMEOUT).send().await {
        Ok(response) if response.status().is_success() => None,
        Ok(response) => Some(format!("{path} answered {}", response.status())),
        Err(error) if error.is_timeout() => Some(format!("{path} didn't answer within 2 s")),
        Err(error) => Some(crate::chain(&error)),
    }
}
