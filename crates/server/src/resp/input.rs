//! What a connection has received and not yet used.

use crate::network::{INPUT_BYTES, Local};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// The input buffer. It borrows its memory from the thread's store of buffers while it holds something, so that idle connections have none.
pub(crate) struct Input {
    local: Arc<Local>,
    buffer: Vec<u8>,
    /// `buffer[start..end]` has been received and not used.
    start: usize,
    end: usize,
}

impl Input {
    pub(crate) fn new(local: Arc<Local>) -> Input {
        Input { local, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// The bytes that have not been used.
    pub(crate) fn unused(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Marks `bytes` of [`unused`](Input::unused) as used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives an empty buffer back; brings what is left of an incomplete command to the front, with room for at least twice as much, so that a
    /// large command is not copied again and again, but no client makes us reserve what it has not sent.
    pub(crate) fn settle(&mut self) {
        let held = self.end - self.start;
        if held == 0 {
            self.local.return_input(std::mem::take(&mut self.buffer));
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, held);
        if held * 2 > self.buffer.len() {
            self.buffer.resize(held * 2, 0);
        }
    }

    /// Receives what there is. `Ok(0)`: the client has closed its side.
    pub(crate) async fn receive(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_receive(stream, context)).await
    }

    /// Receives what has already arrived; `None` if nothing has. Costs no system call unless the last one filled the buffer.
    pub(crate) async fn receive_more(&mut self, stream: &mut TcpStream) -> Option<io::Result<usize>> {
        std::future::poll_fn(|context| match self.poll_receive(stream, context) {
            Poll::Ready(received) => Poll::Ready(Some(received)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_receive(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            self.buffer = self.local.input();
        }
        let mut room = ReadBuf::new(self.buffer.get_mut(self.end..).unwrap_or_default());
        let polled = Pin::new(stream).poll_read(context, &mut room);
        let received = room.filled().len();
        self.end += received;
        if polled.is_pending() && self.end == 0 {
            self.local.return_input(std::mem::take(&mut self.buffer));
        }
        polled.map_ok(|()| received)
    }

    /// Bytes that its memory takes now.
    #[cfg(test)]
    fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}

const _: () = assert!(INPUT_BYTES > 0, "an input buffer without room would read as a closed connection");

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn holds_memory_only_while_it_holds_bytes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let mut input = Input::new(Arc::new(Local::default()));
        sender.write_all(b"abcdef").await.unwrap();
        assert_eq!(input.receive(&mut receiver).await.unwrap(), 6);
        input.consume(2);
        input.settle();
        assert_eq!(input.unused(), b"cdef");
        input.consume(4);
        input.settle();
        assert_eq!(input.memory_bytes(), 0);
        sender.write_all(&vec![7; INPUT_BYTES + 10]).await.unwrap();
        while input.unused().len() < INPUT_BYTES + 10 {
            assert!(input.receive(&mut receiver).await.unwrap() > 0, "there is room for more");
            input.settle();
        }
        drop(sender);
        assert_eq!(input.receive(&mut receiver).await.unwrap(), 0);
    }
}
