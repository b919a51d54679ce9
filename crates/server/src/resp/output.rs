//! Replies on their way to the client, held back until what they rest on is durable.

use super::writer::{self, Protocol};
use crate::counters;
use crate::network::Local;
use crate::shared::Shared;
use kvorum_cluster::{Commit, Error};
use kvorum_model::{ErrorReply, Reply};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A client that takes nothing of its replies for that long is given up, so that it does not keep them in memory.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Replies in bytes of the protocol, in order.
pub(crate) struct Output {
    local: Arc<Local>,
    buffer: Vec<u8>,
    /// Resolves when all of `resting` may be sent.
    commit: Option<Commit>,
    resting: Vec<Resting>,
}

/// Replies that may only be sent once the commit has resolved.
struct Resting {
    start: usize,
    end: usize,
    replies: usize,
}

impl Output {
    pub(crate) fn new(local: Arc<Local>) -> Output {
        Output { local, buffer: Vec::new(), commit: None, resting: Vec::new() }
    }

    /// Bytes that wait to be sent.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Adds one reply that rests on nothing.
    pub(crate) fn push(&mut self, reply: &Reply, protocol: Protocol) {
        self.reserve();
        writer::write(&mut self.buffer, reply, protocol);
    }

    /// Adds replies that rest on `commit`, if there is one, and empties `replies`. Returns their bytes.
    pub(crate) fn append(
        &mut self,
        replies: &mut Vec<Reply>,
        commit: Option<Commit>,
        protocol: Protocol,
    ) -> usize {
        self.reserve();
        let start = self.buffer.len();
        let count = replies.len();
        for reply in replies.drain(..) {
            writer::write(&mut self.buffer, &reply, protocol);
        }
        if let Some(commit) = commit {
            self.resting.push(Resting { start, end: self.buffer.len(), replies: count });
            self.commit = Some(match self.commit.take() {
                Some(earlier) => earlier.later(commit),
                None => commit,
            });
        }
        self.buffer.len() - start
    }

    fn reserve(&mut self) {
        if self.buffer.capacity() == 0 {
            self.buffer = self.local.output();
        }
    }

    /// Waits until everything may be sent, then sends it.
    pub(crate) async fn flush(
        &mut self,
        stream: &mut TcpStream,
        shared: &Shared,
        protocol: Protocol,
    ) -> io::Result<()> {
        if let Some(commit) = self.commit.take() {
            if let Err(error) = commit.durable().await {
                tracing::error!("a write was not made durable: {error}");
                counters::add(
                    &shared.counters.unknown_outcomes,
                    self.resting.iter().map(|part| part.replies).sum(),
                );
                self.replace_resting(&error, protocol);
            }
            self.resting.clear();
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        counters::add(&shared.counters.output_bytes, self.buffer.len());
        let sent = send(stream, &self.buffer, STALLED_AFTER).await;
        self.local.return_output(std::mem::take(&mut self.buffer));
        sent
    }

    /// What rested on a failed commit is answered with its error: the outcome is unknown. Other replies stay as they are.
    fn replace_resting(&mut self, error: &Error, protocol: Protocol) {
        let text = Reply::Error(ErrorReply::new(error.resp()));
        let former = std::mem::take(&mut self.buffer);
        let mut copied = 0;
        for part in self.resting.drain(..) {
            self.buffer.extend_from_slice(former.get(copied..part.start).unwrap_or_default());
            for _ in 0..part.replies {
                writer::write(&mut self.buffer, &text, protocol);
            }
            copied = part.end;
        }
        self.buffer.extend_from_slice(former.get(copied..).unwrap_or_default());
    }
}

/// Sends all of `bytes`; fails if the client takes none of them for as long as `patience`.
async fn send(stream: &TcpStream, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::timeout(patience, stream.writable()).await??;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Output {
    fn drop(&mut self) {
        self.local.return_output(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        send(&stream, b"+OK\r\n", STALLED_AFTER).await.unwrap();
        let error = send(&stream, &vec![b'x'; 64 << 20], STALLED_AFTER).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[test]
    fn a_failed_commit_replaces_its_own_replies_and_no_others() {
        let mut output = Output::new(Arc::new(Local::default()));
        output.push(&Reply::Integer(1), Protocol::Two);
        for _ in 0..2 {
            let start = output.len();
            output.append(&mut vec![Reply::Ok, Reply::Ok], None, Protocol::Two);
            output.resting.push(Resting { start, end: output.len(), replies: 2 });
            output.push(&Reply::Integer(2), Protocol::Two);
        }
        output.replace_resting(&Error::Unknown("a sync failed".into()), Protocol::Two);
        let text = String::from_utf8(output.buffer.clone()).unwrap();
        let unknown = "-UNKNOWN the outcome of the write is unknown: a sync failed\r\n".repeat(2);
        assert_eq!(text, format!(":1\r\n{unknown}:2\r\n{unknown}:2\r\n"));
    }
}
