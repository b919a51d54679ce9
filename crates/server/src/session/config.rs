//! `CONFIG GET` and `CONFIG SET`.

use super::Session;
use crate::configuration::{self, Entry};
use kvorum_model::{Args, Case, ErrorReply, Reply, glob_match};

impl Session {
    /// `CONFIG GET pattern …`: the settings that match, each once.
    pub(super) fn config_get(&self, args: Args<'_>) -> Reply {
        let matches = |entry: &&Entry| {
            args.from(2).iter().any(|pattern| glob_match(pattern, entry.name.as_bytes(), Case::Ignored))
        };
        let pair = |entry: &Entry| (Reply::text(entry.name), Reply::bulk((entry.get)(&self.shared)));
        Reply::Map(configuration::TABLE.iter().filter(matches).map(pair).collect())
    }

    /// `CONFIG SET name value …`: all or none.
    pub(super) fn config_set(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let words = args.from(2);
        let (pairs, rest) = words.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(ErrorReply::wrong_arity("config|set"));
        }
        let mut changes = Vec::with_capacity(pairs.len());
        for [name, value] in pairs {
            let shown = String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned();
            let entry =
                configuration::TABLE.iter().find(|entry| entry.name.as_bytes().eq_ignore_ascii_case(name));
            let Some(entry) = entry else {
                return Err(ErrorReply::new(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
                )));
            };
            if changes.iter().any(|(other, _): &(&Entry, _)| other.name == entry.name) {
                return Err(failed(entry.name, "duplicate parameter"));
            }
            changes.push((entry, *value));
        }
        self.shared.change(|settings| {
            let mut apply_after = Vec::new();
            for (entry, value) in &changes {
                let set = entry.set.ok_or_else(|| failed(entry.name, "can't set immutable config"))?;
                let text =
                    std::str::from_utf8(value).map_err(|_| failed(entry.name, "argument is no text"))?;
                apply_after.extend(set(settings, text).map_err(|reason| failed(entry.name, &reason))?);
            }
            for durability in apply_after {
                self.shared.node.set_durability(durability);
            }
            Ok(())
        })?;
        Ok(Reply::Ok)
    }
}

fn failed(name: &str, reason: &str) -> ErrorReply {
    ErrorReply::new(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}
