//! Which files of a repository are pipelines, and what is said when there is none.

use crate::{Code, Diagnostic, diagnostic::Report, yaml::Span};

/// One pipeline file: its path in the repository and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Relative to the repository's root, with slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// A file whose text is known to be UTF-8.
    #[must_use]
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// A file as it lies in the repository.
    ///
    /// # Errors
    /// A diagnostic at the first byte that isn't UTF-8, or when it is too large.
    pub fn from_bytes(path: &str, bytes: &[u8]) -> Result<Self, Box<Diagnostic>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => {
                let before = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or("");
                let mut report = Report::new(path, before);
                let at = Span { start: before.len(), end: before.len() };
                let found = report.error(Code::P013, at, "the file is not UTF-8 text from here on");
                found.help("save it as UTF-8 without a different encoding's bytes");
                Err(Box::new(found.clone()))
            }
        }
    }
}

/// The pipeline files among the paths of a commit, in order: `.pipeyard.yml` first, then those in
/// `.pipeyard/`. The ending may be `.yml` or `.yaml`.
#[must_use]
pub fn pipeline_files<'p>(paths: impl IntoIterator<Item = &'p str>) -> Vec<&'p str> {
    let mut found: Vec<&str> =
        paths.into_iter().filter(|path| pipeline_name(path).is_some()).collect();
    found.sort_unstable_by_key(|path| (path.contains('/'), *path));
    found.dedup();
    found
}

/// The name of the pipeline in this file: `pipeyard` for `.pipeyard.yml`, otherwise the file's name
/// without its ending. `None` if the path is not a pipeline file's.
#[must_use]
pub fn pipeline_name(path: &str) -> Option<&str> {
    let stem = path.strip_suffix(".yml").or_else(|| path.strip_suffix(".yaml"))?;
    if stem == ".pipeyard" {
        return Some("pipeyard");
    }
    let name = stem.strip_prefix(".pipeyard/")?;
    (!name.is_empty() && !name.contains('/') && !name.starts_with('.')).then_some(name)
}

/// What is said when a commit has no pipeline file.
#[must_use]
pub fn missing_file() -> Diagnostic {
    let mut report = Report::new(".pipeyard.yml", "");
    let found = report.error(
        Code::P014,
        Span { start: 0, end: 0 },
        "this commit has no pipeline: there is neither `.pipeyard.yml` nor `.pipeyard/*.yml`",
    );
    found.help(
        "add a file `.pipeyard.yml` with at least `jobs:`, a job's name, its `image` and its `run`",
    );
    found.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_file_and_the_folder_hold_pipelines() {
        let paths = [
            "src/.pipeyard.yml",
            ".pipeyard/nightly.yaml",
            ".pipeyard/deep/x.yml",
            ".pipeyard/.hidden.yml",
            ".pipeyard.yml",
            ".pipeyard/build.yml",
            "pipeyard.yml",
        ];
        assert_eq!(
            pipeline_files(paths),
            [".pipeyard.yml", ".pipeyard/build.yml", ".pipeyard/nightly.yaml"]
        );
        assert_eq!(pipeline_name(".pipeyard.yml"), Some("pipeyard"));
        assert_eq!(pipeline_name(".pipeyard/build.yml"), Some("build"));
    }

    #[test]
    fn a_file_that_is_not_utf8_is_named_at_its_first_bad_byte() {
        let error = Source::from_bytes(".pipeyard.yml", b"jobs:\n  a: \xff\n").unwrap_err();
        assert_eq!((error.code, error.line, error.column), (Code::P013, 2, 6));
    }

    #[test]
    fn a_missing_file_has_a_place_too() {
        let missing = missing_file();
        assert_eq!((missing.line, missing.column), (1, 1));
    }
}
