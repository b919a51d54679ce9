//! The table and evaluation as a whole.

use crate::{Args, Effect, Effects, Meta, Record, Reply, Run, Stop, View, evaluate, lookup, resolve, table};

struct Empty;

impl View for Empty {
    fn get(&self, _key: &[u8]) -> Result<Option<Record>, Stop> {
        Ok(None)
    }
    fn meta(&self, _key: &[u8]) -> Result<Option<Meta>, Stop> {
        Ok(None)
    }
    fn next_version(&self, _key: &[u8]) -> u64 {
        7
    }
}

#[test]
fn every_command_is_found_in_any_case() {
    for spec in table() {
        assert_eq!(lookup(spec.name.as_bytes()).map(|found| found.name), Some(spec.name));
        assert_eq!(lookup(spec.name.to_uppercase().as_bytes()).map(|found| found.name), Some(spec.name));
    }
    assert!(lookup(b"").is_none());
    assert!(lookup(b"nosuch").is_none());
    assert!(lookup(&[b'x'; 1000]).is_none());
}

#[test]
fn unknown_and_short_commands_answer_as_redis_does() {
    let error = |words: &[&[u8]]| resolve(Args::new(words)).expect_err("an error").text().to_owned();
    assert_eq!(error(&[b"FOO", b"a", b"b"]), "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
    assert_eq!(error(&[b"GET"]), "ERR wrong number of arguments for 'get' command");
}

#[test]
fn a_set_has_one_effect() {
    let words: &[&[u8]] = &[b"SET", b"k", b"v"];
    let Run::Data(run) = resolve(Args::new(words)).expect("a command").run else {
        panic!("not a data command")
    };
    let mut effects = Effects::new();
    let reply = evaluate(run, Args::new(words), &Empty, 0, &mut effects);
    assert_eq!(reply, Ok(Reply::Ok));
    assert!(matches!(effects.as_slice(), [Effect::Put { key: b"k", expires_at: None, tag: 0, .. }]));
}
