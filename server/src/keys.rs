//! The master key: where it lies, and that it is the one which sealed what the database holds.
//!
//! It comes from `--key-file`, else from systemd's credential `pipeyard-key`, else from `key` in the
//! data folder. The database keeps a check value, sealed by the key. A server whose key is missing or
//! another one doesn't start: everything sealed would be lost behind a key that was made up anew,
//! and nobody would be told before a hook or a job fails.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pipeyard_store::{Store, keys::Sample};

use crate::{
    ServerConfig,
    http::secrets::{forge_token_purpose, purpose},
    mirror,
    seal::Seal,
};

/// What the check value is sealed for, and what it says.
const CHECK: (&str, &[u8]) = ("key-check", b"pipeyard");
/// The name of systemd's credential.
const CREDENTIAL: &str = "pipeyard-key";

/// Where the key is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A file of ours or of the administrator's, private to the server's user.
    File(PathBuf),
    /// In systemd's folder, which systemd guards.
    Credential(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        let (Self::File(path) | Self::Credential(path)) = self;
        path
    }
}

fn place(config: &ServerConfig, credentials: Option<PathBuf>) -> Place {
    if let Some(file) = &config.key_file {
        return Place::File(file.clone());
    }
    let credential = credentials.map(|folder| folder.join(CREDENTIAL));
    match credential.filter(|file| file.exists()) {
        Some(file) => Place::Credential(file),
        None => Place::File(config.data_dir.join("key")),
    }
}

/// What a start does with the key that it found, or didn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Go on.
    Good,
    /// Go on, and keep a check value from now on.
    GoodWithoutCheck,
    /// Nothing is sealed yet: make a key.
    Make,
    /// Something is sealed, and there is no key.
    Missing,
    /// Something is sealed by another key.
    Wrong,
}

/// `check`: whether the check value opens, if there is one. `samples`: for sealed values, whether
/// they open; some may be damaged for themselves, so one that opens proves the key.
fn judge(found: bool, check: Option<bool>, samples: &[bool]) -> Verdict {
    match (found, check, samples) {
        (false, None, []) => Verdict::Make,
        (false, ..) => Verdict::Missing,
        (true, Some(true), _) => Verdict::Good,
        (true, Some(false), _) => Verdict::Wrong,
        (true, None, samples) if samples.is_empty() || samples.contains(&true) => {
            Verdict::GoodWithoutCheck
        }
        (true, None, _) => Verdict::Wrong,
    }
}

/// The installation's keys, proven against the database.
///
/// # Errors
/// When the key is missing while something is sealed, isn't the one that sealed it, or can't be read.
pub async fn open(store: &dyn Store, config: &ServerConfig) -> anyhow::Result<Seal> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let place = place(config, folder);
    let path = place.path();
    let seal = read(&place)?;
    let check = store.key_check().await?;
    let samples = store.sealed_samples().await?;
    let opens = |purpose: &str, sealed: &[u8]| {
        seal.as_ref().is_some_and(|seal| seal.unseal(purpose, sealed).is_ok())
    };
    let checked = check.as_ref().map(|sealed| opens(CHECK.0, sealed));
    let opened: Vec<_> =
        samples.iter().map(|(sample, sealed)| opens(&purpose_of(sample), sealed)).collect();
    let verdict = judge(seal.is_some(), checked, &opened);
    let fix = "put the file back from your backup or from where you keep the key, or name it with \
               --key-file; nothing was changed (more: pipectl explain key_missing)";
    let seal = match (verdict, seal) {
        (Verdict::Good, Some(seal)) => return Ok(seal),
        (Verdict::GoodWithoutCheck, Some(seal)) => seal,
        (Verdict::Make, _) => {
            create(path)?;
            read(&place)?.context("the key that was just made is gone")?
        }
        (Verdict::Wrong, _) => anyhow::bail!(
            "key_wrong: {} isn't the master key that the secrets in this database were sealed with: {fix}",
            path.display()
        ),
        (Verdict::Missing | Verdict::Good | Verdict::GoodWithoutCheck, _) => anyhow::bail!(
            "key_missing: the master key isn't at {}, and this database holds what was sealed with it: {fix}",
            path.display()
        ),
    };
    store.set_key_check(seal.seal(CHECK.0, CHECK.1)).await?;
    Ok(seal)
}

fn purpose_of(sample: &Sample) -> String {
    match sample {
        Sample::Secret { repo, name } => purpose(*repo, name),
        Sample::ForgeToken(repo) => forge_token_purpose(*repo),
        Sample::HookSecret(repo) => mirror::hook_secret_purpose(*repo),
    }
}

/// None if the file isn't there.
fn read(place: &Place) -> anyhow::Result<Option<Seal>> {
    let path = place.path();
    if !path.try_exists().with_context(|| format!("failed to look for {}", path.display()))? {
        return Ok(None);
    }
    let text = match place {
        Place::File(path) => pipeyard_private::secret(path)?,
        Place::Credential(path) => std::fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?,
    };
    let seal = Seal::parse(&text).with_context(|| {
        format!("{} doesn't hold the master key; put it back from your backup", path.display())
    })?;
    Ok(Some(seal))
}

/// Writes a new key and syncs it, so that nothing is ever sealed by a key that a crash forgets.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    let key: [u8; 32] = rand::random();
    pipeyard_private::write(path, format!("{}\n", hex::encode(key)).as_bytes())?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_only_where_nothing_is_sealed() {
        assert_eq!(judge(false, None, &[]), Verdict::Make);
        for (check, samples) in
            [(Some(false), vec![]), (None, vec![false]), (Some(false), vec![false])]
        {
            assert_eq!(judge(false, check, &samples), Verdict::Missing);
        }
    }

    #[test]
    fn another_key_is_refused_by_the_check_value_or_by_what_is_sealed() {
        assert_eq!(judge(true, Some(true), &[false, false]), Verdict::Good);
        assert_eq!(judge(true, Some(false), &[true]), Verdict::Wrong);
        assert_eq!(judge(true, None, &[]), Verdict::GoodWithoutCheck);
        assert_eq!(judge(true, None, &[false, true]), Verdict::GoodWithoutCheck);
        assert_eq!(judge(true, None, &[false]), Verdict::Wrong);
    }

    #[test]
    fn a_named_file_goes_before_a_credential_before_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let credentials = || Some(folder.path().to_owned());
        let mut config = ServerConfig::default();
        let own = Place::File(config.data_dir.join("key"));
        assert_eq!(place(&config, None), own);
        assert_eq!(place(&config, credentials()), own);
        std::fs::write(folder.path().join(CREDENTIAL), "x").unwrap();
        let credential = Place::Credential(folder.path().join(CREDENTIAL));
        assert_eq!(place(&config, credentials()), credential);
        config.key_file = Some("/etc/pipeyard/key".into());
        assert_eq!(place(&config, credentials()), Place::File("/etc/pipeyard/key".into()));
    }
}
