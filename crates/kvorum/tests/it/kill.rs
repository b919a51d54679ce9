//! `kill -9` under pipelined load, again and again: every acknowledged write is there after the restart.

use crate::process::{Client, Node, Reply, encode};
use std::path::Path;
use std::sync::mpsc;

const LIVES: u64 = 6;
const WRITERS: u64 = 4;
const PIPELINE: u64 = 16;
/// Acknowledgements (of all writers) after which a life ends.
const ACKNOWLEDGED_PER_LIFE: u64 = 2_000;

/// What one writer knows: the last round that was acknowledged, and the last that was sent.
#[derive(Clone, Copy, Default)]
struct Progress {
    acknowledged: u64,
    sent: u64,
}

#[test]
fn nothing_acknowledged_is_lost_when_synced() {
    kill_in_a_loop("synced");
}

#[test]
fn nothing_acknowledged_is_lost_when_written() {
    kill_in_a_loop("written");
}

fn kill_in_a_loop(durability: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut progress = [Progress::default(); WRITERS as usize];
    for life in 0..LIVES {
        let node = Node::start(folder.path(), &["--durability", durability]);
        check(&node, &mut progress, life);
        let (acknowledge, acknowledged) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, acknowledge) = (node.connect(), acknowledge.clone());
                let from = progress[writer as usize];
                std::thread::spawn(move || write_until_cut(client, writer, from, &acknowledge))
            })
            .collect();
        drop(acknowledge);
        for _ in 0..ACKNOWLEDGED_PER_LIFE {
            acknowledged.recv().expect("writers go on until the node dies");
        }
        node.kill();
        for (writer, thread) in writers.into_iter().enumerate() {
            progress[writer] = thread.join().expect("a writer");
        }
    }
    let node = Node::start(folder.path(), &["--durability", durability]);
    check(&node, &mut progress, LIVES);
    assert_clean(folder.path());
}

/// Writes rounds of a pipeline — a counter and a key of its own for each round — until the connection ends.
fn write_until_cut(
    mut client: Client,
    writer: u64,
    from: Progress,
    acknowledge: &mpsc::Sender<()>,
) -> Progress {
    let mut progress = from;
    loop {
        let rounds = progress.sent + 1..=progress.sent + PIPELINE;
        let mut bytes = Vec::new();
        for round in rounds.clone() {
            let value = format!("{round}:{}", "x".repeat((round % 300) as usize));
            bytes.extend(encode(&["SET", &format!("row:{writer}:{round}"), &value]));
            bytes.extend(encode(&["SET", &format!("last:{writer}"), &round.to_string()]));
        }
        progress.sent += PIPELINE;
        if client.send(&bytes).is_err() {
            return progress;
        }
        for round in rounds {
            match (client.read(), client.read()) {
                (Ok(first), Ok(second)) => {
                    assert_eq!((first, second), (Reply::ok(), Reply::ok()));
                    progress.acknowledged = round;
                    // The receiver stops listening when it has heard enough; the rest still counts.
                    let _ = acknowledge.send(());
                }
                _ => return progress,
            }
        }
    }
}

fn check(node: &Node, progress: &mut [Progress], life: u64) {
    let mut client = node.connect();
    for (writer, progress) in progress.iter_mut().enumerate() {
        let last = match client.call(&["GET", &format!("last:{writer}")]) {
            Reply::Nil => 0,
            Reply::Bulk(text) => String::from_utf8_lossy(&text).parse().expect("a round"),
            odd => panic!("life {life}: {odd:?}"),
        };
        assert!(
            last >= progress.acknowledged && last <= progress.sent,
            "life {life}: writer {writer} finds {last}, acknowledged {}, sent {}",
            progress.acknowledged,
            progress.sent
        );
        for round in 1..=progress.acknowledged {
            let expected = format!("{round}:{}", "x".repeat((round % 300) as usize));
            let found = client.call(&["GET", &format!("row:{writer}:{round}")]);
            assert_eq!(
                found,
                Reply::Bulk(expected.into_bytes()),
                "life {life}: row {round} of writer {writer}"
            );
        }
        // What was sent beyond may be lost; the next rounds begin after what is there.
        *progress = Progress { acknowledged: last, sent: last };
    }
}

fn assert_clean(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with(".tmp"), "a file leaked: {name}");
    }
}
