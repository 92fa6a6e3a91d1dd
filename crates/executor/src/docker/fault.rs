//! What Docker's errors mean to a person: a stable code and a sentence with the fix.

use bollard::errors::Error;

pub(crate) use crate::fault::Fault;

impl Fault {
    /// Docker answered `error` while we tried to `act`.
    pub(crate) fn of(act: &str, error: &Error) -> Self {
        match error {
            Error::DockerResponseServerError { message, .. }
            | Error::DockerStreamError { error: message }
                if message.contains("no space left on device") =>
            {
                Self::new(
                    "runner_disk_full",
                    format!(
                        "The disk of the runner's Docker is full: it failed to {act} ({}). Free space \
                         there, for example with `docker system prune`.",
                        message.trim()
                    ),
                )
            }
            Error::DockerResponseServerError { status_code, message } => Self::new(
                "docker_refused",
                format!("Docker refused to {act}: {} (status {status_code}).", message.trim()),
            ),
            Error::DockerStreamError { error } => {
                Self::new("docker_refused", format!("Docker failed to {act}: {error}."))
            }
            other if is_unreachable(other) => Self::unavailable(&format!("{act}: {other}")),
            other => Self::new("docker_refused", format!("Docker failed to {act}: {other}.")),
        }
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        Self::new(
            "docker_unavailable",
            format!(
                "Docker doesn't answer ({detail}). Check with `docker version` on the runner's \
                 machine that its daemon runs and that the runner may use its socket."
            ),
        )
    }
}

/// Docker itself said nothing: the connection failed or broke.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    matches!(
        error,
        Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError
            | Error::SocketNotFoundError(_)
    )
}

/// The status with which Docker refused, if it answered at all.
pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Why a pull failed. Docker answers in words only, and they differ by registry.
pub(crate) fn of_pull(image: &str, error: &Error) -> Fault {
    if is_unreachable(error) {
        return Fault::unavailable(&format!("pull {image}: {error}"));
    }
    let words = match error {
        Error::DockerResponseServerError { message, .. }
        | Error::DockerStreamError { error: message }
            if !message.contains("no space left on device") =>
        {
            message.as_str()
        }
        _ => return Fault::of(&format!("pull {image}"), error),
    };
    pull_words(image, words.trim())
}

fn pull_words(image: &str, words: &str) -> Fault {
    let lower = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| lower.contains(part));
    if has(&["manifest unknown", "not found", "pull access denied", "repository does not exist"]) {
        return Fault::new(
            "image_not_found",
            format!(
                "There is no image {image} on the runner's machine, and its registry has none or \
                 doesn't show it ({words}). Check the name and tag. A private image needs a login that is \
                 this repository's: `docker login` there, and `--registry-auth` of the runner."
            ),
        );
    }
    if has(&["unauthorized", "denied", "authentication required", "no basic auth"]) {
        return Fault::new(
            "registry_denied",
            format!(
                "The registry doesn't give {image} to this job ({words}). `docker login` there, and say by \
                 `--registry-auth` of the runner which repositories may use the login."
            ),
        );
    }
    if has(&["toomanyrequests", "rate limit"]) {
        return Fault::new(
            "registry_rate_limit",
            format!(
                "The registry's rate limit is reached ({words}): try again later, or `docker login`."
            ),
        );
    }
    if has(&[
        "dial tcp",
        "no such host",
        "lookup ",
        "connection refused",
        "i/o timeout",
        "timeout",
        "tls handshake",
        "network is unreachable",
        "no route to host",
        "server misbehaving",
        "connection reset",
        "eof",
        "x509",
        "proxyconnect",
        "502",
        "503",
    ]) {
        return Fault::new(
            "registry_unreachable",
            format!(
                "The registry of {image} can't be reached ({words}). Check the network, or make the \
                 image on the runner's machine: one that is there is not pulled."
            ),
        );
    }
    Fault::new("image_pull_failed", format!("Docker failed to pull {image}: {words}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_says_which_side_to_look_at() {
        for (words, code) in [
            (
                "pull access denied for nope, repository does not exist or may require 'docker login'",
                "image_not_found",
            ),
            (
                "manifest for localhost:5000/x:y not found: manifest unknown: manifest unknown",
                "image_not_found",
            ),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
                "registry_unreachable",
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                "registry_unreachable",
            ),
            ("unauthorized: authentication required", "registry_denied"),
            ("toomanyrequests: You have reached your pull rate limit", "registry_rate_limit"),
            ("something else", "image_pull_failed"),
        ] {
            assert_eq!(pull_words("x", words).code, code, "{words}");
        }
    }
}
