//! `MULTI`, `EXEC`, `DISCARD`.

use super::{Session, waits_for_replicas};
use bytes::Bytes;
use kvorum_cluster::{Commit, Held, Outcome, Prefetch, Request, Served};
use kvorum_model::{Args, CommandSpec, ErrorReply, Reply, Run, SessionCommand};

/// Commands between `MULTI` and `EXEC`.
#[derive(Default)]
pub(crate) struct Queue {
    commands: Vec<Queued>,
    bytes: u64,
    /// Whether a command was refused, so that `EXEC` must fail.
    spoiled: bool,
}

/// Why a queue was not run; nothing has happened.
pub(crate) enum NotRun {
    /// Run the prefetch, resume, and try again.
    Blocked(Prefetch),
    /// It is not for this node alone.
    Elsewhere,
}

struct Queued {
    spec: &'static CommandSpec,
    words: Vec<Bytes>,
}

/// What a queued word takes besides its bytes, about.
const WORD_OVERHEAD_BYTES: u64 = 64;

impl Queue {
    /// Keeps a copy of a command, unless the queue is over `bytes_max` then.
    pub(super) fn push(
        &mut self,
        spec: &'static CommandSpec,
        args: Args<'_>,
        bytes_max: u64,
    ) -> Result<(), ErrorReply> {
        let bytes: u64 = args.words().iter().map(|word| word.len() as u64 + WORD_OVERHEAD_BYTES).sum();
        if self.bytes + bytes > bytes_max {
            return Err(ErrorReply::new(
                "ERR the transaction is longer than client-query-buffer-limit allows",
            ));
        }
        self.bytes += bytes;
        let words = args.words().iter().map(|word| Bytes::copy_from_slice(word)).collect();
        self.commands.push(Queued { spec, words });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    fn asks_for_replicas(&self) -> bool {
        let asks =
            |queued: &Queued| matches!(queued.spec.run, Run::Session(command) if waits_for_replicas(command));
        self.commands.iter().any(asks)
    }

    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }
}

impl Session {
    pub(super) fn multi(&mut self) -> Result<Reply, ErrorReply> {
        if self.queue.is_some() {
            return Err(ErrorReply::new("ERR MULTI calls can not be nested"));
        }
        self.queue = Some(Queue::default());
        self.client.facts.lock().queued = Some(0);
        Ok(Reply::Ok)
    }

    pub(super) fn discard(&mut self) -> Result<Reply, ErrorReply> {
        if self.queue.is_none() {
            return Err(ErrorReply::new("ERR DISCARD without MULTI"));
        }
        self.leave_multi();
        self.watched.clear();
        Ok(Reply::Ok)
    }

    fn leave_multi(&mut self) -> Option<Queue> {
        self.client.facts.lock().queued = None;
        self.queue.take()
    }

    /// The queue that `EXEC` shall run; the error that it gives otherwise.
    pub(crate) fn take_queue(&mut self) -> Result<Queue, ErrorReply> {
        let Some(queue) = self.leave_multi() else {
            return Err(ErrorReply::new("ERR EXEC without MULTI"));
        };
        if queue.spoiled {
            self.watched.clear();
            return Err(ErrorReply::new("EXECABORT Transaction discarded because of previous errors."));
        }
        Ok(queue)
    }

    /// Runs the queue: all of its reads and writes as one, then what concerns the connection, replies in the order of the queue.
    pub(crate) fn run_queue(&mut self, queue: &Queue) -> Result<(Reply, Option<Commit>), NotRun> {
        let words: Vec<Vec<&[u8]>> =
            queue.commands.iter().map(|command| command.words.iter().map(Bytes::as_ref).collect()).collect();
        let shared = std::sync::Arc::clone(&self.shared);
        let requests = self.requests(queue, &words);
        let held = Held { local: shared.node.is_held_alone(&self.node), replicas: 0 };
        let done = shared.node.transaction(&mut self.node, &requests, &self.watched);
        let replies = match done.outcome {
            Outcome::Done(replies) => replies,
            Outcome::Blocked(prefetch) => return Err(NotRun::Blocked(prefetch)),
            Outcome::Elsewhere => return Err(NotRun::Elsewhere),
            Outcome::Changed => {
                self.watched.clear();
                return Ok((Reply::NilArray, done.commit));
            }
            Outcome::Refused(error) => {
                self.watched.clear();
                return Ok((Reply::Error(ErrorReply::new(error.resp())), done.commit));
            }
        };
        self.watched.clear();
        Ok((self.put_together(queue, &words, replies, held), done.commit))
    }

    /// As [`run_queue`](Session::run_queue), wherever in the cluster it is to be done: waits until the reply may be told.
    pub(crate) async fn serve_queue(&mut self, queue: &Queue) -> Reply {
        let words: Vec<Vec<&[u8]>> =
            queue.commands.iter().map(|command| command.words.iter().map(Bytes::as_ref).collect()).collect();
        let shared = std::sync::Arc::clone(&self.shared);
        let requests = self.requests(queue, &words);
        let held =
            if queue.asks_for_replicas() { shared.node.held_now(&self.node).await } else { Held::default() };
        let served = shared.node.serve_transaction(&mut self.node, &requests, &self.watched).await;
        self.watched.clear();
        match served {
            Served::Done(replies) => self.put_together(queue, &words, replies, held),
            Served::Changed => Reply::NilArray,
            Served::Error(error) => Reply::Error(error),
        }
    }

    /// The node's replies with those of commands that concern the connection, which are executed now.
    fn put_together(
        &mut self,
        queue: &Queue,
        words: &[Vec<&[u8]>],
        replies: Vec<Reply>,
        held: Held,
    ) -> Reply {
        let mut replies = replies.into_iter();
        let mut all = Vec::with_capacity(queue.commands.len());
        for (command, words) in queue.commands.iter().zip(words) {
            let reply = match command.spec.run {
                Run::Data(_) | Run::Keyspace(_) => replies.next(),
                Run::Session(command) if waits_for_replicas(command) => {
                    let reply = Session::replicas_now(command, Args::new(words), held);
                    Some(reply.unwrap_or_else(Reply::Error))
                }
                _ => Some(match self.own(command.spec, Args::new(words)) {
                    Ok(reply) => reply.unwrap_or(Reply::Nil),
                    Err(error) => Reply::Error(error),
                }),
            };
            all.push(reply.unwrap_or(Reply::Nil));
        }
        Reply::Array(all)
    }

    /// The queue's requests to the node, each in the namespace that the `SELECT`s before it choose.
    fn requests<'w>(&self, queue: &Queue, words: &'w [Vec<&'w [u8]>]) -> Vec<Request<'w>> {
        let mut namespace = self.namespace;
        let mut requests = Vec::with_capacity(queue.commands.len());
        for (command, words) in queue.commands.iter().zip(words) {
            let args = Args::new(words);
            match command.spec.run {
                Run::Data(_) | Run::Keyspace(_) => {
                    requests.push(Request { namespace, spec: command.spec, args });
                }
                Run::Session(SessionCommand::Select) => {
                    namespace = self.find_namespace(args.at(1)).unwrap_or(namespace);
                }
                _ => {}
            }
        }
        requests
    }
}
