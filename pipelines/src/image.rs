//! The syntax of image references: `[host[:port]/]path[:tag][@sha256:…]`.

/// Checks an image reference; the error completes "… is not an image: ".
pub(crate) fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > 255 {
        return Err("it has more than 255 characters");
    }
    if text.starts_with('-') {
        return Err("it starts with a dash");
    }
    if text.contains("://") {
        return Err("it starts with a scheme; write the host first");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it holds a space or a character outside of ASCII");
    }
    if is_id(text) {
        return Err("it is an image's id on some machine; write `name:tag` or `name@sha256:…`");
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let hex =
            digest.strip_prefix("sha256:").ok_or("its digest doesn't start with `sha256:`")?;
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("its digest is not 64 lower-case hexadecimal digits");
        }
    }
    let (host, rest) = match named.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            (Some(host), rest)
        }
        _ => (None, named),
    };
    if let Some(host) = host {
        let (name, port) = host.split_once(':').unwrap_or((host, "443"));
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        if name.is_empty() || !plain || port.parse::<u16>().is_err() {
            return Err("its registry is not a host or host:port");
        }
    }
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        let head = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let plain =
            tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !head || !plain || tag.len() > 128 {
            return Err("its tag may hold letters, digits, `_`, `.` and `-`, at most 128");
        }
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("its path has capital letters");
    }
    if path.split('/').all(path_part) {
        Ok(())
    } else {
        Err("its path may hold a-z, 0-9 and single `.`, `_`, `-` between them")
    }
}

/// Whether Docker would look for it by an image's id, or the beginning of one. An id names every image
/// on a runner's machine, those of other repositories too.
fn is_id(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.starts_with("sha256:")
        || (text.len() >= 7 && text.bytes().all(is_hex) && text.bytes().any(|b| b.is_ascii_digit()))
}

fn path_part(part: &str) -> bool {
    let inner = part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    inner && ends(part.bytes().next()) && ends(part.bytes().last()) && !part.contains("..")
}

/// The host name for a service of this image: the last part of its path, without tag or digest.
pub(crate) fn default_alias(image: &str) -> String {
    let named = image.split('@').next().unwrap_or(image);
    let last = named.rsplit('/').next().unwrap_or(named);
    last.split(':').next().unwrap_or(last).replace(['_', '.'], "-")
}

/// Whether `alias` can be a host name.
pub(crate) fn is_host_name(alias: &str) -> bool {
    let plain = alias.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    plain
        && !alias.is_empty()
        && alias.len() <= 63
        && !alias.starts_with('-')
        && !alias.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_options_urls_and_typing_errors() {
        let digest = "a1".repeat(32);
        for good in [
            "rust",
            "rust:1.95",
            "pipeyard/busybox:test",
            "localhost/x",
            "facade",
            "3c6444b16f6a:1",
            "team/3c6444b16f6a",
            "localhost:5000/team/app:v1",
            "ghcr.io/a/b-c/d_e__f.g:Tag-1.2_3",
            &format!("rust@sha256:{digest}"),
            &format!("rust:1@sha256:{digest}"),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-v",
            "--privileged",
            "Rust",
            "rust:",
            "rust: 1",
            "rust 1",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "https://ghcr.io/a",
            "rust@sha256:abc",
            "rust@md5:abc",
            "host:port/x",
            "rust:a:b",
            "3c6444b16f6a",
            "3c6444b",
            "sha256:3c6444b16f6a",
            &digest,
            &format!("sha256:{digest}"),
            "컨테이너",
            &"a".repeat(256),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_is_named_by_the_last_part_of_its_image() {
        for (image, alias) in [
            ("postgres:17", "postgres"),
            ("localhost:5000/team/my_db.v2:1", "my-db-v2"),
            ("redis@sha256:abc", "redis"),
        ] {
            assert_eq!(default_alias(image), alias);
        }
    }
}
