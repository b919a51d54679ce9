//! A RESP2 client that tells what surely did not happen from what nobody knows.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest bulk string that is read; the values written here are short.
const BULK_BYTES_MAX: usize = 1 << 20;
/// The longest array.
const ARRAY_MAX: usize = 1024;
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    /// The number that a bulk string or an integer says.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Reply::Integer(number) => u64::try_from(*number).ok(),
            Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was answered.
    Answered(Reply),
    /// It was surely not executed, and why.
    Refused(String),
    /// It may have been executed, now or later.
    Unknown(String),
}

/// A connection to one of several nodes; goes on to the next one when one fails.
pub(crate) struct Client {
    nodes: Vec<SocketAddr>,
    at: usize,
    patience: Duration,
    open: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client whose first node is `nodes[first % nodes.len()]`.
    pub(crate) fn new(nodes: &[SocketAddr], first: usize, patience: Duration) -> Client {
        Client { nodes: nodes.to_vec(), at: first, patience, open: None }
    }

    /// Sends a request and waits for its answer. After anything but an answer the next request goes to the next node.
    pub(crate) fn call(&mut self, words: &[&[u8]]) -> Fate {
        let fate = self.attempt(words);
        match &fate {
            Fate::Answered(Reply::Error(text)) if text.starts_with("UNKNOWN") => {
                self.turn_away();
                Fate::Unknown(String::from("UNKNOWN"))
            }
            Fate::Answered(Reply::Error(text)) if !text.starts_with("CONFLICT") => {
                self.turn_away();
                Fate::Refused(text.split_whitespace().next().unwrap_or_default().to_owned())
            }
            Fate::Answered(_) => fate,
            Fate::Refused(_) | Fate::Unknown(_) => {
                self.turn_away();
                fate
            }
        }
    }

    fn turn_away(&mut self) {
        self.open = None;
        self.at += 1;
    }

    fn attempt(&mut self, words: &[&[u8]]) -> Fate {
        let mut stream = match self.open.take().map_or_else(|| self.connect(), Ok) {
            Ok(stream) => stream,
            Err(error) => return Fate::Refused(format!("connect: {}", error.kind())),
        };
        let asked = stream.get_mut().write_all(&encode(words));
        match asked.and_then(|()| read(&mut stream)) {
            Ok(reply) => {
                self.open = Some(stream);
                Fate::Answered(reply)
            }
            Err(error) => Fate::Unknown(format!("connection: {}", error.kind())),
        }
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let node = self.nodes.get(self.at % self.nodes.len().max(1));
        let node = node.ok_or_else(|| io::Error::other("no node is named"))?;
        let stream = TcpStream::connect_timeout(node, CONNECT_WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(BufReader::new(stream))
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn read(input: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end_matches("\r\n");
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("no RESP2 reply: {line:?}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(broken)?;
    let length = |limit: usize| match rest.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => {
            usize::try_from(length).ok().filter(|length| *length <= limit).map(Some).ok_or_else(broken)
        }
        Err(_) => Err(broken()),
    };
    Ok(match kind {
        "+" => Reply::Simple(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(rest.parse().map_err(|_| broken())?),
        "$" => match length(BULK_BYTES_MAX)? {
            None => Reply::Nil,
            Some(length) => {
                let mut bytes = vec![0; length + 2];
                input.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Reply::Bulk(bytes)
            }
        },
        "*" => match length(ARRAY_MAX)? {
            None => Reply::Nil,
            Some(length) => Reply::Array((0..length).map(|_| read(input)).collect::<io::Result<_>>()?),
        },
        _ => return Err(broken()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    #[test]
    fn replies_are_read_strictly() {
        let mut bytes: &[u8] = b"*3\r\n$2\r\n17\r\n$-1\r\n:4\r\n-UNKNOWN why\r\n";
        let array = Reply::Array(vec![Reply::Bulk(b"17".to_vec()), Reply::Nil, Reply::Integer(4)]);
        assert_eq!(read(&mut bytes).unwrap(), array);
        assert_eq!(read(&mut bytes).unwrap(), Reply::Error("UNKNOWN why".into()));
        for broken in [&b"?\r\n"[..], b"$99999999\r\n", b"$5\r\nab", b"\r\n", b":x\r\n"] {
            assert!(read(&mut { broken }).is_err(), "{}", broken.escape_ascii());
        }
    }

    /// A node that answers each request of each connection with the next of `answers`; an empty one closes the connection.
    fn serve(answers: Vec<&'static [u8]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            while let Ok((mut stream, _)) = listener.accept() {
                let mut buffer = [0; 512];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    let answer = answers.next().unwrap_or_default();
                    if answer.is_empty() || stream.write_all(answer).is_err() {
                        break;
                    }
                }
            }
        });
        address
    }

    #[test]
    fn fates_are_told_apart_and_the_next_node_is_asked() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let first =
            serve(vec![b"-UNKNOWN the leader is gone\r\n", b"", b"-CLUSTERDOWN no leader\r\n", b"+OK\r\n"]);
        let mut client = Client::new(&[first, closed], 0, Duration::from_secs(10));
        let ping: &[&[u8]] = &[b"PING"];
        let unreachable = |fate| assert!(matches!(fate, Fate::Refused(why) if why.starts_with("connect")));
        assert_eq!(client.call(ping), Fate::Unknown("UNKNOWN".into()));
        unreachable(client.call(ping));
        assert!(matches!(client.call(ping), Fate::Unknown(why) if why.starts_with("connection")));
        unreachable(client.call(ping));
        assert_eq!(client.call(ping), Fate::Refused("CLUSTERDOWN".into()));
        unreachable(client.call(ping));
        assert_eq!(client.call(ping), Fate::Answered(Reply::Simple("OK".into())));
    }
}
