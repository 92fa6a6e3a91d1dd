//! One job from its first step to the sentinel: a single-threaded loop around `poll`.
//!
//! The loop ([`Session::turn`]) moves bytes, hears the executor and reaps children; everything else
//! is written as straight code that calls it. Nothing in it blocks but `poll` itself.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{self, Stdio},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    owner,
    protocol::{Command, Control, Exit, Frame, Job, Life, MAX_PAYLOAD, News, Step},
    sys::{self, Interest, Reaped},
    user::User,
};

/// Above this many bytes waiting for the reader, steps are no longer read from.
const HIGH_WATER: usize = 256 * 1024;
/// How long killed processes may take to disappear before the job ends without a sentinel.
const DEATH: Duration = Duration::from_secs(10);
const SHELL: &str = "/bin/sh";

/// Exit codes of the shim itself. The executor goes by the sentinel; these are for people.
const DONE: u8 = 0;
const SURVIVORS: u8 = 71;
const ABANDONED: u8 = 72;

#[derive(Debug)]
pub(crate) struct Session {
    job: Job,
    user: Result<Option<User>, String>,
    stdin: File,
    stdout: File,
    children: File,
    /// Encoded frames that wait for the reader, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    pipes: Vec<Pipe>,
    /// Bytes of a control that hasn't come whole.
    heard: Vec<u8>,
    /// When the executor must have said that the job is still its own.
    dies_at: Instant,
    /// The executor is no longer there.
    gone: bool,
    /// The executor wants the job to end.
    ask: Option<Exit>,
    /// The executor's answer about a step elsewhere.
    go: Option<bool>,
    /// When what got SIGTERM gets SIGKILL.
    kill_at: Option<Instant>,
}

#[derive(Debug)]
struct Pipe {
    file: File,
    step: u16,
    is_stderr: bool,
}

enum Next {
    Step,
    End,
}

impl Session {
    pub(crate) fn new(job: Job, user: Result<Option<User>, String>) -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        sys::set_nonblocking(stdin.as_fd())?;
        sys::set_nonblocking(stdout.as_fd())?;
        sys::enlarge(stdout.as_fd());
        let dies_at = end_of(job.life);
        Ok(Self {
            job,
            user,
            stdin,
            stdout,
            children: File::from(sys::child_events()?),
            out: Vec::new(),
            sent: 0,
            pipes: Vec::new(),
            heard: Vec::new(),
            dies_at,
            gone: false,
            ask: None,
            go: None,
            kill_at: None,
        })
    }

    /// The image in a message.
    fn image(&self) -> String {
        match self.job.image.as_str() {
            "" => "the image".to_owned(),
            name => format!("the image {name}"),
        }
    }

    /// Runs the job; the answer is the exit code of this process.
    pub(crate) fn run(mut self) -> u8 {
        let first_owner = self.take_workdir();
        for step in std::mem::take(&mut self.job.steps) {
            if self.gone || self.ask.is_some() {
                break;
            }
            match self.step(&step) {
                Next::Step => {}
                Next::End => break,
            }
        }
        let all_dead = self.end_everything();
        if let Some(owner) = first_owner {
            owner::give(Path::new(&self.job.workdir), owner);
        }
        if self.gone {
            return ABANDONED;
        }
        if !all_dead {
            return SURVIVORS;
        }
        let pipes = std::mem::take(&mut self.pipes);
        for mut pipe in pipes {
            while self.forward(&mut pipe, MAX_PAYLOAD) > 0 {}
        }
        let nonce = self.job.nonce;
        self.tell(0, News::Sentinel(&nonce));
        while !self.out.is_empty() && !self.gone {
            self.turn(None);
        }
        if self.gone { ABANDONED } else { DONE }
    }

    /// Gives the workspace to the steps' user; answers whom it belonged to if that was another.
    fn take_workdir(&self) -> Option<(u32, u32)> {
        let Ok(user) = &self.user else { return None };
        let folder = Path::new(&self.job.workdir);
        let before = owner::of(folder).filter(|_| self.job.own_workdir)?;
        let wanted = user.as_ref().map_or((0, 0), |user| (user.uid, user.gid));
        (before.0 != wanted.0).then(|| {
            owner::give(folder, wanted);
            before
        })
    }

    fn step(&mut self, step: &Step) -> Next {
        if step.command == Command::Elsewhere {
            return self.wait_elsewhere(step.number);
        }
        let started = Instant::now();
        let pid = match self.spawn(step) {
            Ok(pid) => pid,
            Err((code, message)) => {
                self.tell(step.number, News::Fatal(format!("{code}\0{message}").as_bytes()));
                return Next::End;
            }
        };
        self.tell(step.number, News::Started);
        let limit = (step.timeout_ms > 0).then(|| started + Duration::from_millis(step.timeout_ms));
        let mut ending = None;
        loop {
            let until = if ending.is_some() { self.kill_at } else { limit };
            for reaped in self.turn(until) {
                if reaped.pid == pid {
                    return self.stepped(step.number, ending, reaped);
                }
            }
            if self.gone {
                return Next::End;
            }
            let now = Instant::now();
            if ending.is_none() {
                let late = limit.is_some_and(|limit| now >= limit).then_some(Exit::StepTimedOut);
                ending = self.ask.or(late);
                if ending.is_some() {
                    sys::signal_all(libc::SIGTERM);
                    self.kill_at = Some(now + Duration::from_millis(self.job.grace_ms));
                }
            } else if self.kill_at.is_some_and(|at| now >= at) {
                sys::signal_all(libc::SIGKILL);
                self.kill_at = Some(now + Duration::from_millis(100));
            }
        }
    }

    /// The step's own process has ended. What it wrote is in the pipes by now: exactly that much is
    /// read, so that a background child that goes on writing can't keep the step open.
    fn stepped(&mut self, number: u16, ending: Option<Exit>, reaped: Reaped) -> Next {
        let mut pipes = std::mem::take(&mut self.pipes);
        for pipe in pipes.iter_mut().filter(|pipe| pipe.step == number) {
            let mut rest = sys::available(pipe.file.as_fd());
            while rest > 0 {
                match self.forward(pipe, rest.min(MAX_PAYLOAD)) {
                    0 => break,
                    read => rest -= read,
                }
            }
        }
        self.pipes = pipes;
        let exit = ending.unwrap_or(match reaped.code_or_signal() {
            Ok(code) => Exit::Code(code),
            Err(signal) => Exit::Signal(signal),
        });
        self.tell(number, News::Finished(exit));
        if exit == Exit::Code(0) { Next::Step } else { Next::End }
    }

    fn wait_elsewhere(&mut self, number: u16) -> Next {
        self.go = None;
        self.tell(number, News::Elsewhere);
        loop {
            self.turn(None);
            if self.gone || self.ask.is_some() {
                return Next::End;
            }
            match self.go.take() {
                Some(true) => return Next::Step,
                Some(false) => return Next::End,
                None => {}
            }
        }
    }

    fn spawn(&mut self, step: &Step) -> Result<i32, (&'static str, String)> {
        let user = self.user.clone().map_err(|problem| {
            ("unknown_user", format!("{} can't be used: {problem}", self.image()))
        })?;
        let mut command = match &step.command {
            Command::Shell(script) => {
                if std::fs::metadata(SHELL).is_err() {
                    let message = format!(
                        "{} has no {SHELL}, which runs the steps: use an image with a shell",
                        self.image()
                    );
                    return Err(("no_shell", message));
                }
                let mut command = process::Command::new(SHELL);
                command.args(["-e", "-c", script]);
                command
            }
            Command::Argv(words) => {
                let (program, arguments) = words.split_first().ok_or_else(|| {
                    ("no_command", format!("{} names no command to start", self.image()))
                })?;
                let mut command = process::Command::new(program);
                command.args(arguments);
                command
            }
            Command::Elsewhere => return Err(("internal", "a step elsewhere".to_owned())),
        };
        if let Some(user) = user.as_ref().filter(|_| self.job.set_home) {
            command.env("HOME", &user.home);
        }
        if !self.job.workdir.is_empty() {
            if !Path::new(&self.job.workdir).is_dir() {
                let message = format!("there is no folder {}", self.job.workdir);
                return Err(("no_workspace", message));
            }
            command.current_dir(&self.job.workdir);
        }
        command.envs(step.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::prepare(&mut command, user);
        let failed = |error: io::Error| {
            let program = command_name(&step.command);
            let hint = match error.raw_os_error() {
                Some(libc::E2BIG) => ": the command or its environment is too long for one process",
                Some(libc::EAGAIN) => ": the limit of processes is reached",
                _ => "",
            };
            ("step_start_failed", format!("can't start {program}: {error}{hint}"))
        };
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take().map(OwnedFd::from);
        let err = child.stderr.take().map(OwnedFd::from);
        for (fd, is_stderr) in [(out, false), (err, true)] {
            let Some(fd) = fd else { continue };
            sys::set_nonblocking(fd.as_fd()).map_err(failed)?;
            sys::enlarge(fd.as_fd());
            self.pipes.push(Pipe { file: File::from(fd), step: step.number, is_stderr });
        }
        i32::try_from(child.id()).map_err(|_| ("internal", "a process id out of range".to_owned()))
    }

    /// Kills and reaps until this process is alone. False if some process would not die.
    fn end_everything(&mut self) -> bool {
        let grace = self.kill_at.filter(|_| !self.gone);
        while let Some(at) = grace.filter(|at| Instant::now() < *at) {
            if self.is_alone() || self.gone {
                break;
            }
            self.turn(Some(at));
        }
        let deadline = Instant::now() + DEATH;
        loop {
            let any = sys::signal_all(libc::SIGKILL);
            if self.is_alone() && !any {
                return true;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            self.turn(Some(now + Duration::from_millis(5)));
        }
    }

    /// Whether there is no child left, dead or alive.
    fn is_alone(&self) -> bool {
        loop {
            match sys::reap() {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Waits for news until `until` and deals with all of it. Answers the children that ended.
    fn turn(&mut self, until: Option<Instant>) -> Vec<Reaped> {
        let until = Some(until.map_or(self.dies_at, |until| until.min(self.dies_at)));
        let mut interests = vec![Interest::read(self.children.as_fd())];
        let hears = !self.gone;
        if hears {
            interests.push(Interest::read(self.stdin.as_fd()));
        }
        let writes = hears && !self.out.is_empty();
        if writes {
            interests.push(Interest::write(self.stdout.as_fd()));
        }
        let reads = self.out.len() - self.sent < HIGH_WATER;
        if reads {
            interests.extend(self.pipes.iter().map(|pipe| Interest::read(pipe.file.as_fd())));
        }
        sys::poll(&mut interests, until);
        let mut ready = interests.iter().map(Interest::is_ready);
        let ended = ready.next() == Some(true);
        if hears && ready.next() == Some(true) {
            self.hear();
        }
        if writes && ready.next() == Some(true) {
            self.write();
        }
        if reads {
            let ready: Vec<bool> = ready.collect();
            self.read(&ready);
        }
        if Instant::now() >= self.dies_at {
            self.gone = true;
        }
        if ended { self.reap() } else { Vec::new() }
    }

    fn reap(&mut self) -> Vec<Reaped> {
        let mut events = [0; 1024];
        while self.children.read(&mut events).is_ok_and(|read| read == events.len()) {}
        let mut all = Vec::new();
        while let Ok(Some(reaped)) = sys::reap() {
            all.push(reaped);
        }
        all
    }

    fn hear(&mut self) {
        let mut bytes = [0; 256];
        match self.stdin.read(&mut bytes) {
            Ok(0) => self.gone = true,
            Ok(read) => {
                self.heard.extend_from_slice(&bytes[..read]);
                while let Some(control) = Control::decode(&mut self.heard) {
                    match control {
                        Control::Live(life) => self.dies_at = end_of(life),
                        Control::Cancel => self.ask = self.ask.or(Some(Exit::Cancelled)),
                        Control::TimeOut => self.ask = self.ask.or(Some(Exit::JobTimedOut)),
                        Control::Go => self.go = Some(true),
                        Control::Stop => self.go = Some(false),
                    }
                }
            }
            Err(error) if is_later(&error) => {}
            Err(_) => self.gone = true,
        }
    }

    fn write(&mut self) {
        match self.stdout.write(&self.out[self.sent..]) {
            Ok(written) => self.sent += written,
            Err(error) if is_later(&error) => {}
            Err(_) => self.gone = true,
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > HIGH_WATER {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn read(&mut self, ready: &[bool]) {
        let mut pipes = std::mem::take(&mut self.pipes);
        let mut ready = ready.iter();
        pipes.retain_mut(|pipe| {
            if ready.next() != Some(&true) {
                return true;
            }
            let mut bytes = [0; MAX_PAYLOAD];
            match pipe.file.read(&mut bytes) {
                Ok(0) => false,
                Ok(read) => {
                    self.output(pipe, &bytes[..read]);
                    true
                }
                Err(error) => is_later(&error),
            }
        });
        self.pipes = pipes;
    }

    /// Reads at most `limit` bytes that are there already; 0 when there are none.
    fn forward(&mut self, pipe: &mut Pipe, limit: usize) -> usize {
        let mut bytes = [0; MAX_PAYLOAD];
        match pipe.file.read(&mut bytes[..limit]) {
            Ok(read) => {
                if read > 0 {
                    self.output(pipe, &bytes[..read]);
                }
                read
            }
            Err(_) => 0,
        }
    }

    fn output(&mut self, pipe: &Pipe, bytes: &[u8]) {
        let news = if pipe.is_stderr { News::Stderr(bytes) } else { News::Stdout(bytes) };
        self.tell(pipe.step, news);
    }

    fn tell(&mut self, step: u16, news: News<&[u8]>) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        if !self.gone {
            Frame { step, at, news }.encode(&mut self.out);
        }
    }
}

/// When a life is over.
fn end_of(life: Life) -> Instant {
    let left = Duration::from_millis(life.left(sys::since_boot_ms()));
    // No clock reaches further than that.
    Instant::now() + left.min(Duration::from_secs(1 << 32))
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn command_name(command: &Command) -> &str {
    match command {
        Command::Shell(_) => SHELL,
        Command::Argv(words) => words.first().map_or("nothing", String::as_str),
        Command::Elsewhere => "nothing",
    }
}
