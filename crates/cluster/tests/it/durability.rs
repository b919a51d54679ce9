//! What replies wait for, and what clients hear when the disk fails.

use crate::support::{Client, TestClock, parse, request, show, try_open};
use kvorum_cluster::{Commit, Durability, Error, Node, NodeSettings};
use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
use kvorum_model::Reply;
use std::sync::Arc;

fn node_on(fs: &SimFs) -> Node {
    let mut settings = NodeSettings::new("/data");
    settings.memory_bytes = 8 << 20;
    try_open(&settings, &TestClock::new(), Arc::new(fs.clone())).unwrap()
}

/// Executes without waiting.
fn execute(client: &mut Client, text: &str) -> (Vec<String>, Option<Commit>) {
    let commands = parse(text);
    let words: Vec<Vec<&[u8]>> =
        commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
    let requests: Vec<_> = words.iter().map(|words| request(client.namespace, words)).collect();
    let mut replies: Vec<Reply> = Vec::new();
    let progress = client.node.execute(&mut client.session, &requests, &mut replies);
    assert!(progress.blocked.is_none());
    (replies.iter().map(show).collect(), progress.commit)
}

#[test]
fn no_answer_rests_on_a_write_that_can_be_lost() {
    let node = node_on(&SimFs::new(1));
    let (mut writer, mut reader) = (Client::new(&node), Client::new(&node));
    writer.run("MSET a 1 b 1 other 1");
    for (write, read, reply) in [
        ("SET a 2", "GET a", "2"),
        ("DEL b", "GET b", "nil"),
        ("INCR a", "EXISTS a", "1"),
        ("APPEND a 0", "STRLEN a", "2"),
        ("SET c 1", "SET c 2 NX", "nil"),
        ("FLUSHDB", "GET other", "nil"),
    ] {
        let (_, written) = execute(&mut writer, write);
        let (replies, commit) = execute(&mut reader, read);
        assert_eq!(replies, [reply]);
        assert!(commit.is_some(), "`{read}` does not wait for `{write}`");
        written.unwrap().wait().unwrap();
        commit.unwrap().wait().unwrap();
        assert!(execute(&mut reader, read).1.is_none(), "`{read}` waits for nothing");
    }
    // What is not read is not waited for.
    let (_, written) = execute(&mut writer, "SET a 3; SET x 1");
    assert!(execute(&mut reader, "GET unrelated{x}y").1.is_none() || node.durability() == Durability::Synced);
    written.unwrap().wait().unwrap();
}

#[test]
fn the_weakest_class_waits_for_nothing() {
    let node = node_on(&SimFs::new(1));
    Client::new(&node).run("SET warm up");
    node.set_durability(Durability::Buffered);
    let mut client = Client::new(&node);
    assert!(execute(&mut client, "SET a 1; GET a").1.is_none());
    node.set_durability(Durability::Synced);
    assert!(execute(&mut client, "GET a").1.is_some(), "an answer rests on it now");
}

#[test]
fn a_failed_sync_is_an_unknown_outcome_and_then_a_refusal() {
    let fs = SimFs::new(1);
    let node = node_on(&fs);
    let mut client = Client::new(&node);
    client.run("SET a 1");
    fs.inject(Fault::once(Operation::Sync, "wal"));
    let error = client.try_pipeline(&parse("SET a 2")).unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error:?}");
    assert!(error.resp().starts_with("UNKNOWN the outcome of the write is unknown: "), "{}", error.resp());
    let refused = client.text("SET a 3");
    assert!(refused.starts_with("-MISCONF the store takes no writes until"), "{refused}");
    // Reads go on, from what was acknowledged.
    assert_eq!(client.text("GET a; MGET a b"), "1 [1 nil]");
    let error = client.try_exec(&parse("SET a 4; GET a")).unwrap_err();
    assert!(matches!(error, Error::ReadOnly(_)), "{error:?}");
    assert!(node.stats().poisoned.is_some());
    // Only the next start can tell what became of it.
    drop((client, node));
    let value = Client::new(&node_on(&fs.after_kill())).text("GET a");
    assert!(["1", "2"].contains(&value.as_str()), "{value}");
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let fs = SimFs::new(1);
    let node = node_on(&fs);
    let mut client = Client::new(&node);
    client.run("SET a 1");
    let used: u64 = fs.files().iter().map(|(_, length)| length).sum();
    fs.set_capacity(used + (1 << 20));
    let large = vec![b'x'; 500_000];
    let mut refused = None;
    for _ in 0..20 {
        let words = vec![b"SET".to_vec(), b"large".to_vec(), large.clone()];
        match &client.pipeline(&[words])[0] {
            Reply::Ok => {}
            other => {
                refused = Some(show(other));
                break;
            }
        }
    }
    let refused = refused.expect("never full");
    assert!(refused.starts_with("-ERR disk full: "), "{refused}");
    assert_eq!(client.text("GET a"), "1");
    fs.set_capacity(1 << 40);
    client.node.upkeep().unwrap();
    // The store asks the device again after a moment.
    for _ in 0..3 {
        if client.text("SET a 2") == "OK" {
            break;
        }
    }
}

#[test]
fn many_tasks_share_a_group() {
    let fs = SimFs::new(1);
    let node = node_on(&fs);
    Client::new(&node).run("SET warm up");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let before = fs.operations();
    runtime.block_on(local.run_until(async {
        let tasks: Vec<_> = (0..50)
            .map(|i| {
                let node = node.clone();
                tokio::task::spawn_local(async move {
                    let (replies, commit) =
                        execute(&mut Client::new(&node), &format!("SET k{i} {i}; INCR n"));
                    commit.unwrap().durable().await.unwrap();
                    replies
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap()[0], "OK");
        }
    }));
    let operations = fs.operations() - before;
    assert!(operations <= 10, "{operations} operations for 50 tasks: they did not share a write and a sync");
    assert_eq!(Client::new(&node).text("GET n; DBSIZE"), "50 52");
}
