//! What the proxy is told and what it tells: routes, arms, counters. Wire types of its admin API.

use std::{collections::BTreeMap, net::SocketAddr};

use pipeyard_model::fleet::LatencyHistogram;
use serde::{Deserialize, Serialize};

/// Where the requests of one service go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Grows with every change. A route with a lower epoch than the proxy's is refused; the same
    /// epoch is accepted only with the same content, so that a lost reply can be asked for again.
    pub epoch: u64,
    /// The port at which the proxy takes requests for this service.
    pub listen: u16,
    /// The arms. Their weights add up to 100; with no arm every request is answered 503.
    pub arms: Vec<RouteArm>,
}

/// One version of a service: equal addresses that share its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteArm {
    /// Names its counters, which go on as long as an arm of this id is in the route.
    pub id: String,
    /// Which part it plays now.
    pub role: ArmRole,
    /// Its share of the requests in percent.
    pub weight: u8,
    /// Where it sends them, in turn. May be empty: then they are answered 503.
    pub addresses: Vec<SocketAddr>,
}

/// The part that an arm plays; the value of the header `x-pipeyard-arm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmRole {
    /// The version that was there before.
    Stable,
    /// The version on trial.
    Canary,
}

impl ArmRole {
    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

impl Route {
    /// Says why the route can't be served.
    ///
    /// # Errors
    /// When weights don't add up, or ids or addresses are doubled.
    pub fn check(&self) -> Result<(), String> {
        let sum: u32 = self.arms.iter().map(|arm| u32::from(arm.weight)).sum();
        if !self.arms.is_empty() && sum != 100 {
            return Err(format!("the weights add up to {sum}, not to 100"));
        }
        if self.listen == 0 || self.arms.len() > 8 {
            return Err("a route needs a port and has at most 8 arms".into());
        }
        for (i, arm) in self.arms.iter().enumerate() {
            if arm.addresses.len() > 1_000 || arm.id.is_empty() || arm.id.len() > 100 {
                return Err(format!("arm {:?}: an id and at most 1000 addresses", arm.id));
            }
            if self.arms[..i].iter().any(|other| other.id == arm.id) {
                return Err(format!("two arms have the id {:?}", arm.id));
            }
        }
        Ok(())
    }
}

/// What the proxy serves for one service, and what it counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// New at every start of the proxy; counters begin at zero with it.
    pub boot: String,
    /// Whether the port is open.
    pub listening: bool,
    /// What it was told last.
    pub route: Route,
    /// The arms of the route, in its order.
    pub arms: Vec<ArmStatus>,
    /// Requests in flight by address, also to addresses that left the route. Zeroes are left out.
    pub in_flight: BTreeMap<SocketAddr, u64>,
}

/// What one arm counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmStatus {
    /// The arm's id.
    pub id: String,
    /// Requests given to it since it was made.
    pub requests: u64,
    /// Requests given to it since the weights changed last.
    pub requests_since_change: u64,
    /// Of all: answered 5xx, or not at all.
    pub errors: u64,
    /// Of all: not over yet.
    pub in_flight: u64,
    /// Time to the head of the answer.
    pub latency: LatencyHistogram,
}

/// Why the proxy refused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// Somebody newer was here already.
    #[error("the route has epoch {current} already")]
    StaleEpoch {
        /// The epoch that the proxy serves.
        current: u64,
    },
    /// The route contradicts itself.
    #[error("the route is wrong: {message}")]
    Invalid {
        /// How.
        message: String,
    },
    /// The port can't be opened.
    #[error("the proxy can't listen on port {port}: {message}")]
    Port {
        /// The port.
        port: u16,
        /// The system's reason.
        message: String,
    },
    /// The state file can't be written, so nothing was changed.
    #[error("the proxy can't keep the route: {message}")]
    Disk {
        /// The system's reason.
        message: String,
    },
    /// No such route.
    #[error("the proxy has no such service")]
    Unknown,
}
