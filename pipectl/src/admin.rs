//! `pipectl admin`: care of a data folder on this machine. Needs the folder, not a running server.

use std::{io::Write as _, path::PathBuf};

/// Look after the data of an installation on this machine.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Admin {
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

impl Admin {
    pub(crate) fn main(self) -> anyhow::Result<()> {
        match self {
            Self::Moved { data } => {
                anyhow::ensure!(data.is_dir(), "there is no folder {}", data.display());
                for folder in pipeyard_home::parts(&data) {
                    pipeyard_home::settle_here(&folder)?;
                    writeln!(std::io::stdout().lock(), "{} lives here now", folder.display())?;
                }
                Ok(())
            }
        }
    }
}
