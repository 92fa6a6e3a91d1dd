//! Where a data folder lives, and who works in it.
//!
//! A data folder knows its place: `home.json` holds its path and what the system says of the folder
//! itself. A copy has another place, so whoever is started on a copy refuses before it reads or
//! writes anything else: two fleets on one identity would remove each other's containers, two
//! servers would deploy the same push. A folder that was renamed, or is reached by a link or a bind
//! mount, is still itself. One of an earlier version has no such file and gets it at its first start.
//!
//! Each role holds a lock in its folder for as long as it lives, and says there which process it is,
//! by id and start. Nobody is taken for a role's process by anything else.

mod place;
mod process;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::FlockOperation;

use place::{Record, Stands};
pub use process::Process;

/// The file by which a folder knows its place.
pub const HOME: &str = "home.json";
/// By these an existing folder is known as Pipeyard's, so that its mode may be mended.
const MARKS: &[&str] = &[
    HOME,
    "agent.json",
    "attempts",
    "bundles",
    "credentials.json",
    "fleet",
    "fleet.db",
    "identity.json",
    "key",
    "lock",
    "pipeyard.sqlite",
    "proxy",
    "routes.json",
    "runner",
    "runner-token",
    "server",
    "token",
];

/// What works in a folder. Each may be there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that starts all others.
    Up,
    /// Webhooks, API and UI.
    Server,
    /// The embedded CodeDeploy.
    Fleet,
    /// The weighted proxy.
    Proxy,
    /// Executes jobs.
    Runner,
    /// Deploys on a host.
    Agent,
}

impl Role {
    /// Its subcommand.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Server => "server",
            Self::Fleet => "fleet",
            Self::Proxy => "proxy",
            Self::Runner => "runner",
            Self::Agent => "agent",
        }
    }

    /// The role of a subcommand.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Up, Self::Server, Self::Fleet, Self::Proxy, Self::Runner, Self::Agent]
            .into_iter()
            .find(|role| role.as_str() == name)
    }

    fn lock(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.running", self.as_str()))
    }
}

/// Why nothing may be done in a folder.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// It is a copy, or was moved.
    #[error(
        "{} is not where it was made: it belongs at {}. If it is a copy, it must not run: two of it \
         would remove each other's containers and use each other's tokens; make copies with \
         `pipectl admin backup` and `pipectl admin restore`. If it was moved on purpose and nothing \
         uses the old place any more: pipectl admin moved {}", folder.display(), home.display(),
        folder.display()
    )]
    Elsewhere {
        /// The folder.
        folder: PathBuf,
        /// Where it was made.
        home: PathBuf,
    },
    /// The role works there already.
    #[error(
        "{} is in use: {} {holder} works there already; end it first, or name another folder",
        folder.display(), role.as_str()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who.
        role: Role,
        /// Its process.
        holder: String,
    },
    /// The file that says where it lives can't be understood.
    #[error(
        "{}: {problem}. It says where this data folder lives; if nothing else uses a copy of the \
         folder, put it right with: pipectl admin moved {}", path.display(),
        path.parent().unwrap_or(path).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Others can use it.
    #[error(transparent)]
    Private(#[from] pipeyard_private::NotPrivate),
    /// The system refused.
    #[error("{}: {error}; the data folder must be there and writable", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

impl HomeError {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }

    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Elsewhere { .. } => "data_folder_elsewhere",
            Self::InUse { .. } => "data_folder_in_use",
            Self::Damaged { .. } => "data_folder_damaged",
            Self::Private(_) => "data_folder_not_private",
            Self::Io { .. } => "data_folder_unusable",
        }
    }
}

/// A role's hold on its folder. Let go of when it is dropped, and when the process ends however.
#[derive(Debug)]
pub struct Hold {
    folder: PathBuf,
    _lock: File,
}

impl Hold {
    /// The folder, without links.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Takes a folder for a role of this process, before anything in it is touched. Makes it where it is
/// missing.
///
/// # Errors
/// When the folder is a copy or was moved, the role works there already, or it can't be written.
pub fn claim(folder: &Path, role: Role) -> Result<Hold, HomeError> {
    check(folder)?;
    let folder = match role {
        // Whoever serves a release reads it there.
        Role::Agent => pipeyard_private::served_folder(folder, MARKS)?,
        // Its files may lie in a folder of the system's, whose mode isn't ours to change.
        Role::Proxy => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.and_then(|()| fs::canonicalize(folder)).map_err(|e| HomeError::io(folder, e))?
        }
        Role::Up | Role::Server | Role::Fleet | Role::Runner => {
            pipeyard_private::folder(folder, MARKS)?
        }
    };
    let lock = lock(&folder, role)?;
    settle(&folder)?;
    Ok(Hold { folder, _lock: lock })
}

/// Refuses a folder that is a copy or was moved. Changes nothing; a folder that isn't there, or is
/// of an earlier version, is fine.
///
/// # Errors
/// As [`claim`], but for the lock.
pub fn check(folder: &Path) -> Result<(), HomeError> {
    let real = match fs::canonicalize(folder) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HomeError::io(folder, error)),
    };
    let Some(record) = read(&real)? else { return Ok(()) };
    let found = Record::of(&real).map_err(|error| HomeError::io(&real, error))?;
    match record.judge(&found) {
        Stands::Here | Stands::Renamed => Ok(()),
        Stands::Elsewhere => Err(HomeError::Elsewhere { folder: real, home: record.path }),
    }
}

/// Says that a folder lives where it is now: it was moved on purpose, or was just restored under a
/// new identity. Nothing may run in it.
///
/// # Errors
/// When something runs in it, or it can't be written.
pub fn settle_here(folder: &Path) -> Result<(), HomeError> {
    let real = fs::canonicalize(folder).map_err(|error| HomeError::io(folder, error))?;
    let roles = [Role::Up, Role::Server, Role::Fleet, Role::Proxy, Role::Runner, Role::Agent];
    let locks: Result<Vec<File>, HomeError> = roles
        .into_iter()
        .filter(|role| role.lock(&real).exists())
        .map(|role| lock(&real, role))
        .collect();
    let locks = locks?;
    write(&real)?;
    drop(locks);
    Ok(())
}

/// The folders of a data folder of `up` that have a place of their own: itself, and those of its
/// parts that are there.
#[must_use]
pub fn parts(folder: &Path) -> Vec<PathBuf> {
    let parts = ["server", "fleet", "proxy", "runner"].map(|name| folder.join(name));
    let parts = parts.into_iter().filter(|part| part.is_dir());
    std::iter::once(folder.to_owned()).chain(parts).collect()
}

/// The process that works in a folder in this role; none if nobody does.
#[must_use]
pub fn holder(folder: &Path, role: Role) -> Option<Process> {
    let file = File::open(role.lock(folder)).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        // Nobody holds it: what it says is of the past.
        Ok(()) => None,
        Err(_) => said(&file).filter(Process::is_alive),
    }
}

fn said(mut file: &File) -> Option<Process> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(1_024).read_to_string(&mut text).ok()?;
    Process::parse(&text)
}

fn lock(folder: &Path, role: Role) -> Result<File, HomeError> {
    let path = role.lock(folder);
    let io = |error| HomeError::io(&path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    // A process that was just killed lets go a moment later; one that lives doesn't.
    for again in (0..20).rev() {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = said(&file).filter(Process::is_alive);
                if again == 0 || holder.is_some() {
                    let holder = holder.map_or_else(
                        || "a process that didn't say its id".to_owned(),
                        |holder| format!("(process {})", holder.pid()),
                    );
                    return Err(HomeError::InUse { folder: folder.to_owned(), role, holder });
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(io(error.into())),
        }
    }
    let own = Process::own().map_err(io)?;
    file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    file.write_all(own.to_string().as_bytes()).map_err(io)?;
    Ok(file)
}

fn read(real: &Path) -> Result<Option<Record>, HomeError> {
    let path = real.join(HOME);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HomeError::io(&path, error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| HomeError::Damaged { path, problem: error.to_string() })
}

/// Writes where the folder lives, if that isn't written yet or it was renamed.
fn settle(real: &Path) -> Result<(), HomeError> {
    let found = Record::of(real).map_err(|error| HomeError::io(real, error))?;
    match read(real)? {
        Some(record) if record.judge(&found) == Stands::Here && record.path == found.path => Ok(()),
        Some(record) => {
            tracing::info!(from = %record.path.display(), to = %real.display(), "the data folder was renamed");
            write(real)
        }
        None => write(real),
    }
}

fn write(real: &Path) -> Result<(), HomeError> {
    let io = |error| HomeError::io(real, error);
    let record = Record::of(real).map_err(io)?;
    let text = serde_json::to_vec_pretty(&record).map_err(|error| io(error.into()))?;
    Ok(pipeyard_private::write(&real.join(HOME), &text)?)
}

#[cfg(test)]
mod tests;
