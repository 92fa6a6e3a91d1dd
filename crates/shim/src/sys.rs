//! The system calls that the standard library doesn't offer. All unsafe code is here.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    time::{Duration, Instant},
};

use crate::user::User;

/// A process that ended, with its wait status.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    status: i32,
}

impl Reaped {
    /// The exit code, or the signal that ended it.
    pub(crate) fn code_or_signal(self) -> Result<i32, i32> {
        if libc::WIFEXITED(self.status) {
            Ok(libc::WEXITSTATUS(self.status))
        } else {
            Err(libc::WTERMSIG(self.status))
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

/// Milliseconds since the machine was started, time asleep included; 0 if it has no such clock.
pub(crate) fn since_boot_ms() -> u64 {
    // SAFETY: the clock's time is written to a place of ours, of the right type.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        if libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) < 0 {
            return 0;
        }
        time
    };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Nobody without CAP_SYS_PTRACE can look into this process any more, root included.
pub(crate) fn set_non_dumpable() -> io::Result<()> {
    // SAFETY: prctl with integer arguments touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    // SAFETY: as above.
    match check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) })? {
        0 => Ok(()),
        _ => Err(io::Error::other("the kernel ignored it")),
    }
}

/// Orphans among the descendants become this process's children.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with integer arguments touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(|_| ())
}

/// A descriptor that is readable when a child has ended. Blocks SIGCHLD for this process.
pub(crate) fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read; signalfd gives a new
    // descriptor that nobody else owns.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Reaps one ended child. `Ok(None)`: children exist but none has ended. An error of ECHILD: there
/// is no child at all.
pub(crate) fn reap() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) })?;
    Ok((pid > 0).then_some(Reaped { pid, status }))
}

/// Sends `signal` to every other process of the container, or to every descendant of this process
/// where it isn't process 1. Answers whether there was any.
pub(crate) fn signal_all(signal: i32) -> bool {
    if is_init() {
        // SAFETY: kill touches no memory. As process 1 the namespace bounds what -1 means.
        return unsafe { libc::kill(-1, signal) } == 0;
    }
    let all = descendants();
    for pid in &all {
        // SAFETY: kill touches no memory. `pid` is positive and a descendant; its number can't be
        // used again while nobody but this process or its parent has reaped it.
        unsafe { libc::kill(*pid, signal) };
    }
    !all.is_empty()
}

/// All processes below this one, parents first.
fn descendants() -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name is in parentheses and may hold any character, so count from the last one.
        let parent: Option<i32> =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        if let Some(parent) = parent {
            parents.push((pid, parent));
        }
    }
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let mut found: Vec<i32> = vec![own];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// How many bytes a pipe holds.
pub(crate) fn available(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}

/// Bytes that the pipes of steps and the shim's own may hold: four times the default, so that a
/// loud step and its reader take turns less often. All pipes of a user share an allowance of 64 MB.
const PIPE: libc::c_int = 256 * 1024;

/// Makes a pipe hold more. What is no pipe, or may not grow, stays as it is.
pub(crate) fn enlarge(fd: BorrowedFd<'_>) {
    // SAFETY: fcntl with integer arguments touches no memory.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) };
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: fcntl with integer arguments touches no memory.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(|_| ())
    }
}

/// What is waited for on a descriptor, and after [`poll`] whether it is there.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Interest(libc::pollfd);

impl Interest {
    pub(crate) fn read(fd: BorrowedFd<'_>) -> Self {
        Self(libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
    }

    pub(crate) fn write(fd: BorrowedFd<'_>) -> Self {
        Self(libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 })
    }

    /// Ready, closed or broken: in each case the next call on it doesn't block.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until one is ready or `until` has come. Interrupted waits return early.
pub(crate) fn poll(interests: &mut [Interest], until: Option<Instant>) {
    let millis = until.map_or(-1, |until| {
        let rest = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        i32::try_from(rest.as_millis()).unwrap_or(i32::MAX)
    });
    let count = libc::nfds_t::try_from(interests.len()).unwrap_or(0);
    // SAFETY: Interest is one pollfd, and the count is that of the slice.
    unsafe { libc::poll(interests.as_mut_ptr().cast(), count, millis) };
}

/// Makes the command run in a session of its own, as `user`, with default signals, and as the first
/// choice when memory runs out.
pub(crate) fn prepare(command: &mut Command, user: Option<User>) {
    let in_child = move || {
        // SAFETY: only async-signal-safe calls, no allocation; pointers live through each call.
        unsafe {
            let fd =
                libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, b"500".as_ptr().cast(), 3);
                libc::close(fd);
            }
            // A runner's own mask is strict; what a step makes is what people expect.
            libc::umask(0o022);
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            check(libc::setsid())?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
            if let Some(user) = &user {
                check(libc::setgroups(user.groups.len(), user.groups.as_ptr()))?;
                check(libc::setgid(user.gid))?;
                check(libc::setuid(user.uid))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure keeps to what is allowed between fork and exec.
    unsafe { command.pre_exec(in_child) };
}
