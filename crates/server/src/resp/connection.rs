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

/// Input that is executed before its replies are sent, when a client sends faster than it is served: a long pipeline then waits for the disk a
/// few times, not once for each input buffer, and yet does not hold up the thread's other connections for long.
const TURN_BYTES: usize = 512 * 1024;

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
        let served = connection.serve_turn(&mut stream).await;
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
    /// Executes what has been received, and what has arrived behind it; then answers all of it after one wait.
    async fn serve_turn(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut taken = 0;
        loop {
            taken += self.input.unused().len();
            self.serve_input(stream).await?;
            if self.turn.is_closing() || taken >= TURN_BYTES {
                break;
            }
            match self.input.receive_more(stream).await {
                None => break,
                Some(Ok(received)) if received > 0 => {
                    counters::add(&self.turn.shared().counters.input_bytes, received);
                }
                // Closed or broken: what came before is answered all the same, as far as the client still listens.
                Some(_) => {
                    self.turn.close();
                    break;
                }
            }
        }
        self.turn.flush(stream).await
    }

    /// Executes all whole commands that have been received.
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
        Ok(())
    }
}
