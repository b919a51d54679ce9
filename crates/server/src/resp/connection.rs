//! A connection: receive, split into commands, execute, answer.

use super::input::Input;
use super::parser::{Batch, Limits, Parser};
use super::turn::Turn;
use crate::clients::Client;
use crate::counters;
use crate::network::Local;
use crate::shared::Shared;
use crate::time;
use kvorum_model::{ErrorReply, Reply};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Serves a client until either side ends it.
pub(crate) async fn serve(
    mut stream: TcpStream,
    shared: Arc<Shared>,
    local: Arc<Local>,
    client: Arc<Client>,
) {
    let mut connection = Connection {
        input: Input::new(Arc::clone(&local)),
        parser: Parser::default(),
        batch: Batch::default(),
        turn: Turn::new(Arc::clone(&shared), Arc::clone(&local), Arc::clone(&client)),
    };
    loop {
        match connection.input.receive(&mut stream).await {
            Ok(0) | Err(_) => return,
            Ok(received) => counters::add(&shared.counters.input_bytes, received),
        }
        let _busy = local.begin();
        client.begin(time::now());
        let served = connection.serve_input(&mut stream).await;
        client.end();
        if served.is_err() || connection.turn.is_closing() || shared.shutdown.is_stopping() {
            return;
        }
    }
}

struct Connection {
    input: Input,
    parser: Parser,
    batch: Batch,
    turn: Turn,
}

impl Connection {
    /// Executes all whole commands that have been received, and answers them.
    async fn serve_input(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        loop {
            self.batch.clear();
            let settings = self.turn.settings();
            let (bulk_bytes_max, held_max) = (settings.bulk_bytes_max, settings.query_buffer_bytes_max);
            let limits = Limits { bulk_bytes_max, authenticated: self.turn.is_authenticated() };
            let parsed = self.parser.parse(self.input.unused(), limits, &mut self.batch);
            self.turn.run(self.input.unused(), &self.batch, stream).await?;
            self.input.consume(parsed.consumed);
            if self.turn.is_closing() {
                break;
            }
            if let Some(error) = parsed.error {
                self.turn.close_with(&Reply::Error(ErrorReply::new(error.to_string())));
                break;
            }
            if !parsed.more {
                if self.input.unused().len() as u64 > held_max {
                    tracing::warn!("closed a connection whose command is longer than {held_max} bytes");
                    self.turn.close();
                }
                break;
            }
        }
        self.batch.shrink();
        self.input.settle();
        self.turn.flush(stream).await
    }
}
