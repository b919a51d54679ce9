//! A namespace's row in the table of the store:
//!
//! ```text
//! S | A   shards (u16)  name                                     a strong or available one with default settings
//! s | a   shards (u16)  length of the name (u8)  name  settings  the settings as text: `word=value` a line
//! D                                                              dropped; its id is not given again
//! ```

use super::settings::{NamespaceChange, NamespaceSettings};
use crate::namespace::Mode;

/// What the store knows of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    /// It is there.
    Kept { name: String, settings: NamespaceSettings },
    /// It was dropped. Its trees may be there still.
    Dropped,
}

impl Row {
    pub(crate) fn kept(name: impl Into<String>, settings: NamespaceSettings) -> Row {
        Row::Kept { name: name.into(), settings }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Row::Kept { name, settings } = self else { return vec![b'D'] };
        let plain = NamespaceSettings { shards: settings.shards, ..NamespaceSettings::new(settings.mode) };
        let is_plain = *settings == plain;
        let mode = match settings.mode {
            Mode::Strong => b'S',
            Mode::Available => b'A',
        };
        let mut row = vec![if is_plain { mode } else { mode.to_ascii_lowercase() }];
        row.extend_from_slice(&settings.shards.to_le_bytes());
        if !is_plain {
            // Names have at most 64 bytes.
            row.push(name.len() as u8);
        }
        row.extend_from_slice(name.as_bytes());
        if !is_plain {
            for (word, value) in settings.pairs() {
                row.extend_from_slice(format!("{word}={value}\n").as_bytes());
            }
        }
        row
    }

    /// Fails with what was expected.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Row, &'static str> {
        let (kind, rest) = bytes.split_first().ok_or("a namespace's kind")?;
        if *kind == b'D' {
            return Ok(Row::Dropped);
        }
        let mode = match kind.to_ascii_uppercase() {
            b'S' => Mode::Strong,
            b'A' => Mode::Available,
            _ => return Err("a kind of namespace that this program knows"),
        };
        let (shards, rest) = rest.split_first_chunk().ok_or("the number of shards")?;
        let shards = u16::from_le_bytes(*shards);
        let (name, text) = if kind.is_ascii_uppercase() {
            (rest, &[][..])
        } else {
            let (length, rest) = rest.split_first().ok_or("the length of the name")?;
            rest.split_at_checked(usize::from(*length)).ok_or("the name")?
        };
        let name = std::str::from_utf8(name).map_err(|_| "a name in UTF-8")?;
        let text = std::str::from_utf8(text).map_err(|_| "settings in UTF-8")?;
        let mut changes = vec![NamespaceChange::Mode(mode), NamespaceChange::Shards(shards)];
        for line in text.lines() {
            let (word, value) = line.split_once('=').ok_or("a setting and its value")?;
            changes
                .push(NamespaceChange::parse(word, value).map_err(|_| "settings that this program knows")?);
        }
        let settings = NamespaceSettings::made_of(&changes).map_err(|_| "settings that go together")?;
        Ok(Row::Kept { name: name.to_owned(), settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::ReadMode;

    #[test]
    fn rows_come_back() {
        let plain = NamespaceSettings::new(Mode::Available);
        let of_the_first_release = [b"A\x10\0".as_slice(), b"entity"].concat();
        assert_eq!(Row::kept("entity", plain).encode(), of_the_first_release);
        let mut rich = NamespaceSettings::new(Mode::Strong);
        rich.shards = 1;
        rich.read = ReadMode::Stale;
        rich.history_ms = 5000;
        for row in [
            Row::Dropped,
            Row::kept("users", NamespaceSettings { shards: 64, ..NamespaceSettings::new(Mode::Strong) }),
            Row::kept("users", rich),
        ] {
            let bytes = row.encode();
            assert_eq!(Row::decode(&bytes).unwrap(), row);
            for cut in 0..bytes.len() {
                // Whatever it is taken for, nothing panics.
                let _ = Row::decode(&bytes[..cut]);
            }
        }
        for bad in [&b""[..], b"X\x10\0a", b"S\x10", b"S\0\0a", b"s\x10\0\x05ab", b"s\x10\0\x01acolour=red\n"]
        {
            assert!(Row::decode(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
