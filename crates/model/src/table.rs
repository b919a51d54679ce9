//! The one table of all commands.

use crate::args::Args;
use crate::command;
use crate::error::ErrorReply;
use crate::spec::{CommandSpec, Run};

const GROUPS: [&[CommandSpec]; 12] = [
    command::string::SPECS,
    command::counter::SPECS,
    command::part::SPECS,
    command::many::SPECS,
    command::expiry::SPECS,
    command::generic::SPECS,
    command::keyspace::SPECS,
    command::connection::SPECS,
    command::server::SPECS,
    command::transaction::SPECS,
    command::namespace::SPECS,
    command::cluster::SPECS,
];

const fn count() -> usize {
    let mut sum = 0;
    let mut group = 0;
    while group < GROUPS.len() {
        sum += GROUPS[group].len();
        group += 1;
    }
    sum
}

const fn flatten() -> [CommandSpec; count()] {
    let mut all = [GROUPS[0][0]; count()];
    let (mut group, mut filled) = (0, 0);
    while group < GROUPS.len() {
        let mut at = 0;
        while at < GROUPS[group].len() {
            all[filled] = GROUPS[group][at];
            filled += 1;
            at += 1;
        }
        group += 1;
    }
    all
}

static TABLE: [CommandSpec; count()] = flatten();

/// Slots of the name index: a power of two, at least twice the number of commands, so that nearly every name sits in its own slot.
const INDEX_SLOTS: usize = 256;
const _: () = assert!(INDEX_SLOTS >= 2 * count() && count() < EMPTY as usize);
const EMPTY: u8 = u8::MAX;

/// Hash slot → place in the table; collisions go to the next free slot. Made by the compiler.
static INDEX: [u8; INDEX_SLOTS] = index();

const fn hash(name: &[u8]) -> usize {
    // FNV-1a over the name in lower case.
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at].to_ascii_lowercase() as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 15)) as usize % INDEX_SLOTS
}

const fn index() -> [u8; INDEX_SLOTS] {
    let table = flatten();
    let mut index = [EMPTY; INDEX_SLOTS];
    let mut at = 0;
    while at < table.len() {
        let mut slot = hash(table[at].name.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % INDEX_SLOTS;
        }
        index[slot] = at as u8;
        at += 1;
    }
    index
}

/// All commands. Containers hold their subcommands.
pub fn table() -> &'static [CommandSpec] {
    &TABLE
}

/// Longest name in the table; anything longer is unknown without a look.
const NAME_BYTES_MAX: usize = 32;

/// The command of this name, in whatever case; without an allocation.
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut slot = hash(name);
    loop {
        let place = *INDEX.get(slot)?;
        let spec = TABLE.get(usize::from(place))?;
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        slot = (slot + 1) % INDEX_SLOTS;
    }
}

/// The command that `args` call, subcommand and arity checked; else the error that Redis gives.
pub fn resolve(args: Args<'_>) -> Result<&'static CommandSpec, ErrorReply> {
    let spec = lookup(args.name()).ok_or_else(|| unknown_command(args))?;
    if !matches!(spec.run, Run::Container) && spec.subcommands.is_empty() {
        return if spec.takes(args.len()) { Ok(spec) } else { Err(ErrorReply::wrong_arity(spec.name)) };
    }
    let Some(word) = args.get(1) else {
        let alone = !matches!(spec.run, Run::Container) && spec.takes(args.len());
        return if alone { Ok(spec) } else { Err(ErrorReply::wrong_arity(spec.name)) };
    };
    let sub = subcommand(spec, word).ok_or_else(|| unknown_subcommand(spec, word))?;
    if sub.takes(args.len()) { Ok(sub) } else { Err(ErrorReply::wrong_arity(sub.name)) }
}

/// The command or subcommand (`config|get`) of this full name, in whatever case.
pub(crate) fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    match name.iter().position(|byte| *byte == b'|') {
        None => lookup(name),
        Some(bar) => subcommand(lookup(name.get(..bar)?)?, name.get(bar + 1..)?),
    }
}

/// The subcommand `word` of a container, in whatever case.
pub(crate) fn subcommand(spec: &CommandSpec, word: &[u8]) -> Option<&'static CommandSpec> {
    spec.subcommands.iter().find(|sub| {
        let own = sub.name.split_once('|').map_or(sub.name, |(_, own)| own);
        own.as_bytes().eq_ignore_ascii_case(word)
    })
}

/// Bytes of names and arguments that an error repeats at most.
const QUOTED_BYTES_MAX: usize = 128;

fn quoted(word: &[u8], bytes_max: usize) -> String {
    String::from_utf8_lossy(word.get(..bytes_max).unwrap_or(word)).into_owned()
}

fn unknown_command(args: Args<'_>) -> ErrorReply {
    let mut list = String::new();
    for word in args.from(1) {
        if list.len() >= QUOTED_BYTES_MAX {
            break;
        }
        list.push('\'');
        list.push_str(&quoted(word, QUOTED_BYTES_MAX - (list.len() - 1)));
        list.push_str("' ");
    }
    let name = quoted(args.name(), QUOTED_BYTES_MAX);
    ErrorReply::new(format!("ERR unknown command '{name}', with args beginning with: {list}"))
}

fn unknown_subcommand(spec: &CommandSpec, word: &[u8]) -> ErrorReply {
    let (word, container) = (quoted(word, QUOTED_BYTES_MAX), spec.name.to_ascii_uppercase());
    ErrorReply::new(format!("ERR unknown subcommand '{word}'. Try {container} HELP."))
}
