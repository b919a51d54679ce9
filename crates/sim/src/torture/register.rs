//! Registers: few keys, many clients, a history that must be linearizable.

use super::resp::{Client, Fate, Reply};
use super::{OPERATIONS_PER_KEY, Pause, Torture};
use crate::dice::Dice;
use crate::history::{Asked, NO_VERSION, Operation, Told};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Between two operations of one client.
const BETWEEN: Duration = Duration::from_millis(2);
/// Behind one that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(30);

fn name(torture: &Torture, key: u32) -> String {
    format!("{}:register:{key}", torture.settings.run)
}

pub(super) fn run(torture: &Torture, number: usize, mut dice: Dice) {
    let mut client = torture.client(number);
    let mut seen = BTreeMap::new();
    let mut history = Vec::new();
    let mut pause = BETWEEN;
    while torture.stop.pause(pause) == Pause::GoOn {
        let begun = torture.begun.fetch_add(1, Relaxed);
        let window = begun / (OPERATIONS_PER_KEY * torture.settings.keys);
        let key = (window * torture.settings.keys + dice.range(0, torture.settings.keys)) as u32;
        seen.retain(|old, _| *old >= key.saturating_sub(torture.settings.keys as u32));
        let asked = if dice.chance(0.5) {
            Asked::Read
        } else {
            let expected = if dice.chance(0.3) { seen.get(&key).copied() } else { None };
            Asked::Write { value: Some(torture.value.fetch_add(1, Relaxed)), expected }
        };
        pause = match operation(torture, &mut client, number, key, asked) {
            Some(operation) => {
                if let Told::Saw { version, .. } | Told::Done { version } | Told::Conflict { version } =
                    operation.told
                {
                    seen.insert(key, version);
                }
                let is_known = operation.told != Told::Unknown;
                history.push(operation);
                if is_known { BETWEEN } else { AFTER_FAILURE }
            }
            None => AFTER_FAILURE,
        };
    }
    torture.with_tally(|tally| tally.history.append(&mut history));
}

/// One operation; `None` if it surely did not happen.
fn operation(
    torture: &Torture,
    client: &mut Client,
    number: usize,
    key: u32,
    asked: Asked,
) -> Option<Operation> {
    let name = name(torture, key);
    let call = torture.watch.now();
    let fate = match asked {
        Asked::Read => client.call(&[b"GETV", name.as_bytes()]),
        Asked::Write { value, expected } => {
            let value = value.unwrap_or_default().to_string();
            let version = expected.unwrap_or(NO_VERSION).to_string();
            let words: [&[u8]; 5] =
                [b"SETV", name.as_bytes(), value.as_bytes(), b"IFVERSION", version.as_bytes()];
            client.call(if expected.is_some() { &words } else { &words[..3] })
        }
    };
    let end = torture.watch.now();
    torture.count(&fate);
    let told = match fate {
        Fate::Answered(reply) => told(asked, &reply)?,
        Fate::Refused(_) => return None,
        Fate::Unknown(_) => Told::Unknown,
    };
    Some(Operation { client: number as u32, key, call, end, asked, told })
}

/// What a reply says of the key; `None` for one that makes no sense here, which the next read will tell.
fn told(asked: Asked, reply: &Reply) -> Option<Told> {
    match (asked, reply) {
        (Asked::Read, Reply::Array(parts)) => {
            let (value, version) = (parts.first()?, parts.get(1)?.number()?);
            let value = if *value == Reply::Nil { None } else { Some(value.number()?) };
            Some(Told::Saw { value, version })
        }
        (Asked::Write { .. }, Reply::Error(text)) => {
            Some(Told::Conflict { version: text.split_whitespace().nth(1)?.parse().ok()? })
        }
        (Asked::Write { .. }, reply) => Some(Told::Done { version: reply.number()? }),
        _ => None,
    }
}

/// Reads every key of the history once through every node; the reads are part of the history.
pub(super) fn read_all(torture: &Torture, deadline: u64) -> Result<(), String> {
    let keys: std::collections::BTreeSet<u32> =
        torture.with_tally(|tally| tally.history.iter().map(|operation| operation.key).collect());
    let mut last = Vec::new();
    for number in 0..torture.settings.nodes.len() {
        let mut client = torture.client(number);
        for key in &keys {
            last.push(loop {
                let read = operation(torture, &mut client, usize::MAX, *key, Asked::Read);
                if let Some(read) = read.filter(|read| read.told != Told::Unknown) {
                    break read;
                }
                if torture.watch.now() > deadline {
                    return Err(format!("the cluster does not answer GETV {}", name(torture, *key)));
                }
                super::time::Stop::default().pause(AFTER_FAILURE);
            });
        }
    }
    torture.with_tally(|tally| tally.history.append(&mut last));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_tell_value_and_version() {
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let write = Asked::Write { value: Some(7), expected: None };
        let read = |value| Reply::Array(vec![value, bulk("12"), bulk("stable")]);
        assert_eq!(told(Asked::Read, &read(bulk("7"))), Some(Told::Saw { value: Some(7), version: 12 }));
        assert_eq!(told(Asked::Read, &read(Reply::Nil)), Some(Told::Saw { value: None, version: 12 }));
        assert_eq!(told(write, &bulk("13")), Some(Told::Done { version: 13 }));
        assert_eq!(told(write, &Reply::Error("CONFLICT 14".into())), Some(Told::Conflict { version: 14 }));
        assert_eq!(told(Asked::Read, &bulk("x")), None);
    }
}
