//! The codes of data folders and of what lies in them and serves, with what they mean and what to do.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "artifact_damaged",
        "The bytes of an artifact on the server's disk aren't those that the job kept: the disk failed, \
         or somebody wrote to the file that the message names. Nothing is sent, because it would be \
         something else. Run its job again, or bring the file back from a backup, and have the disk \
         looked at.",
    ),
    (
        "data_folder_damaged",
        "home.json of a data folder says where the folder lives, and can't be read. Nothing starts, \
         because it could be a copy. If nothing else uses a copy of the folder, say that it lives here: \
         pipectl admin moved FOLDER.",
    ),
    (
        "data_folder_elsewhere",
        "A data folder is not where it was made: it is a copy, or was moved to another disk. Nothing in it \
         was touched. Two of one folder would remove each other's containers and end each other's proxy. \
         Moved on purpose, and nothing uses the old place: pipectl admin moved FOLDER. Copies are made \
         with pipectl admin backup and pipectl admin restore. A folder that was only renamed, or is \
         reached by a link or a bind mount, needs nothing.",
    ),
    (
        "data_folder_in_use",
        "The same part of Pipeyard works in this data folder already; the message names its process. End \
         it first, or start with another folder. The lock ends with its process, however that ended.",
    ),
    (
        "data_folder_not_private",
        "A data folder or a secret in it can be used by other users of the machine, or belongs to one. \
         The message says how to close it.",
    ),
    (
        "data_folder_unusable",
        "A data folder can't be made, read or written: check its path, its owner, whether the disk is \
         mounted read-only, and the free space.",
    ),
    (
        "release_damaged",
        "The bytes of a release on the server's disk aren't those that the job built: the disk failed, or \
         somebody wrote to the file that the message names. Nothing was asked of the provider, and other \
         releases don't wait for it. Run its commit again, go back to another release, or bring the file \
         back from a backup, and have the disk looked at.",
    ),
];

/// The page of a code, if it is one of these.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_each_has_its_page() {
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(CODES.iter().all(|(code, text)| explain(code) == Some(*text)));
    }
}
