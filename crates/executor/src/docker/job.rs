//! One attempt of a job, from its images to the removal of everything that it made.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use pipeyard_model::{Conclusion, Timestamp, plan::ServiceSpec};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Core,
    access::Access,
    container::{self, Making, Running, WORKSPACE},
    credentials, disk,
    fault::Fault,
    image::{self, Image},
    labels,
    network::{Lent, MAX_SERVICES},
    service::Service,
};
use crate::{
    JobEvent, JobOutcome, JobRun, check,
    outcome::{Pressure, Verdict, judge},
    protocol::{self, Exit},
    session::{self, Bounds, Ending, Tail},
    steps,
};

/// Events wait for their receiver; a note doesn't wait longer than this.
const NOTE: Duration = Duration::from_secs(30);
/// What a shim may need to kill everything when its time is over.
const DEATH: Duration = Duration::from_secs(2);
/// Between tries to remove containers while Docker doesn't answer.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Attempt {
    core: Arc<Core>,
    run: JobRun,
    events: mpsc::Sender<JobEvent>,
    bounds: Bounds,
    started: Timestamp,
    /// Names of the containers that may exist, each with whether it is ending by itself.
    made: Mutex<BTreeMap<String, bool>>,
}

/// Why a job doesn't get to its end.
enum Halt {
    Pressure(Pressure),
    Fault(Fault),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Attempt {
    pub(crate) fn new(
        core: Arc<Core>,
        run: JobRun,
        events: mpsc::Sender<JobEvent>,
        cancel: CancellationToken,
    ) -> Self {
        let deadline = Instant::now() + run.spec.timeout;
        let (grace, lease) = (core.config.grace, run.lease.clone());
        let bounds = Bounds { cancel, deadline, grace, lease };
        let started = core.config.clock.now();
        Self { core, run, events, bounds, started, made: Mutex::default() }
    }

    /// Runs the job and removes everything; never longer than the job's timeout, the grace period
    /// and a bounded time to clean up.
    pub(crate) async fn run(self) -> JobOutcome {
        let mut lent = None;
        let mut services = Vec::new();
        let mut excess = None;
        let ended = {
            let work = self.execute(&mut lent, &mut services);
            let mut work = std::pin::pin!(work);
            tokio::select! {
                ended = &mut work => ended,
                why = self.watch_disk() => {
                    excess = Some(why);
                    self.bounds.cancel.cancel();
                    work.await
                }
            }
        };
        // What the containers know of the lease; nobody tells them more from here on.
        let dead_by = self.run.lease.end() + DEATH;
        let mut outcome = match ended {
            Ok(outcome) => outcome,
            Err(Halt::Pressure(Pressure::TimedOut)) => JobOutcome::job_timeout(&self.run.spec),
            Err(Halt::Pressure(Pressure::Cancelled | Pressure::None)) => JobOutcome::cancelled(),
            Err(Halt::Fault(fault)) => fault.into(),
        };
        if let Some(why) = excess.filter(|_| !outcome.conclusion.is_success()) {
            outcome = JobOutcome::of(Conclusion::Failure, "disk_limit", why);
        }
        if !outcome.conclusion.is_success() {
            for line in services.iter().flat_map(Service::last_words) {
                self.note(line).await;
            }
        }
        drop(services);
        let is_clean = self.remove_surely(dead_by).await;
        if let Some(lent) = lent {
            self.core.networks.give_back(lent, is_clean).await;
        }
        outcome
    }

    async fn execute(
        &self,
        lent: &mut Option<Lent>,
        services: &mut Vec<Service>,
    ) -> Result<JobOutcome, Halt> {
        let spec = &self.run.spec;
        check::job(&self.run)?;
        if spec.services.len() > MAX_SERVICES {
            let message = format!(
                "The job has {} services; {MAX_SERVICES} is the most.",
                spec.services.len()
            );
            return Err(Fault::new("too_many_services", message).into());
        }
        let images = self.images().await?;
        if let Some(guard) = &self.core.guard {
            guard.hold().await?;
        }
        self.note(format!("Image {}", images[&spec.image].describe(&spec.image))).await;
        let network = if spec.services.is_empty() {
            self.core.networks.shared().await?
        } else {
            let turn = self.unless_ended(self.core.networks.turn()).await??;
            let lent = lent.insert(self.core.networks.lend(turn).await?);
            let network = lent.id.clone();
            self.start_services(&network, &images, services).await?;
            network
        };
        self.unless_ended(std::future::ready(())).await?;
        self.run_steps(&network, &images).await
    }

    /// Finds or pulls every image of the job, so that a missing one is known before the first step.
    async fn images(&self) -> Result<BTreeMap<String, Image>, Halt> {
        let spec = &self.run.spec;
        let names = std::iter::once(&spec.image)
            .chain(spec.steps.iter().filter_map(|step| step.image.as_ref()))
            .chain(spec.services.iter().map(|service| &service.image));
        let mut images = BTreeMap::new();
        for name in names {
            if images.contains_key(name) {
                continue;
            }
            let docker = &self.core.docker;
            let config = &self.core.config;
            let access = config.registry_access.of(name, &self.run.repo);
            let found = match access {
                // Checked all the same, so that what isn't a name is said to be none.
                Access::AskRegistry => image::check_name(name).map(|()| None)?,
                Access::Public | Access::Granted => {
                    self.unless_ended(image::find(docker, name)).await??
                }
            };
            let image = match found {
                Some(image) => image,
                None => {
                    let note = |text| -> BoxFuture<'_, ()> { Box::pin(self.note(text)) };
                    let credentials = match access {
                        Access::Granted => {
                            credentials::of(name, config.docker_config.as_deref()).await
                        }
                        Access::Public | Access::AskRegistry => None,
                    };
                    let pull = image::pull(docker, name, credentials, config.pull_stall, &note);
                    self.unless_ended(pull).await??
                }
            };
            images.insert(name.clone(), image);
        }
        Ok(images)
    }

    async fn start_services(
        &self,
        network: &str,
        images: &BTreeMap<String, Image>,
        services: &mut Vec<Service>,
    ) -> Result<(), Halt> {
        let mut starts = Vec::new();
        for (number, spec) in (1..).zip(&self.run.spec.services) {
            starts.push(self.start_service(number, spec, network, images));
        }
        let mut failed = None;
        for result in join_all(starts).await {
            match result {
                Ok(service) => services.push(service),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        if let Some(fault) = failed {
            return Err(fault.into());
        }
        let mut waits = Vec::new();
        for service in &*services {
            waits.push(self.wait_ready(service));
        }
        for result in self.unless_ended(join_all(waits)).await? {
            result?;
        }
        Ok(())
    }

    async fn start_service(
        &self,
        number: usize,
        spec: &ServiceSpec,
        network: &str,
        images: &BTreeMap<String, Image>,
    ) -> Result<Service, Fault> {
        let image = &images[&spec.image];
        let name = self.name(&format!("service{number}"));
        let running = self.start(&name, "service", image, network, Some(&spec.alias)).await?;
        // The session ends when the service is dropped; this only bounds a mistake.
        let deadline = self.bounds.deadline + Duration::from_secs(600);
        let cancel = CancellationToken::new();
        let (grace, lease) = (self.bounds.grace, self.bounds.lease.clone());
        let bounds = Bounds { cancel, deadline, grace, lease };
        Ok(Service::begin(spec, image, name, running, bounds))
    }

    async fn wait_ready(&self, service: &Service) -> Result<(), Fault> {
        let text = service.ready(&self.core.docker, self.core.config.service_deadline).await?;
        self.note(text).await;
        Ok(())
    }

    async fn run_steps(
        &self,
        network: &str,
        images: &BTreeMap<String, Image>,
    ) -> Result<JobOutcome, Halt> {
        let spec = &self.run.spec;
        let image = &images[&spec.image];
        let name = self.name("job");
        // The shim waits for its job on stdin, so the container may start during the checkout.
        let running = self.start(&name, "job", image, network, None).await?;
        self.unless_ended(self.run.filled.wait()).await?;
        if let Some(remap) = self.core.remap {
            remap.give(&self.run.workspace).await?;
        }
        let job = self.shim_job(&spec.image, image, steps::all(&self.run));
        let elsewhere = |number: u16| -> BoxFuture<'_, Ending> {
            Box::pin(self.run_elsewhere(number, network, images))
        };
        let ending =
            session::drive(running.link, &job, &self.bounds, &self.events, Some(&elsewhere)).await;
        self.is_ending(&name, ending.broken.is_none());
        let mut outcome = match judge(spec, &ending, self.pressure()) {
            Verdict::Is(outcome) => outcome,
            Verdict::Lost => self.lost(&name, &ending, &running.complaint).await,
        };
        if may_be_memory(&ending)
            && let Some(role) = self.ran_out_of_memory().await
        {
            outcome = self.out_of_memory(outcome, &role);
        }
        Ok(outcome)
    }

    /// A step in an image of its own: the same network and workspace, a container for itself.
    async fn run_elsewhere(
        &self,
        number: u16,
        network: &str,
        images: &BTreeMap<String, Image>,
    ) -> Ending {
        let Some((own_image, step)) = steps::elsewhere(&self.run, number) else {
            return Ending::default();
        };
        let image = &images[own_image];
        let name = self.name(&format!("step{number}"));
        let running = match self.start(&name, "step", image, network, None).await {
            Ok(running) => running,
            Err(fault) => return Ending { fault: Some(fault.into()), ..Ending::default() },
        };
        let job = self.shim_job(own_image, image, vec![step]);
        let ending = session::drive(running.link, &job, &self.bounds, &self.events, None).await;
        self.is_ending(&name, ending.broken.is_none());
        if container::remove(&self.core.docker, &name, ending.broken.is_none()).await {
            self.made().remove(&name);
        }
        ending
    }

    fn shim_job(&self, name: &str, image: &Image, steps: Vec<protocol::Step>) -> protocol::Job {
        protocol::Job {
            nonce: session::nonce(),
            image: name.to_owned(),
            workdir: WORKSPACE.to_owned(),
            own_workdir: true,
            user: image.user.clone(),
            set_home: !image.has_home,
            grace_ms: session::millis(self.bounds.grace),
            life: self.bounds.lease.life(),
            steps,
        }
    }

    async fn start(
        &self,
        name: &str,
        role: &str,
        image: &Image,
        network: &str,
        alias: Option<&str>,
    ) -> Result<Running, Fault> {
        // Noted before it is made: a request that fails half-way may have made it.
        self.is_ending(name, false);
        let is_service = role == "service";
        let config = &self.core.config;
        let making = Making {
            name: name.to_owned(),
            image: &image.id,
            network,
            alias,
            workspace: (!is_service).then_some(self.run.workspace.as_path()),
            shim: &self.core.shim,
            labels: labels::container(config.installation, self.run.attempt, role),
            limits: if is_service { config.sidecar_limits } else { config.limits },
            is_service,
        };
        container::start(&self.core.docker, making).await
    }

    async fn lost(&self, name: &str, ending: &Ending, complaint: &Mutex<Tail>) -> JobOutcome {
        let lines = complaint.lock().unwrap_or_else(PoisonError::into_inner).lines();
        let broken = ending.broken.as_deref();
        let fault = container::explain_loss(&self.core.docker, name, broken, &lines).await;
        fault.into()
    }

    async fn ran_out_of_memory(&self) -> Option<String> {
        let names: Vec<String> = self.made().keys().cloned().collect();
        container::ran_out_of_memory(&self.core.docker, &names, self.started).await
    }

    fn out_of_memory(&self, outcome: JobOutcome, role: &str) -> JobOutcome {
        let before = outcome.reason.map(|reason| reason.message).unwrap_or_default();
        let config = &self.core.config;
        let (who, limits, setting) = if role == "service" {
            ("A service of the job", config.sidecar_limits, "service-memory")
        } else {
            ("The job", config.limits, "memory")
        };
        let limit = limits.memory_text();
        let message = format!(
            "{before} {who} ran out of memory: its limit of {limit} was reached and a process was \
             killed. Use less memory (fewer parallel compilers, for example), or raise `--{setting}` \
             of the runner (`{}` in its settings).",
            setting.replace('-', "_")
        );
        JobOutcome::of(outcome.conclusion, "out_of_memory", message)
    }

    /// The same until all are gone, or dead by themselves because the lease that they know is over.
    /// The job may begin again elsewhere as soon as this one has ended.
    async fn remove_surely(&self, dead_by: Instant) -> bool {
        loop {
            if self.remove_all().await {
                return true;
            }
            if Instant::now() >= dead_by {
                return false;
            }
            sleep_until(dead_by.min(Instant::now() + AGAIN)).await;
        }
    }

    /// Waits until the job uses too much of the disk; says so.
    async fn watch_disk(&self) -> String {
        let config = &self.core.config;
        let containers = || self.made().keys().cloned().collect();
        disk::watch(&self.core.docker, &self.run.workspace, &config.disk, containers).await
    }

    /// Removes every container of the attempt; whether all are known to be gone.
    async fn remove_all(&self) -> bool {
        let made: Vec<(String, bool)> = self.made().clone().into_iter().collect();
        let mut removals = Vec::new();
        for (name, is_ending) in &made {
            removals.push(container::remove(&self.core.docker, name, *is_ending));
        }
        let gone = join_all(removals).await;
        gone.into_iter().all(|gone| gone)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, bool>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self, name: &str, is_ending: bool) {
        self.made().insert(name.to_owned(), is_ending);
    }

    fn name(&self, part: &str) -> String {
        format!("pipeyard-{}-{}-{part}", self.run.attempt.job, self.run.attempt.epoch)
    }

    async fn note(&self, text: String) {
        let at = self.core.config.clock.now();
        let send = self.events.send(JobEvent::Note { at, text });
        // A receiver that takes nothing is found by the steps; a note is not worth more waiting.
        let _ = tokio::time::timeout(NOTE, send).await;
    }

    fn pressure(&self) -> Pressure {
        if self.bounds.cancel.is_cancelled() {
            Pressure::Cancelled
        } else if Instant::now() >= self.bounds.deadline {
            Pressure::TimedOut
        } else {
            Pressure::None
        }
    }

    /// Waits for something that may be dropped at any time.
    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            () = self.bounds.cancel.cancelled() => Err(Halt::Pressure(Pressure::Cancelled)),
            () = sleep_until(self.bounds.deadline) => Err(Halt::Pressure(Pressure::TimedOut)),
            done = work => Ok(done),
        }
    }
}

/// SIGKILL that nobody asked for, as the kernel's shortage of memory looks from inside.
fn may_be_memory(ending: &Ending) -> bool {
    let killed = [Exit::Signal(9), Exit::Code(137)];
    let last = ending.steps.last().map(|(_, exit)| *exit);
    last.is_some_and(|exit| killed.contains(&exit)) || (!ending.confirmed && ending.fault.is_none())
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("id", &self.run.attempt).finish_non_exhaustive()
    }
}
