//! Bodies of responses: whole, or a stream.

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use kvorum_cluster::backup::Backup;
use kvorum_cluster::{Error, Range};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response's body.
pub(crate) enum Body {
    /// All of it, or nothing after it was sent.
    Full(Option<Bytes>),
    /// Frame by frame. HTTP/1.1 sends each as one chunk, unless the length of all is known.
    Stream {
        /// The frames.
        stream: Stream,
        /// Bytes that are still to come, if that is known.
        rest_bytes: Option<u64>,
    },
}

/// A stream on its way out. Reads on only when the connection has taken what came before, so its memory is bounded by the source's own.
pub(crate) enum Stream {
    Waiting(Pin<Box<dyn Future<Output = Next> + Send>>),
    Over,
}

/// Where a stream's frames come from.
pub(crate) enum Source {
    Range(Range),
    Backup(Box<Backup>),
}

/// The next frame, and the source behind it; without a source there is nothing to go on with.
type Next = (Option<Result<Bytes, Error>>, Option<Source>);

impl Body {
    /// A whole body.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
        Body::Full(Some(bytes.into()))
    }

    /// A stream of `key\nvalue`.
    pub(crate) fn entries(range: Range) -> Body {
        Body::Stream { stream: Stream::of(Source::Range(range)), rest_bytes: None }
    }

    /// A backup.
    pub(crate) fn backup(backup: Backup) -> Body {
        let rest_bytes = Some(backup.stream_bytes());
        Body::Stream { stream: Stream::of(Source::Backup(Box::new(backup))), rest_bytes }
    }
}

async fn next(source: Source) -> Next {
    match source {
        Source::Range(mut range) => {
            let entry = range.next().await.map(|entry| entry.map(|(key, value)| line(&key, &value)));
            (entry, Some(Source::Range(range)))
        }
        Source::Backup(mut backup) => {
            let read = tokio::task::spawn_blocking(move || (backup.next_piece(), backup)).await;
            match read {
                Ok((piece, backup)) => (piece.transpose(), Some(Source::Backup(backup))),
                Err(error) => (Some(Err(Error::Storage(format!("reading the backup ended: {error}")))), None),
            }
        }
    }
}

fn line(key: &[u8], value: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(key.len() + 1 + value.len());
    line.put(key);
    line.put_u8(b'\n');
    line.put(value);
    line.freeze()
}

impl Stream {
    fn of(source: Source) -> Stream {
        Stream::Waiting(Box::pin(next(source)))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Stream::Waiting(waiting) = self else { return Poll::Ready(None) };
        let Poll::Ready((frame, source)) = waiting.as_mut().poll(context) else { return Poll::Pending };
        *self = match (&frame, source) {
            (Some(Ok(_)), Some(source)) => Stream::of(source),
            _ => Stream::Over,
        };
        // An error in the middle ends the connection without the last chunk: the client sees that the stream is not whole.
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream { stream, rest_bytes } => stream.poll_next(context).map(|frame| {
                let frame = frame?;
                if let (Ok(bytes), Some(rest)) = (&frame, rest_bytes) {
                    *rest = rest.saturating_sub(bytes.len() as u64);
                }
                Some(frame.map(Frame::data))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None) | Body::Stream { stream: Stream::Over, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Stream { rest_bytes: Some(rest), .. } => SizeHint::with_exact(*rest),
            Body::Stream { .. } => SizeHint::default(),
        }
    }
}
