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
    Extension,
    body::Body,
    extract::{Path as Url, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::{
    appspec,
    archive::{self, ArchiveError, Kind, LIMITS, Links},
    control::Refused,
    db::Bundle,
    fleet::Fleet,
    hosts::HostAuth,
};

/// The largest bundle, packed.
pub(crate) const MAX_PACKED: u64 = 1 << 30;

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

impl From<ArchiveError> for BundleError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Visitor(error) => Self::Io(error),
            error => Self::Archive(error.to_string()),
        }
    }
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

/// What a bundle holds, as far as it matters before a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    /// Why it can't be unpacked on a host; a container may still take it.
    pub(crate) problem: Option<String>,
    /// Why nobody can unpack it.
    pub(crate) broken: Option<String>,
    /// Its AppSpec, if it has one.
    pub(crate) appspec: Option<String>,
}

impl Content {
    /// Reads a whole bundle.
    fn of(bundle: &Path) -> io::Result<Self> {
        let mut found: [Option<String>; 2] = [None, None];
        let mut look = |entry: &archive::Entry, content: &mut dyn Read| {
            let slot = appspec::NAMES.iter().position(|name| entry.path == Path::new(name));
            if let (Some(slot), Kind::File { .. }) = (slot, &entry.kind) {
                let mut bytes = Vec::new();
                content.take(appspec::MAX_BYTES + 1).read_to_end(&mut bytes)?;
                found[slot] = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            Ok(())
        };
        let read = archive::read(std::fs::File::open(bundle)?, Links::Inside, LIMITS, &mut look);
        let mut content = Self::default();
        match read {
            Ok(()) => {}
            Err(ArchiveError::Visitor(error)) => return Err(error),
            Err(error) => content.problem = Some(error.to_string()),
        }
        if content.problem.is_some() {
            let file = std::fs::File::open(bundle)?;
            match archive::read(file, Links::Anywhere, LIMITS, &mut |_, _| Ok(())) {
                Ok(()) => {}
                Err(ArchiveError::Visitor(error)) => return Err(error),
                Err(error) => content.broken = Some(error.to_string()),
            }
        }
        let [yml, yaml] = found;
        content.appspec = yml.or(yaml);
        Ok(content)
    }
}

/// What the bundle of a revision holds; none if there is no such bundle. Read when it is stored; one
/// that an earlier version stored is read now.
pub(crate) async fn content(
    fleet: &Fleet,
    revision: &Value,
) -> Result<Option<Content>, BundleError> {
    let location = &revision["s3Location"];
    let text = |name: &str| location[name].as_str().unwrap_or_default();
    let Some(bundle) = fleet.db.bundle(text("bucket"), text("key")).await? else {
        return Ok(None);
    };
    if let Some(content) = fleet.db.bundle_content(&bundle.sha256).await? {
        return Ok(Some(content));
    }
    let path = fleet.bundles.path(&bundle.sha256);
    match look(path).await {
        Ok(content) => {
            fleet.db.put_bundle_content(&bundle.sha256, &content).await?;
            Ok(Some(content))
        }
        // The engine says so of a bundle whose file is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn look(path: PathBuf) -> io::Result<Content> {
    tokio::task::spawn_blocking(move || Content::of(&path)).await.map_err(io::Error::other)?
}

/// Rewrites a bundle as a plain tar whose files lie under `app/`, ready for a container. Symbolic
/// links may name the container's own files; what is refused is said in [`archive`].
pub(crate) fn repack(bundle: &Path, out: std::fs::File) -> Result<(), BundleError> {
    let mut builder = tar::Builder::new(out);
    let mut folder = tar::Header::new_gnu();
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_mode(0o755);
    folder.set_size(0);
    builder.append_data(&mut folder, "app/", io::empty())?;
    let mut put = |entry: &archive::Entry, content: &mut dyn Read| {
        let target = Path::new("app").join(&entry.path);
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        // Odd numbers of somebody else's are left out.
        header.set_uid(entry.header.uid().unwrap_or(0));
        header.set_gid(entry.header.gid().unwrap_or(0));
        header.set_mtime(entry.header.mtime().unwrap_or(0));
        header.set_size(0);
        match &entry.kind {
            Kind::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, target, io::empty())?;
            }
            Kind::File { size } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(*size);
                builder.append_data(&mut header, target, content)?;
            }
            Kind::Symlink(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, target, to)?;
            }
            Kind::Hardlink(to) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, target, Path::new("app").join(to))?;
            }
        }
        Ok(())
    };
    archive::read(std::fs::File::open(bundle)?, Links::Anywhere, LIMITS, &mut put)?;
    builder.into_inner()?.sync_all()?;
    Ok(())
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
    // Now, while somebody waits for minutes anyway: a deployment is asked for within seconds.
    let content = look(fleet.bundles.path(&bundle.sha256)).await?;
    fleet.db.put_bundle_content(&bundle.sha256, &content).await?;
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

/// `GET /bundles/{bucket}/{key}`. A host reads only what it was told to install.
pub(crate) async fn get(
    State(fleet): State<Arc<Fleet>>,
    host: Option<Extension<HostAuth>>,
    Url((bucket, key)): Url<(String, String)>,
) -> Result<Response, Refused> {
    if let Some(Extension(HostAuth(host))) = host
        && !fleet.db.may_fetch(&host, &bucket, &key).await?
    {
        let text = format!("{host} wasn't told to install {bucket}/{key}");
        return Err(Refused::new(StatusCode::FORBIDDEN, "not_yours", text));
    }
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
    use crate::archive::tests::Raw;

    fn bundle(entries: &[(&str, tar::EntryType, &str)]) -> tempfile::NamedTempFile {
        let put = |raw: Raw, (path, kind, content): &(&str, tar::EntryType, &str)| {
            let body = if *kind == tar::EntryType::Regular { content.as_bytes() } else { b"" };
            let link = if *kind == tar::EntryType::Regular { "" } else { content };
            raw.put(path, *kind, link, body)
        };
        entries.iter().fold(Raw::new(), put).done()
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

    #[test]
    fn a_bundle_is_looked_into_when_it_is_stored() {
        use tar::EntryType::{Regular, Symlink};
        let good = bundle(&[("appspec.yaml", Regular, "b"), ("./appspec.yml", Regular, "a")]);
        let good = Content::of(good.path()).unwrap();
        assert_eq!(good, Content { appspec: Some("a".into()), ..Content::default() });
        // Links that only a container can have.
        let absolute = bundle(&[("python", Symlink, "/usr/bin/python3")]);
        let absolute = Content::of(absolute.path()).unwrap();
        assert!(absolute.problem.is_some() && absolute.broken.is_none());
        let below = bundle(&[("a", Symlink, "b"), ("a/b", Regular, "")]);
        assert!(Content::of(below.path()).unwrap().broken.unwrap().contains("below"));
        // The agent doesn't follow a link to an AppSpec, so neither does this.
        let linked = bundle(&[("x", Regular, "a"), ("appspec.yml", Symlink, "x")]);
        assert_eq!(Content::of(linked.path()).unwrap().appspec, None);
    }
}
