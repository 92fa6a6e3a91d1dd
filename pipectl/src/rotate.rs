//! Keeps the log of a part that outlives its supervisor small. The part has the file open for
//! appending, so the file is emptied in place after a copy was made; a line that is written between
//! the two is lost, and nothing else.

use std::{fs, io, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

/// A log that is longer is put aside as `NAME.log.1`, in place of the one before.
const LONGEST: u64 = 10 << 20;
/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// Looks after a log until `shutdown`.
pub(crate) async fn keep_small(log: std::path::PathBuf, shutdown: CancellationToken) {
    loop {
        if let Err(error) = rotate(&log, LONGEST) {
            tracing::warn!(log = %log.display(), %error, "a log can't be put aside");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn rotate(log: &Path, longest: u64) -> io::Result<()> {
    if fs::metadata(log).map_or(0, |found| found.len()) <= longest {
        return Ok(());
    }
    let new = log.with_extension("log.new");
    fs::copy(log, &new)?;
    fs::OpenOptions::new().write(true).open(log)?.set_len(0)?;
    fs::rename(new, log.with_extension("log.1"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_long_log_is_put_aside_under_the_hands_of_who_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (log, aside) = (dir.path().join("proxy.log"), dir.path().join("proxy.log.1"));
        rotate(&log, 10).unwrap();
        let mut writer = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        for text in ["first, and long enough\n", "second, and long enough\n"] {
            writer.write_all(text.as_bytes()).unwrap();
            rotate(&log, 10).unwrap();
            assert_eq!(fs::read_to_string(&aside).unwrap(), text);
        }
        writer.write_all(b"short\n").unwrap();
        rotate(&log, 10).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "short\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
