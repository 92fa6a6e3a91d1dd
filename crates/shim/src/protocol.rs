//! What the executor and the shim say to each other. Both compile this one file.
//!
//! The executor writes one [`Job`] to the shim's stdin and then [`Control`]s; the end of stdin means
//! that the executor is gone. The shim writes [`Frame`]s to its stdout and nothing else.
//! The last frame is the sentinel, with the nonce of the job: only who read stdin can know it.
//!
//! Numbers are little endian; text and bytes have a 32-bit length before them. There is no version:
//! the executor carries the one shim that it was built with.

/// The first bytes of a job.
const MAGIC: &[u8; 8] = b"PYSHIM01";
/// The largest job that the shim reads.
pub(crate) const MAX_JOB: u32 = 64 * 1024 * 1024;
/// Bytes of the nonce.
pub(crate) const NONCE: usize = 32;
/// Bytes before a frame's payload: kind, step, time, length.
pub(crate) const FRAME_HEAD: usize = 1 + 2 + 8 + 4;
/// The largest payload of a frame.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// Everything that the shim is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// Proves that the sentinel is the shim's.
    pub(crate) nonce: [u8; NONCE],
    /// The image's name, for messages; empty: there is none.
    pub(crate) image: String,
    /// The folder in which commands start; empty: where the shim itself started.
    pub(crate) workdir: String,
    /// Give `workdir` and all in it to the user of the steps.
    pub(crate) own_workdir: bool,
    /// The image's `USER`; empty: the shim's own.
    pub(crate) user: String,
    /// Set `HOME` from the user's entry in `/etc/passwd`.
    pub(crate) set_home: bool,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub(crate) grace_ms: u64,
    /// Until when it may run, unless a [`Control::Live`] says more.
    pub(crate) life: Life,
    /// One after another.
    pub(crate) steps: Vec<Step>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// From 1.
    pub(crate) number: u16,
    /// Milliseconds; 0: no limit of its own.
    pub(crate) timeout_ms: u64,
    /// What is done.
    pub(crate) command: Command,
    /// Environment on top of what the shim started with.
    pub(crate) env: Vec<(String, String)>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// A script for `/bin/sh -e`.
    Shell(String),
    /// A program with its arguments.
    Argv(Vec<String>),
    /// Runs somewhere else: the shim says so and waits for [`Control::Go`].
    Elsewhere,
}

/// Until when the shim may let anything run. It is said twice: by the clock of the machine, so that
/// word which was held up on its way gives no time that is over; and as a duration, where the two
/// sides have different clocks (a container that is a virtual machine).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    /// What the machine's clock showed when it was written, in milliseconds since it was started.
    pub(crate) written_ms: u64,
    /// So many milliseconds from then on.
    pub(crate) left_ms: u64,
}

impl Life {
    /// Clocks that differ by more aren't the same clock.
    const SAME: u64 = 120_000;

    /// How long it is from `now_ms`, which the reader's own clock shows.
    pub(crate) fn left(self, now_ms: u64) -> u64 {
        match now_ms.checked_sub(self.written_ms) {
            Some(late) if late <= Self::SAME => self.left_ms.saturating_sub(late),
            Some(_) | None => self.left_ms,
        }
    }
}

/// Bytes of a [`Control`] on the wire at most.
pub(crate) const MAX_CONTROL: usize = 17;

/// What the executor says while the job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// The executor is alive, and the job its own for so long.
    Live(Life),
    /// A person ends the job.
    Cancel,
    /// The job ran out of time.
    TimeOut,
    /// The step elsewhere is over; go on.
    Go,
    /// No further step; end well.
    Stop,
}

/// What the shim tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame<P> {
    /// The step it is about; 0 for the job as a whole.
    pub(crate) step: u16,
    /// Microseconds since 1970.
    pub(crate) at: i64,
    /// The news.
    pub(crate) news: News<P>,
}

/// The kinds of news. `P` holds bytes: borrowed when written, shared when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News<P> {
    /// The step began.
    Started,
    /// Bytes on its standard output.
    Stdout(P),
    /// Bytes on its standard error.
    Stderr(P),
    /// It ended.
    Finished(Exit),
    /// It is the executor's turn to run it.
    Elsewhere,
    /// The job can't go on: `code`, a zero byte, a sentence.
    Fatal(P),
    /// Every other process is dead; the payload is the nonce.
    Sentinel(P),
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// The step's own time was over.
    StepTimedOut,
    /// The job's time was over.
    JobTimedOut,
    /// The job was cancelled.
    Cancelled,
}

impl Control {
    /// Appends it.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Live(_) => b'h',
            Self::Cancel => b'c',
            Self::TimeOut => b't',
            Self::Go => b'g',
            Self::Stop => b's',
        });
        if let Self::Live(life) = self {
            out.extend_from_slice(&life.written_ms.to_le_bytes());
            out.extend_from_slice(&life.left_ms.to_le_bytes());
        }
    }

    /// Takes the first one off `bytes`; `None` until it has come whole. Bytes that begin none are
    /// passed over.
    pub(crate) fn decode(bytes: &mut Vec<u8>) -> Option<Self> {
        loop {
            let control = match *bytes.first()? {
                b'h' => {
                    let body = bytes.get(1..MAX_CONTROL)?;
                    let (written, left) = body.split_at(8);
                    let life = Life {
                        written_ms: u64::from_le_bytes(written.try_into().ok()?),
                        left_ms: u64::from_le_bytes(left.try_into().ok()?),
                    };
                    bytes.drain(..MAX_CONTROL);
                    return Some(Self::Live(life));
                }
                b'c' => Some(Self::Cancel),
                b't' => Some(Self::TimeOut),
                b'g' => Some(Self::Go),
                b's' => Some(Self::Stop),
                _ => None,
            };
            bytes.remove(0);
            if control.is_some() {
                return control;
            }
        }
    }
}

impl Job {
    /// The job as the shim reads it: magic, length, body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(1024);
        body.extend_from_slice(&self.nonce);
        put_text(&mut body, &self.image);
        put_text(&mut body, &self.workdir);
        put_text(&mut body, &self.user);
        body.push(u8::from(self.own_workdir));
        body.push(u8::from(self.set_home));
        body.extend_from_slice(&self.grace_ms.to_le_bytes());
        body.extend_from_slice(&self.life.written_ms.to_le_bytes());
        body.extend_from_slice(&self.life.left_ms.to_le_bytes());
        put_length(&mut body, self.steps.len());
        for step in &self.steps {
            body.extend_from_slice(&step.number.to_le_bytes());
            body.extend_from_slice(&step.timeout_ms.to_le_bytes());
            match &step.command {
                Command::Shell(script) => {
                    body.push(0);
                    put_text(&mut body, script);
                }
                Command::Argv(words) => {
                    body.push(1);
                    put_length(&mut body, words.len());
                    words.iter().for_each(|word| put_text(&mut body, word));
                }
                Command::Elsewhere => body.push(2),
            }
            put_length(&mut body, step.env.len());
            for (name, value) in &step.env {
                put_text(&mut body, name);
                put_text(&mut body, value);
            }
        }
        let mut out = MAGIC.to_vec();
        put_length(&mut out, body.len());
        out.append(&mut body);
        out
    }

    /// The length of the body, from the twelve bytes before it.
    pub(crate) fn body_length(head: &[u8; 12]) -> Option<usize> {
        let (magic, length) = head.split_at(8);
        let length = u32::from_le_bytes(length.try_into().ok()?);
        (magic == MAGIC && length <= MAX_JOB).then(|| usize::try_from(length).ok())?
    }

    /// Reads a body. `None` if it isn't one.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut rest = Reader(body);
        let mut job = Self {
            nonce: rest.take(NONCE)?.try_into().ok()?,
            image: rest.text()?,
            workdir: rest.text()?,
            user: rest.text()?,
            own_workdir: rest.flag()?,
            set_home: rest.flag()?,
            grace_ms: rest.u64()?,
            life: Life { written_ms: rest.u64()?, left_ms: rest.u64()? },
            steps: Vec::new(),
        };
        for _ in 0..rest.length()? {
            let number = rest.u16()?;
            let timeout_ms = rest.u64()?;
            let command = match rest.take(1)?[0] {
                0 => Command::Shell(rest.text()?),
                1 => {
                    Command::Argv((0..rest.length()?).map(|_| rest.text()).collect::<Option<_>>()?)
                }
                2 => Command::Elsewhere,
                _ => return None,
            };
            let env = (0..rest.length()?)
                .map(|_| Some((rest.text()?, rest.text()?)))
                .collect::<Option<_>>()?;
            job.steps.push(Step { number, timeout_ms, command, env });
        }
        rest.0.is_empty().then_some(job)
    }
}

impl<P: AsRef<[u8]>> Frame<P> {
    /// Appends the frame. A payload over [`MAX_PAYLOAD`] is cut: callers send smaller ones.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, payload): (u8, &[u8]) = match &self.news {
            News::Started => (1, &[]),
            News::Stdout(bytes) => (2, bytes.as_ref()),
            News::Stderr(bytes) => (3, bytes.as_ref()),
            News::Finished(_) => (4, &[]),
            News::Elsewhere => (5, &[]),
            News::Fatal(bytes) => (6, bytes.as_ref()),
            News::Sentinel(bytes) => (7, bytes.as_ref()),
        };
        let exit;
        let payload = if let News::Finished(how) = &self.news {
            let (tag, value) = match *how {
                Exit::Code(code) => (0, code),
                Exit::Signal(signal) => (1, signal),
                Exit::StepTimedOut => (2, 0),
                Exit::JobTimedOut => (3, 0),
                Exit::Cancelled => (4, 0),
            };
            let [a, b, c, d] = value.to_le_bytes();
            exit = [tag, a, b, c, d];
            &exit[..]
        } else {
            &payload[..payload.len().min(MAX_PAYLOAD)]
        };
        out.push(kind);
        out.extend_from_slice(&self.step.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        put_length(out, payload.len());
        out.extend_from_slice(payload);
    }
}

/// The length of the payload that follows this head; `None` if it is no head.
pub(crate) fn payload_length(head: &[u8; FRAME_HEAD]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(head[11..].try_into().ok()?)).ok()?;
    (matches!(head[0], 1..=7) && length <= MAX_PAYLOAD).then_some(length)
}

/// Whether the head is that of a step's output, whose payload means the same in any pieces.
pub(crate) fn is_output(head: &[u8; FRAME_HEAD]) -> bool {
    matches!(head[0], 2 | 3)
}

/// Puts head and payload together; `None` if they are no frame.
pub(crate) fn frame<P: AsRef<[u8]>>(head: &[u8; FRAME_HEAD], payload: P) -> Option<Frame<P>> {
    let step = u16::from_le_bytes(head[1..3].try_into().ok()?);
    let at = i64::from_le_bytes(head[3..11].try_into().ok()?);
    let news = match head[0] {
        1 => News::Started,
        2 => News::Stdout(payload),
        3 => News::Stderr(payload),
        4 => {
            let (tag, value) = payload.as_ref().split_first()?;
            let value = i32::from_le_bytes(value.try_into().ok()?);
            News::Finished(match tag {
                0 => Exit::Code(value),
                1 => Exit::Signal(value),
                2 => Exit::StepTimedOut,
                3 => Exit::JobTimedOut,
                4 => Exit::Cancelled,
                _ => return None,
            })
        }
        5 => News::Elsewhere,
        6 => News::Fatal(payload),
        7 => News::Sentinel(payload),
        _ => return None,
    };
    Some(Frame { step, at, news })
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|byte| byte[0] != 0)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.length()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}
