//! Where jobs may connect to: not to the machine itself, nor to its cloud's metadata service, whose
//! answers are credentials. Held by the kernel's packet filter, in chains of our own that Docker's
//! `DOCKER-USER` and `INPUT` send the packets of jobs through.
//!
//! All runners of a machine share the chains and write the same into them, under one lock and in one
//! transaction, so nothing doubles and nothing is ever half there. They stay when a runner ends: they
//! hold for the addresses of Pipeyard's networks only. They are looked at before jobs are taken, and
//! made again if a firewall's restart has removed them.

mod rules;

use std::{
    fs::File,
    io::Write as _,
    net::IpAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use pipeyard_model::InstallationId;

use self::rules::{ALLOWED, ARRIVING, Family, PASSING};
use super::{fault::Fault, subnet::Subnet};

pub(crate) use self::rules::BRIDGE;
pub use self::rules::{BadDestination, Destination};

/// The lock of all runners on the machine.
const LOCK: &str = "/run/pipeyard-egress.lock";
/// The rules were there so recently that nobody looks again.
const FRESH: Duration = Duration::from_secs(5);
/// Files that name the machine's resolvers; the second one where systemd hides them from the first.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Where jobs may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Egress {
    /// Anywhere that the machine can.
    Open,
    /// Not to the machine and its metadata service, but for these.
    Guarded(Vec<Destination>),
}

/// Holds the rules of one runner.
#[derive(Debug)]
pub(crate) struct Guard {
    range: Subnet,
    allowed: Vec<Destination>,
    owner: String,
    /// When they were last seen as they should be.
    seen: Mutex<Option<Instant>>,
}

impl Guard {
    pub(crate) fn new(range: Subnet, allowed: Vec<Destination>, owner: InstallationId) -> Self {
        let owner = format!("pipeyard-{}", owner.0.simple());
        Self { range, allowed, owner, seen: Mutex::new(None) }
    }

    /// Makes sure that the rules hold.
    pub(crate) async fn hold(self: &std::sync::Arc<Self>) -> Result<(), Fault> {
        let fresh = *self.seen();
        if fresh.is_some_and(|seen| seen.elapsed() < FRESH) {
            return Ok(());
        }
        let this = std::sync::Arc::clone(self);
        let held = tokio::task::spawn_blocking(move || this.hold_now()).await;
        held.map_err(|error| unenforceable(&error.to_string()))?
            .map_err(|why| unenforceable(&why))?;
        *self.seen() = Some(Instant::now());
        Ok(())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold_now(&self) -> Result<(), String> {
        let _lock = lock()?;
        let resolvers = resolvers();
        self.hold_for(Family::V4, &resolvers)?;
        // A kernel without IPv6 needs no rules for it.
        if Path::new("/proc/net/if_inet6").exists() {
            self.hold_for(Family::V6, &resolvers)?;
        }
        Ok(())
    }

    fn hold_for(&self, family: Family, resolvers: &[IpAddr]) -> Result<(), String> {
        let present = Present::read(family)?;
        if family == Family::V4 && !present.has("DOCKER-USER") {
            return Err(
                "Docker made no chain DOCKER-USER: it runs with `iptables` off, with another \
                        firewall, or in another network namespace"
                    .to_owned(),
            );
        }
        let hooks = rules::hooks(family, self.range, present.has("DOCKER-USER"));
        let chains = rules::chains(family, self.range, resolvers);
        let others = present.of(ALLOWED).filter(|line| !line.contains(&self.owner));
        let allowed: Vec<String> =
            others.cloned().chain(rules::allowances(family, &self.allowed, &self.owner)).collect();
        if present.holds(&hooks, &chains, &allowed) {
            return Ok(());
        }
        let mut text = "*filter\n".to_owned();
        for chain in [PASSING, ARRIVING, ALLOWED] {
            text += &format!(":{chain} - [0:0]\n");
        }
        for line in allowed.iter().chain(&chains) {
            text += line;
            text.push('\n');
        }
        for (hook, jump) in &hooks {
            for _ in 0..present.count(hook, jump) {
                text += &format!("-D {hook} {jump}\n");
            }
            text += &format!("-I {hook} 1 {jump}\n");
        }
        text += "COMMIT\n";
        restore(family, &text)?;
        tracing::info!(
            program = family.program(),
            "the rules about where jobs may connect to are set"
        );
        Ok(())
    }
}

impl Drop for Guard {
    /// What one runner allows ends with it; the rest stays. One that is killed leaves it to its next
    /// start.
    fn drop(&mut self) {
        if self.allowed.is_empty() {
            return;
        }
        self.allowed.clear();
        if let Err(error) = self.hold_now() {
            tracing::debug!(%error, "what jobs of this runner were allowed stays allowed");
        }
    }
}

/// Removes the rules of all runners: nothing of Pipeyard's is on this machine any more.
pub(crate) fn remove() -> Result<(), String> {
    let _lock = lock()?;
    for family in [Family::V4, Family::V6] {
        let Ok(present) = Present::read(family) else { continue };
        let mut text = "*filter\n".to_owned();
        for line in &present.0 {
            let jumps =
                [PASSING, ARRIVING].iter().any(|chain| line.ends_with(&format!("-j {chain}")));
            if let Some(rule) = line.strip_prefix("-A ").filter(|_| jumps) {
                text += &format!("-D {rule}\n");
            }
        }
        for chain in [PASSING, ARRIVING, ALLOWED].into_iter().filter(|chain| present.has(chain)) {
            text += &format!("-F {chain}\n");
        }
        for chain in [PASSING, ARRIVING, ALLOWED].into_iter().filter(|chain| present.has(chain)) {
            text += &format!("-X {chain}\n");
        }
        text += "COMMIT\n";
        restore(family, &text)?;
    }
    Ok(())
}

/// What is in a table, in the words of `-S`.
struct Present(Vec<String>);

impl Present {
    fn read(family: Family) -> Result<Self, String> {
        let output = run(family.program(), &["-w", "10", "-S"], "")?;
        Ok(Self(String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect()))
    }

    fn has(&self, chain: &str) -> bool {
        self.0.iter().any(|line| line.strip_prefix("-N ") == Some(chain))
    }

    fn of(&self, chain: &str) -> impl Iterator<Item = &String> {
        let start = format!("-A {chain} ");
        self.0.iter().filter(move |line| line.starts_with(&start))
    }

    fn count(&self, hook: &str, jump: &str) -> usize {
        let line = format!("-A {hook} {jump}");
        self.0.iter().filter(|present| **present == line).count()
    }

    /// Whether everything is there, once, and packets come to it before anything lets them go.
    fn holds(&self, hooks: &[(String, String)], chains: &[String], allowed: &[String]) -> bool {
        let is_first = hooks.iter().all(|(hook, jump)| {
            let jump_line = format!("-A {hook} {jump}");
            let before = self.of(hook).take_while(|line| **line != jump_line);
            // Others' chains may be asked first; what lets everything go may not.
            let lets_go = |line: &String| {
                ["ACCEPT", "RETURN"].iter().any(|end| *line == format!("-A {hook} -j {end}"))
            };
            self.count(hook, jump) == 1 && !before.into_iter().any(lets_go)
        });
        let is = |chain: &str, wanted: &[String]| {
            let mut wanted: Vec<String> = wanted
                .iter()
                .filter(|line| line.starts_with(&format!("-A {chain} ")))
                .map(|line| plain(line))
                .collect();
            let mut present: Vec<String> = self.of(chain).map(|line| plain(line)).collect();
            if chain == ALLOWED {
                wanted.sort();
                present.sort();
            }
            wanted == present
        };
        is_first && is(PASSING, chains) && is(ARRIVING, chains) && is(ALLOWED, allowed)
    }
}

/// A rule without what the programs write in one way or another: the length of a single address, the
/// order of matches.
fn plain(line: &str) -> String {
    let mut words: Vec<String> = line
        .split_whitespace()
        .map(|word| {
            word.strip_suffix("/32").or(word.strip_suffix("/128")).unwrap_or(word).to_owned()
        })
        .collect();
    words.sort();
    words.join(" ")
}

fn resolvers() -> Vec<IpAddr> {
    let text: String = RESOLVERS
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect::<Vec<_>>()
        .join("\n");
    rules::resolvers(&text)
}

fn lock() -> Result<File, String> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)
        .map_err(|error| format!("{LOCK} can't be opened: {error}"))?;
    file.lock().map_err(|error| format!("{LOCK} can't be locked: {error}"))?;
    Ok(file)
}

fn restore(family: Family, text: &str) -> Result<(), String> {
    let program = format!("{}-restore", family.program());
    run(&program, &["-w", "10", "--noflush"], text).map(drop)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        // They are administrators' programs, whose folders aren't in everybody's path.
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program} doesn't start: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that didn't read says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", words.split_whitespace().collect::<Vec<_>>().join(" ")))
}

pub(crate) fn unenforceable(why: &str) -> Fault {
    Fault::new(
        "egress_unenforceable",
        format!(
            "Jobs can't be kept from this machine's own addresses and its metadata service ({why}). \
             Run the runner as root with iptables, or say `--egress open` where jobs may connect to \
             everything that the machine can."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(hooks: &[(String, String)], chains: &[String]) -> Present {
        let hooks = hooks.iter().map(|(hook, jump)| format!("-A {hook} {jump}"));
        Present(hooks.chain(chains.iter().cloned()).collect())
    }

    #[test]
    fn rules_that_are_missing_doubled_or_too_late_are_seen() {
        let hooks = rules::hooks(Family::V4, Subnet::OURS, true);
        let chains = rules::chains(Family::V4, Subnet::OURS, &[]);
        let good = present(&hooks, &chains);
        assert!(good.holds(&hooks, &chains, &[]));
        for gone in 0..good.0.len() {
            let mut less = present(&hooks, &chains);
            less.0.remove(gone);
            assert!(!less.holds(&hooks, &chains, &[]), "without {}", good.0[gone]);
        }
        let mut doubled = present(&hooks, &chains);
        doubled.0.insert(0, doubled.0[0].clone());
        assert!(!doubled.holds(&hooks, &chains, &[]));
        let mut late = present(&hooks, &chains);
        late.0.insert(0, "-A DOCKER-USER -j RETURN".to_owned());
        assert!(!late.holds(&hooks, &chains, &[]));
        let more = rules::allowances(Family::V4, &["10.1.2.3".parse().unwrap()], "me");
        assert!(!good.holds(&hooks, &chains, &more));
    }
}
