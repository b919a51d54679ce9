//! Calls of gRPC with one message each way, right on HTTP/2: as little as can be between the load and the peer, whose cores are shared.

use crate::messages::Call;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, Method, Request};
use prost::Message as _;
use tokio::net::TcpStream;

/// Before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What went wrong, for people.
pub(crate) type Problem = Box<dyn std::error::Error + Send + Sync>;

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    /// Connects to `host:port`, within a tokio runtime, which carries the connection until its clones are gone.
    pub(crate) async fn open(address: &str) -> Result<Connection, Problem> {
        let stream =
            TcpStream::connect(address).await.map_err(|error| format!("cannot reach {address}: {error}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        // What breaks it is told to whoever waits for an answer.
        tokio::spawn(connection);
        Ok(Connection { sender, authority: address.to_owned() })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// The connection broke, or the peer answered with another status than 0, of which its own words are told.
    pub(crate) async fn call<C: Call>(&mut self, message: &C) -> Result<C::Answer, Problem> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{}", self.authority, C::PATH))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(())?;
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, false)?;
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut frame)?;
        stream.send_data(frame.freeze(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut received = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            received.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?;
        // An error without a message has its status in the headers.
        check(trailers.as_ref().unwrap_or(&head.headers))?;
        let bytes = received.get(PREFIX_BYTES..).ok_or("an answer without a message")?;
        Ok(C::Answer::decode(bytes)?)
    }
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("nothing");
    match said("grpc-status") {
        "0" => Ok(()),
        status => Err(format!("status {status}: {}", said("grpc-message")).into()),
    }
}
