//! A client that takes nothing of its answer does not hold on to what the answer rests on.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream whose writes fail with `TimedOut` when the other side took no byte for so long. Any byte taken begins the time anew.
pub(super) struct Patient<S> {
    stream: S,
    within: Duration,
    /// Since a write had to wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, within: Duration) -> Patient<S> {
        Patient { stream, within, waiting: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waiting = None;
            return done;
        }
        let within = self.within;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(waiting.as_mut().poll(context));
        let text = format!("the client took nothing of the answer for {} s", within.as_secs());
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, text)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.judge(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    const WITHIN: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        let (server, client) = duplex(8);
        let mut server = Patient::new(server, WITHIN);
        server.write_all(b"12345678").await.unwrap();
        let begun = tokio::time::Instant::now();
        let error = server.write_all(b"9").await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed() >= WITHIN), (ErrorKind::TimedOut, true));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_is_not() {
        let (server, mut client) = duplex(8);
        let mut server = Patient::new(server, WITHIN);
        let sends = tokio::spawn(async move { server.write_all(&[7; 80]).await });
        let mut taken = 0;
        while taken < 80 {
            tokio::time::sleep(WITHIN - Duration::from_secs(1)).await;
            let mut piece = [0; 8];
            client.read_exact(&mut piece).await.unwrap();
            taken += piece.len();
        }
        sends.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_client_sends_is_no_matter_of_time() {
        let (server, mut client) = duplex(8);
        let mut server = Patient::new(server, WITHIN);
        tokio::time::sleep(WITHIN * 10).await;
        client.write_all(b"late").await.unwrap();
        let mut read = [0; 4];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"late");
    }
}
