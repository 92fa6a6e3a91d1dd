//! `logs`: the raw lines of a job, whole or live.
//!
//! Through a pipe the bytes are the log's own. On a terminal only colours are let through.

use futures_util::StreamExt as _;
use pipeyard_api::{
    ErrorBody,
    client::Client,
    views::{JobView, LogLine, RunDetail},
};
use pipeyard_model::{Conclusion, NodeName, RunId, Status, log::MAX_LINE};

use super::runs::{exit_of, run_number};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    term,
};

/// Print or follow the log of a job.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The run's number, or `latest`.
    run: String,
    /// The job; every job in turn if absent.
    job: Option<NodeName>,
    /// Go on until the job has ended; the exit code then tells how.
    #[arg(long, short)]
    follow: bool,
    /// Only jobs that failed.
    #[arg(long, conflicts_with = "job")]
    failed: bool,
    /// This attempt; the last if absent.
    #[arg(long)]
    attempt: Option<u32>,
    /// Begin with this line.
    #[arg(long, value_name = "LINE", default_value_t = 1)]
    since_line: u64,
}

impl Logs {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let run = run_number(&client, &self.run).await?;
        let detail: RunDetail = client.get(&format!("/api/runs/{run}")).await?;
        let jobs = self.chosen(&detail)?;
        let several = jobs.len() > 1;
        let mut worst = Exit::Ok;
        for job in jobs {
            if several {
                term::say(&format!("==> {}", job.name));
            }
            let exit = if self.follow {
                self.follow(&client, run, &job.name).await?
            } else if self.since_line > 1 {
                self.pages(&client, run, &job.name).await?
            } else {
                self.raw(&client, run, &job).await?
            };
            if worst == Exit::Ok {
                worst = exit;
            }
        }
        Ok(worst)
    }

    fn chosen(&self, detail: &RunDetail) -> Result<Vec<JobView>, Failure> {
        let jobs: Vec<_> = detail.jobs.iter().filter(|j| j.node == "job").cloned().collect();
        let names = || jobs.iter().map(|j| j.name.to_string()).collect::<Vec<_>>().join(", ");
        if let Some(name) = &self.job {
            let job = jobs.iter().find(|j| j.name == *name).cloned().ok_or_else(|| {
                Failure::not_found(format!("run {} has no job {name}", detail.run.id))
                    .hint(format!("its jobs: {}", names()))
            })?;
            return Ok(vec![job]);
        }
        if self.failed {
            return Ok(jobs
                .into_iter()
                .filter(|j| {
                    j.conclusion
                        .is_some_and(|c| !matches!(c, Conclusion::Success | Conclusion::Skipped))
                })
                .collect());
        }
        Ok(jobs)
    }

    fn query(&self) -> String {
        self.attempt.map(|a| format!("&attempt={a}")).unwrap_or_default()
    }

    async fn raw(&self, client: &Client, run: RunId, job: &JobView) -> Result<Exit, Failure> {
        if job.attempts.is_empty() {
            let why = job.reason.as_ref().map(|r| format!(" ({})", r.message)).unwrap_or_default();
            term::say(&format!("{} hasn't started{why}", job.name));
            return Ok(Exit::Ok);
        }
        let path = format!("/api/runs/{run}/jobs/{}/log/raw?{}", job.name, self.query());
        let mut body = client.open(&path, &[]).await?.bytes_stream();
        let terminal = term::stdout_is_terminal();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece
                .map_err(|e| Failure::new(Exit::Unreachable, format!("the log broke off: {e}")))?;
            if !terminal {
                term::put(&piece);
                continue;
            }
            rest.extend_from_slice(&piece);
            let mut shown = 0;
            while let Some(end) = rest[shown..].iter().position(|b| *b == b'\n') {
                show(&String::from_utf8_lossy(&rest[shown..shown + end]), false);
                shown += end + 1;
            }
            // A line without an end is shown as it comes: it may be longer than the memory.
            if rest.len() - shown > MAX_LINE {
                let part = whole_characters(&rest[shown..]);
                show(&String::from_utf8_lossy(part), true);
                shown += part.len();
            }
            rest.drain(..shown);
        }
        if !rest.is_empty() {
            show(&String::from_utf8_lossy(&rest), true);
        }
        Ok(Exit::Ok)
    }

    async fn pages(&self, client: &Client, run: RunId, job: &NodeName) -> Result<Exit, Failure> {
        let mut from = self.since_line;
        loop {
            let path =
                format!("/api/runs/{run}/jobs/{job}/log?from={from}&count=1000{}", self.query());
            let page: pipeyard_api::views::LogPage = client.get(&path).await?;
            let Some(last) = page.lines.last() else { return Ok(Exit::Ok) };
            from = last.n + 1;
            for line in &page.lines {
                put_line(line);
            }
        }
    }

    async fn follow(&self, client: &Client, run: RunId, job: &NodeName) -> Result<Exit, Failure> {
        let mut last = self.since_line.saturating_sub(1);
        self.wait_for_attempt(client, run, job).await?;
        let path = format!(
            "/api/runs/{run}/jobs/{job}/log/follow?from={}{}",
            self.since_line,
            self.query()
        );
        let mut events = client.events(&path, None);
        loop {
            let event = events.next().await?;
            if event.kind == "end" {
                break;
            }
            if event.kind == "failed" {
                return Err(failed(&event.data));
            }
            let lines: Vec<LogLine> = serde_json::from_str(&event.data).map_err(|e| {
                Failure::new(Exit::Failed, format!("failed to understand the stream: {e}"))
            })?;
            // After a reconnection the server may repeat; a line is printed once.
            for line in lines.iter().filter(|l| l.n > last) {
                put_line(line);
            }
            last = lines.last().map_or(last, |l| l.n.max(last));
        }
        loop {
            let detail: RunDetail = client.get_patiently(&format!("/api/runs/{run}")).await?;
            let Some(view) = detail.jobs.into_iter().find(|j| j.name == *job) else {
                return Ok(Exit::Ok);
            };
            match self.attempt.and_then(|a| view.attempts.iter().find(|t| t.epoch.0 == a)) {
                Some(attempt) if attempt.conclusion.is_some() => {
                    return Ok(exit_of(attempt.conclusion));
                }
                None if view.status == Status::Finished => return Ok(exit_of(view.conclusion)),
                None if self.attempt.is_none() => {
                    // Another attempt follows; its log is its own.
                    term::say(&format!(
                        "this attempt of {job} is over; another follows: pipectl logs {run} {job} -f"
                    ));
                    return Ok(Exit::Failed);
                }
                _ => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
            }
        }
    }

    async fn wait_for_attempt(
        &self,
        client: &Client,
        run: RunId,
        job: &NodeName,
    ) -> Result<(), Failure> {
        let mut told = String::new();
        let mut events = client.events(&format!("/api/events?run={run}"), None);
        loop {
            let detail: RunDetail = client.get_patiently(&format!("/api/runs/{run}")).await?;
            let Some(view) = detail.jobs.into_iter().find(|j| j.name == *job) else {
                return Err(Failure::not_found(format!("run {run} has no job {job}")));
            };
            if !view.attempts.is_empty() {
                return Ok(());
            }
            let why = view.reason.map(|r| r.message).unwrap_or_default();
            if view.status == Status::Finished {
                return Err(Failure::new(
                    exit_of(view.conclusion),
                    format!("{job} never started: {why}"),
                ));
            }
            if told != why {
                term::say(&format!("{job} waits: {why}"));
                told = why;
            }
            if let Ok(event) =
                tokio::time::timeout(std::time::Duration::from_secs(5), events.next()).await
            {
                event?;
            }
        }
    }
}

/// What the stream says of its end.
fn failed(data: &str) -> Failure {
    match serde_json::from_str::<ErrorBody>(data) {
        Ok(body) => Failure {
            exit: Exit::Failed,
            code: Some(body.error.code),
            message: body.error.message,
            hint: body.error.hint,
        },
        Err(_) => Failure::new(Exit::Failed, "the log can't be read to its end"),
    }
}

/// `bytes` without a character at the end whose rest is still to come.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    match bytes.utf8_chunks().last().map(|last| last.invalid().len()) {
        Some(open)
            if std::str::from_utf8(&bytes[bytes.len() - open..])
                .is_err_and(|e| e.error_len().is_none()) =>
        {
            &bytes[..bytes.len() - open]
        }
        _ => bytes,
    }
}

fn put_line(line: &LogLine) {
    show(&line.text, line.goes_on);
}

fn show(text: &str, goes_on: bool) {
    let mut text = if term::stdout_is_terminal() {
        term::safe_for_terminal(text, term::colour())
    } else {
        text.to_owned()
    };
    if !goes_on {
        text.push('\n');
    }
    term::put(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::whole_characters;

    #[test]
    fn a_character_that_is_not_whole_waits_for_its_rest() {
        let text = "하나".as_bytes();
        assert_eq!(whole_characters(text), text);
        assert_eq!(whole_characters(&text[..5]), &text[..3]);
        assert_eq!(whole_characters(&text[..4]), &text[..3]);
        assert_eq!(whole_characters(b"a\xff"), b"a\xff", "it never becomes text");
        assert_eq!(whole_characters(b""), b"");
    }
}
