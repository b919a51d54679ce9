//! What clients wrote, and what they were told.

use super::node::Shown;
use kvorum_cluster::shard::{Done, Writes};
use kvorum_engine::Attributes;
use kvorum_sync::{OpId, StoreId, Token};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Committed,
    Cancelled,
    Unknown,
}

/// One item's writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    clear: bool,
    keys: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

#[derive(Debug)]
struct Proposed {
    written: Written,
    fate: Fate,
    leader: StoreId,
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    tokens: u64,
    items: BTreeMap<OpId, Proposed>,
    by_token: HashMap<Token, (StoreId, Option<OpId>)>,
}

impl Client {
    /// Something to write, to be proposed at a leader.
    pub(crate) fn draw(&mut self, dice: &mut fastrand::Rng, leader: StoreId) -> (Token, Written, Writes) {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.by_token.insert(token, (leader, None));
        let mut written = Written { clear: dice.u8(..60) == 0, ..Written::default() };
        for _ in 0..dice.usize(0..4) {
            let key = format!("\u{10}key-{}", dice.u8(..40)).into_bytes();
            let length = if dice.u8(..8) == 0 { 600 } else { dice.usize(..30) };
            let value = format!("{}:{}", self.tokens, "x".repeat(length)).into_bytes();
            written.keys.insert(key, (dice.u8(..5) > 0).then_some(value));
        }
        let mut writes = Writes::new();
        if written.clear {
            writes.clear();
        }
        for (key, value) in &written.keys {
            match value {
                Some(value) => writes.put(key, value, Attributes::default()),
                None => writes.delete(key, Attributes::default()),
            }
        }
        (token, written, writes)
    }

    /// Something that was written before there was a group.
    pub(crate) fn wrote_alone(&mut self, op: OpId, key: &[u8], value: &[u8]) {
        let written = Written { clear: false, keys: BTreeMap::from([(key.to_vec(), Some(value.to_vec()))]) };
        self.items.insert(op, Proposed { written, fate: Fate::Committed, leader: StoreId(0) });
    }

    pub(crate) fn proposed(&mut self, op: OpId, token: Token, written: Written) {
        let leader = self.by_token[&token].0;
        self.by_token.insert(token, (leader, Some(op)));
        let before = self.items.insert(op, Proposed { written, fate: Fate::Waits, leader });
        assert!(before.is_none_or(|before| before.fate != Fate::Committed), "{op} names two items");
    }

    pub(crate) fn done(&mut self, token: Token, done: &Done) {
        let Some((_, Some(op))) = self.by_token.remove(&token) else { return };
        let item = self.items.get_mut(&op).unwrap();
        item.fate = match done {
            Done::Committed => Fate::Committed,
            Done::Cancelled => Fate::Cancelled,
            Done::Unknown => Fate::Unknown,
            other => panic!("{op} was answered with {other:?}"),
        };
    }

    /// A process died: nobody will tell what became of what waits there.
    pub(crate) fn lose(&mut self, leader: StoreId) {
        let lost = self.items.values_mut().filter(|item| item.leader == leader && item.fate == Fate::Waits);
        lost.for_each(|item| item.fate = Fate::Unknown);
        self.by_token.retain(|_, (at, _)| *at != leader);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.items.values().all(|item| item.fate != Fate::Waits)
    }

    /// Who wrote a key, and what came of it.
    pub(crate) fn writers(&self, key: &[u8]) -> String {
        let writes = |written: &Written| written.clear || written.keys.contains_key(key);
        let of = |(op, item): (&OpId, &Proposed)| {
            let value = item.written.keys.get(key).map(Option::is_some);
            format!("\n{} {op} {:?}, cleared {}, put {value:?}", op.version(), item.fate, item.written.clear)
        };
        let lines: Vec<String> =
            self.items.iter().filter(|(_, item)| writes(&item.written)).map(of).collect();
        format!("{}{}", key.escape_ascii(), lines.concat())
    }

    /// Nothing that was acknowledged is lost, nothing that was cancelled is there, and nothing is there that nobody wrote.
    pub(crate) fn check(&self, shown: &Shown) {
        let found: BTreeMap<&[u8], (u64, &[u8])> =
            shown.iter().map(|(key, version, value)| (&key[..], (*version, &value[..]))).collect();
        for (key, (version, value)) in &found {
            let op = OpId::from_version(*version);
            let item = self.items.get(&op).unwrap_or_else(|| panic!("{op} was never proposed"));
            assert_ne!(item.fate, Fate::Cancelled, "{op} was cancelled and is there");
            let wrote = item.written.keys.get(*key).and_then(Option::as_deref);
            assert_eq!(wrote, Some(*value), "{op} wrote something else to {}", key.escape_ascii());
        }
        let mut newest: BTreeMap<&[u8], OpId> = BTreeMap::new();
        let mut cleared = OpId::ZERO;
        for (op, item) in self.items.iter().filter(|(_, item)| item.fate == Fate::Committed) {
            cleared = if item.written.clear { *op } else { cleared };
            item.written.keys.keys().for_each(|key| _ = newest.insert(key, *op));
        }
        for (key, op) in newest {
            let deleted = self.items[&op].written.keys[key].is_none() || op < cleared;
            // What later items of unknown fate did is seen by its version.
            let unknown_later = self.items.range(op..).skip(1).any(|(_, item)| {
                item.fate == Fate::Unknown && (item.written.clear || item.written.keys.contains_key(key))
            });
            let name = key.escape_ascii();
            match found.get(key) {
                Some((version, _)) => {
                    let seen = OpId::from_version(*version);
                    assert!(
                        seen >= op && (!deleted || seen > op),
                        "{name} shows {seen}, but {op} was acknowledged"
                    );
                }
                None => assert!(deleted || unknown_later, "{name} is gone, but {op} was acknowledged"),
            }
        }
    }
}
