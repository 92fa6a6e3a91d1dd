//! `pipeyard-hook`: what Git's post-receive runs. It does what `pipectl hook` does, for a server on
//! this machine, without starting an executable of many megabytes at each push.
//!
//! It never fails a push, holds it up for two seconds at most, and hands everything that isn't plain,
//! https above all, to `pipectl hook`, which knows proxies, certificates and the rules for addresses.
//! It decides before it reads standard input, so that nothing is lost on the way.

mod file;
mod http;
mod message;

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// How long a push may be held up.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of updates that are read: about 10,000 refs.
const MAX_UPDATES: u64 = 2 * 1024 * 1024;

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read(std::env::args_os().skip(1)) else {
        say("usage: pipeyard-hook --file FILE --pipectl PROGRAM");
        return ExitCode::from(2);
    };
    let plain = std::fs::read_to_string(&arguments.file)
        .ok()
        .and_then(|text| file::read(&text))
        .and_then(|hook| Some((http::Address::read(&hook.url)?, hook.secret)));
    match plain {
        Some((address, secret)) => {
            let deadline = Instant::now() + LIMIT;
            match tell(&address, &secret, deadline) {
                Ok(()) => {}
                Err(_) if Instant::now() >= deadline => {
                    say("pipeyard: no answer within 2 s; it will find this push by itself");
                }
                Err(problem) => not_told(&problem),
            }
        }
        None => {
            let error = Command::new(&arguments.pipectl)
                .arg("hook")
                .arg("--file")
                .arg(&arguments.file)
                .exec();
            not_told(&format!("failed to start {}: {error}", arguments.pipectl.display()));
        }
    }
    ExitCode::SUCCESS
}

fn not_told(problem: &str) {
    say(&format!("pipeyard: not told ({problem}); it will find this push by itself"));
}

/// Standard error reaches who pushes; who closed it hears nothing.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn tell(address: &http::Address, secret: &str, deadline: Instant) -> Result<(), String> {
    let mut input = String::new();
    std::io::stdin().take(MAX_UPDATES).read_to_string(&mut input).map_err(|e| e.to_string())?;
    let body = message::of(&input, message::delivery().as_deref());
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|e| e.to_string())?;
    mac.update(body.as_bytes());
    let signature: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    address.post(&format!("sha256={signature}"), body.as_bytes(), deadline)
}

struct Arguments {
    file: PathBuf,
    pipectl: PathBuf,
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = OsString>) -> Option<Self> {
        let (mut file, mut pipectl) = (None, None);
        while let Some(name) = given.next() {
            match name.to_str()? {
                "--file" => file = Some(given.next()?.into()),
                "--pipectl" => pipectl = Some(given.next()?.into()),
                _ => return None,
            }
        }
        Some(Self { file: file?, pipectl: pipectl? })
    }
}
