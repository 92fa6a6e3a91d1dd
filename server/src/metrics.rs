//! Numbers for Prometheus. What the store knows is asked for at each scrape; what only this process
//! knows (requests, failed sign-ins) is counted as it happens.

use std::{fmt, sync::Mutex, time::Instant};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// What requests are told apart by: few values, none of them chosen by a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    /// The method.
    method: &'static str,
    /// The route as the router knows it, or `other`.
    route: String,
    /// `2xx`, `3xx`, `4xx` or `5xx`.
    status: &'static str,
}

/// The numbers of this process.
pub struct Metrics {
    registry: Mutex<Registry>,
    started: Instant,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    hooks_refused: Counter,
    waiting: Gauge,
    running: Gauge,
    runners: Gauge,
    outbox_waiting: Gauge,
    outbox_dead: Gauge,
    events: Gauge,
    uptime: Gauge,
    memory: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pipeyard");
        let buckets =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
        let seconds = Histogram::new(buckets);
        let requests = Family::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let hooks_refused = Counter::default();
        let help = "Webhook deliveries whose signature isn't good";
        registry.register("hooks_refused", help, hooks_refused.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to the answer's head",
            Unit::Seconds,
            seconds.clone(),
        );
        let gauge = |name: &str, help: &str, registry: &mut Registry| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            waiting: gauge("jobs_waiting", "Jobs that wait for a runner", &mut registry),
            running: gauge("jobs_running", "Jobs in work", &mut registry),
            runners: gauge("runners_online", "Runners that spoke lately", &mut registry),
            outbox_waiting: gauge("outbox_waiting", "Messages to be sent", &mut registry),
            outbox_dead: gauge("outbox_dead", "Messages that were given up", &mut registry),
            events: gauge("events_last", "Number of the newest event", &mut registry),
            uptime: gauge("uptime_seconds", "Seconds since the start", &mut registry),
            memory: gauge("resident_memory_bytes", "Memory of the process", &mut registry),
            registry: Mutex::new(registry),
            started: Instant::now(),
            requests,
            seconds,
            hooks_refused,
        }
    }
}

impl Metrics {
    /// Counts an answered request. `route` is the router's pattern.
    pub(crate) fn request(
        &self,
        method: &axum::http::Method,
        route: Option<&str>,
        status: axum::http::StatusCode,
        took: std::time::Duration,
    ) {
        let method = match method.as_str() {
            "GET" => "GET",
            "POST" => "POST",
            "PUT" => "PUT",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let status = match status.as_u16() {
            500.. => "5xx",
            400.. => "4xx",
            300.. => "3xx",
            _ => "2xx",
        };
        let route = route.unwrap_or("other").to_owned();
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a webhook delivery that isn't proven to come from who knows the hook's secret.
    pub(crate) fn refused_hook(&self) {
        self.hooks_refused.inc();
    }

    /// The text that Prometheus scrapes.
    pub(crate) async fn collect(&self, state: &AppState) -> ApiResult<String> {
        let as_gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (waiting, running) = state.store.queue_counts().await?;
        let outbox = state.store.outbox_counts().await?;
        let runners = state.store.runners(state.clock.now()).await?;
        let online = runners.iter().filter(|runner| runner.state == "online").count();
        self.waiting.set(as_gauge(waiting));
        self.running.set(as_gauge(running));
        self.outbox_waiting.set(as_gauge(outbox.waiting));
        self.outbox_dead.set(as_gauge(outbox.dead));
        self.runners.set(as_gauge(online as u64));
        self.events.set(state.store.last_event().await?);
        self.uptime.set(as_gauge(self.started.elapsed().as_secs()));
        self.memory.set(resident_bytes().unwrap_or(0));
        let mut out = String::new();
        let registry = self.registry.lock().map_err(Failure::internal)?;
        text::encode(&mut out, &registry).map_err(Failure::internal)?;
        Ok(out)
    }
}

/// Resident memory by the kernel's own account.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
