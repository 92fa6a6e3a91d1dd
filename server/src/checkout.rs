//! The password by which one attempt checks out its commit.
//!
//! It is made from the attempt, the repository and a time by an HMAC with the server's key, so
//! nothing is stored. It opens one repository for reading, and only while the attempt is at work:
//! when the lease is lost or the attempt is over, the password is dead.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use pipeyard_model::{AttemptId, Epoch, JobId, RepoId, Timestamp};
use pipeyard_store::StoreResult;
use sha2::Sha256;
use uuid::Uuid;

use crate::AppState;

/// The user in front of the password.
pub const USER: &str = "attempt";
/// The password is refused after this, whatever the attempt does: the longest that a job may take.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Job, epoch, repository, end.
const CLAIM: usize = 16 + 4 + 16 + 8;
const MAC: usize = 32;

/// The password for this attempt. Give it to the runner in the claim reply and nowhere else.
#[must_use]
pub fn mint_checkout_token(state: &AppState, job: JobId, epoch: Epoch, repo: RepoId) -> String {
    let until = state.clock.now() + LIFE;
    mint(&key(state), AttemptId { job, epoch }, repo, until)
}

/// The attempt that this password was made for, if it opens `repo` now.
///
/// # Errors
/// Only the store's own.
pub async fn check_checkout_token(
    state: &AppState,
    token: &str,
    repo: RepoId,
) -> StoreResult<Option<AttemptId>> {
    let Some(attempt) = open(&key(state), token, repo, state.clock.now()) else { return Ok(None) };
    let log = state.store.log_state(attempt).await?;
    Ok(log.filter(|log| !log.complete).map(|_| attempt))
}

fn key(state: &AppState) -> [u8; 32] {
    state.seal.derive("checkout token 1")
}

fn mac(key: &[u8; 32], claim: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes keys of any length.
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).ok()?;
    mac.update(claim);
    Some(mac)
}

fn mint(key: &[u8; 32], attempt: AttemptId, repo: RepoId, until: Timestamp) -> String {
    let mut bytes = Vec::with_capacity(CLAIM + MAC);
    bytes.extend_from_slice(attempt.job.0.as_bytes());
    bytes.extend_from_slice(&attempt.epoch.0.to_be_bytes());
    bytes.extend_from_slice(repo.0.as_bytes());
    bytes.extend_from_slice(&until.0.to_be_bytes());
    if let Some(mac) = mac(key, &bytes) {
        bytes.extend_from_slice(&mac.finalize().into_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open(key: &[u8; 32], token: &str, repo: RepoId, now: Timestamp) -> Option<AttemptId> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (claim, given) = bytes.split_at_checked(CLAIM)?;
    mac(key, claim)?.verify_slice(given).ok()?;
    let (job, rest) = claim.split_first_chunk::<16>()?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let (of, until) = rest.split_first_chunk::<16>()?;
    let until = Timestamp(i64::from_be_bytes(until.try_into().ok()?));
    let same = Uuid::from_bytes(*of) == repo.0;
    let attempt =
        AttemptId { job: JobId(Uuid::from_bytes(*job)), epoch: Epoch(u32::from_be_bytes(*epoch)) };
    (same && now <= until).then_some(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_repository_until_its_end_and_bears_no_change() {
        let (key, repo) = ([7; 32], RepoId::new());
        let attempt = AttemptId { job: JobId::new(), epoch: Epoch(3) };
        let token = mint(&key, attempt, repo, Timestamp(1_000));
        assert_eq!(open(&key, &token, repo, Timestamp(1_000)), Some(attempt));
        assert_eq!(open(&key, &token, repo, Timestamp(1_001)), None);
        assert_eq!(open(&key, &token, RepoId::new(), Timestamp(0)), None);
        assert_eq!(open(&[8; 32], &token, repo, Timestamp(0)), None);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                open(&key, &URL_SAFE_NO_PAD.encode(changed), repo, Timestamp(0)),
                None,
                "byte {at}"
            );
        }
        for bad in ["", "x", &token[..20], &format!("{token}AAAA")] {
            assert_eq!(open(&key, bad, repo, Timestamp(0)), None);
        }
    }
}
