//! The store of bundles: `PUT` and `GET /bundles/{bucket}/{key}`, shaped like S3.
//!
//! A bundle is kept once under its sha256; a bucket and a key only name it. It is on disk before
//! its name is, so what a name says can always be read. A digest is checked again before use.

use std::{
    collections::HashSet,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Path as Url, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use futures_util::StreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::{control::Refused, db::Bundle, fleet::Fleet};

/// The largest bundle, packed.
const MAX_PACKED: u64 = 1 << 30;
/// The largest bundle, unpacked.
pub(crate) const MAX_UNPACKED: u64 = 4 << 30;
/// The most files in a bundle.
pub(crate) const MAX_ENTRIES: usize = 100_000;

/// A file without a name may be one that is about to get it.
const YOUNG: Duration = Duration::from_secs(86_400);

/// The folder of bundles.
#[derive(Debug)]
pub(crate) struct Bundles {
    folder: PathBuf,
}

/// A bundle that a deployment names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) sha256: String,
    pub(crate) path: PathBuf,
}

/// Why a deployment's bundle can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("there is no bundle at {bucket}/{key}: put it to /bundles first")]
    Missing { bucket: String, key: String },
    #[error("the bundle at {bucket}/{key} is {found}, the revision's eTag says {wanted}")]
    Changed { bucket: String, key: String, wanted: String, found: String },
    #[error("the bundle {sha256} is damaged on disk: put it again")]
    Damaged { sha256: String },
    #[error("the bundle isn't one that can be unpacked: {0}")]
    Archive(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Db(#[from] crate::db::DbError),
}

impl Bundles {
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        // What a kill left half written.
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("incoming-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder })
    }

    /// Removes the files of bundles that have no name any more. One that was put a moment ago may
    /// not have its name yet, so young files stay.
    pub(crate) fn sweep(&self, named: &HashSet<String>) -> io::Result<usize> {
        let mut swept = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if !named.contains(&name) && age > YOUNG {
                std::fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(sha256)
    }
}

/// Finds a revision's bundle and checks its digest against the revision and the disk.
pub(crate) async fn locate(fleet: &Fleet, revision: &Value) -> Result<Located, BundleError> {
    let location = &revision["s3Location"];
    let text = |name: &str| location[name].as_str().unwrap_or_default().to_owned();
    let (bucket, key) = (text("bucket"), text("key"));
    let Some(bundle) = fleet.db.bundle(&bucket, &key).await? else {
        return Err(BundleError::Missing { bucket, key });
    };
    let wanted = text("eTag").trim_matches('"').to_owned();
    if !wanted.is_empty() && wanted != bundle.sha256 {
        return Err(BundleError::Changed { bucket, key, wanted, found: bundle.sha256 });
    }
    let path = fleet.bundles.path(&bundle.sha256);
    let file = path.clone();
    let found =
        tokio::task::spawn_blocking(move || digest(&file)).await.map_err(io::Error::other)?;
    match found {
        Ok(found) if found == bundle.sha256 => {}
        Ok(_) => return Err(BundleError::Damaged { sha256: bundle.sha256 }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BundleError::Missing { bucket, key });
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Located { bucket, key, sha256: bundle.sha256, path })
}

/// The sha256 of a file in hex.
pub(crate) fn digest(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Rewrites a bundle as a plain tar whose files lie under `app/`, ready for a container. Paths that
/// leave the bundle, devices and sizes beyond the limits are refused.
pub(crate) fn repack(bundle: &Path, out: std::fs::File) -> Result<(), BundleError> {
    let bad = |text: String| BundleError::Archive(text);
    let unpacked = GzDecoder::new(std::fs::File::open(bundle)?).take(MAX_UNPACKED + 1);
    let mut archive = tar::Archive::new(unpacked);
    let mut builder = tar::Builder::new(out);
    let mut folder = tar::Header::new_gnu();
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_mode(0o755);
    folder.set_size(0);
    builder.append_data(&mut folder, "app/", io::empty())?;
    let entries = archive.entries().map_err(|error| bad(error.to_string()))?;
    let mut size = 0;
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| bad(error.to_string()))?;
        let path = entry.path().map_err(|error| bad(error.to_string()))?.into_owned();
        let inside = relative(&path).ok_or_else(|| bad(format!("{} leaves it", path.display())))?;
        size += entry.size();
        if count >= MAX_ENTRIES || size > MAX_UNPACKED {
            return Err(bad(format!("more than {MAX_ENTRIES} files or {MAX_UNPACKED} bytes")));
        }
        if inside.as_os_str().is_empty() {
            continue;
        }
        let target = Path::new("app").join(inside);
        let mut header = entry.header().clone();
        match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::Directory => {
                builder.append_data(&mut header, target, &mut entry)?;
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let link = entry.link_name().map_err(|error| bad(error.to_string()))?;
                let link = link.ok_or_else(|| bad("a link without a target".into()))?.into_owned();
                let link = if header.entry_type() == tar::EntryType::Link {
                    let link = relative(&link)
                        .ok_or_else(|| bad(format!("{} leaves it", link.display())))?;
                    Path::new("app").join(link)
                } else {
                    link
                };
                builder.append_link(&mut header, target, link)?;
            }
            tar::EntryType::XGlobalHeader => {}
            other => return Err(bad(format!("{} is a {other:?}", path.display()))),
        }
    }
    builder.into_inner()?.sync_all()?;
    Ok(())
}

/// The path without `.`; none if it is absolute or has `..`.
pub(crate) fn relative(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

/// `PUT /bundles/{bucket}/{key}`: keeps the body. The answer's `ETag` is its sha256 in hex.
pub(crate) async fn put(
    State(fleet): State<Arc<Fleet>>,
    Url((bucket, key)): Url<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    let wanted = headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    let incoming = fleet.bundles.folder.join(format!("incoming-{}", uuid::Uuid::new_v4().simple()));
    let received = receive(request.into_body(), &incoming).await;
    let kept = match received {
        Ok((sha256, _)) if wanted.is_some_and(|wanted| wanted.len() == 64 && wanted != sha256) => {
            let text = "the body isn't what x-amz-content-sha256 says; nothing was stored";
            Err(Refused::new(StatusCode::BAD_REQUEST, "digest_mismatch", text))
        }
        Ok((sha256, size)) => {
            tokio::fs::rename(&incoming, fleet.bundles.path(&sha256)).await?;
            let folder = fleet.bundles.folder.clone();
            tokio::task::spawn_blocking(move || std::fs::File::open(folder)?.sync_all())
                .await
                .map_err(io::Error::other)??;
            Ok(Bundle { sha256, size })
        }
        Err(error) => Err(error),
    };
    let bundle = match kept {
        Ok(bundle) => bundle,
        Err(error) => {
            let _ = tokio::fs::remove_file(&incoming).await;
            return Err(error);
        }
    };
    fleet.db.put_bundle(&bucket, &key, &bundle, fleet.clock.now()).await?;
    Ok((StatusCode::OK, [(header::ETAG, format!("\"{}\"", bundle.sha256))]).into_response())
}

async fn receive(body: Body, path: &Path) -> Result<(String, i64), Refused> {
    let mut file = tokio::fs::File::create_new(path).await?;
    let mut stream = body.into_data_stream();
    let (mut hash, mut size) = (Sha256::new(), 0u64);
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|error| Refused::invalid(format!("the body broke off: {error}")))?;
        size += chunk.len() as u64;
        if size > MAX_PACKED {
            return Err(Refused::invalid(format!("a bundle has at most {MAX_PACKED} bytes")));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.sync_all().await?;
    Ok((hex::encode(hash.finalize()), i64::try_from(size).unwrap_or(i64::MAX)))
}

/// `GET /bundles/{bucket}/{key}`.
pub(crate) async fn get(
    State(fleet): State<Arc<Fleet>>,
    Url((bucket, key)): Url<(String, String)>,
) -> Result<Response, Refused> {
    let bundle = fleet.db.bundle(&bucket, &key).await?;
    let bundle = bundle.ok_or_else(|| Refused::not_found(format!("no bundle {bucket}/{key}")))?;
    let file = tokio::fs::File::open(fleet.bundles.path(&bundle.sha256)).await?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
    let headers = [
        (header::ETAG, format!("\"{}\"", bundle.sha256)),
        (header::CONTENT_LENGTH, bundle.size.to_string()),
        (header::CONTENT_TYPE, "application/gzip".to_owned()),
    ];
    Ok((headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(entries: &[(&str, tar::EntryType, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gz = flate2::write::GzEncoder::new(file.reopen().unwrap(), flate2::Compression::fast());
        let mut builder = tar::Builder::new(gz);
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            if *kind == tar::EntryType::Regular {
                header.set_size(content.len() as u64);
            } else {
                header.set_size(0);
                header.as_gnu_mut().unwrap().linkname[..content.len()]
                    .copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            let body: &[u8] =
                if *kind == tar::EntryType::Regular { content.as_bytes() } else { b"" };
            builder.append(&header, body).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        file
    }

    #[test]
    fn a_bundle_moves_under_app_with_its_links() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let bundle = bundle(&[
            ("./", Directory, ""),
            ("./bin/", Directory, ""),
            ("bin/shop", Regular, "#!/bin/sh"),
            ("hard", Link, "bin/shop"),
            ("soft", Symlink, "bin/shop"),
        ]);
        let out = tempfile::NamedTempFile::new().unwrap();
        repack(bundle.path(), out.reopen().unwrap()).unwrap();
        let mut archive = tar::Archive::new(out.reopen().unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            (entry.path().unwrap().display().to_string(), link)
        });
        let found: Vec<_> = entries.collect();
        assert_eq!(found[0], ("app/".to_owned(), None));
        assert!(found.contains(&("app/bin/shop".to_owned(), None)));
        assert!(found.contains(&("app/hard".to_owned(), Some("app/bin/shop".to_owned()))));
        assert!(found.contains(&("app/soft".to_owned(), Some("bin/shop".to_owned()))));
    }

    #[test]
    fn a_bundle_that_leaves_its_folder_is_refused() {
        use tar::EntryType::{Char, Link, Regular};
        for bad in [
            ("../etc/passwd", Regular, "x"),
            ("/etc/passwd", Regular, "x"),
            ("x", Link, "../../etc/passwd"),
            ("dev", Char, ""),
        ] {
            let bundle = bundle(&[bad]);
            let out = tempfile::tempfile().unwrap();
            assert!(matches!(repack(bundle.path(), out), Err(BundleError::Archive(_))), "{bad:?}");
        }
        let noise = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(noise.path(), b"not a gzip").unwrap();
        let out = tempfile::tempfile().unwrap();
        assert!(matches!(repack(noise.path(), out), Err(BundleError::Archive(_))));
    }
}
