//! Readers of bytes that other nodes send, one function for each format: they answer errors and never panic. `fuzz/` runs them with libFuzzer.

use crate::{route, shard, transport};
use bytes::Bytes;

/// A target: its name, as in `fuzz/`, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("forward_ask", |bytes| {
        _ = route::decode_ask(Bytes::copy_from_slice(bytes));
        _ = route::decode_asks(Bytes::copy_from_slice(bytes));
    }),
    ("forward_answer", |bytes| _ = route::decode_answer(Bytes::copy_from_slice(bytes))),
    ("frame", |bytes| _ = transport::decode_all(bytes)),
    ("handshake", |bytes| _ = transport::decode_handshake(bytes)),
    ("shard_message", |bytes| {
        let frame = Bytes::copy_from_slice(bytes);
        _ = shard::wire::decode(&frame);
        shard::wire::messages(&frame).flatten().for_each(|message| _ = shard::wire::decode(&message));
    }),
    ("shard_data", |bytes| shard::read_data(&Bytes::copy_from_slice(bytes))),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    TARGETS.iter().filter(|(target, _)| *target == name).for_each(|(_, run)| run(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// Changes of each file of the corpus that are tried; `SEEDS=n` tries more.
    const CHANGES: u64 = 500;

    fn corpus(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
    }

    /// Flips, overwrites, cuts, doubles: a few at once.
    fn change(bytes: &mut Vec<u8>, dice: &mut fastrand::Rng) {
        for _ in 0..dice.u8(1..5) {
            let at = dice.usize(..=bytes.len());
            match dice.u8(..5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.usize(..5)],
                _ if at < bytes.len() => bytes[at] ^= 1 << dice.u8(..8),
                _ => bytes.push(dice.u8(..)),
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        let changes = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(CHANGES);
        for (name, run) in TARGETS {
            for file in std::fs::read_dir(corpus(name)).expect("every target has a corpus") {
                let bytes = std::fs::read(file.expect("a name").path()).expect("a file");
                run(&bytes);
                for number in 0..changes {
                    let mut changed = bytes.clone();
                    change(&mut changed, &mut fastrand::Rng::with_seed(number));
                    run(&changed);
                }
            }
        }
    }

    #[test]
    fn the_corpus_is_what_the_readers_read() {
        let whole = |name| std::fs::read(corpus(name).join("whole")).expect("a file");
        assert_eq!(transport::decode_all(&whole("frame")), Ok(7));
        assert_eq!(transport::decode_handshake(&whole("handshake")), Ok(()));
        for (target, name, bytes) in files() {
            let file = std::fs::read(corpus(target).join(&name)).expect("a file");
            assert!(is_read(target, &name, file.clone().into()), "{target}/{name}");
            assert_eq!(file, bytes, "{target}/{name} is what is written today");
        }
    }

    /// Those of which there is one of each kind.
    fn files() -> Vec<(&'static str, String, Vec<u8>)> {
        [route::corpus(), shard::corpus()].concat()
    }

    fn is_read(target: &str, name: &str, bytes: Bytes) -> bool {
        match target {
            "forward_ask" => route::decode_ask(bytes).is_ok(),
            "forward_answer" => route::decode_answer(bytes).is_ok(),
            "shard_message" => shard::wire::decode(&bytes).is_ok(),
            _ => shard::is_read(name, &bytes),
        }
    }

    /// Writes the corpus anew: `cargo test -p kvorum-cluster write_corpus -- --ignored`.
    #[test]
    #[ignore = "it writes into the repository"]
    fn write_corpus() {
        let whole = transport::corpus().map(|(target, bytes)| (target, "whole".to_owned(), bytes));
        for (target, name, bytes) in whole.into_iter().chain(files()) {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}
