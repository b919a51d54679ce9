//! `tests/cases/*.txt`: commands, the replies and effects that they must have. `UPDATE_CASES=1` writes what happens now into the files: read the
//! difference before you commit it.
//!
//! ```text
//! = title        an empty store; the time is 1,000,000 ms, the next version 1
//! @ 1000500      the time from here on, Unix ms
//! plant k 7      k holds a value of the type with this tag
//! > SET k "a b"  a command; words in quotes may hold \n, \r, \t, \\, \" and \xHH
//! begin … end    the commands between are one transaction
//! ```
//! Below a command: its reply, then, indented, its effects. `# …` is a comment.

use crate::store::{Store, show};
use bytes::Bytes;
use kvorum_model::{Record, parse_u64};
use std::fmt::Write;
use std::path::Path;

#[test]
fn all_cases_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "the case files are missing");
    for file in files {
        let expected = std::fs::read_to_string(&file).unwrap();
        let actual = replay(&expected);
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&file, &actual).unwrap();
        } else if let Some((at, (want, got))) =
            expected.lines().zip(actual.lines()).enumerate().find(|(_, (want, got))| want != got)
        {
            panic!("{}:{}: expected {want:?}, found {got:?}", file.display(), at + 1);
        } else {
            assert_eq!(expected, actual, "{}: a different number of lines", file.display());
        }
    }
}

fn fresh() -> Store {
    let mut store = Store::default();
    store.now_ms = 1_000_000;
    store
}

/// The file with all replies and effects as they are.
fn replay(text: &str) -> String {
    let mut out = String::new();
    let mut store = fresh();
    let mut queue: Option<Vec<Vec<Vec<u8>>>> = None;
    for line in text.lines() {
        let kept = line.is_empty() || line.starts_with(['#', '=', '@', '>']) || line.starts_with("plant ");
        if !kept && line != "begin" && line != "end" {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        if line.starts_with('=') {
            store = fresh();
        } else if let Some(time) = line.strip_prefix("@ ") {
            store.now_ms = parse_u64(time.as_bytes()).expect("a time behind @");
        } else if let Some(what) = line.strip_prefix("plant ") {
            plant(&mut store, what);
        } else if line == "begin" {
            queue = Some(Vec::new());
        } else if line == "end" {
            let commands = queue.take().expect("an end without a begin");
            let borrowed: Vec<Vec<&[u8]>> =
                commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
            let (replies, effects) = store.transaction(&borrowed);
            for reply in replies {
                writeln!(out, "{}", show(&reply)).unwrap();
            }
            write_effects(&mut out, &effects);
        } else if let Some(command) = line.strip_prefix("> ") {
            let words = split(command);
            if let Some(queue) = &mut queue {
                queue.push(words);
                continue;
            }
            let borrowed: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let outcome = store.run(&borrowed);
            writeln!(out, "{}", show(&outcome.reply)).unwrap();
            write_effects(&mut out, &outcome.effects);
        }
    }
    out
}

fn write_effects(out: &mut String, effects: &[String]) {
    for effect in effects {
        writeln!(out, "  {effect}").unwrap();
    }
}

fn plant(store: &mut Store, what: &str) {
    let (key, tag) = what.split_once(' ').expect("plant KEY TAG");
    let tag = tag.parse().expect("a tag");
    store.plant(
        key.as_bytes(),
        Record { version: 77, value: Bytes::from_static(b"?"), expires_at: None, tag },
    );
}

/// Words apart by spaces; quotes as in the module's comment.
fn split(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.bytes().peekable();
    while let Some(first) = rest.next() {
        match first {
            b' ' => {}
            b'"' => {
                let mut word = Vec::new();
                while let Some(byte) = rest.next().filter(|byte| *byte != b'"') {
                    word.push(if byte == b'\\' { escaped(&mut rest) } else { byte });
                }
                words.push(word);
            }
            other => {
                let mut word = vec![other];
                while let Some(byte) = rest.next_if(|byte| *byte != b' ') {
                    word.push(byte);
                }
                words.push(word);
            }
        }
    }
    words
}

fn escaped(rest: &mut impl Iterator<Item = u8>) -> u8 {
    match rest.next().expect("something behind \\") {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let mut digit = || char::from(rest.next().expect("a digit")).to_digit(16).expect("hex");
            u8::try_from(digit() * 16 + digit()).expect("a byte")
        }
        other => other,
    }
}
