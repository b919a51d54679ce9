//! A namespace in memory, on which commands are run as a shard runs them.

use crate::overlay::Overlay;
use kvorum_model::{
    Args, DataFn, Effect, Effects, Record, Reply, Run, Stop, TAG_STRING, View, evaluate, resolve,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Keys and their records; `now_ms` is set by the test, the version rises by one for each command with effects.
#[derive(Default)]
pub(crate) struct Store {
    keys: BTreeMap<Vec<u8>, Record>,
    last_version: u64,
    pub(crate) now_ms: u64,
    /// Keys that the next look misses in memory, as a cold block would.
    cold: RefCell<BTreeSet<Vec<u8>>>,
    /// Keys that were looked at.
    read: RefCell<BTreeSet<Vec<u8>>>,
}

impl View for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        self.read.borrow_mut().insert(key.to_vec());
        if self.cold.borrow_mut().remove(key) {
            return Err(Stop::WouldRead);
        }
        Ok(self.keys.get(key).cloned())
    }

    fn next_version(&self, _key: &[u8]) -> u64 {
        self.last_version + 1
    }
}

/// What a command did: its reply, and its effects written out.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    pub(crate) effects: Vec<String>,
}

impl Store {
    /// A store whose next version follows `version`.
    pub(crate) fn after(version: u64) -> Store {
        Store { last_version: version, ..Store::default() }
    }

    /// Puts a record in place, of whatever type.
    pub(crate) fn plant(&mut self, key: &[u8], record: Record) {
        self.keys.insert(key.to_vec(), record);
    }

    /// Whether a key expires within `margin_ms` of `time_ms`, before or after.
    pub(crate) fn expires_near(&self, time_ms: u64, margin_ms: u64) -> bool {
        self.keys
            .values()
            .filter_map(|record| record.expires_at)
            .any(|end| end.abs_diff(time_ms) <= margin_ms)
    }

    /// Runs one command. Checks on the way what holds for every command: the same view gives the same outcome, an error has no effects, and a
    /// command that had to wait for the disk gives the outcome that it would have given at once.
    pub(crate) fn run(&mut self, words: &[&[u8]]) -> Outcome {
        let (reply, effects) = self.checked(words, self);
        let shown = effects.as_slice().iter().map(show_effect).collect();
        self.store(&effects);
        Outcome { reply, effects: shown }
    }

    /// Runs commands as one transaction: each sees the ones before it, and only a key's last effect is stored.
    pub(crate) fn transaction(&mut self, commands: &[Vec<&[u8]>]) -> (Vec<Reply>, Vec<String>) {
        let (mut replies, mut all) = (Vec::new(), Effects::new());
        {
            let mut overlay = Overlay::new(self);
            for words in commands {
                let (reply, effects) = self.checked(words, &overlay);
                overlay.apply(&effects);
                effects.as_slice().iter().for_each(|effect| all.push(effect.clone()));
                replies.push(reply);
            }
        }
        let shown = all.as_slice().iter().map(show_effect).collect();
        self.store(&all);
        (replies, shown)
    }

    fn checked<'r>(&self, words: &'r [&'r [u8]], view: &dyn View) -> (Reply, Effects<'r>) {
        let args = Args::new(words);
        let spec = match resolve(args) {
            Ok(spec) => spec,
            Err(error) => return (Reply::Error(error), Effects::new()),
        };
        let run = match spec.run {
            Run::Data(run) => run,
            Run::Answer(run) => return (run(args).unwrap_or_else(Reply::Error), Effects::new()),
            other => panic!("{} is run elsewhere: {other:?}", spec.name),
        };
        let keys: BTreeSet<_> = spec.keys_of(args).map(<[u8]>::to_vec).collect();
        let warm = self.settle(run, args, view);
        self.cold.borrow_mut().clone_from(&keys);
        let again = self.settle(run, args, view);
        self.cold.borrow_mut().clear();
        assert_eq!(warm.0, again.0, "a second evaluation answers differently: {words:?}");
        assert_eq!(warm.1.as_slice(), again.1.as_slice(), "a second evaluation does otherwise: {words:?}");
        assert!(spec.is_write() || warm.1.is_empty(), "a reading command has effects: {words:?}");
        for effect in warm.1.as_slice() {
            assert!(keys.contains(effect.key()), "an effect on a key that routing does not know: {words:?}");
        }
        assert!(
            self.read.borrow().iter().all(|key| keys.contains(key)),
            "reads a key that routing does not know: {words:?}"
        );
        self.read.borrow_mut().clear();
        warm
    }

    /// Evaluates until no key is cold.
    fn settle<'r>(&self, run: DataFn, args: Args<'r>, view: &dyn View) -> (Reply, Effects<'r>) {
        let mut effects = Effects::new();
        loop {
            let outcome = evaluate(run, args, view, self.now_ms, &mut effects);
            match outcome {
                Ok(reply) => {
                    assert!(!reply.is_error() || effects.is_empty(), "an error with effects: {args:?}");
                    return (reply, effects);
                }
                Err(stop) => {
                    assert!(effects.is_empty(), "{stop:?} with effects: {args:?}");
                    if let Stop::Error(error) = stop {
                        return (Reply::Error(error), effects);
                    }
                }
            }
        }
    }

    fn store(&mut self, effects: &Effects<'_>) {
        if effects.is_empty() {
            return;
        }
        self.last_version += 1;
        for effect in effects.as_slice() {
            match effect {
                Effect::Put { key, value, expires_at, tag } => {
                    let (value, version) = (value.to_bytes(), self.last_version);
                    let record = Record { version, value, expires_at: *expires_at, tag: *tag };
                    self.keys.insert(key.to_vec(), record);
                }
                Effect::Delete { key } => {
                    self.keys.remove(*key);
                }
            }
        }
    }
}

/// Bytes between quotes, as a person would type them.
pub(crate) fn quote(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn show_effect(effect: &Effect<'_>) -> String {
    match effect {
        Effect::Delete { key } => format!("delete {}", quote(key)),
        Effect::Put { key, value, expires_at, tag } => {
            let until = expires_at.map_or(String::new(), |at| format!(" until {at}"));
            let kind = if *tag == TAG_STRING { String::new() } else { format!(" tag {tag}") };
            format!("put {} {}{until}{kind}", quote(key), quote(value.as_slice()))
        }
    }
}

/// A reply on one line.
pub(crate) fn show(reply: &Reply) -> String {
    let list = |all: &[Reply]| all.iter().map(show).collect::<Vec<_>>().join(", ");
    match reply {
        Reply::Ok => "OK".into(),
        Reply::Simple(text) => text.to_string(),
        Reply::Error(error) => format!("! {error}"),
        Reply::Integer(number) => format!("{number}"),
        Reply::Bulk(bytes) => quote(bytes),
        Reply::Nil => "nil".into(),
        Reply::NilArray => "nil array".into(),
        Reply::Array(all) => format!("[{}]", list(all)),
        Reply::Set(all) => format!("~[{}]", list(all)),
        Reply::Map(pairs) => {
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| format!("{}: {}", show(key), show(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Reply::Double(number) => format!("{number:?}"),
        Reply::Boolean(truth) => format!("{truth}"),
        Reply::Verbatim(text) => quote(text.as_bytes()),
    }
}
