//! Executing the commands of a connection's input buffer: in order, on the calling thread, without waiting for a disk.

mod all_keys;
mod blocked;
mod evaluation;
pub(crate) mod group;
mod grouped;
mod named;
mod overlay;
mod plan;
mod view;
mod writing;

pub(crate) use blocked::{Needs, Room};
pub(crate) use evaluation::{Evaluation, Step, check_size};
pub(crate) use grouped::{NotAlone, Proposed, add as add_effect};
pub(crate) use plan::{Isolation, Plan};
pub(crate) use writing::FROM_ONE;

use crate::alone::Hold;
use crate::commit::Commit;
use crate::node::Node;
use crate::prefetch::{Fetched, Prefetch};
use crate::session::{Progress, Request, Session};
use kvorum_engine::{Durability, Sequence};
use kvorum_model::Reply;

/// Requests that are evaluated under the same latches: more are executed in several rounds, so that others get their turn.
const ROUND_REQUESTS_MAX: usize = 512;

/// Executes what the node keeps alone, and no more.
pub(crate) fn execute(
    node: &Node,
    session: &mut Session,
    requests: &[Request<'_>],
    replies: &mut Vec<Reply>,
    hold: &Hold<'_>,
) -> Progress {
    let mut progress = Progress::default();
    let mut rests_on = (0, Durability::Buffered);
    while progress.executed < requests.len() && progress.blocked.is_none() && !progress.elsewhere {
        let rest = requests.get(progress.executed..).unwrap_or_default();
        // A request with an id is a round for itself.
        let requests_max = match session.request_id.as_ref().and_then(|_| named::place(rest)) {
            Some(before) => before.max(1),
            None => ROUND_REQUESTS_MAX,
        };
        let round = rest.get(..requests_max).unwrap_or(rest);
        let (sequence, durability) = execute_round(node, session, round, replies, hold, &mut progress);
        rests_on = (rests_on.0.max(sequence), rests_on.1.max(durability));
    }
    let (sequence, durability) = rests_on;
    session.written.sequence = session.written.sequence.max(sequence);
    progress.commit = commit(node, sequence, durability);
    progress
}

/// Answers the sequence that the replies rest on, with the durability that they are to have.
fn execute_round(
    node: &Node,
    session: &mut Session,
    requests: &[Request<'_>],
    replies: &mut Vec<Reply>,
    hold: &Hold<'_>,
    progress: &mut Progress,
) -> (Sequence, Durability) {
    let mut fetched = std::mem::take(&mut session.fetched);
    if let Some(error) = fetched.error.take() {
        replies.push(error.reply());
        progress.executed += 1;
        return (0, Durability::Buffered);
    }
    let mut plan = Plan::of(node, session.consistency.durability, requests, Isolation::Each, Some(hold));
    let work = plan.work.take();
    let mut evaluation = Evaluation::new(node, &plan, Isolation::Each, fetched);
    let named = session.request_id.take_if(|_| named::place(requests) == Some(0));
    if let Some(id) = &named {
        evaluation.name(id);
    }
    let ready = requests.get(..plan.ready).unwrap_or_default();
    let first = replies.len();
    let (mut executed, mut needs) = (ready.len(), None);
    for (at, request) in ready.iter().enumerate() {
        if let Step::Blocked(what) = evaluation.step(request, at, at + 1 == ready.len(), replies) {
            (executed, needs) = (at, Some(what));
            break;
        }
    }
    if let Err(room) = evaluation.write(executed, replies) {
        needs = Some(Needs::Room(room));
    }
    if let Some(Needs::Room(room)) = &needs {
        executed = room.from;
        replies.truncate(first + executed);
    }
    if let Some(needs) = needs {
        let rest = requests.get(executed..plan.ready).unwrap_or_default();
        progress.blocked = Some(evaluation.prefetch(needs, rest, executed == 0));
    } else {
        progress.blocked = work.map(|work| Prefetch::new(node, work, Fetched::default()));
        progress.elsewhere = plan.elsewhere;
    }
    if executed == 0 {
        session.request_id = session.request_id.take().or(named);
    }
    progress.executed += executed;
    evaluation.rests_on()
}

/// The wait until `sequence` is durable in that class; `None` if it is already.
pub(crate) fn commit(node: &Node, sequence: Sequence, durability: Durability) -> Option<Commit> {
    (sequence > node.inner.store.acknowledged(durability)).then(|| Commit {
        node: node.clone(),
        sequence,
        durability,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::shard_of;
    use crate::namespace::NamespaceId;
    use crate::node::NodeParts;
    use crate::op_id::{epoch_of, serial_of};
    use crate::settings::NodeSettings;
    use crate::testing::TestClock;
    use kvorum_engine::Parts;
    use kvorum_engine::fs::sim::SimFs;
    use kvorum_model::{Args, resolve};
    use std::sync::Arc;

    fn version_after_set(node: &Node, session: &mut Session) -> u64 {
        let args = Args::new(&[b"SETV", b"key", b"value"]);
        let request = Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args };
        let mut replies = Vec::new();
        while replies.is_empty() {
            if let Some(prefetch) = node.execute(session, &[request], &mut replies).blocked {
                session.resume(prefetch.run());
            }
        }
        let [Reply::Bulk(version)] = &replies[..] else { panic!("{replies:?}") };
        std::str::from_utf8(version).unwrap().parse().unwrap()
    }

    #[test]
    fn a_shard_out_of_serials_takes_the_next_epoch() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = || {
            let parts = NodeParts { background_threads: false, ..NodeParts::real().unwrap() };
            Node::open_with(NodeSettings::new(dir.path().join("data")), parts).unwrap()
        };
        let node = open();
        let mut session = Session::new();
        let first = version_after_set(&node, &mut session);
        let shard = shard_of(NamespaceId::ZERO, b"key");
        node.inner.shard(shard).unwrap().latch().wear_out();
        let next = version_after_set(&node, &mut session);
        assert_eq!((epoch_of(next), serial_of(next)), (epoch_of(first) + 1, 1));
        assert_eq!(version_after_set(&node, &mut session), next + 1);
        node.shutdown().unwrap();
        drop(node);
        let again = version_after_set(&open(), &mut session);
        assert_eq!(epoch_of(again), epoch_of(first) + 2, "no epoch comes twice");
    }

    #[test]
    fn a_request_with_an_id_is_executed_once_also_after_a_restart() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = || {
            let parts = NodeParts { background_threads: false, ..NodeParts::real().unwrap() };
            Node::open_with(NodeSettings::new(dir.path().join("data")), parts).unwrap()
        };
        let run = |node: &Node, id: Option<&'static str>, lines: &[&[&[u8]]]| {
            let mut session = Session::new();
            session.request_id = id.map(bytes::Bytes::from);
            let requests: Vec<Request<'_>> = lines
                .iter()
                .map(|words| {
                    let args = Args::new(words);
                    Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args }
                })
                .collect();
            let mut replies = Vec::new();
            while replies.len() < requests.len() {
                let progress = node.execute(&mut session, &requests[replies.len()..], &mut replies);
                if let Some(prefetch) = progress.blocked {
                    session.resume(prefetch.run());
                }
                if let Some(commit) = progress.commit {
                    commit.wait().unwrap();
                }
            }
            assert!(session.request_id.is_none(), "it names one request");
            replies
        };
        let incr: &[&[u8]] = &[b"INCR", b"n"];
        let number = Reply::Integer;
        let node = open();
        assert_eq!(run(&node, Some("a"), &[&[b"GET", b"n"], incr, incr]), [Reply::Nil, number(1), number(2)]);
        assert_eq!(run(&node, Some("a"), &[incr]), [number(1)]);
        assert!(run(&node, Some("a"), &[&[b"INCRBY", b"n", b"1"]])[0].is_error());
        node.shutdown().unwrap();
        drop(node);
        let node = open();
        assert_eq!(run(&node, Some("a"), &[incr, incr]), [number(1), number(3)]);
        assert_eq!(run(&node, Some("b"), &[incr]), [number(4)]);
    }

    #[test]
    fn an_interest_ends_with_whoever_had_it() {
        let open = |fs: &SimFs| {
            let mut settings = NodeSettings::new("/data");
            settings.memory_bytes = 8 << 20;
            let storage = Parts::new(Arc::new(fs.clone()), TestClock::at(1_780_000_000_000));
            Node::open_with(settings, NodeParts { storage, seed: 1, background_threads: false }).unwrap()
        };
        let fs = SimFs::new(1);
        let node = open(&fs);
        version_after_set(&node, &mut Session::new());
        node.flush().unwrap();
        node.shutdown().unwrap();
        // Another start has nothing in its cache.
        let fs = fs.after_kill();
        let node = open(&fs);
        fs.set_cold_reads(1);
        let shard = node.inner.shard(shard_of(NamespaceId::ZERO, b"key")).unwrap();
        let block = |session: &mut Session| {
            let args = Args::new(&[b"APPEND", b"key", b"!"]);
            let request = Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args };
            let blocked = node.execute(session, &[request], &mut Vec::new()).blocked;
            assert!(!shard.latch().fetching.is_empty());
            blocked.expect("the key is cold")
        };
        drop(block(&mut Session::new()));
        assert!(shard.latch().fetching.is_empty(), "dropped before it ran");
        let mut session = Session::new();
        let prefetch = block(&mut session);
        session.resume(prefetch.run());
        version_after_set(&node, &mut session);
        assert!(shard.latch().fetching.is_empty(), "used, or of no use");
    }
}
