//! Who this runner is: registered once, kept in a file that only its owner reads.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use pipeyard_api::runner::{PROTOCOL, RegisterReply, RegisterRequest};
use pipeyard_model::{InstallationId, RunnerId};
use serde::{Deserialize, Serialize};

use crate::{
    RunnerConfig,
    protocol::{CallError, Server},
};

/// The identity's file in the runner's folder.
const FILE: &str = "identity.json";
/// The key of a registration under way.
const ENROLLING: &str = "enrolling";
/// The pause between tries to register; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Who this runner is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The server that knows it.
    pub(crate) server: String,
    /// Its id there.
    pub(crate) runner: RunnerId,
    /// Its key.
    pub(crate) key: String,
    /// The server's installation.
    pub(crate) installation: InstallationId,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} at {})", self.runner, self.server)
    }
}

/// Two runners on one folder would fight over journals; the lock ends with the process.
///
/// # Errors
/// When another runner holds it.
pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another runner works on {}", data.display()))?;
    Ok(file)
}

/// The identity in a runner's folder, if it has one.
///
/// # Errors
/// When the file isn't an identity.
pub(crate) fn stored(data: &Path) -> anyhow::Result<Option<Identity>> {
    let path = data.join(FILE);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("{} isn't a runner's identity", path.display()))
}

/// Reads the identity, or registers with the token and stores what the server answers. Waits for a
/// server that can't be reached.
///
/// # Errors
/// When there is no identity and no token, or the server refuses the token.
pub(crate) async fn load_or_register(
    config: &RunnerConfig,
    server: &Server,
) -> anyhow::Result<Identity> {
    let path = config.data_dir.join(FILE);
    if let Some(identity) = stored(&config.data_dir)? {
        anyhow::ensure!(
            identity.server == config.server,
            "this runner belongs to {}, not to {}; give it another data folder, or remove {}",
            identity.server,
            config.server,
            path.display()
        );
        return Ok(identity);
    }
    let file = config.token_file.as_ref().context(
        "this runner isn't registered: make a token with `pipectl runners token` and give it with --token-file",
    )?;
    let token = pipeyard_private::secret(file)?;
    let request = RegisterRequest {
        token: token.trim().to_owned(),
        name: config.name.clone(),
        labels: config.labels.clone(),
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key: Some(enrolling_key(&config.data_dir)?),
    };
    let mut pause = PAUSE.0;
    let reply: RegisterReply = loop {
        match server.post("/api/runner/register", &request, Duration::from_secs(20)).await {
            Ok(reply) => break reply,
            Err(CallError::Refused { code, message, .. }) => {
                anyhow::bail!("the server doesn't register this runner ({code}): {message}")
            }
            Err(CallError::Away(cause)) => {
                tracing::warn!(server = %config.server, %cause, "the server can't be reached; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    };
    let identity = Identity {
        server: config.server.clone(),
        runner: reply.runner,
        key: reply.key,
        installation: reply.installation,
    };
    store(&path, &identity)?;
    let _ = fs::remove_file(config.data_dir.join(ENROLLING));
    Ok(identity)
}

/// The key that this runner asks to be known by, on the disk before it is sent: the token is good
/// once, so after an answer that was lost the same key asks for the same runner.
fn enrolling_key(data: &Path) -> anyhow::Result<String> {
    let path = data.join(ENROLLING);
    if path.exists() {
        return Ok(pipeyard_private::secret(&path)?.trim().to_owned());
    }
    // 244 random bits.
    let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|id| id.simple().to_string());
    let key = format!("ppk_{}", random.concat());
    pipeyard_private::write(&path, key.as_bytes())?;
    Ok(key)
}

fn store(path: &Path, identity: &Identity) -> anyhow::Result<()> {
    let next = path.with_extension("tmp");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(&serde_json::to_vec(identity)?)?;
    file.sync_all()?;
    fs::rename(&next, path).with_context(|| format!("failed to write {}", path.display()))
}
