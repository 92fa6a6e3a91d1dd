//! `pipectl admin`: care of the data of an installation on this machine: a backup, its way back, and
//! a folder that was moved.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use pipeyard_backup::{
    Key, Manifest, Reader, Writer,
    archive::{self, Temporary},
};
use pipeyard_fleet::backup as fleet;
use pipeyard_model::{Clock as _, SystemClock};
use pipeyard_server::backup as server;

/// Look after the data of an installation on this machine. Needs the folder, not a running server.
#[derive(Debug, clap::Args)]
pub(crate) struct Admin {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Copy the data of a server and a fleet while they work.
    Backup(Backup),
    /// Bring a backup back, into an empty folder.
    Restore(Restore),
    /// Say that a data folder was moved on purpose: it lives where it is now.
    ///
    /// A folder knows where it was made, and nothing starts in a copy of it: two of it would remove
    /// each other's containers. After a move to another disk or machine this is needed once, while
    /// nothing runs in it and nothing uses the old place any more. For a copy beside the original use
    /// `backup` and `restore`.
    Moved {
        /// The folder of `up`, or of one part.
        data: PathBuf,
    },
}

/// Copy the data of a server and a fleet while they work.
///
/// Whoever can read a backup can open its secrets, unless the key is kept apart with --key-to.
#[derive(Debug, clap::Args)]
struct Backup {
    /// The backup: a folder that is empty or isn't there, or a new file whose name ends with `.tar`.
    to: PathBuf,
    /// The data folder of `pipectl up`, of a server or of a fleet.
    #[arg(long, env = "PIPEYARD_DATA", default_value = "pipeyard-data")]
    data: PathBuf,
    /// Put the key that opens the secrets into this file, not into the backup.
    #[arg(long, value_name = "FILE")]
    key_to: Option<PathBuf>,
}

/// Bring a backup back, into an empty folder.
///
/// Every file is compared with the backup's manifest first. What is restored is another fleet with
/// credentials of its own: it never touches what the original runs.
#[derive(Debug, clap::Args)]
struct Restore {
    /// The backup.
    from: PathBuf,
    /// The new data folder, for `pipectl up --data`: empty, or not there.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// The key, if it was kept apart.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Admin {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        match self.what {
            What::Backup(it) => it.main().await,
            What::Restore(it) => it.main().await,
            What::Moved { data } => moved(&data),
        }
    }
}

fn moved(data: &Path) -> anyhow::Result<()> {
    ensure!(data.is_dir(), "there is no folder {}", data.display());
    for folder in pipeyard_home::parts(data) {
        pipeyard_home::settle_here(&folder)?;
        writeln!(std::io::stdout().lock(), "{} lives here now", folder.display())?;
    }
    Ok(())
}

/// Where the parts' data is.
fn parts(data: &Path) -> anyhow::Result<(Option<PathBuf>, Option<PathBuf>)> {
    let of = |is_data: fn(&Path) -> bool, name: &str| {
        [data.join(name), data.to_owned()].into_iter().find(|folder| is_data(folder))
    };
    let found = (of(server::is_data, server::PART), of(fleet::is_data, fleet::PART));
    ensure!(
        found.0.is_some() || found.1.is_some(),
        "{} holds no data of a server or a fleet: name the folder with --data",
        data.display()
    );
    Ok(found)
}

impl Backup {
    async fn main(self) -> anyhow::Result<()> {
        let (of_server, of_fleet) = parts(&self.data)?;
        let real = |path: &Path| {
            std::path::absolute(path).map(|path| {
                path.parent().and_then(|parent| parent.canonicalize().ok()).unwrap_or(path)
            })
        };
        let data = self.data.canonicalize()?;
        for path in [Some(&self.to), self.key_to.as_ref()].into_iter().flatten() {
            ensure!(
                !real(path)?.starts_with(&data),
                "{} is inside of the data folder: a backup belongs somewhere else, best on another disk",
                path.display()
            );
        }
        ensure!(
            self.key_to.is_none() || of_server.is_some(),
            "--key-to is for a server's key, and {} holds no server's data",
            self.data.display()
        );
        let one_file = self.to.extension().is_some_and(|end| end == "tar");
        ensure!(
            !one_file || !self.to.exists(),
            "{} is there already: nothing is overwritten",
            self.to.display()
        );
        let staged = one_file.then(|| Temporary::beside(&self.to, &unique())).transpose()?;
        let folder = staged.as_ref().map_or(self.to.as_path(), Temporary::path);
        let mut out = Writer::create(folder)?;
        if let Some(data) = &of_fleet {
            fleet::back_up(data, &mut out).await?;
        }
        // The server's last: a release that its rows name was brought to the fleet before.
        if let Some(data) = &of_server {
            server::back_up(data, &mut out, self.key_to.as_deref()).await?;
        }
        let now = SystemClock.now().to_string();
        let (manifest, digest) = out.finish(env!("CARGO_PKG_VERSION"), now)?;
        if staged.is_some() {
            archive::pack(folder, &manifest, &self.to)?;
        }
        let bytes: u64 = manifest.files.values().map(|entry| entry.size).sum();
        let mut told = std::io::stdout().lock();
        writeln!(
            told,
            "{}: {} files, {bytes} bytes, of {}",
            self.to.display(),
            manifest.files.len(),
            manifest.parts.join(" and ")
        )?;
        writeln!(told, "manifest {digest}")?;
        match (&manifest.key, &self.key_to) {
            (Some(Key::Included), _) => {
                writeln!(
                    told,
                    "The key that opens the secrets is in it: keep it like a password."
                )?;
            }
            (Some(Key::Apart { .. }), Some(path)) => writeln!(
                told,
                "The key that opens the secrets is in {}: without it they can't be restored.",
                path.display()
            )?,
            (None, _) if of_server.is_some() => writeln!(
                told,
                "The key that opens the secrets isn't in the data folder: keep it yourself."
            )?,
            (Some(Key::Apart { .. }) | None, _) => {}
        }
        Ok(())
    }
}

impl Restore {
    async fn main(self) -> anyhow::Result<()> {
        if fs::read_dir(&self.to).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!(
                "{} isn't empty: a backup is restored into a folder of its own",
                self.to.display()
            );
        }
        let unpacked = match self.from.is_file() {
            true => {
                let folder = Temporary::beside(&self.to, &unique())?;
                archive::unpack(&self.from, folder.path())?;
                Some(folder)
            }
            false => None,
        };
        let from = unpacked.as_ref().map_or(self.from.as_path(), Temporary::path);
        let reader = Reader::open(from)?;
        let manifest = reader.manifest().clone();
        let apart = self.key_apart(&manifest)?;
        reader.verify()?;
        // Whole or not at all: the folder gets its name at the end.
        let new = Temporary::beside(&self.to, &unique())?;
        pipeyard_private::folder(new.path(), &[])?;
        let adopted = self.fill(&reader, new.path(), apart).await?;
        put(new.path(), &self.to)?;
        self.tell(&manifest, adopted)
    }

    /// The key's file and digest, if the backup has none.
    fn key_apart<'m>(
        &'m self,
        manifest: &'m Manifest,
    ) -> anyhow::Result<Option<(&'m Path, &'m str)>> {
        match (&manifest.key, &self.key) {
            (Some(Key::Apart { sha256 }), Some(key)) => Ok(Some((key, sha256))),
            (Some(Key::Apart { .. }), None) => {
                bail!("the backup's key was kept apart: name its file with --key")
            }
            (Some(Key::Included) | None, Some(_)) => {
                bail!("--key is for a backup whose key was kept apart; this one's wasn't")
            }
            (Some(Key::Included) | None, None) => Ok(None),
        }
    }

    async fn fill(
        &self,
        reader: &Reader,
        new: &Path,
        apart: Option<(&Path, &str)>,
    ) -> anyhow::Result<Option<pipeyard_server::Adopted>> {
        reader.copy_to(new)?;
        let has = |part: &str| reader.manifest().parts.iter().any(|name| name == part);
        if has(fleet::PART) {
            fleet::adopt(&new.join(fleet::PART)).await?;
        }
        if !has(server::PART) {
            return Ok(None);
        }
        let data = new.join(server::PART);
        if let Some((key, sha256)) = apart {
            server::bring_key(&data, key, sha256)?;
        }
        server::adopt(&data).await.map(Some)
    }

    fn tell(
        &self,
        manifest: &Manifest,
        adopted: Option<pipeyard_server::Adopted>,
    ) -> anyhow::Result<()> {
        let mut told = std::io::stdout().lock();
        writeln!(
            told,
            "{}: {} as of {}, {} files compared",
            self.to.display(),
            manifest.parts.join(" and "),
            manifest.made_at,
            manifest.files.len()
        )?;
        if let Some(open) = adopted {
            writeln!(
                told,
                "{} runs; open at that time: {} jobs on runners (they end as lost), {} deployments; {} \
                 messages that waited are not sent",
                open.runs, open.jobs, open.deployments, open.messages
            )?;
        }
        writeln!(
            told,
            "Not in a backup: running containers, the proxy's routes, runners' identities, mirrors. The \
             fleet has a new identity and new credentials, and starts what should serve anew."
        )?;
        writeln!(told, "Next: pipectl up --data {}", self.to.display())?;
        Ok(())
    }
}

fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Gives the new folder its name; an empty one may stand there.
fn put(new: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir(to).with_context(|| format!("{} isn't empty", to.display()))?;
    }
    fs::rename(new, to).with_context(|| format!("failed to make {}", to.display()))
}
