//! Images: taken from the machine if they are there, otherwise pulled, with progress.

use std::{collections::HashMap, time::Duration};

use bollard::{
    Docker, auth::DockerCredentials, models::ImageInspect,
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::{StreamExt, future::BoxFuture};
use tokio::time::{Instant, timeout};

use super::fault::{self, Fault};

/// At most one note on progress in this time.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// What a job or service needs to know of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// By its content, so that a tag that moves meanwhile changes nothing.
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) has_home: bool,
    pub(crate) has_healthcheck: bool,
    /// The lowest exposed TCP port.
    pub(crate) port: Option<u16>,
}

impl Image {
    /// What a tag means today, for who wants the same again tomorrow.
    pub(crate) fn describe(&self, name: &str) -> String {
        let digits = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        format!("{name} ({})", digits.get(..12).unwrap_or(digits))
    }
}

/// Checks that `name` can be an image's name: it becomes part of a request's path.
pub(crate) fn check_name(name: &str) -> Result<(), Fault> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._/:@-".contains(&b);
    let is_good = !name.is_empty()
        && name.len() <= 400
        && name.bytes().all(is_plain)
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if is_good && is_id(name) {
        return Err(Fault::new(
            "image_is_an_id",
            format!(
                "{name} is an image's id on the runner's machine, not its name: any job could use any \
                 image there. Write `name:tag` or `name@sha256:digest`."
            ),
        ));
    }
    if is_good {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Fault::new(
        "image_name_invalid",
        format!(
            "{shown:?} is not the name of an image: write `name`, `name:tag` or `registry/name:tag`."
        ),
    ))
}

/// Whether Docker would look for an image by its id, or the beginning of one.
fn is_id(name: &str) -> bool {
    let is_hex =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    name.starts_with("sha256:")
        || (name.len() >= 7 && is_hex(name) && name.bytes().any(|b| b.is_ascii_digit()))
}

/// The image of this name on this machine, or `None`. What Docker finds in another way than by the
/// name, such as by the beginning of an id, isn't it.
pub(crate) async fn find(docker: &Docker, name: &str) -> Result<Option<Image>, Fault> {
    check_name(name)?;
    let asked = tagged(name);
    match docker.inspect_image(&asked).await {
        Ok(found) if is_named(&found, &asked) => Ok(Some(describe(found))),
        Ok(_) => Ok(None),
        Err(error) if fault::status(&error) == Some(404) => Ok(None),
        Err(error) => Err(Fault::of(&format!("look for the image {name}"), &error)),
    }
}

/// Where notes on progress go.
pub(crate) type Noted<'a> = &'a (dyn Fn(String) -> BoxFuture<'a, ()> + Send + Sync);

/// Pulls the image. `note` gets progress; `stall` is the longest time without any.
pub(crate) async fn pull(
    docker: &Docker,
    name: &str,
    credentials: Option<DockerCredentials>,
    stall: Duration,
    note: Noted<'_>,
) -> Result<Image, Fault> {
    let (repository, tag) = split_tag(name);
    let options = CreateImageOptionsBuilder::default().from_image(repository).tag(tag).build();
    let mut progress = docker.create_image(Some(options), None, credentials);
    note(format!("Pulling {name}")).await;
    let started = Instant::now();
    let mut noted = started;
    let mut layers: HashMap<String, (i64, i64)> = HashMap::new();
    loop {
        let news = match timeout(stall, progress.next()).await {
            Ok(Some(news)) => news.map_err(|error| fault::of_pull(name, &error))?,
            Ok(None) => break,
            Err(_) => {
                let message = format!(
                    "The pull of {name} stood still for {} s: its registry stopped sending.",
                    stall.as_secs()
                );
                return Err(Fault::new("registry_unreachable", message));
            }
        };
        let is_download = news.status.as_deref().is_some_and(|status| status == "Downloading");
        if let (true, Some(id), Some(detail)) = (is_download, news.id, news.progress_detail) {
            let sizes = (detail.current.unwrap_or(0), detail.total.unwrap_or(0));
            // An image has at most 127 layers.
            if layers.len() < 1000 || layers.contains_key(&id) {
                layers.insert(id, sizes);
            }
        }
        if noted.elapsed() >= NOTE_EVERY && !layers.is_empty() {
            noted = Instant::now();
            note(format!("Pulling {name}: {}", progress_text(&layers))).await;
        }
    }
    let image = find(docker, name).await?.ok_or_else(|| {
        Fault::new("image_pull_failed", format!("Docker pulled {name} and then didn't find it."))
    })?;
    note(format!("Pulled {name} in {:.1} s", started.elapsed().as_secs_f64())).await;
    Ok(image)
}

#[expect(clippy::cast_precision_loss, reason = "megabytes with one digit are shown")]
fn progress_text(layers: &HashMap<String, (i64, i64)>) -> String {
    let (done, total) = layers.values().fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
    let mega = |bytes: i64| bytes as f64 / 1e6;
    format!("{:.1} of {:.1} MB", mega(done), mega(total))
}

/// Docker pulls every tag of a repository when none is named, so `latest` is.
fn split_tag(name: &str) -> (&str, &str) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository, digest);
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// The name with the tag or digest that it means.
fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

/// A name as Docker lists it: without its own registry's.
fn familiar(name: &str) -> &str {
    ["docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/", "library/"]
        .iter()
        .find_map(|start| name.strip_prefix(start))
        .unwrap_or(name)
}

/// Whether an image that Docker found has this name.
fn is_named(found: &ImageInspect, asked: &str) -> bool {
    let (names, asked) = match asked.split_once('@') {
        // A tag beside a digest says nothing more.
        Some((named, digest)) => {
            let repository = split_tag(named).0;
            (&found.repo_digests, format!("{repository}@{digest}"))
        }
        None => (&found.repo_tags, asked.to_owned()),
    };
    names.iter().flatten().any(|name| familiar(name) == familiar(&asked))
}

fn describe(found: ImageInspect) -> Image {
    let config = found.config.unwrap_or_default();
    let env = config.env.unwrap_or_default();
    let ports = config.exposed_ports.unwrap_or_default();
    let test = config.healthcheck.and_then(|check| check.test).unwrap_or_default();
    Image {
        id: found.id.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        has_home: env.iter().any(|pair| pair.starts_with("HOME=")),
        has_healthcheck: test.first().is_some_and(|kind| kind != "NONE"),
        port: ports
            .iter()
            .filter_map(|port| match port.split_once('/') {
                Some((number, "tcp")) => number.parse().ok(),
                Some(_) => None,
                None => port.parse().ok(),
            })
            .min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_latest() {
        assert_eq!(split_tag("busybox"), ("busybox", "latest"));
        assert_eq!(split_tag("localhost:5000/a/b"), ("localhost:5000/a/b", "latest"));
        assert_eq!(split_tag("localhost:5000/a/b:1.2"), ("localhost:5000/a/b", "1.2"));
        assert_eq!(split_tag("a@sha256:00"), ("a", "sha256:00"));
    }

    #[test]
    fn an_id_is_no_name() {
        let digest = "3c6444b16f6a".repeat(6);
        for id in [
            "3c6444b16f6a",
            "3c6444b",
            "sha256:3c6444b16f6a",
            &digest[..64],
            &format!("sha256:{}", &digest[..64]),
        ] {
            assert_eq!(check_name(id).unwrap_err().code, "image_is_an_id", "{id}");
        }
        for name in ["cafe", "facade", "3c6444b16f6a:1", "team/3c6444b16f6a", "node20"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        // Docker finds by the beginning of an id too; only the name counts.
        let found = ImageInspect {
            repo_tags: Some(vec!["busybox:1".to_owned(), "cafe:latest".to_owned()]),
            repo_digests: Some(vec!["busybox@sha256:00".to_owned()]),
            ..ImageInspect::default()
        };
        for (asked, is) in [
            ("busybox:1", true),
            ("docker.io/library/busybox:1", true),
            ("cafe", true),
            ("beef", false),
            ("busybox", false),
            ("busybox@sha256:00", true),
            ("busybox:9@sha256:00", true),
            ("other@sha256:00", false),
        ] {
            assert_eq!(is_named(&found, &tagged(asked)), is, "{asked}");
        }
        assert!(!is_named(&ImageInspect::default(), "busybox:1"));
    }

    #[test]
    fn a_name_can_change_no_request() {
        for good in ["busybox", "localhost:5000/a/b:1.2", "a@sha256:00", "ghcr.io/A_b/c-d:v1"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in
            ["", "-x", "../../containers", "a//b", "a b", "a?x=1", "a\n", "/a", "한글", "a/./b"]
        {
            assert_eq!(check_name(bad).unwrap_err().code, "image_name_invalid", "{bad}");
        }
    }
}
