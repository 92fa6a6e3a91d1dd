//! Services: containers beside the job. The shim is their process 1 too and starts the image's own
//! entrypoint and command as the image's user, so that a service ends with its runner like a job
//! does, its environment is in no record of Docker's, and its last lines are at hand.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{Docker, models::HealthStatusEnum, query_parameters::InspectContainerOptions};
use pipeyard_model::plan::{Readiness, ServiceSpec};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    container::{self, Running},
    fault::Fault,
    image::Image,
};
use crate::{
    JobEvent, StepExit,
    protocol::{self, Command, Step},
    session::{self, Bounds, Tail},
};

/// How often an unready service is asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A started service. Dropping it closes the shim's stdin, which ends the container.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) alias: String,
    pub(crate) container: String,
    started: Instant,
    sign: Sign,
    tail: Arc<Mutex<Tail>>,
    state: watch::Receiver<State>,
    _session: AbortOnDropHandle<()>,
}

/// What tells that a service is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    HealthCheck,
    Port(u16),
    Runs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting,
    Runs,
    Ended(String),
}

impl Service {
    /// Hands the container over to its service.
    pub(crate) fn begin(
        spec: &ServiceSpec,
        image: &Image,
        container: String,
        running: Running,
        bounds: Bounds,
    ) -> Self {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (told, state) = watch::channel(State::Starting);
        let job = job(spec, image, &bounds);
        let lines = Arc::clone(&tail);
        let session = tokio::spawn(async move {
            let (events, mut news) = mpsc::channel(16);
            let listen = async {
                while let Some(event) = news.recv().await {
                    match event {
                        JobEvent::Output { bytes, .. } => lock(&lines).push(&bytes),
                        JobEvent::StepStarted { .. } => drop(told.send(State::Runs)),
                        JobEvent::StepFinished { exit, .. } => {
                            drop(told.send(State::Ended(ended(exit))));
                        }
                        JobEvent::Note { .. } => {}
                    }
                }
            };
            let lead = async {
                let ending = session::drive(running.link, &job, &bounds, &events, None).await;
                drop(events);
                ending
            };
            let (ending, ()) = tokio::join!(lead, listen);
            let why = match (ending.fault, ending.broken) {
                (Some(fault), _) => fault.message,
                (None, Some(broken)) => broken,
                (None, None) => "it ended".to_owned(),
            };
            told.send_if_modified(|state| {
                let is_news = !matches!(state, State::Ended(_));
                if is_news {
                    *state = State::Ended(why);
                }
                is_news
            });
        });
        let sign = match spec.ready {
            Readiness::Port(port) => Sign::Port(port),
            Readiness::Automatic if image.has_healthcheck => Sign::HealthCheck,
            Readiness::Automatic => image.port.map_or(Sign::Runs, Sign::Port),
        };
        Self {
            alias: spec.alias.clone(),
            container,
            started: Instant::now(),
            sign,
            tail,
            state,
            _session: AbortOnDropHandle::new(session),
        }
    }

    /// Waits until the service is ready; answers a sentence that says so.
    pub(crate) async fn ready(&self, docker: &Docker, limit: Duration) -> Result<String, Fault> {
        let mut address = None;
        loop {
            let state = self.state.borrow().clone();
            let is_ready = match state {
                State::Ended(why) => {
                    let message =
                        format!("The service {} ended before it was ready: {why}.", self.alias);
                    return Err(Fault::new("service_failed", message));
                }
                State::Starting => false,
                State::Runs => match self.sign {
                    Sign::Runs => true,
                    Sign::HealthCheck => is_healthy(docker, &self.container).await,
                    Sign::Port(port) => {
                        if address.is_none() {
                            address = container::address(docker, &self.container).await;
                        }
                        match &address {
                            Some(address) => accepts(address, port).await,
                            None => false,
                        }
                    }
                },
            };
            let waited = self.started.elapsed();
            if is_ready {
                let seconds = waited.as_secs_f64();
                return Ok(format!("Service {} is ready after {seconds:.1} s", self.alias));
            }
            if waited >= limit {
                return Err(Fault::new("service_not_ready", self.late(limit)));
            }
            sleep(ASK_EVERY).await;
        }
    }

    fn late(&self, limit: Duration) -> String {
        let (missing, fix) = match self.sign {
            Sign::HealthCheck => ("its HEALTHCHECK did not pass", "look at its last lines"),
            Sign::Port(_) => (
                "its port did not accept a connection",
                "look at its last lines, or name another port in `ready`",
            ),
            Sign::Runs => ("its process did not start", "look at its image"),
        };
        let (alias, seconds) = (&self.alias, limit.as_secs());
        let port = match self.sign {
            Sign::Port(port) => format!(" (port {port})"),
            Sign::HealthCheck | Sign::Runs => String::new(),
        };
        format!(
            "The service {alias} was not ready after {seconds} s: {missing}{port}. To fix it, {fix}."
        )
    }

    /// The last lines that it wrote, and its end if it ended, for the reader of the job's log.
    pub(crate) fn last_words(&self) -> Vec<String> {
        let alias = &self.alias;
        let mut notes: Vec<String> =
            lock(&self.tail).lines().into_iter().map(|line| format!("{alias} | {line}")).collect();
        match (notes.is_empty(), &*self.state.borrow()) {
            (_, State::Ended(why)) => notes.push(format!("Service {alias} has ended: {why}")),
            (true, _) => notes.push(format!("Service {alias} has written nothing")),
            (false, _) => notes.insert(0, format!("The last lines of service {alias}:")),
        }
        notes
    }
}

fn lock(tail: &Mutex<Tail>) -> std::sync::MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended(exit: StepExit) -> String {
    match exit {
        StepExit::Code(code) => format!("its process exited with {code}"),
        StepExit::Signal(signal) => format!("signal {signal} ended its process"),
        StepExit::TimedOut | StepExit::Cancelled => "it was ended".to_owned(),
    }
}

fn job(spec: &ServiceSpec, image: &Image, bounds: &Bounds) -> protocol::Job {
    let arguments = if spec.command.is_empty() { &image.command } else { &spec.command };
    let words = image.entrypoint.iter().chain(arguments).cloned().collect();
    let env = spec.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    protocol::Job {
        nonce: session::nonce(),
        image: spec.image.clone(),
        workdir: String::new(),
        own_workdir: false,
        user: image.user.clone(),
        set_home: !image.has_home,
        grace_ms: 1_000,
        life: bounds.lease.life(),
        steps: vec![Step { number: 1, timeout_ms: 0, command: Command::Argv(words), env }],
    }
}

async fn is_healthy(docker: &Docker, container: &str) -> bool {
    let found = docker.inspect_container(container, None::<InspectContainerOptions>).await;
    let health = found.ok().and_then(|found| found.state?.health?.status);
    health == Some(HealthStatusEnum::HEALTHY)
}

async fn accepts(address: &str, port: u16) -> bool {
    let connected = timeout(Duration::from_secs(1), TcpStream::connect((address, port))).await;
    matches!(connected, Ok(Ok(_)))
}
