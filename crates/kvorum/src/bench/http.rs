//! A client of the HTTP interface.

use super::client::{Answer, Problem};
use super::options::Options;
use super::workload::{Operation, key_name};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection.
pub(crate) struct HttpClient {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    authorization: Option<String>,
    paths: Paths,
    value: Bytes,
}

/// Where a key is found.
enum Paths {
    /// `/v0/entity`, with what follows the key.
    Entity(String),
    /// `/v1/ns/{namespace}/keys/`.
    Keys(String),
}

impl HttpClient {
    /// Connects.
    pub(crate) async fn connect(
        options: &Options,
        address: &str,
        value: Vec<u8>,
    ) -> Result<HttpClient, Problem> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; what breaks it is told to whoever waits for an answer.
        tokio::spawn(connection);
        let paths = match (&options.namespace, options.quorum) {
            (Some(name), _) => Paths::Keys(format!("/v1/ns/{name}/keys/")),
            (None, Some((ack, from))) => Paths::Entity(format!("&ack={ack}&from={from}")),
            (None, None) => Paths::Entity(String::new()),
        };
        Ok(HttpClient {
            sender,
            host: address.to_owned(),
            authorization: options.password.as_ref().map(|secret| format!("Bearer {secret}")),
            paths,
            value: value.into(),
        })
    }

    /// Sends one operation after the other.
    pub(crate) async fn perform(
        &mut self,
        operations: &[Operation],
        answers: &mut Vec<Answer>,
    ) -> Result<(), Problem> {
        for operation in operations {
            answers.push(self.one(*operation).await?);
        }
        Ok(())
    }

    async fn one(&mut self, operation: Operation) -> Result<Answer, Problem> {
        let key = key_name(operation.key);
        let path = match &self.paths {
            Paths::Entity(quorum) => format!("/v0/entity?id={key}{quorum}"),
            Paths::Keys(prefix) => format!("{prefix}{key}"),
        };
        let (method, body) =
            if operation.is_read { (Method::GET, Bytes::new()) } else { (Method::PUT, self.value.clone()) };
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| Problem::Refused(error.to_string()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(match status {
            StatusCode::NOT_FOUND if operation.is_read => Answer::Missing,
            status if status.is_success() => Answer::Done,
            StatusCode::UNAUTHORIZED => {
                return Err(Problem::Refused(String::from("401: say --requirepass SECRET")));
            }
            status => Answer::Error(status.as_u16().to_string()),
        })
    }
}
