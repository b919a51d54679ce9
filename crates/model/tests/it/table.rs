//! The table is coherent: what COMMAND tells, what routing does and what runs follow from the same rows.

use crate::store::show;
use kvorum_model::{Args, Available, Categories, CommandSpec, Flags, Reply, Run, lookup, resolve, table};
use std::collections::BTreeSet;

fn all() -> impl Iterator<Item = &'static CommandSpec> {
    table().iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
}

fn answer(words: &[&[u8]]) -> Reply {
    match resolve(Args::new(words)).map(|spec| spec.run) {
        Ok(Run::Answer(run)) => run(Args::new(words)).unwrap_or_else(Reply::Error),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Reply::Error(error),
    }
}

#[test]
fn every_command_is_found_by_its_name_in_any_case() {
    for spec in table() {
        let found = |name: &str| lookup(name.as_bytes()).map(|found| found.name);
        assert_eq!(found(spec.name), Some(spec.name));
        assert_eq!(found(&spec.name.to_uppercase()), Some(spec.name));
        assert_eq!(found(&format!("{}x", spec.name)).filter(|name| *name == spec.name), None);
    }
    assert!(lookup(b"").is_none());
    assert!(lookup(&[b'x'; 1000]).is_none());
    let names: BTreeSet<_> = all().map(|spec| spec.name).collect();
    assert_eq!(names.len(), all().count(), "a name stands twice");
}

#[test]
fn every_command_is_documented() {
    for spec in all() {
        assert!(spec.summary.ends_with('.') && !spec.complexity.is_empty(), "{}", spec.name);
        assert_eq!(spec.name, spec.name.to_ascii_lowercase());
        let least = spec.arity.unsigned_abs() as usize;
        let own_words = 1 + usize::from(spec.name.contains('|'));
        let container = !spec.subcommands.is_empty();
        assert!(container || least == own_words || !spec.arguments.is_empty(), "{} takes what?", spec.name);
    }
}

#[test]
fn the_words_that_a_command_needs_follow_from_its_arguments() {
    for spec in all().filter(|spec| spec.subcommands.is_empty()) {
        let own_words = 1 + usize::from(spec.name.contains('|'));
        let least: usize = spec.arguments.iter().map(needed).sum();
        assert_eq!(spec.arity.unsigned_abs() as usize, own_words + least, "arity of {}", spec.name);
        let open = spec.arguments.iter().any(|argument| argument.optional || argument.multiple);
        // QUIT takes anything, for old clients.
        assert_eq!(spec.arity < 0, open || spec.name == "quit", "sign of the arity of {}", spec.name);
    }
}

fn needed(argument: &kvorum_model::Argument) -> usize {
    use kvorum_model::ArgumentKind;
    let token = usize::from(argument.token.is_some());
    match argument.kind {
        _ if argument.optional => 0,
        ArgumentKind::PureToken => 1,
        ArgumentKind::OneOf => token + argument.arguments.iter().map(needed).min().unwrap_or(0),
        ArgumentKind::Block => token + argument.arguments.iter().map(needed).sum::<usize>(),
        _ => token + 1,
    }
}

#[test]
fn flags_fit_what_runs() {
    for spec in all() {
        let (write, read) = (spec.flags.has(Flags::WRITE), spec.flags.has(Flags::READONLY));
        assert!(!(write && read), "{} both reads only and writes", spec.name);
        if matches!(spec.run, Run::Data(_) | Run::Keyspace(_)) {
            assert!(write || read, "{} neither reads nor writes", spec.name);
        }
        if matches!(spec.run, Run::Data(_)) {
            assert!(spec.first_key == 1 && spec.key_step > 0 && !spec.key_flags.is_empty(), "{}", spec.name);
        }
        let all = spec.all_categories();
        assert_ne!(all.has(Categories::FAST), all.has(Categories::SLOW), "{}", spec.name);
        assert!(!read || matches!(spec.available, Available::Yes), "{} only reads", spec.name);
    }
}

#[test]
fn keys_are_found_in_every_form() {
    let keys = |words: &[&[u8]]| {
        let args = Args::new(words);
        let spec = resolve(args).unwrap();
        spec.keys_of(args).map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&[b"get", b"a"]), "a");
    assert_eq!(keys(&[b"SET", b"a", b"b", b"EX", b"10"]), "a");
    assert_eq!(keys(&[b"mget", b"a", b"b", b"c"]), "a b c");
    assert_eq!(keys(&[b"mset", b"a", b"1", b"b", b"2"]), "a b");
    assert_eq!(keys(&[b"watch", b"a", b"b"]), "a b");
    assert_eq!(keys(&[b"delex", b"a", b"IFVERSION", b"1"]), "a");
    assert_eq!(keys(&[b"ping"]), "");
    assert_eq!(keys(&[b"scan", b"0"]), "");
    assert_eq!(keys(&[b"client", b"setname", b"x"]), "");
}

#[test]
fn an_available_namespace_takes_only_what_it_can_keep() {
    let fits = |line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let args = Args::new(&words);
        resolve(args).unwrap().check_available(args).map_err(|error| error.text().to_owned())
    };
    for line in [
        "GET k",
        "GETV k",
        "SET k v",
        "SET k v EX 10",
        "SETV k v IFVERSION 5 PXAT 99",
        "SETEX k 10 v",
        "DEL k",
        "DELEX k IFVERSION 5",
        "MGET a b",
        "TTL k",
        "SCAN 0",
        "FLUSHALL",
        "PING",
    ] {
        assert_eq!(fits(line), Ok(()), "{line}");
    }
    for line in [
        "SET k v NX",
        "SET k v xx",
        "SET k v EX 10 GET",
        "SET k v KEEPTTL",
        "SETNX k v",
        "GETSET k v",
        "GETDEL k",
        "GETEX k",
        "INCR k",
        "INCRBY k 5",
        "APPEND k v",
        "SETRANGE k 0 v",
        "EXPIRE k 10",
        "PERSIST k",
        "MSET a 1",
        "MSETNX a 1",
        "MULTI",
        "EXEC",
        "WATCH k",
        "FLUSHDB",
    ] {
        assert_eq!(fits(line), Err("ERR needs a strong namespace".to_owned()), "{line}");
    }
}

#[test]
fn command_info_has_the_shape_that_clients_read() {
    assert_eq!(
        show(&answer(&[b"command", b"info", b"GET", b"nosuch", b"config|get"])),
        "[[\"get\", 2, ~[readonly, fast], 1, 1, 1, ~[@read, @string, @fast], [], \
         [{\"flags\": ~[RO, access], \"begin_search\": {\"type\": \"index\", \"spec\": {\"index\": 1}}, \
         \"find_keys\": {\"type\": \"range\", \"spec\": {\"lastkey\": 0, \"keystep\": 1, \"limit\": 0}}}], []], \
         nil, \
         [\"config|get\", -3, ~[admin, noscript, loading, stale], 0, 0, 0, ~[@admin, @slow, @dangerous], [], [], []]]"
    );
    let Reply::Array(everything) = answer(&[b"command"]) else { panic!("not an array") };
    assert_eq!(answer(&[b"command", b"count"]), Reply::count(everything.len()));
    assert_eq!(everything.len(), table().len());
}

#[test]
fn command_docs_has_the_shape_that_clients_read() {
    assert_eq!(
        show(&answer(&[b"command", b"docs", b"ttl", b"nosuch"])),
        "{\"ttl\": {\"summary\": \"Returns how many seconds a key has to live.\", \"since\": \"1.0.0\", \
         \"group\": \"generic\", \"complexity\": \"O(1)\", \"arguments\": [{\"name\": \"key\", \"type\": \"key\", \
         \"display_text\": \"key\", \"key_spec_index\": 0}]}}"
    );
    let set = show(&answer(&[b"command", b"docs", b"set"]));
    assert!(set.contains("\"name\": \"keepttl\", \"type\": \"pure-token\""), "{set}");
    assert!(set.contains("\"token\": \"IFVERSION\", \"flags\": ~[optional]"), "{set}");
    let Reply::Map(all) = answer(&[b"command", b"docs"]) else { panic!("not a map") };
    assert_eq!(all.len(), table().len());
}

#[test]
fn commands_are_listed_by_category_and_pattern() {
    let prefix: [&[u8]; 2] = [b"command", b"list"];
    let list = |words: &[&[u8]]| show(&answer(&[&prefix[..], words].concat()));
    assert_eq!(
        list(&[b"filterby", b"aclcat", b"transaction"]),
        "[\"multi\", \"exec\", \"discard\", \"watch\", \"unwatch\"]"
    );
    assert_eq!(list(&[b"filterby", b"aclcat", b"nosuch"]), "[]");
    assert_eq!(
        list(&[b"filterby", b"pattern", b"CONFIG|*"]),
        "[\"config|get\", \"config|set\", \"config|help\"]"
    );
    assert_eq!(list(&[b"filterby", b"module", b"json"]), "[]");
    assert_eq!(list(&[b"filterby", b"nosuch", b"x"]), "! ERR syntax error");
    assert_eq!(list(&[b"pattern", b"x"]), "! ERR syntax error");
}

#[test]
fn unknown_subcommands_are_named() {
    let error = |words: &[&[u8]]| show(&answer(words));
    assert_eq!(error(&[b"client", b"Foo"]), "! ERR unknown subcommand 'Foo'. Try CLIENT HELP.");
    assert_eq!(error(&[b"CONFIG"]), "! ERR wrong number of arguments for 'config' command");
    assert_eq!(
        error(&[b"CLIENT", b"SETNAME"]),
        "! ERR wrong number of arguments for 'client|setname' command"
    );
    let long = [b'a'; 200];
    let text = error(&[&long[..], b"b"]);
    assert!(text.contains(&format!("'{}', with args beginning with: 'b' ", "a".repeat(128))), "{text}");
    let text = error(&[b"foo", &long[..], b"b"]);
    assert!(text.ends_with(&format!("with args beginning with: '{}' ", "a".repeat(128))), "{text}");
    assert_eq!(
        error(&[b"a\r\nb", b"c\nd"]),
        "! ERR unknown command 'a  b', with args beginning with: 'c d' "
    );
}
