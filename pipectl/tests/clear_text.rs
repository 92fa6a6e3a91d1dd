//! Nothing that is a secret crosses a network in clear text: what listens for others has TLS, and what is
//! dialled with a credential is https or this machine. All of it is refused before anything is sent.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

fn pipectl(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipectl"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PIPEYARD_")) {
        command.env_remove(name);
    }
    command
        .env("PIPEYARD_PROFILES", folder.join("profiles.toml"))
        .env("PIPEYARD_LOG", "warn")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn fixture(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates");
    crates.join("listen/tests/certificates").join(name)
}

/// Runs to the end; a role that starts instead of refusing is ended and fails the test.
fn refused(mut command: Command) -> String {
    let shown = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..600 {
        if child.try_wait().unwrap().is_some() {
            let Output { status, stderr, .. } = child.wait_with_output().unwrap();
            assert!(!status.success(), "{shown}");
            return String::from_utf8(stderr).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it goes on: {shown}");
}

#[test]
fn what_other_machines_reach_has_tls_or_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    for role in [
        &["server", "--listen", "0.0.0.0:0", "--data", "s"][..],
        &["server", "--listen", "[::]:0", "--data", "s"],
        &["fleet", "--listen", "0.0.0.0:0", "--data", "f", "--proxy-token-file", "t"],
        &["fleet", "--proxy-admin", "192.0.2.1:1", "--data", "f", "--proxy-token-file", "t"],
        &["proxy", "--admin", "0.0.0.0:0", "--token-file", "t", "--state-file", "r"],
        &["up", "--listen", "0.0.0.0:0", "--data", "u"],
        &["up", "--fleet-listen", "0.0.0.0:0", "--data", "u"],
        &["up", "--proxy-admin", "0.0.0.0:0", "--trusted-proxy", "--data", "u"],
    ] {
        let mut command = pipectl(folder.path());
        command.args(role);
        let said = refused(command);
        assert!(said.contains("127.0.0.1"), "{role:?}: {said}");
        assert!(said.contains("--tls-cert") || said.contains("this machine"), "{role:?}: {said}");
    }
    // Nothing was made on the way.
    for name in ["s", "f", "u", "t", "r"] {
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn an_address_that_would_get_a_credential_in_clear_text_is_refused_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let code = write("code", "ppe_0123");
    let credentials = write("credentials.json", r#"{"token": "secret"}"#);
    let hook = write("hook.toml", "url = \"http://192.0.2.1/hooks/git/1\"\nsecret = \"x\"\n");
    for url in
        ["http://192.0.2.1:9", "http://fleet.example.com", "ftp://127.0.0.1", "http://0.0.0.0:1"]
    {
        for args in [
            &["agent", "--fleet", url, "--enroll-file", &code, "--root", "root"][..],
            &["fleet", "enroll", "h1", "--fleet", url, "--credentials", &credentials],
            &["fleet", "hosts", "list", "--fleet", url, "--credentials", &credentials],
            &["login", url, "--code", "ppl_x"],
            &["runner", "--server", url, "--data", "runner", "--token-file", &code],
            &["runs", "list", "--server", url],
        ] {
            let mut command = pipectl(folder.path());
            command.args(args).env("PIPEYARD_TOKEN", "secret");
            let said = refused(command);
            assert!(said.contains("https://"), "{args:?}: {said}");
        }
    }
    for setting in [
        "github_api = \"http://api.example.com\"",
        "notify_url = \"http://chat.example.com/x\"",
        "public_url = \"http://ci.example.com\"",
    ] {
        let config = write("pipeyard.toml", &format!("[server]\n{setting}\ndata_dir = \"s\"\n"));
        let mut command = pipectl(folder.path());
        command.args(["server", "--listen", "127.0.0.1:0", "--config", &config]);
        let said = refused(command);
        assert!(said.contains("https://"), "{setting}: {said}");
    }
    // A push goes on, and is told why nobody was told.
    let told = pipectl(folder.path()).args(["hook", "--file", &hook]).output().unwrap();
    assert!(told.status.success());
    assert!(String::from_utf8(told.stderr).unwrap().contains("https://"));
}

/// A server that speaks TLS.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_speaks_tls_and_whoever_knows_the_authority_signs_in() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    fs::copy(fixture("one.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = pipectl(folder.path());
    command
        .args(["server", "--data", "data", "--listen", &format!("127.0.0.1:{port}"), "--tls-cert"])
        .arg(fixture("one.pem"))
        .arg("--tls-key")
        .arg(&key)
        .stdout(Stdio::piped());
    let mut served = Served(command.spawn().unwrap());
    let mut lines = BufReader::new(served.0.stdout.take().unwrap()).lines();
    let listens = lines.next().unwrap().unwrap();
    assert!(listens.contains("https://127.0.0.1"), "{listens}");
    let link = lines.next().unwrap().unwrap();
    let link = link.split_once("https://").map(|(_, rest)| format!("https://{rest}")).unwrap();

    let login = |more: &[&std::ffi::OsStr]| {
        pipectl(folder.path()).arg("login").arg(&link).args(more).output().unwrap()
    };
    let stranger = login(&[]);
    assert_eq!(stranger.status.code(), Some(6), "{stranger:?}");
    let ca = fixture("ca.pem");
    let known = login(&["--ca-file".as_ref(), ca.as_os_str()]);
    assert!(known.status.success(), "{known:?}");
    let runs = pipectl(folder.path()).args(["runs", "list"]).env("PIPEYARD_CA_FILE", &ca).output();
    assert!(runs.unwrap().status.success());

    // A browser's cookie is this host's alone, and is never sent without TLS.
    let code = pipectl(folder.path()).args(["login-code", "--data", "data"]).output().unwrap();
    let code = String::from_utf8(code.stdout).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        pipeyard_trust::trust(&ca).unwrap();
        let client = pipeyard_trust::client().no_proxy().build().unwrap();
        let base = format!("https://127.0.0.1:{port}");
        let body = format!(r#"{{"code": "{}"}}"#, code.trim());
        let request =
            client.post(format!("{base}/api/login")).header("content-type", "application/json");
        let answer =
            request.header("sec-fetch-site", "same-origin").body(body).send().await.unwrap();
        assert!(answer.status().is_success());
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.starts_with("__Host-pipeyard_session="), "{cookie}");
        assert!(
            cookie.contains("; Secure") && cookie.contains("Path=/") && !cookie.contains("Domain")
        );
        let pair = cookie.split(';').next().unwrap();
        let me =
            |cookie: String| client.get(format!("{base}/api/me")).header("cookie", cookie).send();
        assert!(me(pair.to_owned()).await.unwrap().status().is_success());
        let plain = pair.replace("__Host-", "");
        assert_eq!(me(plain).await.unwrap().status().as_u16(), 401);
    });
    drop(lines);
    let _ = served.0.stderr.take().map(|mut err| err.read(&mut [0; 1]));
}
