//! The demo's processes: what `up` runs, three hosts with their agents, and a signed-in client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use pipeyard_api::{
    client::Client,
    views::{Login, Me},
};

use pipeyard_home::{Hold, Role};

use super::{
    Parts,
    ports::{HOSTS, Ports},
    tell, up,
};
use crate::supervise;

/// Where the parts' lines go, in the demo's folder.
pub(super) const LOG: &str = "parts.log";

/// The demo while it runs.
#[derive(Debug)]
pub(crate) struct Running {
    dir: PathBuf,
    client: Client,
    _hold: Hold,
}

impl Running {
    /// Starts every part in the demo's folder and signs in.
    pub(crate) async fn start(dir: &Path, ports: Ports, parts: &Parts) -> anyhow::Result<Self> {
        let dir = dir.to_path_buf();
        let up = up(&dir, ports);
        let hold = up.claim()?;
        supervise::relay_to(fs::File::create(dir.join(LOG))?);
        let layout = up.layout()?;
        let fleet = format!("http://{}", up.fleet_listen);
        let credentials = dir.join("fleet/credentials.json");
        for mut part in layout.parts {
            part.bound = true;
            parts.spawn(part);
        }
        wait_for("the fleet makes its credentials", || async {
            credentials.is_file().then_some(())
        })
        .await?;
        for n in 0..HOSTS {
            let at = ports.host(n).to_string();
            let enrolment = enrol(&dir, n, &at, &fleet, &credentials).await?;
            parts.spawn(agent(&dir, n, &fleet, &enrolment)?);
        }
        let url = format!("http://{}", up.listen);
        let anonymous = Client::new(&url, None)?;
        wait_for("the server is ready", || async {
            anonymous.open("/readyz", &[]).await.ok().map(drop)
        })
        .await?;
        let code = login_code(&dir).await?;
        let me: Me = anonymous
            .post(
                "/api/login",
                &Login { code, want: Some("token".into()), label: Some("demo".into()), days: None },
            )
            .await?;
        let client = Client::new(&url, me.token)?;
        let code = login_code(&dir).await?;
        tell(&format!("everything runs; look on: {url}/login#code={code}"));
        Ok(Self { dir, client, _hold: hold })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn url(&self) -> &str {
        self.client.base()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) async fn login_code(&self) -> anyhow::Result<String> {
        login_code(&self.dir).await
    }
}

impl Parts {
    fn spawn(&self, part: supervise::Part) {
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            if let Err(error) = supervise::keep_running(part, stop).await {
                tell(&format!("{error:#}"));
            }
        });
    }
}

fn host(n: u16) -> String {
    format!("host{}", n + 1)
}

/// A host: a root of its own, an agent, a port for its program.
fn agent(dir: &Path, n: u16, fleet: &str, enrolment: &Path) -> anyhow::Result<supervise::Part> {
    let name = host(n);
    let root = dir.join("hosts").join(&name);
    pipeyard_private::folder(&root, &["bundles"])?;
    let mut args: Vec<String> =
        ["agent", "--fleet", fleet].iter().map(|arg| (*arg).to_owned()).collect();
    args.extend(["--root".into(), root.display().to_string()]);
    args.extend(["--enroll-file".into(), enrolment.display().to_string()]);
    Ok(supervise::Part {
        name: name.clone(),
        args,
        env: Vec::new(),
        bound: true,
        pid_file: dir.join(format!("{name}.pid")),
    })
}

/// Lets a host enrol, as a person on the fleet's machine would; answers the file of the code.
async fn enrol(
    dir: &Path,
    n: u16,
    address: &str,
    fleet: &str,
    credentials: &Path,
) -> anyhow::Result<PathBuf> {
    let name = host(n);
    let code = wait_for(&format!("{name} may enrol"), || async {
        let output = tokio::process::Command::new(std::env::current_exe().ok()?)
            .args(["fleet", "enroll", &name, "--tags", "role=worker", "--address", address])
            .args(["--fleet", fleet, "--credentials"])
            .arg(credentials)
            .stdin(Stdio::null())
            .output()
            .await
            .ok()?;
        output.status.success().then_some(output.stdout)
    })
    .await?;
    let file = dir.join(format!("{name}.enrolment"));
    pipeyard_private::write(&file, &code)?;
    Ok(file)
}

/// Mints a login next to the running server, as a person on this machine would.
async fn login_code(dir: &Path) -> anyhow::Result<String> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["login-code", "--data"])
        .arg(dir.join("server"))
        .stdin(Stdio::null())
        .output()
        .await?;
    anyhow::ensure!(
        output.status.success(),
        "no login: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn wait_for<T, F, Fut>(what: &str, mut ask: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = ask().await {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < deadline, "waited 30 s in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ends every program that works in a folder of the demo's hosts: a deployed program outlives its
/// agent, as it should, and would hold its port against the next demo.
fn end_programs(hosts: &Path) {
    let Ok(hosts) = fs::canonicalize(hosts) else { return };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) =
            name.to_str().and_then(|n| n.parse().ok()).and_then(rustix::process::Pid::from_raw)
        else {
            continue;
        };
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&hosts)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Ends what an earlier demo left running and removes its data, containers and networks.
pub(crate) async fn take_down(data: &Path) -> anyhow::Result<()> {
    if !data.exists() {
        return Ok(());
    }
    let dir = fs::canonicalize(data)?;
    // What a copy names belongs to the original: its processes and containers stay.
    for folder in pipeyard_home::parts(&dir) {
        pipeyard_home::check(&folder)?;
    }
    for name in ["server", "runner", "fleet", "proxy", "host1", "host2", "host3"] {
        let (role, folder) = match Role::parse(name) {
            Some(role) => (role, dir.join(name)),
            None => (Role::Agent, dir.join("hosts").join(name)),
        };
        let pid_file = dir.join(format!("{name}.pid"));
        if let Some(process) = supervise::running(&folder, role, &pid_file) {
            let _ = process.signal(rustix::process::Signal::TERM);
            let gone = || async { (!process.is_alive()).then_some(()) };
            wait_for(&format!("{name} ends"), gone).await?;
        }
    }
    end_programs(&dir.join("hosts"));
    pipeyard_runner::remove_everything(&dir.join("runner"))
        .await
        .context("failed to remove the runner's containers")?;
    pipeyard_fleet::remove_everything(&dir.join("fleet"))
        .await
        .context("failed to remove the fleet's containers")?;
    fs::remove_dir_all(&dir).with_context(|| format!("failed to remove {}", dir.display()))
}
