//! The settings that `CONFIG GET` shows and `CONFIG SET` changes: Kvorum's own, and those of Redis' that clients ask for, answered truly.

use crate::settings::ServerSettings;
use crate::shared::Shared;
use kvorum_cluster::{Durability, durability_of_word, durability_word};

/// Changes a setting; gives the durability class, if that is what the node must be told.
pub(crate) type Set = fn(&mut ServerSettings, &str) -> Result<Option<Durability>, String>;

/// One setting.
pub(crate) struct Entry {
    /// Name, in Redis' spelling where Redis has it.
    pub(crate) name: &'static str,
    /// Its value as text.
    pub(crate) get: fn(&Shared) -> String,
    /// Changes it; `None`: it is set at the start only.
    pub(crate) set: Option<Set>,
}

const fn fixed(name: &'static str, get: fn(&Shared) -> String) -> Entry {
    Entry { name, get, set: None }
}

const fn live(name: &'static str, get: fn(&Shared) -> String, set: Set) -> Entry {
    Entry { name, get, set: Some(set) }
}

/// All of them, by name.
pub(crate) const TABLE: &[Entry] = &[
    // Every write is logged before it is acknowledged; `durability` says how safe that is.
    fixed("appendonly", |_| "yes".into()),
    live(
        "appendfsync",
        |shared| match shared.node.durability() {
            Durability::Synced => "always".into(),
            Durability::Written => "everysec".into(),
            Durability::Buffered => "no".into(),
        },
        |_, text| match text {
            "always" => Ok(Some(Durability::Synced)),
            "everysec" => Ok(Some(Durability::Written)),
            "no" => Ok(Some(Durability::Buffered)),
            _ => Err("argument must be one of the following: everysec, always, no".into()),
        },
    ),
    fixed("bind", |shared| shared.resp_address().ip().to_string()),
    live(
        "client-query-buffer-limit",
        |shared| shared.settings().query_buffer_bytes_max.to_string(),
        |settings, text| set_bytes(&mut settings.query_buffer_bytes_max, text, 1 << 20),
    ),
    fixed("databases", |_| kvorum_cluster::STRONG_NAMESPACES.to_string()),
    fixed("dir", |shared| shared.node.settings().data_dir.display().to_string()),
    live(
        "durability",
        |shared| durability_word(shared.node.durability()).into(),
        |_, text| match durability_of_word(text) {
            Some(durability) => Ok(Some(durability)),
            None => Err("argument must be one of the following: synced, written, buffered".into()),
        },
    ),
    live(
        "maxclients",
        |shared| shared.settings().max_clients.to_string(),
        |settings, text| {
            let count = text.parse().map_err(|_| "argument couldn't be parsed into an integer")?;
            if count == 0 {
                return Err("argument must be at least 1".into());
            }
            settings.max_clients = count;
            Ok(None)
        },
    ),
    // Data need not fit into memory, and nothing is evicted.
    fixed("maxmemory", |_| "0".into()),
    fixed("maxmemory-policy", |_| "noeviction".into()),
    fixed("memory", |shared| shared.node.settings().memory_bytes.to_string()),
    fixed("port", |shared| shared.resp_address().port().to_string()),
    live(
        "protected-mode",
        |shared| if shared.settings().protected_mode { "yes".into() } else { "no".into() },
        |settings, text| {
            settings.protected_mode = match text {
                "yes" => true,
                "no" => false,
                _ => return Err("argument must be 'yes' or 'no'".into()),
            };
            Ok(None)
        },
    ),
    live(
        "proto-max-bulk-len",
        |shared| shared.settings().bulk_bytes_max.to_string(),
        |settings, text| set_bytes(&mut settings.bulk_bytes_max, text, 1 << 20),
    ),
    live(
        "requirepass",
        |shared| shared.settings().requirepass.clone().unwrap_or_default(),
        |settings, text| {
            settings.requirepass = (!text.is_empty()).then(|| text.to_owned());
            Ok(None)
        },
    ),
    // No snapshots at intervals: the log and the tables are always complete.
    fixed("save", |_| String::new()),
    live(
        "timeout",
        |shared| shared.settings().timeout_seconds.to_string(),
        |settings, text| {
            settings.timeout_seconds =
                text.parse().map_err(|_| "argument couldn't be parsed into an integer")?;
            Ok(None)
        },
    ),
];

/// Redis' memory notation: a number, with `k m g` (powers of 1000) or `kb mb gb` (powers of 1024).
fn set_bytes(place: &mut u64, text: &str, least: u64) -> Result<Option<Durability>, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" => Some(1000),
        "kb" => Some(1 << 10),
        "m" => Some(1_000_000),
        "mb" => Some(1 << 20),
        "g" => Some(1_000_000_000),
        "gb" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    let bytes = bytes.ok_or("argument must be a memory value")?;
    if bytes < least {
        return Err(format!("argument must be at least {least}"));
    }
    *place = bytes;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_redis_writes_them() {
        let parse = |text| {
            let mut bytes = 0;
            set_bytes(&mut bytes, text, 1).map(|_| bytes)
        };
        assert_eq!(parse("10"), Ok(10));
        assert_eq!(parse("1k"), Ok(1000));
        assert_eq!(parse("1KB"), Ok(1024));
        assert_eq!(parse("2gb"), Ok(2 << 30));
        for bad in ["", "x", "1x", "-1", "99999999999gb", "0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_sorted_and_unique() {
        let names: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert!(names.iter().zip(names.iter().skip(1)).all(|(a, b)| a != b));
    }
}
