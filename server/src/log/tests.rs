use pipeyard_model::{
    Timestamp,
    log::{Head, MAX_LINE, Stream},
};
use tempfile::TempDir;

use super::*;

fn logs() -> (TempDir, Logs) {
    let folder = tempfile::tempdir().unwrap();
    let logs = Logs::open(folder.path().join("logs"), 1 << 30).unwrap();
    (folder, logs)
}

fn attempt() -> AttemptId {
    AttemptId { job: JobId::new(), epoch: Epoch(1) }
}

fn line(out: &mut Vec<u8>, step: u16, text: &[u8], goes_on: bool) {
    Head { at: Timestamp(1_772_366_400_000_000), step, stream: Stream::Stdout, goes_on }.write(out);
    out.extend_from_slice(text);
    out.push(b'\n');
}

fn korean() -> Vec<u8> {
    let mut log = Vec::new();
    for n in 0..600 {
        line(
            &mut log,
            1 + n / 300,
            format!("{n} 빌드가 끝났습니다 \u{1b}[31m빨강\u{1b}[0m\r").as_bytes(),
            n % 97 == 0,
        );
    }
    log
}

async fn append(
    logs: &Logs,
    attempt: AttemptId,
    offset: u64,
    bytes: &[u8],
) -> Result<Appended, AppendError> {
    logs.append(attempt, offset, bytes::Bytes::copy_from_slice(bytes)).await
}

async fn seal(logs: &Logs, attempt: AttemptId) {
    if logs.seal(attempt).await.unwrap().is_some() {
        logs.sealed(attempt).await.unwrap();
    }
}

/// What readers see, for comparing one way of writing with another.
async fn seen(logs: &Logs, attempt: AttemptId) -> (u64, Vec<(u64, String)>, Vec<u8>) {
    let reader = logs.reader(attempt).await.unwrap();
    let mut lines = Vec::new();
    while (lines.len() as u64) < reader.lines() {
        let page = reader.page(lines.len() as u64 + 1, 1000, usize::MAX).await.unwrap();
        lines.extend(page.into_iter().map(|l| (l.n, l.text)));
    }
    let mut raw = Vec::new();
    while (raw.len() as u64) < reader.raw_bytes() {
        raw.extend(reader.raw(raw.len() as u64..reader.raw_bytes()).await.unwrap());
    }
    (reader.lines(), lines, raw)
}

#[tokio::test]
async fn a_log_is_the_same_through_every_chunk_border() {
    let (_folder, logs) = logs();
    let log = korean();
    let whole = attempt();
    append(&logs, whole, 0, &log).await.unwrap();
    let expected = seen(&logs, whole).await;
    assert_eq!(expected.0, 600);
    assert_eq!(expected.1[299].1, "299 빌드가 끝났습니다 \u{1b}[31m빨강\u{1b}[0m\r");
    // Every border of the first lines, so that heads, letters and codes are cut everywhere.
    for cut in 1..200 {
        let parts = attempt();
        append(&logs, parts, 0, &log[..cut]).await.unwrap();
        append(&logs, parts, cut as u64, &log[cut..]).await.unwrap();
        assert_eq!(seen(&logs, parts).await, expected, "cut at {cut}");
        assert_eq!(std::fs::read(logs.live_path(parts)).unwrap(), log);
    }
}

#[tokio::test]
async fn a_restart_and_sealing_renumber_nothing() {
    let (_folder, logs) = logs();
    let (log, attempt) = (korean(), attempt());
    append(&logs, attempt, 0, &log[..5000]).await.unwrap();
    logs.forget();
    append(&logs, attempt, 5000, &log[5000..]).await.unwrap();
    let live = seen(&logs, attempt).await;
    logs.forget();
    assert_eq!(seen(&logs, attempt).await, live);
    let before = logs.reader(attempt).await.unwrap();
    seal(&logs, attempt).await;
    assert!(!logs.live_path(attempt).exists());
    assert_eq!(seen(&logs, attempt).await, live);
    assert_eq!(
        before.page(600, 1, usize::MAX).await.unwrap().len(),
        1,
        "who reads is not disturbed"
    );
    seal(&logs, attempt).await;
    assert_eq!(logs.length(attempt).await.unwrap(), log.len() as u64);
    assert!(matches!(
        append(&logs, attempt, log.len() as u64, b"x").await,
        Err(AppendError::Sealed)
    ));
    let sealed = std::fs::read(logs.folder(attempt.job).join("1.zst")).unwrap();
    assert_eq!(zstd::stream::decode_all(&sealed[..]).unwrap(), log, "any zstd reads it");
}

#[tokio::test]
async fn an_append_fits_or_is_refused() {
    let (_folder, logs) = logs();
    let (log, attempt) = (korean(), attempt());
    append(&logs, attempt, 0, &log[..1000]).await.unwrap();
    let repeat = append(&logs, attempt, 0, &log[..1000]).await.unwrap();
    assert_eq!(repeat.length, 1000);
    for offset in [1001, 500] {
        let refused = append(&logs, attempt, offset, &log[..1000]).await;
        assert!(matches!(refused, Err(AppendError::WrongOffset { length: 1000 })), "{offset}");
    }
    let bad = append(&logs, attempt, 1000, b"\nno head here, at all, not one bit\n").await;
    assert!(matches!(bad, Err(AppendError::BadLine(_))));
    let mut long = Vec::new();
    line(&mut long, 1, &vec![b'x'; MAX_LINE + 1], false);
    let other = AttemptId { epoch: Epoch(2), ..attempt };
    assert!(matches!(append(&logs, other, 0, &long).await, Err(AppendError::BadLine(_))));
    append(&logs, attempt, 1000, &log[1000..]).await.unwrap();
    assert_eq!(
        std::fs::read(logs.live_path(attempt)).unwrap(),
        log,
        "a refused append leaves nothing"
    );
}

#[tokio::test]
async fn the_first_line_of_a_step_is_told_once() {
    let (_folder, logs) = logs();
    let attempt = attempt();
    let mut log = Vec::new();
    line(&mut log, 0, b"pulling", false);
    line(&mut log, 1, b"one", false);
    let first = append(&logs, attempt, 0, &log).await.unwrap();
    assert_eq!(first.first_lines, [(0, 1), (1, 2)]);
    let at = log.len();
    line(&mut log, 1, b"more", false);
    line(&mut log, 2, b"two", false);
    assert_eq!(append(&logs, attempt, at as u64, &log[at..]).await.unwrap().first_lines, [(2, 4)]);
}

#[tokio::test]
async fn a_line_without_its_end_is_seen_once_the_attempt_is_over() {
    let (_folder, logs) = logs();
    let attempt = attempt();
    let mut log = Vec::new();
    line(&mut log, 1, b"whole", false);
    line(&mut log, 1, b"cut off by a loss", false);
    append(&logs, attempt, 0, &log[..log.len() - 5]).await.unwrap();
    let reader = logs.reader(attempt).await.unwrap();
    assert_eq!(reader.lines(), 1);
    assert_eq!(reader.closed().lines(), 2);
    seal(&logs, attempt).await;
    let reader = logs.reader(attempt).await.unwrap();
    assert_eq!(reader.page(2, 1, usize::MAX).await.unwrap()[0].text, "cut off by a ");
    assert_eq!(reader.raw(0..reader.raw_bytes()).await.unwrap(), "whole\ncut off by a ");
}

#[tokio::test]
async fn a_search_sees_through_colours_and_counts_all() {
    let (_folder, logs) = logs();
    let attempt = attempt();
    append(&logs, attempt, 0, &korean()).await.unwrap();
    assert_eq!(logs.search(attempt, "빨강").await.unwrap().total, 600);
    let found = logs.search(attempt, "끝났습니다 빨강").await.unwrap();
    assert_eq!((found.total, found.lines[0]), (600, 1));
    assert_eq!(logs.search(attempt, "1772366400").await.unwrap().total, 0, "heads aren't text");
    let mut log = korean();
    let at = log.len();
    line(&mut log, 1, b"An Error", false);
    append(&logs, attempt, at as u64, &log[at..]).await.unwrap();
    assert_eq!(logs.search(attempt, "error").await.unwrap().lines, [601]);
    assert_eq!(logs.search(attempt, "ERROR").await.unwrap().total, 0);
}

#[tokio::test]
async fn a_log_of_a_million_lines_opens_at_any_line() {
    let (_folder, logs) = logs();
    let attempt = attempt();
    let mut offset = 0;
    for piece in 0..10 {
        let mut log = Vec::new();
        for n in 0..100_000 {
            line(&mut log, 1, format!("line {}", piece * 100_000 + n + 1).as_bytes(), false);
        }
        offset = append(&logs, attempt, offset, &log).await.unwrap().length;
    }
    seal(&logs, attempt).await;
    let reader = logs.reader(attempt).await.unwrap();
    assert_eq!(reader.lines(), 1_000_000);
    for n in [1, 256, 257, 99_999, 500_000, 1_000_000] {
        assert_eq!(reader.page(n, 1, usize::MAX).await.unwrap()[0].text, format!("line {n}"));
    }
    assert!(reader.page(1_000_001, 10, usize::MAX).await.unwrap().is_empty());
    assert_eq!(logs.search(attempt, "line 999999").await.unwrap().lines, [999_999]);
}

#[tokio::test]
async fn a_sealed_log_that_was_changed_is_never_read_as_something_else() {
    let (_folder, logs) = logs();
    let log = korean();
    for (name, spoil) in [
        ("zst", vec![]),
        ("zst", b"garbage".to_vec()),
        ("zst", vec![b'x'; 4096]),
        ("idx", vec![]),
        ("idx", b"{}".to_vec()),
        ("idx", br#"{"version":1,"length":9,"layout":{"blocks":[{"line":7,"offset":9,"raw":1,"at":3}],"lines":1,"bytes":9,"raw":0}}"#.to_vec()),
    ] {
        let attempt = attempt();
        append(&logs, attempt, 0, &log).await.unwrap();
        seal(&logs, attempt).await;
        let path = logs.folder(attempt.job).join(format!("1.{name}"));
        std::fs::write(&path, &spoil).unwrap();
        let read = async {
            let reader = logs.reader(attempt).await?;
            reader.page(1, 10, usize::MAX).await
        };
        let error = read.await.expect_err(name);
        assert!(is_damaged(&error), "{name}: {error}");
    }
    // A single bit of a frame.
    let attempt = attempt();
    append(&logs, attempt, 0, &log).await.unwrap();
    let digest = logs.seal(attempt).await.unwrap().unwrap();
    logs.sealed(attempt).await.unwrap();
    assert_eq!(logs.reader(attempt).await.unwrap().digest(), Some(digest.as_str()));
    let path = logs.folder(attempt.job).join("1.zst");
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len() - 40).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let reader = logs.reader(attempt).await.unwrap();
        if let Ok(lines) = reader.page(1, 1000, usize::MAX).await {
            assert_eq!(lines.len(), 600, "bit at {at}");
            assert_eq!(
                lines[0].text, "0 빌드가 끝났습니다 \u{1b}[31m빨강\u{1b}[0m\r",
                "bit at {at}"
            );
        }
    }
}
