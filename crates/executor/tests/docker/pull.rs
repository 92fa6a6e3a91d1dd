//! Images that aren't on the machine, with a registry of the test's own on loopback.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pipeyard_executor::RegistryAccess;
use pipeyard_model::Conclusion;
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, docker, spec};

/// Debian's `docker-registry` on a free port with a folder of its own.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    /// `None` where the program isn't installed and nobody demands it.
    /// With `htpasswd`, only for who signs in.
    fn start(folder: &Path, htpasswd: Option<&str>, test: &str) -> Option<Self> {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let root = folder.join("registry");
        let auth = htpasswd.map_or_else(String::new, |line| {
            let file = folder.join("htpasswd");
            fs::write(&file, line).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
        });
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{address}'}}\n{auth}",
            root.display()
        );
        let file = folder.join("registry.yml");
        fs::write(&file, config).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                let why = Err(format!("docker-registry: {error}"));
                let _ = pipeyard_needs::met(test, pipeyard_needs::Need::Registry, why);
                return None;
            }
        };
        let begun = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry doesn't start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { process, address })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_missing_image_is_pulled_once_and_the_log_says_so() {
    let test = "a_missing_image_is_pulled_once_and_the_log_says_so";
    let Some(stage) = Stage::set(test).await else { return };
    let Some(registry) = Registry::start(stage.folder.path(), None, test) else { return };
    let name = format!("{}/team/tools:1.2", registry.address);
    docker(&["tag", BUSYBOX, &name]);
    docker(&["push", "-q", &name]);
    docker(&["rmi", &name]);
    let seen = stage.run(spec(&name, &["echo from the registry"])).await;
    let again = stage.run(spec(&name, &["echo again"])).await;
    docker(&["rmi", &name]);
    seen.succeeded();
    let notes = seen.notes();
    assert!(notes.contains(&format!("Pulling {name}").as_str()), "{notes:?}");
    assert!(notes.iter().any(|note| note.starts_with(&format!("Pulled {name} in "))), "{notes:?}");
    again.succeeded();
    assert!(!again.notes().iter().any(|note| note.contains("Pull")), "{:?}", again.notes());

    let missing = format!("{}/team/tools:none", registry.address);
    let seen = stage.run(spec(&missing, &["echo not reached"])).await;
    seen.is(Conclusion::Error, "image_not_found");
    assert!(seen.message().contains(&missing), "{}", seen.message());
    stage.end().await;
}

/// A slow line to a registry: so many bytes a second come through, and after `limit` none at all.
fn slow_line(upstream: &str, bytes_per_second: u64, limit: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = upstream.to_owned();
    let through = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&upstream) else { continue };
            let (mut up_from, mut up_to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || io::copy(&mut up_from, &mut up_to));
            let through = Arc::clone(&through);
            std::thread::spawn(move || drip(server, client, bytes_per_second, limit, &through));
        }
    });
    address
}

fn drip(mut from: TcpStream, mut to: TcpStream, rate: u64, limit: u64, through: &AtomicU64) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if through.fetch_add(read as u64, Ordering::SeqCst) > limit {
            // Open and silent until the other side gives up.
            let _ = to.read(&mut bytes);
            return;
        }
        std::thread::sleep(Duration::from_secs_f64(read as f64 / rate as f64));
        if to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Pushes an image of `megabytes` that doesn't compress, and forgets it here.
fn push_large(registry: &Registry, folder: &Path, name: &str, megabytes: usize) {
    let layer = folder.join("layer");
    fs::create_dir(&layer).unwrap();
    let mut random = fs::File::open("/dev/urandom").unwrap().take(megabytes as u64 * 1_000_000);
    io::copy(&mut random, &mut fs::File::create(layer.join("data")).unwrap()).unwrap();
    let archive = folder.join("layer.tar");
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(&archive).arg("-C").arg(&layer).arg("data");
    assert!(pack.status().unwrap().success());
    let direct = format!("{}/{name}", registry.address);
    docker(&["import", &archive.display().to_string(), &direct]);
    docker(&["push", "-q", &direct]);
    docker(&["rmi", &direct]);
}

#[tokio::test]
async fn a_slow_pull_tells_its_progress_and_one_that_stands_still_is_given_up() {
    let test = "a_slow_pull_tells_its_progress_and_one_that_stands_still_is_given_up";
    let Some(stage) =
        Stage::set_with(test, |config| config.pull_stall = Duration::from_secs(3)).await
    else {
        return;
    };
    let Some(registry) = Registry::start(stage.folder.path(), None, test) else { return };
    push_large(&registry, stage.folder.path(), "team/large:1", 8);

    let slow = format!("{}/team/large:1", slow_line(&registry.address, 2_000_000, u64::MAX));
    let seen = stage.run(spec(&slow, &["true"])).await;
    docker(&["rmi", &slow]);
    // It came whole, and has no shell.
    seen.is(Conclusion::Error, "no_shell");
    let progress = seen.notes().iter().filter(|note| note.ends_with(" of 8.0 MB")).count();
    assert!((1..=4).contains(&progress), "{:?}", seen.notes());

    let still = format!("{}/team/large:1", slow_line(&registry.address, 2_000_000, 1_000_000));
    let seen = stage.run(spec(&still, &["true"])).await;
    seen.is(Conclusion::Error, "registry_unreachable");
    assert!(seen.message().contains("stood still"), "{}", seen.message());
    stage.end().await;
}

#[tokio::test]
async fn a_private_image_is_pulled_with_what_docker_login_left() {
    // htpasswd's line for the password "correct-horse".
    const TESTER: &str = "tester:$2a$04$hlb2XUrsgIdo3RXIhBBS4uJLBArsZaocU9XDH5vSuTyTSiFGPWsjS\n";
    let test = "a_private_image_is_pulled_with_what_docker_login_left";
    let Some(stage) = Stage::set(test).await else { return };
    let Some(registry) = Registry::start(stage.folder.path(), Some(TESTER), test) else { return };
    let name = format!("{}/team/private:1", registry.address);
    let login = stage.folder.path().join("login");
    let config = login.display().to_string();
    let arguments = ["login", "-u", "tester", "-p", "correct-horse", &registry.address];
    docker(&[&["--config", &config], &arguments[..]].concat());
    docker(&["tag", BUSYBOX, &name]);
    docker(&["--config", &config, "push", "-q", &name]);
    docker(&["rmi", &name]);

    let stranger = stage.folder.path().join("stranger");
    let stranger = Stage::set_with(test, |config| config.docker_config = Some(stranger)).await;
    let Some(stranger) = stranger else { return };
    let seen = stranger.run(spec(&name, &["echo not reached"])).await;
    seen.is(Conclusion::Error, "registry_denied");
    stranger.end().await;

    let known = Stage::set_with(test, |config| config.docker_config = Some(login)).await;
    let Some(known) = known else { return };
    let seen = known.run(spec(&name, &["echo from the registry"])).await;
    seen.succeeded();
    known.end().await;

    // It lies here now. A rule says whose it is.
    let rule = format!("{}/team=acme/shop", registry.address).parse().unwrap();
    let ruled = Stage::set_with(test, |config| {
        config.docker_config = Some(stage.folder.path().join("login"));
        config.registry_access = RegistryAccess::Rules(vec![rule]);
    });
    let Some(ruled) = ruled.await else { return };
    ruled.run(spec(&name, &["echo ours"])).await.succeeded();
    let mut job = ruled.job(spec(&name, &["echo not reached"]));
    job.repo = "evil/repo".to_owned();
    let seen = ruled.run_job(job, CancellationToken::new(), |_| {}).await;
    seen.is(Conclusion::Error, "registry_denied");
    docker(&["rmi", &name]);
    ruled.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_registry_that_doesnt_answer_is_told_apart_from_a_missing_image() {
    let test = "a_registry_that_doesnt_answer_is_told_apart_from_a_missing_image";
    let Some(stage) = Stage::set(test).await else { return };
    let name = format!("127.0.0.1:{}/nobody/there:1", free_port());
    let seen = stage.run(spec(&name, &["echo not reached"])).await;
    seen.is(Conclusion::Error, "registry_unreachable");
    let seen = stage.run(spec("../../containers/json?x=", &["echo not reached"])).await;
    seen.is(Conclusion::Error, "image_name_invalid");
    stage.end().await;
}

#[tokio::test]
async fn an_image_is_used_by_its_name_only() {
    let Some(stage) = Stage::set("an_image_is_used_by_its_name_only").await else { return };
    let id = docker(&["inspect", "--format", "{{.Id}}", BUSYBOX]).trim().to_owned();
    let digits = id.strip_prefix("sha256:").unwrap();
    for name in [&id, digits, &digits[..12], &digits[..7], &id[..14]] {
        let seen = stage.run(spec(name, &["echo not reached"])).await;
        seen.is(Conclusion::Error, "image_is_an_id");
    }
    // What Docker would take for the beginning of an id too.
    let seen = stage.run(spec(&digits[..5], &["echo not reached"])).await;
    assert_eq!(seen.outcome.conclusion, Conclusion::Error, "{seen:#?}");
    let seen = stage.run(spec(&format!("pipeyard/busybox@{id}"), &["echo not reached"])).await;
    assert_eq!(seen.outcome.conclusion, Conclusion::Error, "{seen:#?}");
    stage.end().await;
}
