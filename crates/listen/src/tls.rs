//! TLS by certificate files, read again when they change: whoever renews a certificate writes the
//! files, and the next handshake shows the new one. Files that don't fit together, as for a moment
//! while they are replaced, change nothing.

use std::{
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{Handshake, Io, Wrap};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why there can be no TLS by these files.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    /// A file can't be used.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The certificate isn't that of the key.
    #[error(
        "the certificate {} and the key {} don't belong together: {cause}",
        certificate.display(), key.display()
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        cause: String,
    },
    /// Only one of the two was named.
    #[error("TLS needs both a certificate and its key: name both files, or none")]
    Half,
}

/// Ends a connection's TLS with the certificate that the files hold now.
pub struct Tls {
    acceptor: TlsAcceptor,
    looking: JoinHandle<()>,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// TLS by two PEM files, the chain of certificates and its key; none if none is named. Must be
    /// called where tokio runs.
    ///
    /// # Errors
    /// When one is missing, can't be read, can be read by everybody, or they don't fit together.
    pub fn open(
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Option<Arc<Self>>, BadTls> {
        let (certificate, key) = match (certificate, key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate.to_owned(), key.to_owned()),
            _ => return Err(BadTls::Half),
        };
        let seen = looks(&certificate, &key);
        let shown = Arc::new(Shown(RwLock::new(Arc::new(load(&certificate, &key)?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BadTls::File { path: certificate.clone(), cause: error.to_string() })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&shown));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let looking = tokio::spawn(look(shown, certificate, key, seen));
        Ok(Some(Arc::new(Self { acceptor: TlsAcceptor::from(Arc::new(config)), looking })))
    }

    /// The same as what a [`crate::Listener`] wraps its connections with.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn wrapper(
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Option<Arc<dyn Wrap>>, BadTls> {
        Ok(Self::open(certificate, key)?.map(|tls| tls as Arc<dyn Wrap>))
    }
}

impl Wrap for Tls {
    fn wrap(&self, stream: TcpStream) -> Handshake {
        let accept = self.acceptor.accept(stream);
        Box::pin(async move { Ok(Box::new(accept.await?) as Box<dyn Io>) })
    }
}

/// The certificate that handshakes show.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, BadTls> {
    let bad = |path: &Path, cause: String| BadTls::File { path: path.to_owned(), cause };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(bad(certificate, "it holds no certificate in PEM".into()));
    }
    let mode = std::fs::metadata(key).map_err(|error| bad(key, error.to_string()))?;
    let mode = mode.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        let text =
            format!("every user of this machine can use the key (mode {mode:04o}): chmod 600");
        return Err(bad(key, text));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    CertifiedKey::from_der(chain, secret, &default_provider()).map_err(|error| BadTls::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        cause: error.to_string(),
    })
}

type Look = [Option<(SystemTime, u64, u64)>; 2];

/// What tells one content of the files from another.
fn looks(certificate: &Path, key: &Path) -> Look {
    let one = |path: &Path| -> io::Result<_> {
        let found = std::fs::metadata(path)?;
        Ok((found.modified()?, found.len(), found.ino()))
    };
    [one(certificate).ok(), one(key).ok()]
}

async fn look(shown: Arc<Shown>, certificate: PathBuf, key: PathBuf, mut seen: Look) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (c, k) = (certificate.clone(), key.clone());
        let read = tokio::task::spawn_blocking(move || {
            let now = looks(&c, &k);
            (now != seen).then(|| (now, load(&c, &k)))
        });
        let Ok(Some((now, loaded))) = read.await else { continue };
        seen = now;
        match loaded {
            Ok(new) => {
                *shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!(certificate = %certificate.display(), "a new certificate is shown");
            }
            Err(error) => {
                tracing::warn!(%error, "the changed certificate can't be used; the one before stays");
            }
        }
    }
}
