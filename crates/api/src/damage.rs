//! Codes of data that isn't what it was, and of a disk that takes no more.

/// What each code means and what to do.
pub const CODES: &[(&str, &str)] = &[
    (
        "database_damaged",
        "The database's file holds what SQLite didn't write: a disk lost or changed a part of it, or \
         something else wrote to it. The server doesn't go on with it, for what it would write makes \
         it worse. Stop Pipeyard, keep the damaged folder, and bring the last backup back: `pipectl \
         admin restore`. Check the disk (`dmesg`, `smartctl`) before you use it again. SQLite keeps \
         no sum of what is in a row, so a bit that changed inside a text isn't always found.",
    ),
    (
        "disk_full",
        "The disk of the data folder has no room, so nothing can be written and the server isn't \
         ready. Make room, or move the folder to a larger disk; the server goes on by itself. \
         `keep_days` says how long logs and artifacts are kept.",
    ),
    (
        "log_damaged",
        "The log on the disk isn't what the server wrote: it is gone, a part of it is, or it was \
         changed. Its length is recorded while it is written, its digest when it is sealed, and what \
         is read is compared with them, so that a damaged log never looks like a short one. If a \
         backup of the data folder has the log (`logs/JOB/ATTEMPT.zst` with its `.idx`), put both \
         files back; otherwise run the job again: `pipectl runs rerun`.",
    ),
];

/// What a code means and what to do; `None` if it is none of these.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}
