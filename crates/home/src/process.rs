//! Which process it is: its id, when it started, and in which boot of the machine. An id alone names
//! a stranger as soon as the process is gone.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
};

use rustix::process::{Pid, PidfdFlags, Signal};

/// One process, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    /// In clock ticks since the machine's start.
    started: u64,
    boot: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.pid, self.started, self.boot)
    }
}

impl Process {
    /// This one.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this id now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let wrong =
            || io::Error::new(ErrorKind::InvalidData, format!("process {pid} has no start"));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may hold anything.
        let (_, rest) = stat.rsplit_once(')').ok_or_else(wrong)?;
        let mut fields = rest.split_whitespace();
        // A zombie has ended; its parent hasn't looked yet.
        if fields.next().is_some_and(|state| matches!(state, "Z" | "X")) {
            return Err(io::Error::from(ErrorKind::NotFound));
        }
        // Field 22; the state was field 3.
        let started = fields.nth(18).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { pid: i32::try_from(pid).map_err(|_| wrong())?, started, boot })
    }

    /// What [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        Some(Self { pid, started: words.next()?.parse().ok()?, boot: words.next()?.to_owned() })
    }

    /// Its id, for people.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        u32::try_from(self.pid).is_ok_and(|pid| Self::of(pid).is_ok_and(|now| now == *self))
    }

    /// Sends it a signal; never a stranger that has its id by now. `false`: it is gone.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        // The handle is of one process; then it is looked at which.
        let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        self.is_alive() && rustix::process::pidfd_send_signal(handle, signal).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_nobody_with_its_id_later() {
        let own = Process::own().unwrap();
        assert_eq!(Process::parse(&own.to_string()), Some(own.clone()));
        assert!(own.is_alive());
        let later = Process { started: own.started + 1, ..own.clone() };
        let rebooted = Process { boot: "another".into(), ..own };
        for stranger in [later, rebooted] {
            assert!(!stranger.is_alive());
            // Else this test would end here.
            assert!(!stranger.signal(Signal::KILL));
        }
        for text in ["", "1", "1 2", "x 2 b", "-1 2 b", "0 2 b"] {
            assert_eq!(Process::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_ended_child_is_gone_before_its_parent_looks() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::of(child.id());
        while process.as_ref().is_ok_and(Process::is_alive) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
