//! Random commands, and the same ones sent to a real Redis: `scripts/compare-redis` starts one and runs the ignored test here.

use crate::store::{Store, show};
use kvorum_model::{Args, ErrorReply, Reply, Run, parse_u64, resolve, table};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

pub(crate) const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b""];

/// Commands with time from the clock of the server would need the clocks to agree: these take times far away, and times in the past.
const WORDS: [&str; 41] = [
    "NX",
    "XX",
    "GET",
    "KEEPTTL",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "PERSIST",
    "GT",
    "LT",
    "ex",
    "nonsense",
    "",
    "0",
    "1",
    "-1",
    "5",
    "10",
    "-7",
    "100",
    "007",
    "+3",
    " 4",
    "1.5",
    "ten",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "9223372036854776",
    "99999999999",
    "99999999999999",
    "536870912",
    "hello",
    "hello world",
    "a",
    "b",
    "c",
    "IN",
    "-3",
    "3",
];

const NAMES: [&str; 40] = [
    "GET",
    "SET",
    "SET",
    "SET",
    "SETNX",
    "SETEX",
    "PSETEX",
    "GETSET",
    "GETDEL",
    "GETEX",
    "GETEX",
    "MGET",
    "MSET",
    "MSETNX",
    "APPEND",
    "STRLEN",
    "GETRANGE",
    "SUBSTR",
    "SETRANGE",
    "INCR",
    "DECR",
    "INCRBY",
    "DECRBY",
    "DEL",
    "UNLINK",
    "EXISTS",
    "TOUCH",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "EXPIRETIME",
    "PEXPIRETIME",
    "PERSIST",
    "TYPE",
    "ECHO",
    "PING",
    "NOSUCH",
    "TTL",
    "PTTL",
];

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => (-40..200i64).prop_map(|number| number.to_string().into_bytes()),
    ]
}

/// `SET`, `GETEX` and the `EXPIRE`s with options that exist, and times of which most can be meant.
fn with_options() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let time = || proptest::sample::select(&["100", "200", "300", "4000000000", "4000000000000", "-1"][..]);
    let key = proptest::sample::select(&["a", "b"][..]);
    let plain = proptest::sample::select(&["NX", "XX", "GET", "KEEPTTL", "PERSIST"][..]);
    let timed = (proptest::sample::select(&["EX", "EXAT", "PXAT"][..]), time());
    let option =
        prop_oneof![plain.prop_map(|word| vec![word]), timed.prop_map(|(word, time)| vec![word, time])];
    let options = prop::collection::vec(option, 0..3).prop_map(|options| options.concat());
    let conditions = prop::collection::vec(proptest::sample::select(&["NX", "XX", "GT", "LT"][..]), 0..3);
    let expire = (proptest::sample::select(&["EXPIRE", "EXPIREAT", "PEXPIREAT"][..]), time(), conditions);
    let tail = prop_oneof![
        2 => expire.prop_map(|(name, time, conditions)| (name, [vec![time], conditions].concat())),
        2 => options.clone().prop_map(|options| ("SET", [vec!["5"], options].concat())),
        1 => options.prop_map(|options| ("GETEX", options)),
    ];
    (key, tail).prop_map(|(key, (name, rest))| {
        [vec![name, key], rest].concat().iter().map(|word| word.as_bytes().to_vec()).collect()
    })
}

/// A command of the table (or none), more or less as it should be called.
pub(crate) fn command() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let name = proptest::sample::select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec());
    let key = proptest::sample::select(&KEYS[..]).prop_map(<[u8]>::to_vec);
    let rest = prop_oneof![
        1 => prop::collection::vec(word(), 0..5),
        3 => (key, prop::collection::vec(word(), 0..5)).prop_map(|(key, words)| [vec![key], words].concat()),
    ];
    let any = (name, rest).prop_map(|(name, rest)| [vec![name], rest].concat());
    prop_oneof![3 => any, 1 => with_options()]
}

/// A connection to a Redis.
struct Redis {
    reader: BufReader<TcpStream>,
}

impl Redis {
    fn ask(&mut self, words: &[&[u8]]) -> Reply {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&request).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end_matches("\r\n").split_at(1);
        let rest = rest.to_owned();
        match kind {
            "+" if rest == "OK" => Reply::Ok,
            "+" => Reply::Simple(Cow::Owned(rest)),
            "-" => Reply::Error(ErrorReply::new(rest)),
            ":" => Reply::Integer(rest.parse().unwrap()),
            "$" | "*" if rest == "-1" => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.reader.read_exact(&mut bytes).unwrap();
                Reply::bulk(&bytes[..bytes.len() - 2])
            }
            "*" => Reply::Array((0..rest.parse::<usize>().unwrap()).map(|_| self.reply()).collect()),
            other => panic!("an unknown type {other:?}"),
        }
    }

    fn now_ms(&mut self) -> u64 {
        let Reply::Array(parts) = self.ask(&[b"TIME"]) else { panic!("no time") };
        let part = |at: usize| match &parts[at] {
            Reply::Bulk(bytes) => parse_u64(bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        part(0) * 1_000 + part(1) / 1_000
    }
}

/// By how much the two sides' ideas of a key's end may differ.
const EXPIRY_MARGIN_MS: u64 = 20;

/// Equal, but for the clock that goes on between the two.
fn agree(words: &[&[u8]], ours: &Reply, theirs: &Reply) -> bool {
    const SLACK_MS: u64 = 1_000;
    let slack = match words.first().map(|name| name.to_ascii_uppercase()).as_deref() {
        Some(b"TTL" | b"EXPIRETIME") => SLACK_MS / 1_000,
        Some(b"PTTL" | b"PEXPIRETIME") => SLACK_MS,
        _ => 0,
    };
    match (ours, theirs) {
        (Reply::Integer(ours), Reply::Integer(theirs)) => {
            ours.abs_diff(*theirs) <= slack && (*ours < 0) == (*theirs < 0)
        }
        (ours, theirs) => ours == theirs,
    }
}

#[test]
#[ignore = "needs a Redis: scripts/compare-redis"]
fn replies_are_those_of_a_real_redis() {
    let address = std::env::var("REDIS").expect("REDIS=host:port, as scripts/compare-redis sets it");
    let seed: u64 = std::env::var("SEED").map_or(1, |text| text.parse().expect("SEED is a number"));
    let commands: usize = std::env::var("COMMANDS").map_or(20_000, |text| text.parse().expect("a number"));
    let mut redis = Redis { reader: BufReader::new(TcpStream::connect(address).unwrap()) };
    redis.ask(&[b"FLUSHALL"]);
    let mut store = Store::default();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (strategy, mut log, mut compared) = (command(), Vec::new(), 0);
    for _ in 0..commands {
        let words = strategy.new_tree(&mut runner).unwrap().current();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        // What Redis has not.
        if words.iter().any(|word| word.eq_ignore_ascii_case(b"IFVERSION")) {
            continue;
        }
        // A key may expire on one side a moment before the other: no command is sent about then.
        store.now_ms = redis.now_ms();
        while store.expires_near(store.now_ms, EXPIRY_MARGIN_MS) {
            store.now_ms = redis.now_ms();
        }
        let ours = store.run(&words).reply;
        let theirs = redis.ask(&words);
        log.push(format!(
            "{} -> {}",
            words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" "),
            show(&theirs)
        ));
        compared += 1;
        assert!(
            agree(&words, &ours, &theirs),
            "SEED={seed}, after {compared} commands: ours {}, theirs {}\n{}",
            show(&ours),
            show(&theirs),
            log[log.len().saturating_sub(12)..].join("\n")
        );
    }
    println!("{compared} commands answered alike (seed {seed})");
}

#[test]
fn most_random_commands_are_well_formed() {
    // A generator whose commands all fail would compare nothing but errors.
    let mut runner = TestRunner::deterministic();
    let strategy = command();
    let fine = (0..1_000)
        .filter(|_| {
            let words = strategy.new_tree(&mut runner).unwrap().current();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let known = resolve(Args::new(&words))
                .is_ok_and(|spec| matches!(spec.run, Run::Data(_) | Run::Answer(_)));
            let mut store = Store::default();
            known && !store.run(&words).reply.is_error()
        })
        .count();
    assert!(fine > 250, "only {fine} of 1000 random commands do anything");
}

/// A reply as RESP2 carries it: maps flat, sets as arrays. The order of sets is free, notes are for people, and simple strings are compared
/// by their text.
fn as_resp2(reply: &Reply) -> Reply {
    match reply {
        Reply::Simple(text) => Reply::bulk(text.as_bytes()),
        Reply::Array(all) => Reply::Array(all.iter().map(as_resp2).collect()),
        Reply::Set(all) => Reply::Array(all.iter().map(as_resp2).collect()),
        Reply::Map(pairs) => {
            Reply::Array(pairs.iter().flat_map(|(key, value)| [as_resp2(key), as_resp2(value)]).collect())
        }
        other => other.clone(),
    }
}

/// One field of a `COMMAND INFO` entry, to compare.
fn field(entry: &Reply, at: usize) -> String {
    let Reply::Array(fields) = as_resp2(entry) else { panic!("no entry: {entry:?}") };
    let shown = match &fields[at] {
        Reply::Array(all) => {
            let mut all: Vec<_> = all.iter().map(show).collect();
            all.sort();
            all.join(" ")
        }
        other => show(other),
    };
    // What a key specification says in prose, only Redis says.
    match shown.split_once("\"notes\": ").or(shown.split_once("\"notes\", ")) {
        Some((before, behind)) => {
            format!("{before}{}", behind.split_once("\", ").map_or(behind, |(_, rest)| rest))
        }
        None => shown,
    }
}

/// Fields of `COMMAND INFO` that are meant to differ from the 7.0 that Debian has.
const DIFFERS: [(&str, usize); 5] = [
    // All or nothing: a client must not spread it over shards.
    ("msetnx", 7),
    // As Redis 7.2 documents them: also while it loads; and a command without arguments may be asked about too.
    ("cluster|shards", 2),
    ("cluster|slots", 2),
    ("command|getkeys", 1),
    ("command|getkeysandflags", 1),
];

#[test]
#[ignore = "needs a Redis: scripts/compare-redis"]
fn command_info_is_that_of_a_real_redis() {
    let address = std::env::var("REDIS").expect("REDIS=host:port, as scripts/compare-redis sets it");
    let mut redis = Redis { reader: BufReader::new(TcpStream::connect(address).unwrap()) };
    let (mut compared, mut differences) = (0, Vec::new());
    for spec in table().iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
        let words: [&[u8]; 3] = [b"COMMAND", b"INFO", spec.name.as_bytes()];
        let Reply::Array(theirs) = redis.ask(&words) else { panic!("COMMAND INFO {}", spec.name) };
        if theirs[0] == Reply::Nil {
            continue;
        }
        let Reply::Array(ours) = Store::default().run(&words).reply else {
            panic!("COMMAND INFO {}", spec.name)
        };
        compared += 1;
        // The last field, subcommands, is compared one by one.
        for at in 0..9 {
            let (ours, theirs) = (field(&ours[0], at), field(&theirs[0], at));
            if ours != theirs && !DIFFERS.contains(&(spec.name, at)) {
                differences.push(format!("{} field {at}: ours {ours}, theirs {theirs}", spec.name));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 60, "only {compared} commands are in both");
    println!("{compared} commands are described alike");
}
