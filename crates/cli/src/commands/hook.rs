//! `hook`: Git's post-receive tells the server which refs moved.
//!
//! It takes two seconds at most and never fails a push: what the server doesn't hear now it finds
//! when it compares refs.
//!
//! For a server on the same machine `pipeyard-hook` (`crates/hook`) does the same in milliseconds;
//! installed beside the hook, it hands over to this command what isn't plain. A hook of an older
//! version calls this command itself.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use pipeyard_model::address::CredentialUrl;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    exit::{Exit, Failure, Outcome},
    term,
};

/// How long a push may be held up.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of updates that are read: about 10,000 refs.
const MAX_UPDATES: u64 = 2 * 1024 * 1024;
/// The small program that hooks call.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pipeyard-hook"));
/// A hook with this line is ours, and may be written anew.
const MARKER: &str = "# pipeyard: tells the server about pushes";

/// Tell the server about a push. Reads `OLD NEW REF` lines as Git gives them to post-receive.
#[derive(Debug, clap::Args)]
pub struct Hook {
    /// The file that `repos add --install-hook` wrote.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// What the hook's file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookFile {
    /// The hook's whole address.
    url: String,
    /// Signs the message.
    secret: String,
    /// Certificate authorities that are believed besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
}

/// The message: refs that moved.
#[derive(Serialize)]
struct Updates {
    /// Names this push, so that a replay of the message is known.
    delivery: uuid::Uuid,
    updates: Vec<Update>,
}

#[derive(Serialize)]
struct Update {
    #[serde(rename = "ref")]
    reference: String,
    old: String,
    new: String,
}

impl Hook {
    pub(crate) async fn run(self) -> Outcome {
        match tokio::time::timeout(LIMIT, tell(&self.file)).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => term::say(&format!(
                "pipeyard: not told ({problem}); it will find this push by itself"
            )),
            Err(_) => term::say("pipeyard: no answer within 2 s; it will find this push by itself"),
        }
        Ok(Exit::Ok)
    }
}

async fn tell(file: &Path) -> Result<(), String> {
    let text =
        fs::read_to_string(file).map_err(|e| format!("failed to read {}: {e}", file.display()))?;
    let config: HookFile =
        toml::from_str(&text).map_err(|e| format!("{}: {}", file.display(), e.message()))?;
    if let Some(file) = &config.ca_file {
        pipeyard_trust::trust(file).map_err(|e| e.to_string())?;
    }
    let mut input = String::new();
    std::io::stdin().take(MAX_UPDATES).read_to_string(&mut input).map_err(|e| e.to_string())?;
    let updates: Vec<_> = input
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ' ');
            Some(Update {
                old: parts.next()?.into(),
                new: parts.next()?.into(),
                reference: parts.next()?.into(),
            })
        })
        .collect();
    let body = serde_json::to_vec(&Updates { delivery: uuid::Uuid::now_v7(), updates })
        .map_err(|e| e.to_string())?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(config.secret.as_bytes()).map_err(|e| e.to_string())?;
    mac.update(&body);
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    pipeyard_api::client::post_signed(&config.url, signature, body).await
}

/// Where a hook goes.
#[derive(Debug)]
pub struct Place {
    git_dir: PathBuf,
}

impl Place {
    /// Looks whether a hook can be installed in a repository of this machine; touches nothing.
    ///
    /// # Errors
    /// When the folder isn't a repository, or has another post-receive hook.
    pub fn find(repo: &Path) -> Result<Self, Failure> {
        let git_dir = [repo.to_path_buf(), repo.join(".git")]
            .into_iter()
            .find(|dir| {
                dir.join("HEAD").is_file() && dir.join("hooks").is_dir()
                    || dir.join("objects").is_dir()
            })
            .ok_or_else(|| Failure::usage(format!("{} isn't a Git repository", repo.display())))?;
        let place = Self { git_dir: fs::canonicalize(&git_dir)? };
        match fs::read(place.script()) {
            Ok(old) if !String::from_utf8_lossy(&old).contains(MARKER) => {
                let line =
                    format!("{} hook --file {}", quote(&own_program()?), quote(&place.file()));
                Err(Failure::usage(format!("{} exists already", place.script().display()))
                    .hint(format!("add this line to it: {line}")))
            }
            _ => Ok(place),
        }
    }

    fn script(&self) -> PathBuf {
        self.git_dir.join("hooks/post-receive")
    }

    fn file(&self) -> PathBuf {
        self.git_dir.join("pipeyard-hook.toml")
    }

    /// Installs the hook: its file, its program and the script that Git runs.
    ///
    /// # Errors
    /// When one of them can't be written.
    pub fn install(&self, url: &str, secret: &str) -> Result<(), Failure> {
        CredentialUrl::parse(url).map_err(|error| Failure::usage(error.to_string()))?;
        let hooks = self.git_dir.join("hooks");
        fs::create_dir_all(&hooks)?;
        let ca_file = pipeyard_trust::file().map(Path::to_owned);
        let config = HookFile { url: url.to_owned(), secret: secret.to_owned(), ca_file };
        let text = toml::to_string(&config).map_err(|e| Failure::usage(e.to_string()))?;
        replace(&self.file(), 0o600, text.as_bytes())?;
        let program = hooks.join("pipeyard-hook");
        replace(&program, 0o755, PROGRAM)?;
        let (program, file, pipectl) =
            (quote(&program), quote(&self.file()), quote(&own_program()?));
        // Where the program can't be run, on a disk without execution say, pipectl does its work.
        let script = format!(
            "#!/bin/sh\n{MARKER}\n\
             {program} --file {file} --pipectl {pipectl} && exit\n\
             exec {pipectl} hook --file {file}\n"
        );
        replace(&self.script(), 0o755, script.as_bytes())?;
        Ok(())
    }
}

/// The same, in one step.
///
/// # Errors
/// See [`Place`].
pub fn install(repo: &Path, url: &str, secret: &str) -> Result<(), Failure> {
    Place::find(repo)?.install(url, secret)
}

fn own_program() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    // A program that was replaced while it runs: its path is where the new one is.
    let text = program.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or(program.clone(), PathBuf::from))
}

/// Writes beside the file and renames: a push that comes meanwhile runs the old or the new one.
fn replace(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let beside = path.with_file_name(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut out| {
            out.write_all(content)?;
            out.set_permissions(fs::Permissions::from_mode(mode))
        })
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
