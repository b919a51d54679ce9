//! Bodies of responses: whole, or a stream of entries.

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use kvorum_cluster::Range;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response's body.
pub(crate) enum Body {
    /// All of it, or nothing after it was sent.
    Full(Option<Bytes>),
    /// A range of entries; each is one frame, which HTTP/1.1 sends as one chunk.
    Entries(Entries),
}

/// A range on its way out. Reads on only when the connection has taken what came before, so its memory is bounded by the range's own.
pub(crate) enum Entries {
    Waiting(Pin<Box<dyn Future<Output = Next> + Send>>),
    Over,
}

/// The next entry, and the range behind it.
type Next = (Option<Result<Bytes, kvorum_cluster::Error>>, Range);

impl Body {
    /// A whole body.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
        Body::Full(Some(bytes.into()))
    }

    /// A stream of `key\nvalue`.
    pub(crate) fn entries(range: Range) -> Body {
        Body::Entries(Entries::Waiting(Box::pin(next(range))))
    }
}

async fn next(mut range: Range) -> Next {
    let entry = range.next().await.map(|entry| {
        entry.map(|(key, value)| {
            let mut line = BytesMut::with_capacity(key.len() + 1 + value.len());
            line.put(key);
            line.put_u8(b'\n');
            line.put(value);
            line.freeze()
        })
    });
    (entry, range)
}

impl Entries {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Entries::Waiting(waiting) = self else { return Poll::Ready(None) };
        let Poll::Ready((entry, range)) = waiting.as_mut().poll(context) else { return Poll::Pending };
        *self = match &entry {
            Some(Ok(_)) => Entries::Waiting(Box::pin(next(range))),
            _ => Entries::Over,
        };
        // An error in the middle ends the connection without the last chunk: the client sees that the range is not whole.
        Poll::Ready(entry.map(|entry| entry.map_err(io::Error::other)))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Entries(entries) => {
                entries.poll_next(context).map(|entry| entry.map(|entry| entry.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None) | Body::Entries(Entries::Over))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Entries(_) => SizeHint::default(),
        }
    }
}
