//! Which certificates this process believes besides the system's: a file of one's own authorities.
//!
//! The composition root names the file once, before anything is dialled; every client of a server or
//! a fleet is made with it. The system's authorities stay believed.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What one process believes.
struct Trust {
    file: PathBuf,
    pem: Vec<u8>,
    certificates: Vec<reqwest::Certificate>,
}

static TRUST: OnceLock<Trust> = OnceLock::new();

/// Why a file of authorities can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadCaFile {
    /// It can't be read.
    #[error("failed to read the CA file {}: {error}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It holds something else.
    #[error(
        "{} holds no certificates: it must be PEM, with -----BEGIN CERTIFICATE----- ({cause})",
        path.display()
    )]
    NoCertificates {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// Makes ring the process's provider of cryptography. An error means that somebody was faster.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Believes the authorities in this file from now on, in the whole process. The first file counts.
///
/// # Errors
/// When it can't be read, or holds no certificates.
pub fn trust(path: &Path) -> Result<(), BadCaFile> {
    let pem = std::fs::read(path)
        .map_err(|error| BadCaFile::Unreadable { path: path.to_owned(), error })?;
    let bad = |cause: String| BadCaFile::NoCertificates { path: path.to_owned(), cause };
    let certificates =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("there is none in it".into()));
    }
    install_crypto();
    // Said now, not at the first connection.
    reqwest::Client::builder()
        .tls_certs_merge(certificates.clone())
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _ = TRUST.set(Trust { file, pem, certificates });
    Ok(())
}

/// The file that was named.
#[must_use]
pub fn file() -> Option<&'static Path> {
    TRUST.get().map(|trust| trust.file.as_path())
}

/// What is in it, as PEM.
#[must_use]
pub fn pem() -> Option<&'static [u8]> {
    TRUST.get().map(|trust| trust.pem.as_slice())
}

/// A client that believes it, and follows no redirect: whoever is sent elsewhere would take a
/// credential there.
pub fn client() -> reqwest::ClientBuilder {
    install_crypto();
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    match TRUST.get() {
        Some(trust) => builder.tls_certs_merge(trust.certificates.clone()),
        None => builder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_when_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(matches!(trust(&path), Err(BadCaFile::Unreadable { .. })));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate", broken] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(trust(&path), Err(BadCaFile::NoCertificates { .. })), "{text:?}");
        }
        assert_eq!(file(), None);
        assert!(client().build().is_ok());
    }
}
