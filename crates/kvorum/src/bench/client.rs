//! A connection under load, of either protocol.

use super::http::HttpClient;
use super::options::{Options, Protocol};
use super::resp::RespClient;
use super::workload::{self, Operation};

/// How an operation was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// There is no such key.
    Missing,
    /// The error's code.
    Error(String),
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The connection broke; another may do better.
    #[error("{0}")]
    Broken(String),
    /// No connection will do better.
    #[error("{0}")]
    Refused(String),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Problem::Broken(error.to_string())
    }
}

impl From<hyper::Error> for Problem {
    fn from(error: hyper::Error) -> Self {
        Problem::Broken(error.to_string())
    }
}

/// A connection.
pub(crate) enum Client {
    Resp(RespClient),
    Http(HttpClient),
}

impl Client {
    /// Connects to that node as the options say.
    pub(crate) async fn connect(options: &Options, address: &str) -> Result<Client, Problem> {
        let value = workload::value(options.value_bytes, options.seed);
        Ok(match options.protocol {
            Protocol::Resp => Client::Resp(RespClient::connect(options, address, value).await?),
            Protocol::Http => Client::Http(HttpClient::connect(options, address, value).await?),
        })
    }

    /// Carries the operations out; as many answers are added, in order, or fewer if the connection breaks.
    pub(crate) async fn perform(
        &mut self,
        operations: &[Operation],
        answers: &mut Vec<Answer>,
    ) -> Result<(), Problem> {
        match self {
            Client::Resp(client) => client.perform(operations, answers).await,
            Client::Http(client) => client.perform(operations, answers).await,
        }
    }
}
