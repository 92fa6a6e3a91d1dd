//! The hook's file, as `repos add --install-hook` writes it: TOML of two plain strings.

/// What the file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HookFile {
    /// The hook's whole address.
    pub(crate) url: String,
    /// Signs the message.
    pub(crate) secret: String,
}

/// Reads the plain form; `None` for everything that takes a real reader of TOML, and for what isn't
/// right: `pipectl hook` says what.
pub(crate) fn read(text: &str) -> Option<HookFile> {
    let (mut url, mut secret) = (None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=')?;
        let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
        if value.contains(['"', '\\']) || value.chars().any(char::is_control) {
            return None;
        }
        let place = match key.trim() {
            "url" => &mut url,
            "secret" => &mut secret,
            _ => return None,
        };
        if place.replace(value.to_owned()).is_some() {
            return None;
        }
    }
    Some(HookFile { url: url?, secret: secret? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_installer_writes_is_read() {
        let read = read("url = \"http://127.0.0.1:1/hooks/git/x\"\nsecret = \"s\"\n").unwrap();
        assert_eq!(read.url, "http://127.0.0.1:1/hooks/git/x");
        assert_eq!(read.secret, "s");
    }

    #[test]
    fn everything_else_is_left_to_a_real_reader() {
        for other in [
            "",
            "url = \"u\"\n",
            "url = \"u\"\nsecret = \"a\\\"b\"\n",
            "url = \"u\"\nsecret = 's'\n",
            "url = \"u\"\nsecret = \"\"\"s\"\"\"\n",
            "url = \"u\"\nsecret = \"s\" # why\n",
            "url = \"u\"\nurl = \"v\"\nsecret = \"s\"\n",
            "url = \"u\"\nsecret = \"s\"\nmore = \"m\"\n",
            "[a]\nurl = \"u\"\nsecret = \"s\"\n",
            "not toml",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
