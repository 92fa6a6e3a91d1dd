//! Process 1 of a job's container.
//!
//! It reads a job from stdin, runs the steps one after another, frames what they write, and ends
//! with a sentinel once every other process of the container is dead. Rules:
//!
//! - It makes itself non-dumpable before its first fork: a step, even as root, can then neither open
//!   `/proc/1/fd/*` nor read `/proc/1/environ` or `/proc/1/mem`, so it can't forge a frame and can't
//!   see another step's secrets.
//! - It installs no signal handler: as process 1 it is deaf to every signal from inside.
//! - It never blocks on its output: it reads from steps only as fast as its reader takes.
//! - When stdin ends, or the time is over for which the job is its runner's, it kills everything and
//!   exits: at once, without a grace period, because somebody else may begin the job again.
//!
//! Outside of a container (the local executor) it is a subreaper and does the same for its own
//! descendants, without isolation.

mod owner;
#[expect(dead_code, reason = "the executor compiles this file too and uses the other half")]
mod protocol;
mod session;
mod sys;
mod user;

use std::{fs, io::Read, process::ExitCode};

use protocol::Job;
use session::Session;

fn main() -> ExitCode {
    match start() {
        Ok(session) => ExitCode::from(session.run()),
        Err(message) => {
            eprintln!("pipeyard-shim: {message}");
            ExitCode::from(70)
        }
    }
}

fn start() -> Result<Session, String> {
    sys::set_non_dumpable().map_err(|e| format!("can't become non-dumpable: {e}"))?;
    if !sys::is_init() {
        sys::become_subreaper().map_err(|e| format!("can't become a subreaper: {e}"))?;
    }
    let job = read_job()?;
    let user = if job.user.is_empty() {
        Ok(None)
    } else {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        user::find(&job.user, &passwd, &group).map(Some)
    };
    Session::new(job, user).map_err(|e| format!("can't start: {e}"))
}

fn read_job() -> Result<Job, String> {
    let mut stdin = std::io::stdin().lock();
    let mut head = [0; 12];
    stdin.read_exact(&mut head).map_err(|e| format!("no job on stdin: {e}"))?;
    let length = Job::body_length(&head).ok_or("this program is started by Pipeyard only")?;
    let mut body = Vec::new();
    let limit = u64::try_from(length).unwrap_or(u64::MAX);
    stdin
        .by_ref()
        .take(limit)
        .read_to_end(&mut body)
        .map_err(|e| format!("can't read the job: {e}"))?;
    Job::decode(&body).ok_or_else(|| "the job on stdin is damaged".to_owned())
}
