//! The reader of the Redis protocol with bytes that may be anything: it answers commands or an error, never panics, and what it reads does not
//! depend on where the network cut the bytes. `fuzz/` runs it with libFuzzer, a test of this module over the corpus and changes of it.

use crate::resp::{Batch, Limits, Parser, ProtocolError};

/// The words of one command.
pub(crate) type Words = Vec<Vec<u8>>;

/// What a client may send that has said who it is.
pub(crate) const OPEN: Limits = Limits { bulk_bytes_max: 512 << 20, authenticated: true };
/// The same before that.
const SHUT: Limits = Limits { bulk_bytes_max: 1 << 20, authenticated: false };

/// A target: its name, as in `fuzz/`, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 1] = [("resp", resp)];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    TARGETS.iter().filter(|(target, _)| *target == name).for_each(|(_, run)| run(bytes));
}

/// The input in one piece and in pieces, whose length the last byte says.
fn resp(bytes: &[u8]) {
    let piece = bytes.last().map_or(1, |&last| usize::from(last % 61) + 1);
    for limits in [OPEN, SHUT] {
        let (whole, pieces) = (feed([bytes], limits), feed(bytes.chunks(piece), limits));
        assert_eq!(whole, pieces, "pieces of {piece} bytes of {}", bytes.escape_ascii());
    }
}

/// Feeds pieces as a connection would: unconsumed bytes stay at the front of the buffer. Answers the commands before the first error.
pub(crate) fn feed<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limits: Limits,
) -> (Vec<Words>, Option<ProtocolError>) {
    let (mut parser, mut batch, mut buffer) = (Parser::default(), Batch::default(), Vec::new());
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            batch.clear();
            let parsed = parser.parse(&mut buffer, limits, &mut batch);
            let mut start = 0;
            for &end in batch.ends() {
                let words = batch.spans().get(start..end).unwrap_or_default();
                let text = |word: &crate::resp::Span| buffer.get(word.start..word.end).map(<[u8]>::to_vec);
                commands.push(words.iter().map(|word| text(word).unwrap_or_default()).collect());
                start = end;
            }
            buffer.drain(..parsed.consumed);
            if parsed.error.is_some() {
                return (commands, parsed.error);
            }
            if !parsed.more {
                break;
            }
        }
    }
    (commands, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// Changes of each file of the corpus that are tried; `SEEDS=n` tries more.
    const CHANGES: u64 = 1000;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/resp")
    }

    /// Flips, overwrites, cuts, doubles: a few at once.
    fn change(bytes: &mut Vec<u8>, dice: &mut fastrand::Rng) {
        for _ in 0..dice.u8(1..5) {
            let at = dice.usize(..=bytes.len());
            match dice.u8(..5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                2 if at < bytes.len() => bytes[at] = *b"*$-09\r\n\"".get(dice.usize(..8)).expect("a byte"),
                _ if at < bytes.len() => bytes[at] ^= 1 << dice.u8(..8),
                _ => bytes.push(dice.u8(..)),
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_and_pieces_never_matter() {
        let changes = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(CHANGES);
        for file in std::fs::read_dir(corpus()).expect("a corpus") {
            let bytes = std::fs::read(file.expect("a name").path()).expect("a file");
            run("resp", &bytes);
            for number in 0..changes {
                let mut changed = bytes.clone();
                change(&mut changed, &mut fastrand::Rng::with_seed(number));
                run("resp", &changed);
            }
        }
    }

    #[test]
    fn the_corpus_is_what_the_reader_reads() {
        let read = |name| feed([&std::fs::read(corpus().join(name)).expect("a file")[..]], OPEN);
        let (pipeline, error) = read("pipeline");
        assert_eq!((pipeline.len(), error), (6, None));
        assert_eq!(pipeline[1], [&b"SET"[..], b"key", b"a value\r\nof two lines"]);
        let (inline, error) = read("inline");
        assert_eq!((inline.len(), error), (3, None));
        assert_eq!(inline[1], [&b"SET"[..], b"a key", b"tab\tquote\"\x01"]);
        let (torn, error) = read("torn");
        assert_eq!((torn.len(), error), (1, None));
        let (before, error) = read("wrong");
        assert_eq!(
            (before.len(), error.map(|error| error.to_string())),
            (1, Some("ERR Protocol error: expected '$', got '+'".into()))
        );
    }
}
