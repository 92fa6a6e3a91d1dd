//! One POST to a server on this machine.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Bytes of an answer that are read: a refusal is much smaller.
const MAX_ANSWER: u64 = 64 * 1024;

/// A plain http address on loopback.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without the path: what is said when nobody answers.
    base: String,
    /// As the Host header says it.
    host: String,
    path: String,
    to: Vec<SocketAddr>,
}

impl Address {
    /// `None` for every address that isn't plainly on this machine.
    pub(crate) fn read(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/')?);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        if !path.starts_with("/hooks/") || !path.chars().all(plain) {
            return None;
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
            _ => (host, 80),
        };
        let ips: Vec<IpAddr> = if name.eq_ignore_ascii_case("localhost") {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else if let Some(inner) = name.strip_prefix('[') {
            vec![inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into()]
        } else {
            vec![name.parse::<Ipv4Addr>().ok()?.into()]
        };
        if !ips.iter().all(IpAddr::is_loopback) {
            return None;
        }
        Some(Self {
            base: format!("http://{host}"),
            host: host.to_owned(),
            path: path.to_owned(),
            to: ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
        })
    }

    /// Posts and reads the answer. An error says why in words.
    pub(crate) fn post(
        &self,
        signature: &str,
        body: &[u8],
        deadline: Instant,
    ) -> Result<(), String> {
        let unreachable = |error: &str| format!("failed to reach {}: {error}", self.base);
        let mut stream = self.connect(deadline).map_err(|e| unreachable(&e.to_string()))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nuser-agent: pipeyard-hook/{}\r\nconnection: close\r\n\
             accept: application/json\r\ncontent-type: application/json\r\n\
             x-pipeyard-signature-256: {signature}\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.host,
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        // A server that refuses early answers before it has read everything.
        let written = write(&mut stream, &[head.as_bytes(), body].concat(), deadline);
        let answer = read(&mut stream, deadline);
        if Instant::now() >= deadline {
            return Err(unreachable("it takes too long"));
        }
        let answer = match (answer, written) {
            (Ok(answer), _) if !answer.is_empty() => answer,
            (Err(error), _) | (_, Err(error)) => return Err(unreachable(&error.to_string())),
            (Ok(_), Ok(())) => {
                return Err(unreachable("connection closed before message completed"));
            }
        };
        self.judge(&String::from_utf8_lossy(&answer))
    }

    fn connect(&self, deadline: Instant) -> std::io::Result<TcpStream> {
        let mut problem = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for to in &self.to {
            match TcpStream::connect_timeout(to, left(deadline)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn judge(&self, answer: &str) -> Result<(), String> {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let line = head.lines().next().unwrap_or_default();
        let status = line.split_once(' ').map_or("", |(_, status)| status).trim();
        let code = status.get(..3).unwrap_or_default();
        if !line.starts_with("HTTP/1.") || code.len() != 3 {
            return Err(format!("failed to reach {}: invalid HTTP version parsed", self.base));
        }
        if code.starts_with('2') {
            return Ok(());
        }
        if code.starts_with('3') {
            // A message that is signed for one server is sent to no other.
            let location = |line: &str| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
            };
            let to = head.lines().skip(1).find_map(location).unwrap_or_default();
            let to: String = to.rsplit('@').next().unwrap_or_default().chars().take(200).collect();
            return Err(format!(
                "{:?} isn't the address of a server: it leads on to {to:?}; give the address where \
                 the server itself answers",
                self.base
            ));
        }
        Err(match error_message(body) {
            Some(message) => message,
            None if code == "401" => "you aren't signed in".to_owned(),
            None => format!("{}{} answered {status}", self.base, self.path),
        })
    }
}

fn left(deadline: Instant) -> Duration {
    // Zero would mean no limit at all.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn write(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)))?;
        let written = stream.write(bytes)?;
        bytes = &bytes[written..];
        if Instant::now() >= deadline {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// The whole answer: the server closes after it. What came before an error is taken.
fn read(stream: &mut TcpStream, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut block = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER && Instant::now() < deadline {
        stream.set_read_timeout(Some(left(deadline)))?;
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&block[..read]),
            Err(error) if answer.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(answer)
}

/// What an error body says: `{"error":{"code":"..","message":".."}}`.
fn error_message(body: &str) -> Option<String> {
    let (_, error) = body.split_once("\"error\"")?;
    let (_, rest) = error.split_once("\"message\"")?;
    let mut letters = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match letters.next()? {
            '"' => return Some(out),
            '\\' => match letters.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'u' => {
                    let hex: String = letters.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&hex, 16).ok()?;
                    out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plainly_on_this_machine_is_asked_here() {
        let read = |url: &str| Address::read(url).map(|address| address.to);
        let one: SocketAddr = "127.0.0.1:8470".parse().unwrap();
        let six: SocketAddr = "[::1]:8470".parse().unwrap();
        assert_eq!(read("http://127.0.0.1:8470/hooks/git/a"), Some(vec![one]));
        assert_eq!(read("http://[::1]:8470/hooks/git/a"), Some(vec![six]));
        assert_eq!(read("http://LocalHost:8470/hooks/git/a"), Some(vec![one, six]));
        for other in [
            "https://127.0.0.1:8470/hooks/git/a",
            "http://ci.example.com/hooks/git/a",
            "http://10.0.0.1/hooks/git/a",
            "http://0.0.0.0:8470/hooks/git/a",
            "http://2130706433/hooks/git/a",
            "http://127.0.0.1@evil.example.com/hooks/git/a",
            "http://a:b@127.0.0.1/hooks/git/a",
            "http://127.0.0.1:99999/hooks/git/a",
            "http://127.0.0.1:8470/hooks/git/a?b",
            "http://127.0.0.1:8470/base/hooks/git/a",
            "http://127.0.0.1:8470/hooks/git/a\r\nx: y",
            "http://127.0.0.1:8470",
            "",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let address = Address::read("http://127.0.0.1:1/hooks/git/a").unwrap();
        let judge = |answer: &str| address.judge(answer).unwrap_err();
        assert_eq!(address.judge("HTTP/1.1 202 Accepted\r\n\r\n{}"), Ok(()));
        assert_eq!(
            judge(
                "HTTP/1.1 404 Not Found\r\na: b\r\n\r\n\
                 {\"error\":{\"code\":\"no\",\"message\":\"no \\\"hook\\\" \\u00e9\"}}"
            ),
            "no \"hook\" é"
        );
        assert_eq!(judge("HTTP/1.1 401 Unauthorized\r\n\r\n"), "you aren't signed in");
        assert_eq!(
            judge("HTTP/1.1 500 Internal Server Error\r\n\r\noops"),
            "http://127.0.0.1:1/hooks/git/a answered 500 Internal Server Error"
        );
        assert_eq!(
            judge("HTTP/1.1 302 Found\r\nLocation: https://a:b@elsewhere/\r\n\r\n"),
            "\"http://127.0.0.1:1\" isn't the address of a server: it leads on to \"elsewhere/\"; \
             give the address where the server itself answers"
        );
        assert!(judge("SSH-2.0-x").starts_with("failed to reach http://127.0.0.1:1: "));
    }
}
