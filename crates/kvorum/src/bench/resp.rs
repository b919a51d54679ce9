//! A client of the Redis protocol that only counts: it finds where replies end and which are errors.

use super::client::{Answer, Problem};
use super::options::Options;
use super::workload::{Operation, key_name};
use std::io::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// A connection.
pub(crate) struct RespClient {
    stream: TcpStream,
    value: Vec<u8>,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl RespClient {
    /// Connects, gives the password, selects the namespace and says how to read.
    pub(crate) async fn connect(
        options: &Options,
        address: &str,
        value: Vec<u8>,
    ) -> Result<RespClient, Problem> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = RespClient { stream, value, sent: Vec::new(), received: Vec::new() };
        let Options { password, namespace, read, .. } = options;
        for (command, word) in [("AUTH", password), ("SELECT", namespace), ("CONSISTENCY READ", read)] {
            let Some(word) = word else { continue };
            let words: Vec<_> = command.split(' ').chain([word.as_str()]).map(str::as_bytes).collect();
            push(&mut client.sent, &words)?;
            let mut answers = Vec::new();
            client.exchange(1, &mut answers).await?;
            if let Some(Answer::Error(error)) = answers.pop() {
                return Err(Problem::Refused(format!("{command}: {error}")));
            }
        }
        Ok(client)
    }

    /// Sends the operations at once and waits for all answers.
    pub(crate) async fn perform(
        &mut self,
        operations: &[Operation],
        answers: &mut Vec<Answer>,
    ) -> Result<(), Problem> {
        for operation in operations {
            let key = key_name(operation.key);
            if operation.is_read {
                push(&mut self.sent, &[b"GET", key.as_bytes()])?;
            } else {
                push(&mut self.sent, &[b"SET", key.as_bytes(), &self.value])?;
            }
        }
        self.exchange(operations.len(), answers).await
    }

    async fn exchange(&mut self, count: usize, answers: &mut Vec<Answer>) -> Result<(), Problem> {
        self.stream.write_all(&self.sent).await?;
        self.sent.clear();
        let (mut at, mut left) = (0, count);
        while left > 0 {
            match reply(self.received.get(at..).unwrap_or_default())? {
                Some((answer, length)) => {
                    answers.push(answer);
                    at += length;
                    left -= 1;
                }
                None => {
                    self.received.drain(..at);
                    at = 0;
                    self.received.reserve(READ_BYTES);
                    if self.stream.read_buf(&mut self.received).await? == 0 {
                        return Err(Problem::Broken(String::from("the node closed the connection")));
                    }
                }
            }
        }
        self.received.drain(..at);
        Ok(())
    }
}

fn push(into: &mut Vec<u8>, words: &[&[u8]]) -> std::io::Result<()> {
    write!(into, "*{}\r\n", words.len())?;
    for word in words {
        write!(into, "${}\r\n", word.len())?;
        into.extend_from_slice(word);
        into.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// The first reply in `bytes` and its length, if all of it is there. An array counts as done, whatever is in it.
fn reply(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Problem> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = bytes.get(1..end).unwrap_or_default();
    let text = || String::from_utf8_lossy(line).into_owned();
    match bytes.first() {
        Some(b'+' | b':') => Ok(Some((Answer::Done, end + 2))),
        Some(b'-') => {
            let code = text().split_whitespace().next().unwrap_or("ERR").to_owned();
            let said = if code == "ERR" { text() } else { code };
            Ok(Some((Answer::Error(said), end + 2)))
        }
        Some(b'_') => Ok(Some((Answer::Missing, end + 2))),
        Some(b'$') if line == b"-1" => Ok(Some((Answer::Missing, end + 2))),
        Some(b'$') => {
            let length: usize =
                text().parse().map_err(|_| Problem::Broken(format!("a reply of length {}", text())))?;
            let whole = end + 2 + length + 2;
            Ok((bytes.len() >= whole).then_some((Answer::Done, whole)))
        }
        Some(b'*') => {
            let count: usize =
                text().parse().map_err(|_| Problem::Broken(format!("an array of {}", text())))?;
            let mut whole = end + 2;
            for _ in 0..count {
                let Some((_, length)) = reply(bytes.get(whole..).unwrap_or_default())? else {
                    return Ok(None);
                };
                whole += length;
            }
            Ok(Some((Answer::Done, whole)))
        }
        _ => Err(Problem::Broken(String::from("the node does not speak RESP"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_they_end() {
        let whole = b"$3\r\nabc\r\n+OK\r\n";
        for cut in 0..9 {
            assert!(reply(&whole[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(matches!(reply(whole), Ok(Some((Answer::Done, 9)))));
        assert!(matches!(reply(b"$-1\r\n"), Ok(Some((Answer::Missing, 5)))));
        let array = b"*2\r\n$3\r\nabc\r\n:7\r\n+OK\r\n";
        for cut in 0..17 {
            assert!(reply(&array[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(matches!(reply(array), Ok(Some((Answer::Done, 17)))));
        let Ok(Some((Answer::Error(error), 16))) =
            reply(b"-UNKNOWN no one\r\n").map(|r| r.map(|(a, n)| (a, n - 1)))
        else {
            panic!("an error")
        };
        assert_eq!(error, "UNKNOWN");
        assert!(reply(b"HTTP/1.1 400 Bad Request\r\n").is_err());
    }
}
