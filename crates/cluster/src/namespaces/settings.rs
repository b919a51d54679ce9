//! What can be told of a namespace, as data and as text: RESP, HTTP, the command line and the store's own table use the same words.

use crate::consistency::{ReadMode, durability_as_word, durability_of_word, durability_word};
use crate::error::{Error, Result};
use crate::namespace::{Mode, SHARDS_DEFAULT, SHARDS_MAX};
use kvorum_engine::Durability;
use serde::{Deserialize, Serialize};

/// Copies of each key at most.
pub const REPLICATION_MAX: u8 = 7;

/// For how long a deleted entry of an available namespace keeps its tombstone: ten days.
const GRACE_DEFAULT_MS: u64 = 10 * DAY_MS;

/// Longest history and grace: ten years.
const TIME_MAX_MS: u64 = 3650 * DAY_MS;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// What becomes of a write that lost against a concurrent one, in an available namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Conflicts {
    /// The newest wins, the others are counted.
    #[default]
    Newest,
    /// The newest wins, concurrent losers are kept for the application to resolve.
    Keep,
}

/// Settings of a namespace. Mode and shards are chosen when it is made; the rest can be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NamespaceSettings {
    /// How it is kept.
    pub mode: Mode,
    /// Into how many shards its hash slots are cut.
    pub shards: u16,
    /// Copies of each key. `None`: three, or as many as there are nodes.
    pub replication: Option<u8>,
    /// What a write survives at least before it is acknowledged. `None`: what the node is set to.
    #[serde(with = "durability_as_word")]
    pub durability: Option<Durability>,
    /// Strong: for how long versions that were overwritten are kept, in milliseconds, so that a member that was away can be told the difference.
    pub history_ms: u64,
    /// Available: for how long a tombstone is kept, in milliseconds.
    pub grace_ms: u64,
    /// Strong: who answers reads of connections that did not choose.
    pub read: ReadMode,
    /// Available: what becomes of a concurrent write that lost.
    pub conflicts: Conflicts,
}

/// A change of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as the fields of NamespaceSettings")]
pub enum NamespaceChange {
    Mode(Mode),
    Shards(u16),
    Replication(Option<u8>),
    Durability(#[serde(with = "durability_as_word")] Option<Durability>),
    HistoryMs(u64),
    GraceMs(u64),
    Read(ReadMode),
    Conflicts(Conflicts),
}

impl NamespaceSettings {
    /// The defaults of a mode.
    pub fn new(mode: Mode) -> NamespaceSettings {
        NamespaceSettings {
            mode,
            shards: SHARDS_DEFAULT,
            replication: None,
            durability: None,
            history_ms: 0,
            grace_ms: GRACE_DEFAULT_MS,
            read: ReadMode::Leader,
            conflicts: Conflicts::Newest,
        }
    }

    /// The defaults with these changes; the mode is strong unless one of them says otherwise.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that do not go together.
    pub fn made_of(changes: &[NamespaceChange]) -> Result<NamespaceSettings> {
        let mode = changes.iter().rev().find_map(|change| match change {
            NamespaceChange::Mode(mode) => Some(*mode),
            _ => None,
        });
        let mut settings = NamespaceSettings::new(mode.unwrap_or(Mode::Strong));
        for change in changes {
            if let NamespaceChange::Shards(shards) = change {
                settings.shards = *shards;
            }
            settings.take(*change);
        }
        settings.check()?;
        Ok(settings)
    }

    /// These settings with changes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another mode or number of shards, and for settings that do not go together.
    pub fn with(&self, changes: &[NamespaceChange]) -> Result<NamespaceSettings> {
        let mut settings = self.clone();
        for change in changes {
            let fixed = match change {
                NamespaceChange::Mode(mode) if *mode != self.mode => "mode",
                NamespaceChange::Shards(shards) if *shards != self.shards => "shards",
                _ => "",
            };
            if !fixed.is_empty() {
                return Err(Error::Invalid(format!("{fixed} is chosen when a namespace is made, and stays")));
            }
            settings.take(*change);
        }
        settings.check()?;
        Ok(settings)
    }

    fn take(&mut self, change: NamespaceChange) {
        match change {
            NamespaceChange::Mode(_) | NamespaceChange::Shards(_) => {}
            NamespaceChange::Replication(copies) => self.replication = copies,
            NamespaceChange::Durability(durability) => self.durability = durability,
            NamespaceChange::HistoryMs(ms) => self.history_ms = ms,
            NamespaceChange::GraceMs(ms) => self.grace_ms = ms,
            NamespaceChange::Read(read) => self.read = read,
            NamespaceChange::Conflicts(conflicts) => self.conflicts = conflicts,
        }
    }

    /// Fails for values beyond their limits, and for settings that the mode has not.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |text: String| Err(Error::Invalid(text));
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return invalid(format!("shards is 1 to {SHARDS_MAX}"));
        }
        if self.replication.is_some_and(|copies| copies == 0 || copies > REPLICATION_MAX) {
            return invalid(format!("replication is 1 to {REPLICATION_MAX}, or default"));
        }
        if self.history_ms > TIME_MAX_MS || self.grace_ms > TIME_MAX_MS {
            return invalid("history and grace are at most ten years".to_owned());
        }
        let plain = NamespaceSettings::new(self.mode);
        match self.mode {
            Mode::Strong if self.grace_ms != plain.grace_ms => invalid(only("grace", "available")),
            Mode::Strong if self.conflicts != plain.conflicts => invalid(only("conflicts", "available")),
            Mode::Available if self.history_ms != plain.history_ms => invalid(only("history", "strong")),
            Mode::Available if self.read != plain.read => invalid(only("read", "strong")),
            _ => Ok(()),
        }
    }

    /// Words and values, those that the mode has.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let copies = self.replication.map_or_else(|| "default".to_owned(), |copies| copies.to_string());
        let durability = self.durability.map_or("default", durability_word);
        let mut pairs = vec![
            ("mode", mode_word(self.mode).to_owned()),
            ("shards", self.shards.to_string()),
            ("replication", copies),
            ("durability", durability.to_owned()),
        ];
        match self.mode {
            Mode::Strong => {
                pairs.push(("history", duration_text(self.history_ms)));
                pairs.push(("read", self.read.word().to_owned()));
            }
            Mode::Available => {
                pairs.push(("grace", duration_text(self.grace_ms)));
                let conflicts = if self.conflicts == Conflicts::Keep { "keep" } else { "newest" };
                pairs.push(("conflicts", conflicts.to_owned()));
            }
        }
        pairs
    }
}

impl NamespaceChange {
    /// The change that a word and a value ask for.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming what there is.
    pub fn parse(word: &str, value: &str) -> Result<NamespaceChange> {
        let value = value.trim();
        let default = value.eq_ignore_ascii_case("default");
        let parsed = match word.to_ascii_lowercase().as_str() {
            "mode" => (mode_of_word(value).map(NamespaceChange::Mode), "strong or available"),
            "shards" => (value.parse().ok().map(NamespaceChange::Shards), "a number of shards"),
            "replication" if default => (Some(NamespaceChange::Replication(None)), ""),
            "replication" => {
                let copies = value.parse().ok().map(|copies| NamespaceChange::Replication(Some(copies)));
                (copies, "a number of copies, or default")
            }
            "durability" if default => (Some(NamespaceChange::Durability(None)), ""),
            "durability" => {
                let class = durability_of_word(value);
                let change = class.map(|class| NamespaceChange::Durability(Some(class)));
                (change, "synced, written, buffered or default")
            }
            "history" => {
                (duration_ms(value).map(NamespaceChange::HistoryMs), "a time as 0, 90s, 15m, 36h or 10d")
            }
            "grace" => (duration_ms(value).map(NamespaceChange::GraceMs), "a time as 90s, 15m, 36h or 10d"),
            "read" => (ReadMode::of_word(value).map(NamespaceChange::Read), "leader, follower or stale"),
            "conflicts" => (conflicts_of_word(value).map(NamespaceChange::Conflicts), "newest or keep"),
            _ => {
                return Err(Error::Invalid(format!(
                    "a namespace has no setting {word:?}: there are mode, shards, replication, durability, history, grace, read, conflicts"
                )));
            }
        };
        let (change, wanted) = parsed;
        change.ok_or_else(|| Error::Invalid(format!("{word} is {wanted}, not {value:?}")))
    }
}

fn only(setting: &str, mode: &str) -> String {
    format!("only {mode} namespaces have the setting {setting}")
}

/// The word of a mode.
pub(crate) fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Strong => "strong",
        Mode::Available => "available",
    }
}

fn mode_of_word(word: &str) -> Option<Mode> {
    [Mode::Strong, Mode::Available].into_iter().find(|mode| word.eq_ignore_ascii_case(mode_word(*mode)))
}

fn conflicts_of_word(word: &str) -> Option<Conflicts> {
    match word.to_ascii_lowercase().as_str() {
        "newest" => Some(Conflicts::Newest),
        "keep" => Some(Conflicts::Keep),
        _ => None,
    }
}

/// Units of time, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn duration_text(ms: u64) -> String {
    let unit = UNITS.into_iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or_else(|| "0".to_owned(), |(name, unit)| format!("{}{name}", ms / unit))
}

/// Milliseconds of a time with its unit; only 0 goes without one.
fn duration_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let digits = text.find(|byte: char| !byte.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, unit) = UNITS.into_iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Result<Vec<NamespaceChange>> {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(word, value)| NamespaceChange::parse(word, value))
            .collect()
    }

    fn made(text: &str) -> Result<NamespaceSettings> {
        NamespaceSettings::made_of(&changes(text)?)
    }

    #[test]
    fn what_is_printed_is_parsed() {
        for text in [
            "mode=strong",
            "mode=available grace=90s conflicts=keep replication=3",
            "SHARDS=1 durability=Written history=36h read=follower",
            "shards=1024 replication=7 history=250ms",
        ] {
            let settings = made(text).unwrap();
            let pairs = settings.pairs();
            let again: Vec<_> =
                pairs.iter().map(|(word, value)| NamespaceChange::parse(word, value).unwrap()).collect();
            assert_eq!(NamespaceSettings::made_of(&again).unwrap(), settings, "{text}");
            assert_eq!(settings.with(&again).unwrap(), settings, "{text}");
        }
        assert_eq!(duration_text(10 * DAY_MS), "10d");
        assert_eq!(duration_text(90_000), "90s");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (text, error) in [
            ("shards=0", "shards is 1 to 1024"),
            ("shards=1025", "shards is 1 to 1024"),
            ("shards=many", "shards is a number of shards, not \"many\""),
            ("replication=0", "replication is 1 to 7, or default"),
            ("history=5", "history is a time as 0, 90s, 15m, 36h or 10d, not \"5\""),
            (
                "history=99999999999999999d",
                "history is a time as 0, 90s, 15m, 36h or 10d, not \"99999999999999999d\"",
            ),
            ("grace=1d", "only available namespaces have the setting grace"),
            ("mode=available read=stale", "only strong namespaces have the setting read"),
            ("mode=weak", "mode is strong or available, not \"weak\""),
        ] {
            assert_eq!(made(text).unwrap_err().to_string(), error, "{text}");
        }
        assert!(made("colour=red").unwrap_err().to_string().contains("has no setting \"colour\""));
        let strong = made("mode=strong").unwrap();
        let error = strong.with(&changes("shards=4").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "shards is chosen when a namespace is made, and stays");
        assert!(strong.with(&changes("mode=available").unwrap()).is_err());
    }
}
