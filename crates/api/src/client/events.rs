//! Server-sent events that resume: when the connection breaks, the next one asks for what comes
//! after the last id that was seen, so nothing is missed or seen twice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::{AWAY, Client, ClientError};

/// The server sends something at least this often; a quieter connection is dead.
const QUIET: Duration = Duration::from_secs(45);
/// A longer event is refused.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where to resume after it.
    pub id: Option<String>,
    /// Its kind; `message` if the server gave none.
    pub kind: String,
    /// Its data, lines joined by newlines.
    pub data: String,
}

/// A stream of events at one path.
#[derive(Debug)]
pub struct Events {
    client: Client,
    path: String,
    last: Option<String>,
    open: Option<Open>,
}

struct Open {
    body: std::pin::Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    parser: Parser,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

impl Client {
    /// Follows the events at `path`, after `last` if there is one.
    #[must_use]
    pub fn events(&self, path: &str, last: Option<String>) -> Events {
        Events { client: self.clone(), path: path.to_owned(), last, open: None }
    }
}

impl Events {
    /// The next event; waits for it, over restarts of the server.
    ///
    /// # Errors
    /// When the server refuses, or is away for more than five minutes.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        let mut away_since: Option<Instant> = None;
        let mut pause = Duration::from_millis(200);
        loop {
            if let Some(open) = &mut self.open {
                if let Some(event) = open.parser.next() {
                    if event.id.is_some() {
                        self.last.clone_from(&event.id);
                    }
                    return Ok(event);
                }
                match tokio::time::timeout(QUIET, open.body.next()).await {
                    Ok(Some(Ok(bytes))) if open.parser.push(&bytes) => continue,
                    _ => self.open = None,
                }
            }
            let headers: Vec<_> =
                self.last.iter().map(|id| ("last-event-id", id.clone())).collect();
            match self.client.open(&self.path, &headers).await {
                Ok(response) => {
                    away_since = None;
                    self.open = Some(Open {
                        body: Box::pin(response.bytes_stream()),
                        parser: Parser::default(),
                    });
                }
                Err(
                    error @ (ClientError::Unreachable { .. }
                    | ClientError::Refused { status: 503, .. }),
                ) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Cuts bytes into events, wherever the pieces were cut.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    read: usize,
    event: Event,
    /// A field of the event was seen.
    any: bool,
    /// A line of its data was seen.
    data: bool,
}

impl Default for Event {
    fn default() -> Self {
        Self { id: None, kind: "message".into(), data: String::new() }
    }
}

impl Parser {
    /// Takes bytes; false when an event grows beyond its bound.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() + self.event.data.len() <= MAX_EVENT
    }

    fn next(&mut self) -> Option<Event> {
        while let Some(end) = self.bytes[self.read..].iter().position(|b| *b == b'\n') {
            let line =
                String::from_utf8_lossy(&self.bytes[self.read..self.read + end]).into_owned();
            self.read += end + 1;
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                if self.any {
                    self.any = false;
                    self.data = false;
                    return Some(std::mem::take(&mut self.event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.event.kind),
                "data" => {
                    if self.data {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                    self.any = true;
                    self.data = true;
                    continue;
                }
                // A comment keeps the connection alive; unknown fields are for later versions.
                _ => continue,
            }
            if field == "event" {
                // `event: end` may come without data.
                self.any = true;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let text = b": hello\n\nid: 7\ndata: [1,\ndata: 2]\n\nevent: end\ndata:\n\nid: 8\r\ndata: x\r\n\r\n";
        let whole = {
            let mut parser = Parser::default();
            assert!(parser.push(text));
            std::iter::from_fn(|| parser.next()).collect::<Vec<_>>()
        };
        assert_eq!(whole.len(), 3);
        assert_eq!(
            whole[0],
            Event { id: Some("7".into()), kind: "message".into(), data: "[1,\n2]".into() }
        );
        assert_eq!(whole[1], Event { id: None, kind: "end".into(), data: String::new() });
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                assert!(parser.push(piece));
                while let Some(event) = parser.next() {
                    seen.push(event);
                }
            }
            assert_eq!(seen, whole, "cut at {cut}");
        }
    }
}
