//! One conversation with a shim, wherever it runs: hands over the job, keeps the shim alive with
//! beats, passes on cancel and timeout, and turns its frames into events.
//!
//! Two futures share the work. The pilot owns the shim's stdin and never waits for anybody, so a
//! cancel gets through while the events' receiver is slow. The pump reads frames and waits for the
//! receiver (that is the back-pressure), but no longer than the pilot allows.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use pipeyard_model::{Timestamp, log::Stream};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    JobEvent, Lease, Reason, StepExit,
    protocol::{self, Control, Exit, FRAME_HEAD, Frame, MAX_CONTROL, NONCE, News},
};

/// How often the shim is told until when the job is ours.
const BEAT: Duration = Duration::from_secs(2);
/// What the shim may need beyond the grace period to kill, reap and say so.
const MARGIN: Duration = Duration::from_secs(15);
/// The longest wait until a started shim has read its job.
const HAND_OVER: Duration = Duration::from_secs(30);
/// The longest wait for one further write to the shim's stdin.
const WRITE: Duration = Duration::from_secs(10);

/// The two ends of a running shim.
pub(crate) struct Link {
    pub(crate) input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes to stdout, in any pieces. An error says why the stream broke.
    pub(crate) output: BoxStream<'static, Result<Bytes, String>>,
}

/// What bounds a session.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) cancel: CancellationToken,
    /// When the job's time is over.
    pub(crate) deadline: Instant,
    pub(crate) grace: Duration,
    /// Until when the job is ours.
    pub(crate) lease: Lease,
}

/// What is known when a session is over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Every step that ended, in order.
    pub(crate) steps: Vec<(u16, Exit)>,
    /// What the shim couldn't do.
    pub(crate) fault: Option<Reason>,
    /// The sentinel came, with the right nonce, as the last frame.
    pub(crate) confirmed: bool,
    /// Why no more frames came, if it isn't the sentinel.
    pub(crate) broken: Option<String>,
    /// Nobody takes the events any more.
    pub(crate) unheard: bool,
}

/// A step that runs in a container of its own while the shim waits.
pub(crate) type Elsewhere<'a> = &'a (dyn Fn(u16) -> BoxFuture<'a, Ending> + Send + Sync);

/// Leads one job to its end. Always returns within the deadline, the grace period and a margin.
pub(crate) async fn drive(
    link: Link,
    job: &protocol::Job,
    bounds: &Bounds,
    events: &mpsc::Sender<JobEvent>,
    elsewhere: Option<Elsewhere<'_>>,
) -> Ending {
    let (orders, received) = mpsc::channel(4);
    let overdue = CancellationToken::new();
    let unheard = CancellationToken::new();
    let pilot = pilot(link.input, job.encode(), bounds, &unheard, received, &overdue);
    let pump = Pump {
        output: link.output,
        nonce: &job.nonce,
        events,
        overdue: &overdue,
        unheard: &unheard,
        orders,
        ending: Ending::default(),
    };
    // The pilot ends when the pump drops its sender of orders, or by itself when all is overdue.
    let (ending, ()) = tokio::join!(pump.run(elsewhere), pilot);
    ending
}

async fn pilot(
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    job: Vec<u8>,
    bounds: &Bounds,
    unheard: &CancellationToken,
    orders: mpsc::Receiver<Control>,
    overdue: &CancellationToken,
) {
    fly(&mut input, job, bounds, unheard, orders, overdue).await;
    // Whatever still runs on the other end ends with its stdin.
    let _ = timeout(WRITE, input.shutdown()).await;
}

async fn fly(
    input: &mut Pin<Box<dyn AsyncWrite + Send>>,
    job: Vec<u8>,
    bounds: &Bounds,
    unheard: &CancellationToken,
    mut orders: mpsc::Receiver<Control>,
    overdue: &CancellationToken,
) {
    let handed_over = tokio::select! {
        sent = timeout(HAND_OVER, send(input, &job)) => matches!(sent, Ok(Ok(()))),
        _ = orders.recv() => false,
    };
    if !handed_over {
        return;
    }
    drop(job);
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut give_up: Option<Instant> = None;
    loop {
        let control = tokio::select! {
            order = orders.recv() => match order {
                Some(control) => control,
                None => return,
            },
            () = bounds.cancel.cancelled(), if give_up.is_none() => Control::Cancel,
            () = unheard.cancelled(), if give_up.is_none() => Control::Cancel,
            () = sleep_until(bounds.deadline), if give_up.is_none() => Control::TimeOut,
            () = sleep_until(give_up.unwrap_or(bounds.deadline)), if give_up.is_some() => {
                overdue.cancel();
                return;
            }
            _ = beat.tick() => Control::Live(bounds.lease.life()),
        };
        if matches!(control, Control::Cancel | Control::TimeOut) {
            give_up = Some(Instant::now() + bounds.grace + MARGIN);
        }
        // A failed write means that the shim is gone; its output says so too, and better.
        let mut bytes = Vec::with_capacity(MAX_CONTROL);
        control.encode(&mut bytes);
        let _ = timeout(WRITE, send(input, &bytes)).await;
    }
}

async fn send(input: &mut Pin<Box<dyn AsyncWrite + Send>>, bytes: &[u8]) -> std::io::Result<()> {
    input.write_all(bytes).await?;
    input.flush().await
}

struct Pump<'a> {
    output: BoxStream<'static, Result<Bytes, String>>,
    nonce: &'a [u8],
    events: &'a mpsc::Sender<JobEvent>,
    overdue: &'a CancellationToken,
    unheard: &'a CancellationToken,
    orders: mpsc::Sender<Control>,
    ending: Ending,
}

impl Pump<'_> {
    async fn run(mut self, elsewhere: Option<Elsewhere<'_>>) -> Ending {
        let mut away: Option<BoxFuture<'_, Ending>> = None;
        if let Err(why) = self.read(elsewhere, &mut away).await {
            self.ending.broken = Some(why);
        }
        // A cancelled job's shim ends at once while the step elsewhere has its grace period.
        if let Some(step) = away {
            let ending = tokio::select! {
                ending = step => Some(ending),
                () = self.overdue.cancelled() => None,
            };
            if let Some(ending) = ending {
                self.came_back(ending).await;
            }
        }
        self.ending
    }

    /// Reads to the sentinel or the end of the stream; an error says why it ended otherwise.
    async fn read<'e>(
        &mut self,
        elsewhere: Option<Elsewhere<'e>>,
        away: &mut Option<BoxFuture<'e, Ending>>,
    ) -> Result<(), String> {
        let mut frames = Frames::default();
        loop {
            let back = async {
                match away.as_mut() {
                    Some(step) => step.await,
                    None => std::future::pending().await,
                }
            };
            let piece = tokio::select! {
                biased;
                () = self.overdue.cancelled() => return Err("it did not end in time".to_owned()),
                ending = back => {
                    *away = None;
                    self.came_back(ending).await;
                    continue;
                }
                piece = self.output.next() => piece,
            };
            match piece {
                Some(bytes) => frames.push(bytes?),
                None => return Ok(()),
            }
            while let Some(frame) = frames.next().map_err(|Damaged| "its output is damaged")? {
                match frame.news {
                    News::Elsewhere => match elsewhere {
                        Some(start) => *away = Some(start(frame.step)),
                        None => self.order(Control::Stop).await,
                    },
                    News::Sentinel(nonce) => {
                        self.ending.confirmed = nonce == self.nonce;
                        return Ok(());
                    }
                    news => self.tell(frame.step, Timestamp(frame.at), news).await,
                }
            }
        }
    }

    async fn came_back(&mut self, mut ending: Ending) {
        let no_step_failed = ending.steps.iter().all(|(_, exit)| *exit == Exit::Code(0));
        let is_good = ending.confirmed && ending.fault.is_none() && no_step_failed;
        if !is_good && ending.fault.is_none() && no_step_failed {
            let why = ending.broken.unwrap_or_else(|| "it ended without its sentinel".to_owned());
            let message = format!("the container of a step was lost: {why}");
            ending.fault = Some(Reason { code: "container_lost".to_owned(), message });
        }
        self.ending.steps.append(&mut ending.steps);
        self.ending.fault = self.ending.fault.take().or(ending.fault);
        self.order(if is_good { Control::Go } else { Control::Stop }).await;
    }

    async fn order(&mut self, control: Control) {
        // A pilot that is gone has given up, which the pump learns from `overdue`.
        let _ = self.orders.send(control).await;
    }

    async fn tell(&mut self, step: u16, at: Timestamp, news: News<Bytes>) {
        let event = match news {
            News::Started => JobEvent::StepStarted { step, at },
            News::Stdout(bytes) => JobEvent::Output { step, stream: Stream::Stdout, at, bytes },
            News::Stderr(bytes) => JobEvent::Output { step, stream: Stream::Stderr, at, bytes },
            News::Finished(exit) => {
                self.ending.steps.push((step, exit));
                JobEvent::StepFinished { step, at, exit: step_exit(exit) }
            }
            News::Fatal(text) => {
                self.ending.fault = Some(fatal(&text));
                return;
            }
            // Dealt with by the caller.
            News::Elsewhere | News::Sentinel(_) => return,
        };
        let sent = tokio::select! {
            sent = self.events.send(event) => sent,
            () = self.overdue.cancelled() => return,
        };
        if sent.is_err() {
            self.ending.unheard = true;
            self.unheard.cancel();
        }
    }
}

fn step_exit(exit: Exit) -> StepExit {
    match exit {
        Exit::Code(code) => StepExit::Code(code),
        Exit::Signal(signal) => StepExit::Signal(signal),
        Exit::StepTimedOut | Exit::JobTimedOut => StepExit::TimedOut,
        Exit::Cancelled => StepExit::Cancelled,
    }
}

/// `code`, a zero byte, a sentence.
pub(crate) fn fatal(text: &[u8]) -> Reason {
    let text = String::from_utf8_lossy(text);
    let (code, message) = text.split_once('\0').unwrap_or(("internal", &text));
    Reason { code: code.to_owned(), message: message.to_owned() }
}

/// Cuts a stream of bytes into frames. Output passes in the pieces in which it comes, without a
/// copy; of other frames at most one is held.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What is not cut yet.
    piece: Bytes,
    /// The beginning of a frame that hasn't come whole.
    held: Vec<u8>,
    /// The head of output that hasn't come whole, and how many bytes of it are to come.
    output: Option<([u8; FRAME_HEAD], usize)>,
}

/// The bytes are no frames.
#[derive(Debug)]
pub(crate) struct Damaged;

impl Frames {
    /// Takes the next piece. Those before it were cut up by [`Frames::next`] until it had no more.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// The next frame, or a part of one of output; `None` until there is a further piece.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<Bytes>>, Damaged> {
        loop {
            if let Some((head, left)) = self.output.take() {
                if left > 0 && self.piece.is_empty() {
                    self.output = Some((head, left));
                    return Ok(None);
                }
                let payload = self.piece.split_to(left.min(self.piece.len()));
                if payload.len() < left {
                    self.output = Some((head, left - payload.len()));
                }
                return protocol::frame(&head, payload).map(Some).ok_or(Damaged);
            }
            if !self.hold(FRAME_HEAD) {
                return Ok(None);
            }
            let head = *self.held.first_chunk::<FRAME_HEAD>().ok_or(Damaged)?;
            let length = protocol::payload_length(&head).ok_or(Damaged)?;
            if protocol::is_output(&head) {
                self.held.clear();
                self.output = Some((head, length));
                continue;
            }
            if !self.hold(FRAME_HEAD + length) {
                return Ok(None);
            }
            let payload = Bytes::copy_from_slice(&self.held[FRAME_HEAD..]);
            self.held.clear();
            return protocol::frame(&head, payload).map(Some).ok_or(Damaged);
        }
    }

    /// Moves bytes of the piece to what is held until that has `length`; whether it has.
    fn hold(&mut self, length: usize) -> bool {
        let missing = length.saturating_sub(self.held.len()).min(self.piece.len());
        self.held.extend_from_slice(&self.piece.split_to(missing));
        self.held.len() >= length
    }
}

/// What a step can't guess: 244 random bits of the operating system's.
pub(crate) fn nonce() -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    nonce[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    nonce
}

/// A duration as the shim counts it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The last lines of something, bounded in lines and bytes.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    const LINES: usize = 20;
    const BYTES: usize = 500;

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.close();
            } else if self.open.len() < Self::BYTES {
                self.open.push(*byte);
            }
        }
    }

    fn close(&mut self) {
        if self.lines.len() == Self::LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(String::from_utf8_lossy(&self.open).trim_end().to_owned());
        self.open.clear();
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let open =
            (!self.open.is_empty()).then(|| String::from_utf8_lossy(&self.open).into_owned());
        self.lines.iter().cloned().chain(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Command, Job, MAX_PAYLOAD, Step};

    #[test]
    fn a_job_survives_the_wire_and_damage_is_seen() {
        let job = Job {
            nonce: [7; 32],
            image: "alpine:3".to_owned(),
            workdir: "/workspace".to_owned(),
            own_workdir: true,
            user: "app:docker".to_owned(),
            set_home: true,
            grace_ms: 10_000,
            life: protocol::Life { written_ms: 7, left_ms: 25_000 },
            steps: vec![
                Step {
                    number: 1,
                    timeout_ms: 5,
                    command: Command::Shell("echo 안녕\n".to_owned()),
                    env: vec![("TOKEN".to_owned(), "a=b\n".to_owned())],
                },
                Step { number: 2, timeout_ms: 0, command: Command::Elsewhere, env: vec![] },
                Step {
                    number: 3,
                    timeout_ms: 0,
                    command: Command::Argv(vec!["a".to_owned(), String::new()]),
                    env: vec![],
                },
            ],
        };
        let wire = job.encode();
        let head = wire.first_chunk().unwrap();
        assert_eq!(Job::body_length(head), Some(wire.len() - 12));
        assert_eq!(Job::decode(&wire[12..]), Some(job));
        for cut in 12..wire.len() {
            assert_eq!(Job::decode(&wire[12..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn frames_survive_any_split() {
        let mut wire = Vec::new();
        let news = [
            News::Started,
            News::Stdout(b"\xff\0out".as_slice()),
            News::Stderr(b""),
            News::Finished(Exit::Signal(9)),
            News::Sentinel(&[1; 32]),
        ];
        for news in &news {
            Frame { step: 3, at: 1_772_366_400_123_456, news: news.clone() }.encode(&mut wire);
        }
        for split in 0..wire.len() {
            let mut frames = Frames::default();
            let (mut read, mut out) = (Vec::new(), Vec::new());
            for piece in [&wire[..split], &wire[split..]] {
                frames.push(Bytes::copy_from_slice(piece));
                while let Some(frame) = frames.next().unwrap() {
                    assert_eq!((frame.step, frame.at), (3, 1_772_366_400_123_456));
                    match frame.news {
                        News::Stdout(bytes) => out.extend_from_slice(&bytes),
                        news => read.push(news),
                    }
                }
            }
            assert_eq!(out, b"\xff\0out", "split at {split}");
            let others = [
                News::Started,
                News::Stderr(Bytes::new()),
                News::Finished(Exit::Signal(9)),
                News::Sentinel(Bytes::from_static(&[1; 32])),
            ];
            assert_eq!(read, others, "split at {split}");
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_damage() {
        let mut wire = Vec::new();
        Frame { step: 1, at: 0, news: News::Stdout(b"x".as_slice()) }.encode(&mut wire);
        wire[11..15].copy_from_slice(&u32::try_from(MAX_PAYLOAD + 1).unwrap().to_le_bytes());
        let mut frames = Frames::default();
        frames.push(wire.into());
        assert!(frames.next().is_err());
    }

    #[test]
    fn a_tail_keeps_the_last_lines_only() {
        let mut tail = Tail::default();
        for number in 0..50 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        tail.push(&[b'x'; 10_000]);
        let lines = tail.lines();
        assert_eq!(lines.first().map(String::as_str), Some("line 30"));
        assert_eq!(lines.last().map(String::len), Some(Tail::BYTES));
    }
}
