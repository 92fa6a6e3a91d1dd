//! What a test needs of the machine besides Rust: Docker, root, a program.
//!
//! A test whose need isn't met **fails**, and says what helps. Whoever can't meet it says so:
//! `PIPEYARD_SKIP="docker registry"` leaves such tests out, each by name on standard error, which
//! the test harness doesn't swallow, and as a line in the file that `PIPEYARD_SKIPPED` names, which
//! `make test` counts. On CI nothing may be left out. There is no third way: a test that can't run
//! never passes in silence.

use std::{
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A Docker daemon that answers, and the images of the tests.
    Docker,
    /// The program docker-registry.
    Registry,
    /// Root, to start a daemon or to mount.
    Root,
    /// Python with its virtual environments, and boto3 in one.
    Python,
    /// GitHub's published payloads.
    Payloads,
}

impl Need {
    const ALL: [Self; 5] = [Self::Docker, Self::Registry, Self::Root, Self::Python, Self::Payloads];

    /// As `PIPEYARD_SKIP` names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Registry => "registry",
            Self::Root => "root",
            Self::Python => "python",
            Self::Payloads => "payloads",
        }
    }

    const fn fix(self) -> &'static str {
        match self {
            Self::Docker => "tests/ensure.sh docker, tests/images/make.sh",
            Self::Registry => "tests/ensure.sh registry",
            Self::Root => "run the tests as root",
            Self::Python => "tests/ensure.sh python",
            Self::Payloads => "server/tests/payloads/install.sh",
        }
    }
}

/// Whether a test can run, by whether its need was found. `false`: it is left out, as was allowed;
/// the test returns.
///
/// # Panics
/// When the need isn't met and it wasn't said that it may be missing: the test fails.
#[must_use]
pub fn met(test: &str, need: Need, found: Result<(), String>) -> bool {
    static LEFT_OUT: AtomicUsize = AtomicUsize::new(0);
    let Err(why) = found else { return true };
    let may = std::env::var("PIPEYARD_SKIP").unwrap_or_default();
    let line = match judge(test, need, &why, &may, std::env::var_os("CI").is_some()) {
        Ok(line) => line,
        Err(problem) => panic!("{problem}"),
    };
    let count = LEFT_OUT.fetch_add(1, Ordering::Relaxed) + 1;
    // Not by eprintln: of a test that passes nobody would see it.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {line} ({count} in this program)");
    if let Some(file) = std::env::var_os("PIPEYARD_SKIPPED") {
        let record = File::options().create(true).append(true).open(&file);
        let written =
            record.and_then(|mut record| record.write_all(format!("{line}\n").as_bytes()));
        assert!(written.is_ok(), "{test} was left out, and that can't be recorded: {written:?}");
    }
    false
}

/// The line of a test that is left out, or why it fails instead.
fn judge(test: &str, need: Need, why: &str, may: &str, ci: bool) -> Result<String, String> {
    let words: Vec<&str> = may.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let names = || Need::ALL.map(Need::name).join(", ");
    if let Some(unknown) =
        words.iter().find(|word| !Need::ALL.iter().any(|need| need.name() == **word))
    {
        return Err(format!("PIPEYARD_SKIP names {unknown:?}; there are {}", names()));
    }
    let (name, why) = (need.name(), why.trim().replace('\n', " "));
    if words.contains(&name) && !ci {
        return Ok(format!("{test}: it needs {name}, and {why}"));
    }
    let way_out = if ci {
        "on CI nothing is left out".to_owned()
    } else {
        format!("to leave such tests out, by name and counted: PIPEYARD_SKIP={name}")
    };
    Err(format!("{test} needs {name}, and {why}; fix: {}; {way_out}", need.fix()))
}

/// Whether Docker answers and the images of the tests are there; asked once.
///
/// # Panics
/// As [`met`].
#[must_use]
pub fn docker(test: &str) -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        ask(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))?;
        let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../images/make.sh");
        ask(Command::new("bash").arg(images))
    });
    met(test, Need::Docker, found.clone())
}

/// Whether this is root.
///
/// # Panics
/// As [`met`].
#[must_use]
pub fn root(test: &str) -> bool {
    let id = Command::new("id").arg("-u").output().map(|output| output.stdout);
    let is_root = id.is_ok_and(|id| id == b"0\n");
    met(test, Need::Root, if is_root { Ok(()) } else { Err("this isn't root".to_owned()) })
}

/// Whether a command ends well; otherwise what it said.
///
/// # Errors
/// Its standard error, or why it can't be started.
pub fn ask(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} ended with {}: {}", output.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_cant_run_fails_unless_it_was_said_that_it_may() {
        let judge = |may: &str, ci: bool| judge("t", Need::Docker, "no daemon\nanswers", may, ci);
        let failed = judge("", false).unwrap_err();
        assert!(failed.contains("t needs docker, and no daemon answers; fix: "), "{failed}");
        assert!(failed.ends_with("PIPEYARD_SKIP=docker"), "{failed}");
        assert!(judge("registry root", false).is_err(), "another need");
        for said in ["docker", "root,docker", " registry  docker "] {
            assert_eq!(judge(said, false).unwrap(), "t: it needs docker, and no daemon answers");
            let on_ci = judge(said, true).unwrap_err();
            assert!(on_ci.ends_with("on CI nothing is left out"), "{on_ci}");
        }
        let typo = judge("dokcer", false).unwrap_err();
        assert!(typo.contains("\"dokcer\"") && typo.contains("registry"), "{typo}");
    }
}
