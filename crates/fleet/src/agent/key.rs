//! The host's access key: fetched once with the code of an enrolment, kept in the agent's folder.
//!
//! The secret is made here and is on disk before the fleet hears of it, so that an agent that is
//! killed between its question and the answer asks again for the same key.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use pipeyard_model::fleet::ControlError;
use serde::{Deserialize, Serialize};

use super::AgentConfig;
use crate::{
    AccessKey, Token, chain,
    files::write_atomically,
    hosts::{Exchange, Exchanged, code_hash},
};

/// Where the key is kept, below the agent's root.
const FILE: &str = "host-key.json";
/// Between tries when the fleet can't be reached.
const RETRY: Duration = Duration::from_secs(1);

/// What the file holds.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// The sha256 of the code that it was fetched with.
    enrolled_by: String,
    secret: Token,
    /// None until the fleet has answered.
    host: Option<Exchanged>,
}

/// Who this host is.
#[derive(Debug, Clone)]
pub(super) struct HostKey {
    pub(super) name: String,
    pub(super) key: AccessKey,
    pub(super) region: String,
}

impl HostKey {
    fn of(secret: Token, host: Exchanged) -> Self {
        let key = AccessKey { access_key_id: host.access_key_id, secret_access_key: secret };
        Self { name: host.name, key, region: host.region }
    }
}

/// The key in the agent's folder; fetched first if the enrolment is another one than that of the
/// key that is there.
pub(super) async fn load_or_enrol(
    config: &AgentConfig,
    http: &reqwest::Client,
) -> anyhow::Result<HostKey> {
    let path = config.root.join(FILE);
    let kept = read(&path)?;
    let code = config.enroll_file.as_deref().map(read_code).transpose();
    let kept = match (kept, code) {
        // Its key is here; whoever removes the file of the code may do so.
        (Some(Kept { secret, host: Some(host), .. }), Ok(None) | Err(_)) => {
            return Ok(HostKey::of(secret, host));
        }
        (Some(kept), Ok(Some(code))) if kept.enrolled_by == code_hash(&code) => match kept.host {
            Some(host) => return Ok(HostKey::of(kept.secret, host)),
            None => (kept, code),
        },
        (_, Ok(Some(code))) => {
            let kept = Kept { enrolled_by: code_hash(&code), secret: Token::mint(), host: None };
            (kept, code)
        }
        (_, Err(error)) => return Err(error),
        (_, Ok(None)) => anyhow::bail!(
            "this host has no key yet: `pipectl fleet enroll NAME` on the fleet's machine prints a \
             code; put it into a file and start the agent with --enroll-file FILE"
        ),
    };
    let (mut kept, code) = kept;
    // Beside the key that still works, until the new one does.
    let pending = config.root.join(format!("{FILE}.new"));
    if let Some(before) = read(&pending)?.filter(|before| before.enrolled_by == kept.enrolled_by) {
        kept = before;
    } else {
        write(&pending, &kept)?;
    }
    let host = exchange(config, http, &code, &kept.secret).await?;
    kept.host = Some(host.clone());
    write(&path, &kept)?;
    let _ = std::fs::remove_file(&pending);
    tracing::info!(host = host.name, key = host.access_key_id, "the host is enrolled");
    Ok(HostKey::of(kept.secret, host))
}

fn write(path: &Path, kept: &Kept) -> anyhow::Result<()> {
    write_atomically(path, &serde_json::to_vec_pretty(kept)?, 0o600)
        .with_context(|| format!("can't keep the host's key in {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Option<Kept>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} isn't a host's key", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

fn read_code(path: &Path) -> anyhow::Result<String> {
    let text = pipeyard_private::secret(path).context("the enrolment can't be used")?;
    let code = text.trim().to_owned();
    anyhow::ensure!(
        code.starts_with("ppe_") && !code.contains(char::is_whitespace),
        "{} holds no enrolment: a shared agent token isn't taken any more; each host needs a code \
         of its own from `pipectl fleet enroll NAME`",
        path.display()
    );
    Ok(code)
}

/// Asks until the fleet answers.
async fn exchange(
    config: &AgentConfig,
    http: &reqwest::Client,
    code: &str,
    secret: &Token,
) -> anyhow::Result<Exchanged> {
    let url = format!("{}/agent/enrol", config.endpoint.trim_end_matches('/'));
    let body = Exchange { code: code.to_owned(), secret: secret.clone() };
    loop {
        let request = http.post(&url).json(&body).timeout(Duration::from_secs(10));
        let problem = match request.send().await {
            Ok(response) if response.status().is_success() => {
                return response.json().await.context("the fleet's answer can't be read");
            }
            Ok(response) => {
                let status = response.status();
                match response.json::<ControlError>().await {
                    Ok(error) if status.is_client_error() => anyhow::bail!(error.message),
                    Ok(error) => error.to_string(),
                    Err(_) if status.is_client_error() => anyhow::bail!(
                        "{} answered {status}: is it a fleet of this version?",
                        config.endpoint
                    ),
                    Err(_) => format!("the fleet answered {status}"),
                }
            }
            Err(error) => chain(&error),
        };
        tracing::warn!(problem, "the host can't enrol yet");
        tokio::time::sleep(RETRY).await;
    }
}
