//! Floors: what the bare means cost on this machine, now.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;

use crate::figure::{median, percentile};

/// Seconds of `docker run --rm IMAGE true`.
pub(crate) fn docker_run(times: usize) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let status = Command::new("docker")
            .args(["run", "--rm", "pipeyard/busybox:test", "true"])
            .status()?;
        anyhow::ensure!(status.success(), "docker run failed; make images makes the image");
        took.push(began.elapsed().as_secs_f64());
    }
    Ok(median(&mut took))
}

/// Milliseconds of starting a shell that runs `true`.
pub(crate) fn shell_true_ms() -> Option<f64> {
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        Command::new("/bin/sh").args(["-c", "true"]).status().ok()?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Some(median(&mut took))
}

/// Lines of 99 letters and their ends.
pub(crate) fn a_megabyte_of_lines() -> String {
    ("x".repeat(99) + "\n").repeat(10_000)
}

/// A shell command that writes a file of a megabyte so many times.
pub(crate) fn cat_megabytes(file: &str, times: u64) -> String {
    format!("i=0; while [ $i -lt {times} ]; do cat {file}; i=$((i+1)); done")
}

/// The same `cat` of as many bytes through one pipe.
pub(crate) fn cat_mb_per_second(mb: u64) -> Option<f64> {
    let dir = tempfile::tempdir().ok()?;
    fs::write(dir.path().join("lines"), a_megabyte_of_lines()).ok()?;
    let began = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &format!("({}) | cat", cat_megabytes("lines", mb))])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut block = vec![0; 1 << 16];
    let mut out = child.stdout.take()?;
    while out.read(&mut block).ok()? > 0 {}
    child.wait().ok()?;
    Some(mb as f64 / began.elapsed().as_secs_f64())
}

/// The 99th percentile of writing 4 KiB and waiting for the disk.
pub(crate) fn sync_p99_ms() -> anyhow::Result<f64> {
    let dir = std::env::temp_dir().join(format!("pipeyard-bench-{}", std::process::id()));
    let mut file = fs::File::create(&dir)?;
    let mut took = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    fs::remove_file(&dir)?;
    Ok(percentile(&mut took, 99))
}

/// Single-row transactions a second of the bare database, WAL and synchronous FULL, one connection.
pub(crate) fn sqlite_commits_per_second() -> Option<f64> {
    let script = "import sqlite3,tempfile,time,os\n\
        d=tempfile.mkdtemp();c=sqlite3.connect(os.path.join(d,'x'),isolation_level=None)\n\
        c.execute('pragma journal_mode=wal');c.execute('pragma synchronous=full');c.execute('create table t(a,b)')\n\
        t=time.time();n=2000\n\
        for i in range(n): c.execute('insert into t values(?,?)',(i,'x'*200))\n\
        print(n/(time.time()-t))";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Resident memory of a process, in MB.
pub(crate) fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}
