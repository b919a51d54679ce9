//! Random commands against plain models of what they mean. `PROPTEST_CASES=N` for more; a failing case is printed and shrunk.

use crate::store::{Outcome, Store};
use kvorum_model::Reply;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn run(store: &mut Store, line: &str) -> Outcome {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    store.run(&words)
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, i64),
    Incr(u8, i64),
    Append(u8, String),
    Expire(u8, i64),
    Persist(u8),
    Delete(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..3u8;
    let number = prop_oneof![-20..20i64, Just(i64::MAX), Just(i64::MIN), any::<i64>()];
    prop_oneof![
        (key.clone(), number.clone()).prop_map(|(key, number)| Step::Set(key, number)),
        (key.clone(), number).prop_map(|(key, number)| Step::Incr(key, number)),
        (key.clone(), "[0-9]{1,3}").prop_map(|(key, text)| Step::Append(key, text)),
        (key.clone(), -5..50i64).prop_map(|(key, ms)| Step::Expire(key, ms)),
        key.clone().prop_map(Step::Persist),
        key.prop_map(Step::Delete),
        (0..30u64).prop_map(Step::Wait),
    ]
}

/// Value, end of life, version.
type Plain = BTreeMap<u8, (String, Option<u64>, u64)>;

/// What the step must answer; changes `plain` accordingly. `version`: that of the next write.
fn expected(plain: &mut Plain, step: &Step, now: u64, version: u64) -> Option<Result<i64, ()>> {
    plain.retain(|_, (_, until, _)| until.is_none_or(|at| at > now));
    Some(match step {
        Step::Set(key, number) => {
            plain.insert(*key, (number.to_string(), None, version));
            return None;
        }
        Step::Incr(key, by) => {
            let (text, until, _) = plain.get(key).cloned().unwrap_or(("0".into(), None, 0));
            // What appending made of it need not be canonical.
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            let sum = number.and_then(|number| number.checked_add(*by)).ok_or(());
            if let Ok(sum) = sum {
                plain.insert(*key, (sum.to_string(), until, version));
            }
            sum
        }
        Step::Append(key, tail) => {
            let (text, until, _) = plain.get(key).cloned().unwrap_or_default();
            let whole = text + tail;
            let length = i64::try_from(whole.len()).unwrap();
            plain.insert(*key, (whole, until, version));
            Ok(length)
        }
        Step::Expire(key, ms) => Ok(i64::from(match plain.get_mut(key) {
            None => false,
            Some(_) if *ms <= 0 => plain.remove(key).is_some(),
            Some(entry) => {
                entry.1 = now.checked_add_signed(*ms);
                entry.2 = version;
                true
            }
        })),
        Step::Persist(key) => {
            let entry = plain.get_mut(key).filter(|entry| entry.1.is_some());
            Ok(i64::from(entry.map(|entry| (entry.1, entry.2) = (None, version)).is_some()))
        }
        Step::Delete(key) => Ok(i64::from(plain.remove(key).is_some())),
        Step::Wait(_) => return None,
    })
}

fn command(step: &Step) -> Option<String> {
    Some(match step {
        Step::Set(key, number) => format!("SET k{key} {number}"),
        Step::Incr(key, by) => format!("INCRBY k{key} {by}"),
        Step::Append(key, tail) => format!("APPEND k{key} {tail}"),
        Step::Expire(key, ms) => format!("PEXPIRE k{key} {ms}"),
        Step::Persist(key) => format!("PERSIST k{key}"),
        Step::Delete(key) => format!("DEL k{key}"),
        Step::Wait(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn counters_tails_and_lifetimes_follow_a_plain_model(
        steps in prop::collection::vec(step(), 1..60),
        // Versions near the top too: nothing may take them for signed or rounded numbers.
        last_version in prop_oneof![Just(0), Just(u64::MAX - 1_000)],
    ) {
        let mut store = Store::after(last_version);
        store.now_ms = 1_000;
        let mut plain = Plain::new();
        let mut version = last_version;
        for step in &steps {
            if let Step::Wait(ms) = step {
                store.now_ms += ms;
            }
            let wanted = expected(&mut plain, step, store.now_ms, version + 1);
            if let Some(line) = command(step) {
                let outcome = run(&mut store, &line);
                version += u64::from(!outcome.effects.is_empty());
                match wanted {
                    Some(Ok(number)) => prop_assert_eq!(&outcome.reply, &Reply::Integer(number), "{}", line),
                    Some(Err(())) => prop_assert!(outcome.reply.is_error(), "{}: {:?}", line, outcome),
                    None => prop_assert_eq!(&outcome.reply, &Reply::Ok),
                }
            }
            for key in 0..3u8 {
                let entry = plain.get(&key);
                let (value, version) = entry.map_or((Reply::Nil, 0), |(text, _, at)| (Reply::bulk(text), *at));
                let found = run(&mut store, &format!("GETV k{key}")).reply;
                prop_assert_eq!(found, Reply::Array(vec![value, Reply::version(version), Reply::text("stable")]));
                let now = store.now_ms;
                let lives = entry.map_or(-2, |(_, until, _)| until.map_or(-1, |at| i64::try_from(at - now).unwrap()));
                prop_assert_eq!(run(&mut store, &format!("PTTL k{key}")).reply, Reply::Integer(lives));
            }
        }
    }

    /// Whatever words come: no panic, the same outcome twice, no effects of an error or of a reading command, no key that routing missed
    /// (all checked by the store).
    #[test]
    fn any_words_are_answered(commands in prop::collection::vec(crate::compare::command(), 1..40)) {
        let mut store = Store::default();
        store.now_ms = 1_000_000;
        for words in &commands {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            store.run(&words);
        }
    }

    /// A transaction ends as its commands would have, one by one.
    #[test]
    fn a_transaction_ends_as_its_commands_do(commands in prop::collection::vec(crate::compare::command(), 1..12)) {
        let (mut together, mut apart) = (Store::default(), Store::default());
        together.now_ms = 1_000_000;
        apart.now_ms = 1_000_000;
        let commands: Vec<Vec<&[u8]>> =
            commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
        let (replies, effects) = together.transaction(&commands);
        let single: Vec<_> = commands.iter().map(|words| apart.run(words).reply).collect();
        prop_assert_eq!(replies, single);
        for key in crate::compare::KEYS {
            let (left, right) = (together.run(&[b"GET", key]), apart.run(&[b"GET", key]));
            prop_assert_eq!(left, right);
        }
        let keys: std::collections::BTreeSet<_> = effects.iter().map(|line| line.split(' ').nth(1)).collect();
        prop_assert_eq!(keys.len(), effects.len());
    }
}
