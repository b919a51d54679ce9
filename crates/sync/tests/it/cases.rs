//! Text cases: what goes into one replica and what must come out of it, line by line (`tests/cases/*.txt`).
//!
//! ```text
//! # words for the reader
//! = promise 1/1/1 epoch 1 tail 1.1 1.2     a replica s1 with that durable state (empty: a new store)
//! > from 2 ack 1 1-2                       an input
//! committed 1.1-1.2                        the effects that it must have, one on each line
//! ```
//!
//! `UPDATE=1 cargo test -p kvorum-sync cases` writes what comes out into the files, for a person to read through.

use std::fmt::Write as _;
use std::path::Path;

use kvorum_sync::{
    Adopt, AskRead, BasisItem, Checkpoint, Config, Digest, Durable, Effect, Effects, Epoch, Fetch, Gather,
    Hello, Input, Item, KeyHash, KeyState, Keys, Members, Membership, Message, Moment, Names, OpId, Piece,
    Promise, Promised, Proposal, ReadAnswer, ReadWhat, RecordId, Replica, Standing, StepDown, StoreId, Token,
    TransferId, Want, Way,
};

/// Words of one line, taken from the front.
struct Words<'a> {
    words: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Words<'a> {
        Words { words: line.split_whitespace().peekable() }
    }

    fn next(&mut self) -> &'a str {
        self.words.next().unwrap()
    }

    fn number(&mut self) -> u64 {
        number(self.next())
    }

    fn epoch(&mut self) -> Epoch {
        Epoch::new(u32::try_from(self.number()).unwrap()).unwrap()
    }

    fn op(&mut self) -> OpId {
        op(self.next())
    }

    /// Takes the word if it comes next.
    fn has(&mut self, word: &str) -> bool {
        self.words.next_if_eq(&word).is_some()
    }

    /// What follows the word, if it comes next, up to the next word that does not start with a digit.
    fn list<T>(&mut self, word: &str, read: impl Fn(&str) -> T) -> Vec<T> {
        let mut list = Vec::new();
        if self.has(word) {
            while let Some(entry) = self.words.next_if(|next| next.starts_with(|c: char| c.is_ascii_digit()))
            {
                list.push(read(entry));
            }
        }
        list
    }

    fn ops(&mut self, word: &str) -> Vec<OpId> {
        self.list(word, op)
    }

    fn stores(&mut self, word: &str) -> Vec<StoreId> {
        self.list(word, |entry| StoreId(number(entry)))
    }

    fn promise(&mut self) -> Promise {
        let mut parts = self.next().split('/').map(number);
        let mut part = || parts.next().unwrap();
        let epoch = Epoch::new(u32::try_from(part()).unwrap()).unwrap();
        Promise { epoch, manager: StoreId(part()), nonce: part() }
    }

    fn range(&mut self) -> (u64, u64) {
        range(self.next())
    }
}

fn number(word: &str) -> u64 {
    word.trim_start_matches(['#', 't', 's', 'e']).parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

fn range(word: &str) -> (u64, u64) {
    let (first, last) = word.split_once('-').unwrap();
    (number(first), number(last))
}

fn op(word: &str) -> OpId {
    let (epoch, serial) = word.split_once('.').unwrap_or_else(|| panic!("not an op id: {word}"));
    OpId::new(Epoch::new(u32::try_from(number(epoch)).unwrap()).unwrap(), number(serial))
}

/// `1.4` or `1.4<1.3` for an item that reads another. An item's time and digest are its serial.
fn item(word: &str) -> Item {
    let (name, reads) = word.split_once('<').map_or((word, vec![]), |(name, reads)| (name, vec![op(reads)]));
    let op = op(name);
    Item { op, time: op.serial(), digest: Digest(op.serial()), reads: Names::of(&reads), ..Item::default() }
}

fn checkpoint_at(op: OpId) -> Checkpoint {
    Checkpoint { op, digest: Digest(op.serial() * (op.serial() + 1) / 2), time: op.serial() }
}

fn keys(words: &mut Words<'_>) -> Names<KeyHash> {
    Names::of(&words.list("keys", |entry| KeyHash(number(entry))))
}

fn durable(line: &str) -> Durable {
    let mut words = Words::of(line);
    let mut durable = Durable::default();
    if words.has("promise") {
        durable.promise = words.promise();
    }
    if words.has("epoch") {
        durable.epoch = words.epoch();
    }
    if words.has("basis-end") {
        durable.basis_end = words.op();
    }
    if words.has("checkpoint") {
        durable.checkpoint = checkpoint_at(words.op());
    }
    durable.tail = words.list("tail", item).into_iter().map(|item| (item.op, item)).collect();
    if words.has("rebuilding") {
        durable.standing = Standing::Rebuilding { until: OpId::MAX };
    }
    durable
}

fn input(line: &str, last: RecordId) -> Input {
    let mut words = Words::of(line);
    match words.next() {
        "nominate" => {
            let epoch = words.epoch();
            let new = Members::of(&words.stores("members"));
            let old = words.stores("old");
            let old = if old.is_empty() { new.clone() } else { Members::of(&old) };
            Input::Nominate { epoch, membership: Membership { old, new } }
        }
        "persisted" => {
            Input::Persisted { upto: words.words.next().map_or(last, |word| RecordId(number(word))) }
        }
        "tick" => Input::Tick,
        "propose" => {
            let token = Token(words.number());
            let all = words.has("all");
            let keys = if all { Keys::All } else { Keys::Of(keys(&mut words)) };
            let reads = Names::of(&words.ops("reads"));
            let time = if words.has("time") { words.number() } else { 0 };
            Input::Propose(Proposal { token, time, keys, reads, digest: Digest(1) })
        }
        "read" => Input::Read { token: Token(words.number()), rests_on: Names::of(&words.ops("rests-on")) },
        "follower-read" => {
            let token = Token(words.number());
            let what = if words.has("range") { ReadWhat::Range } else { ReadWhat::Keys(keys(&mut words)) };
            Input::FollowerRead { token, what, labelled: words.has("labelled") }
        }
        "peer" => Input::Peer { store: StoreId(words.number()), reachable: words.next() == "up" },
        "learners" => {
            Input::Learners(Members::of(&words.words.map(|word| StoreId(number(word))).collect::<Vec<_>>()))
        }
        "floors" => Input::Floors { floor: words.op(), gc_floor: words.op() },
        "ingested" => Input::Ingested { transfer: own_transfer(words.number()), number: words.number() },
        "piece-read" => Input::PieceRead {
            transfer: own_transfer(words.number()),
            number: words.number(),
            items: words.ops("items"),
            cursor: [].into(),
            end: words.words.peek().is_some().then(|| words.ops("end")),
        },
        "drain" => Input::StepDown(StepDown::Drain),
        "poisoned" => Input::StepDown(StepDown::Poisoned),
        "from" => Input::Message { from: StoreId(words.number()), message: message(&mut words) },
        other => panic!("no such input: {other}"),
    }
}

/// Transfers are numbered within the receiver's run; every replica of the cases runs with nonce 1.
fn own_transfer(number: u64) -> TransferId {
    TransferId { nonce: 1, number }
}

fn message(words: &mut Words<'_>) -> Message {
    let membership = Membership::steady(&[StoreId(1), StoreId(2), StoreId(3)]);
    match words.next() {
        "gather" => Message::Gather(Box::new(Gather { promise: words.promise(), membership })),
        "promised" => {
            let promise = words.promise();
            let rest = durable(&words.words.clone().collect::<Vec<_>>().join(" "));
            Message::Promised(Box::new(Promised {
                promise,
                epoch: rest.epoch,
                checkpoint: rest.checkpoint,
                tail: rest.tail.into_values().collect(),
                standing: rest.standing,
            }))
        }
        "refused" => Message::Refused { epoch: words.epoch(), promised: words.epoch() },
        "adopt" => adopt(words),
        "adopted" => {
            Message::Adopted { epoch: words.epoch(), checkpoint: words.op(), standing: Standing::Whole }
        }
        "write" => {
            let epoch = words.epoch();
            let item = item(words.next());
            let point = if words.has("point") { words.op() } else { OpId::ZERO };
            Message::Write { epoch, item, point }
        }
        "ack" => {
            let (epoch, (first, last)) = (words.epoch(), words.range());
            Message::Ack { epoch, first, last, checkpoint: OpId::ZERO }
        }
        "point" => {
            let (epoch, point) = (words.epoch(), words.op());
            let digest =
                if words.has("digest") { Digest(words.number()) } else { checkpoint_at(point).digest };
            Message::Point { epoch, point, digest, head: point.serial() }
        }
        "reached" => {
            Message::Reached { epoch: words.epoch(), point: words.op(), digest: Digest(words.number()) }
        }
        "lack" => {
            let (epoch, (first, last)) = (words.epoch(), words.range());
            Message::Lack { epoch, first, last }
        }
        "announce" => Message::Announce { promise: words.promise() },
        "hello" => hello(words),
        "resume" => {
            let (epoch, upto) = (words.epoch(), checkpoint_at(words.op()));
            Message::Resume { epoch, upto, sources: Names::of(&words.stores("sources")) }
        }
        "ping" => Message::Ping { epoch: words.epoch(), round: words.number() },
        "pong" => Message::Pong { epoch: words.epoch(), round: words.number() },
        "fence" => Message::Fence { epoch: words.epoch(), point: words.op() },
        kind => data_message(kind, words),
    }
}

fn adopt(words: &mut Words<'_>) -> Message {
    let promise = words.promise();
    assert!(words.has("over"));
    let basis_epoch = words.epoch();
    assert!(words.has("S"));
    let checkpoint = checkpoint_at(words.op());
    let holders = Names::one(promise.manager);
    let basis: Vec<BasisItem> = words
        .list("T", item)
        .into_iter()
        .map(|item| BasisItem { item, holders: holders.clone(), completed: true })
        .collect();
    let basis_end = basis.last().map_or(checkpoint.op, |last| last.item.op);
    let head = basis_end;
    Message::Adopt(Box::new(Adopt {
        promise,
        basis_epoch,
        checkpoint,
        basis,
        basis_end,
        sources: holders,
        head,
    }))
}

fn hello(words: &mut Words<'_>) -> Message {
    let (promised, epoch, checkpoint) = (words.epoch(), words.epoch(), words.op());
    let held = words.list("held", range);
    Message::Hello(Box::new(Hello { promised, epoch, checkpoint, held, standing: Standing::Whole }))
}

fn data_message(kind: &str, words: &mut Words<'_>) -> Message {
    match kind {
        "fetches" => {
            let transfer = TransferId { nonce: 1, number: words.number() };
            let epoch = words.epoch();
            let items = words.ops("items");
            let want = if items.is_empty() {
                assert!(words.has("final"));
                Want::Final { since: words.op(), upto: words.op(), doubtful: words.ops("doubtful") }
            } else {
                Want::Items(items)
            };
            let next = if words.has("next") { words.number() } else { 0 };
            Message::Fetch(Box::new(Fetch {
                transfer,
                epoch,
                want,
                next,
                credit: next + 1,
                cursor: [].into(),
            }))
        }
        "gives" => {
            let (transfer, epoch, number) = (own_transfer(words.number()), words.epoch(), words.number());
            let way = if words.has("delta") { Way::Delta } else { Way::Items };
            let items = words.ops("items");
            let end = words.words.peek().is_some().then(|| words.ops("end"));
            Message::Piece(Box::new(Piece { transfer, epoch, number, way, items, cursor: [].into(), end }))
        }
        "can't" => Message::CannotServe { transfer: own_transfer(words.number()) },
        "asks" => {
            let (epoch, id, checkpoint) = (words.epoch(), words.number(), words.op());
            let what = if words.has("range") { ReadWhat::Range } else { ReadWhat::Keys(keys(words)) };
            Message::AskRead(Box::new(AskRead { epoch, id, checkpoint, what }))
        }
        "answers" => {
            let (epoch, id) = (words.epoch(), words.number());
            let state = KeyState { committed: words.op(), pending: words.op(), wait: words.op() };
            Message::ReadAnswer(Box::new(ReadAnswer { epoch, id, keys: Names::one(state) }))
        }
        "asks-point" => Message::AskPoint { epoch: words.epoch(), sent: Moment(words.number()) },
        "point-is" => {
            Message::PointAt { epoch: words.epoch(), sent: Moment(words.number()), committed: words.op() }
        }
        other => panic!("no such message: {other}"),
    }
}

/// Runs one file; gives back the text as it should be.
fn play(text: &str) -> String {
    let mut shown = String::new();
    let mut out = Effects::new();
    let mut now = Moment(1_000_000);
    let mut last = RecordId(0);
    let config = Config {
        gather_grace_micros: 0,
        resend_micros: 1_000,
        point_micros: 0,
        checkpoint_micros: 0,
        ask_micros: 0,
        window_items: 4,
        retain_items: 2,
        small_gap_items: 4,
        ..Config::default()
    };
    let mut replica =
        Replica::recover(StoreId(1), 1, config.clone(), &Durable::default(), true, now, &mut out);
    for line in text.lines() {
        if let Some(state) = line.strip_prefix('=') {
            replica = Replica::recover(StoreId(1), 1, config.clone(), &durable(state), true, now, &mut out);
            last = RecordId(0);
        } else if let Some(words) = line.strip_prefix("> ") {
            now = now.after_micros(if words == "tick" { 1_000 } else { 1 });
            replica.step(now, input(words, last), &mut out);
        } else if !line.starts_with('#') && !line.is_empty() {
            continue;
        }
        writeln!(shown, "{line}").unwrap();
        for effect in out.drain() {
            if let Effect::Persist { id, .. } = &effect {
                last = *id;
            }
            writeln!(shown, "{effect}").unwrap();
        }
    }
    shown
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let shown = play(&text);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &shown).unwrap();
        return;
    }
    let differs = text.lines().zip(shown.lines()).position(|(expected, found)| expected != found);
    let place = differs.unwrap_or(text.lines().count().min(shown.lines().count()));
    let line = |text: &str| text.lines().nth(place).unwrap_or("(nothing)").to_owned();
    assert!(
        text == shown,
        "{}:{}\n  expected: {}\n     found: {}",
        path.display(),
        place + 1,
        line(&text),
        line(&shown)
    );
}

macro_rules! cases {
    ($($name:ident)*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

cases!(gather basis adoption write checkpoint catch_up reads membership);

#[test]
fn every_case_file_is_played() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["adoption", "basis", "catch_up", "checkpoint", "gather", "membership", "reads", "write"]
    );
}
