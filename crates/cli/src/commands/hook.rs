//! `hook`: Git's post-receive tells the server which refs moved.
//!
//! It takes two seconds at most and never fails a push: what the server doesn't hear now it finds
//! when it compares refs.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
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

/// Installs the hook in a bare repository of this machine.
///
/// # Errors
/// When the folder isn't a repository, has another post-receive hook, or can't be written.
pub fn install(repo: &Path, url: &str, secret: &str) -> Result<(), Failure> {
    let git_dir = [repo.to_path_buf(), repo.join(".git")]
        .into_iter()
        .find(|dir| {
            dir.join("HEAD").is_file() && dir.join("hooks").is_dir() || dir.join("objects").is_dir()
        })
        .ok_or_else(|| Failure::usage(format!("{} isn't a Git repository", repo.display())))?;
    let git_dir = fs::canonicalize(&git_dir)?;
    let hooks = git_dir.join("hooks");
    fs::create_dir_all(&hooks)?;
    let script = hooks.join("post-receive");
    let file = git_dir.join("pipeyard-hook.toml");
    let program = std::env::current_exe()?;
    let line = format!("{} hook --file {}", quote(&program), quote(&file));
    let marker = "# pipeyard: tells the server about pushes";
    if let Ok(old) = fs::read_to_string(&script)
        && !old.contains(marker)
    {
        return Err(Failure::usage(format!("{} exists already", script.display()))
            .hint(format!("add this line to it: {line}")));
    }
    let config = HookFile { url: url.to_owned(), secret: secret.to_owned() };
    let text = toml::to_string(&config).map_err(|e| Failure::usage(e.to_string()))?;
    let mut out =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
    out.write_all(text.as_bytes())?;
    fs::write(&script, format!("#!/bin/sh\n{marker}\nexec {line}\n"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
