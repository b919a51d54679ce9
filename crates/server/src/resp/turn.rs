//! One input buffer's commands: executed in order, with one wait and one write for all of them.

use super::output::Output;
use super::parser::Batch;
use crate::clients::Client;
use crate::counters;
use crate::network::Local;
use crate::session::{self, Admitted, NotRun, Session};
use crate::settings::ServerSettings;
use crate::shared::Shared;
use kvorum_cluster::{Fetched, Prefetch, Request};
use kvorum_model::{Args, CommandSpec, ErrorReply, Reply, Run};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Replies are sent as soon as they are that long, so that a pipeline of large values takes no more memory than a part of it.
const SEND_BYTES: usize = 1 << 20;

/// Commands that the node is given at once: the most, and what a connection starts with.
const CHUNK_MAX: usize = 1024;
const CHUNK_START: usize = 128;

/// Executes and answers what a connection sends.
pub(crate) struct Turn {
    session: Session,
    output: Output,
    replies: Vec<Reply>,
    /// Commands that the node is given at once; falls as replies get longer.
    chunk: usize,
}

impl Turn {
    pub(crate) fn new(shared: Arc<Shared>, local: Arc<Local>, client: Arc<Client>) -> Turn {
        Turn {
            session: Session::new(shared, client),
            output: Output::new(local),
            replies: Vec::new(),
            chunk: CHUNK_START,
        }
    }

    /// The settings as they are now.
    pub(crate) fn settings(&mut self) -> &ServerSettings {
        self.session.settings()
    }

    /// What all connections share.
    pub(crate) fn shared(&self) -> &Shared {
        &self.session.shared
    }

    /// Whether large commands may come.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.session.is_authenticated()
    }

    /// Whether the connection shall be closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.session.closing
    }

    /// Closes the connection after the replies so far.
    pub(crate) fn close(&mut self) {
        self.session.closing = true;
    }

    /// Closes the connection after the replies so far and this one.
    pub(crate) fn close_with(&mut self, reply: &Reply) {
        self.output.push(reply, self.session.protocol);
        self.close();
    }

    /// Sends all replies, once they may be sent.
    pub(crate) async fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.output.flush(stream, &self.session.shared, self.session.protocol).await
    }

    /// Executes the commands of `batch`, whose spans lie in `input`, and adds their replies to the output.
    pub(crate) async fn run(
        &mut self,
        input: &[u8],
        batch: &Batch,
        stream: &mut TcpStream,
    ) -> io::Result<()> {
        let word = |span: &super::parser::Span| input.get(span.start..span.end).unwrap_or_default();
        let words: Vec<&[u8]> = batch.spans().iter().map(word).collect();
        let mut pending: Vec<Request<'_>> = Vec::with_capacity(batch.len());
        let mut start = 0;
        for end in batch.ends() {
            let args = Args::new(words.get(start..*end).unwrap_or_default());
            start = *end;
            match self.session.admit(args) {
                Admitted::Request(request) => pending.push(request),
                other => {
                    self.execute(&mut pending, stream).await?;
                    self.step(other, stream).await?;
                }
            }
            if self.session.closing {
                break;
            }
        }
        self.execute(&mut pending, stream).await?;
        counters::add(&self.session.shared.counters.commands, batch.len());
        Ok(())
    }

    /// Lets the node execute `pending`, and empties it.
    async fn execute(&mut self, pending: &mut Vec<Request<'_>>, stream: &mut TcpStream) -> io::Result<()> {
        if let Some(last) = pending.last() {
            self.session.client.facts.lock().last_command = last.spec.name;
        }
        let mut done = 0;
        while done < pending.len() {
            let end = (done + self.chunk).min(pending.len());
            let first = done;
            let mut bytes = 0;
            while done < end {
                let rest = pending.get(done..end).unwrap_or_default();
                let node = &self.session.shared.node;
                let progress = node.execute(&mut self.session.node, rest, &mut self.replies);
                done += progress.executed;
                bytes += self.output.append(&mut self.replies, progress.commit, self.session.protocol);
                if progress.elsewhere {
                    let rest = pending.get(done..end).unwrap_or_default();
                    self.replies = self.session.shared.node.serve(&mut self.session.node, rest).await;
                    bytes += self.output.append(&mut self.replies, None, self.session.protocol);
                    done = end;
                } else if let Some(prefetch) = progress.blocked {
                    let fetched = self.fetch(prefetch, stream).await?;
                    self.session.node.resume(fetched);
                }
            }
            let mean = bytes / (end - first).max(1);
            self.chunk = (SEND_BYTES / mean.max(1)).clamp(1, CHUNK_MAX);
            self.send_if_long(stream).await?;
        }
        pending.clear();
        Ok(())
    }

    async fn send_if_long(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if self.output.len() >= SEND_BYTES { self.flush(stream).await } else { Ok(()) }
    }

    /// Reads from the disk on a thread that may wait for it. The replies before it are sent meanwhile: they have waited for nothing.
    async fn fetch(&mut self, prefetch: Prefetch, stream: &mut TcpStream) -> io::Result<Fetched> {
        counters::add(&self.session.shared.counters.cold_reads, 1);
        let reading = tokio::task::spawn_blocking(move || prefetch.run());
        self.flush(stream).await?;
        reading.await.map_err(io::Error::other)
    }

    /// Does what is not for the node alone.
    async fn step(&mut self, admitted: Admitted<'_>, stream: &mut TcpStream) -> io::Result<()> {
        let reply = match admitted {
            Admitted::Refused(error) => Reply::Error(error),
            Admitted::Queued => Reply::Simple("QUEUED".into()),
            Admitted::Hostile => {
                tracing::warn!("closed a connection that speaks HTTP to the Redis protocol's port");
                return Ok(());
            }
            Admitted::Exec => return self.exec(stream).await,
            Admitted::Watch(args) => self.watch(args, stream).await?,
            Admitted::Own(CommandSpec { run: Run::Session(command), .. }, args)
                if session::waits_for_replicas(*command) =>
            {
                self.flush(stream).await?;
                self.session.wait_for_replicas(*command, args, stream).await
            }
            Admitted::Own(CommandSpec { run: Run::Session(command), .. }, args)
                if session::is_waiting(*command) =>
            {
                self.flush(stream).await?;
                self.session.wait_for(*command, args).await
            }
            Admitted::Own(spec, args) => match (spec.run, self.session.own(spec, args)) {
                (_, Err(error)) => Reply::Error(error),
                (Run::Session(_), Ok(None)) => return Ok(()),
                (_, Ok(reply)) => reply.unwrap_or(Reply::Nil),
            },
            // `run` has put it with the others of its kind.
            Admitted::Request(_) => return Ok(()),
        };
        self.output.push(&reply, self.session.protocol);
        self.send_if_long(stream).await
    }

    async fn watch(&mut self, args: Args<'_>, stream: &mut TcpStream) -> io::Result<Reply> {
        if self.session.shared.node.is_clustered() {
            let session = &mut self.session;
            let node = &session.shared.node;
            let watching = node.serve_watch(session.namespace, args.from(1), &mut session.watched).await;
            return Ok(watching.map_or_else(Reply::Error, |()| Reply::Ok));
        }
        loop {
            let session = &mut self.session;
            let watching = session.shared.node.watch(
                &mut session.node,
                session.namespace,
                args.from(1),
                &mut session.watched,
            );
            match watching {
                Ok(None) => return Ok(Reply::Ok),
                Ok(Some(prefetch)) => {
                    let fetched = self.fetch(prefetch, stream).await?;
                    self.session.node.resume(fetched);
                }
                Err(error) => return Ok(Reply::Error(ErrorReply::new(error.resp()))),
            }
        }
    }

    async fn exec(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let queue = match self.session.take_queue() {
            Ok(queue) => queue,
            Err(error) => {
                self.output.push(&Reply::Error(error), self.session.protocol);
                return Ok(());
            }
        };
        loop {
            match self.session.run_queue(&queue) {
                Ok((reply, commit)) => {
                    // A HELLO among them changes how this very reply is written, as in Redis.
                    self.replies.push(reply);
                    self.output.append(&mut self.replies, commit, self.session.protocol);
                    return self.send_if_long(stream).await;
                }
                Err(NotRun::Blocked(prefetch)) => {
                    let fetched = self.fetch(prefetch, stream).await?;
                    self.session.node.resume(fetched);
                }
                Err(NotRun::Elsewhere) => {
                    let reply = self.session.serve_queue(&queue).await;
                    self.output.push(&reply, self.session.protocol);
                    return self.send_if_long(stream).await;
                }
            }
        }
    }
}
