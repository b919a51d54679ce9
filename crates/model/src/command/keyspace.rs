//! Commands over all keys of a namespace: their specs, and their options read for the node that runs them.

use crate::args::Args;
use crate::error::ErrorReply;
use crate::glob::{Case, glob_match};
use crate::number;
use crate::spec::argument::{Argument, ArgumentKind};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, Keyspace, Run};
use crate::view::type_name;

const PATTERN: Argument = Argument::new("pattern", ArgumentKind::Pattern);
const FLUSH_TYPE: &[Argument] = &[Argument::one_of(
    "flush-type",
    &[Argument::word("async", "ASYNC").since("4.0.0"), Argument::word("sync", "SYNC").since("6.2.0")],
)
.optional()];
const ALL_SUCCEED: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

const fn spec(name: &'static str, arity: i32, group: Group, run: Keyspace) -> CommandSpec {
    CommandSpec::new(name, arity, group, Run::Keyspace(run)).category(Categories::KEYSPACE)
}

const fn flush(name: &'static str, run: Keyspace) -> CommandSpec {
    spec(name, -1, Group::Server, run)
        .flags(Flags::WRITE)
        .category(Categories::KEYSPACE.with(Categories::DANGEROUS))
        .arguments(FLUSH_TYPE)
        .tips(ALL_SUCCEED)
        .differs("O(1) however many keys there are, so ASYNC and SYNC are the same.")
}

pub(crate) const SPECS: &[CommandSpec] = &[
    spec("scan", -2, Group::Generic, Keyspace::Scan)
        .flags(Flags::READONLY)
        .arguments(&[
            Argument::integer("cursor"),
            PATTERN.token("MATCH").optional(),
            Argument::integer("count").token("COUNT").optional(),
            Argument::string("type").token("TYPE").since("6.0.0").optional(),
        ])
        .tips(&["nondeterministic_output", "request_policy:special"])
        .costs("O(1) for every call, O(N) for all keys.")
        .differs("A cursor is good on every connection; one that was never given out, or is too old, is an `invalid cursor`. No key comes twice in a scan.")
        .docs("2.8.0", "Goes through the keys, some with every call."),
    spec("keys", 2, Group::Generic, Keyspace::Keys)
        .flags(Flags::READONLY)
        .category(Categories::KEYSPACE.with(Categories::DANGEROUS))
        .arguments(&[PATTERN])
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .costs("O(N) where N is the number of keys in the namespace.")
        .differs("Reads one snapshot and does not hold up other commands.")
        .docs("1.0.0", "Returns all keys that match a pattern."),
    spec("randomkey", 1, Group::Generic, Keyspace::RandomKey)
        .flags(Flags::READONLY)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .differs("Takes the next key behind a random place between the first key and the last: not every key is as likely as every other.")
        .docs("1.0.0", "Returns a random key."),
    spec("dbsize", 1, Group::Server, Keyspace::DbSize)
        .flags(Flags::READONLY.with(Flags::FAST))
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .costs("O(N) where N is the number of keys in the namespace.")
        .differs("Exact, and therefore O(N); `INFO` has an estimate at no cost.")
        .docs("1.0.0", "Counts the keys of the namespace."),
    flush("flushdb", Keyspace::FlushDb)
        .available(Available::No)
        .docs("1.0.0", "Removes all keys of the selected namespace."),
    flush("flushall", Keyspace::FlushAll).docs("1.0.0", "Removes all keys of the namespaces 0 to 15."),
];

/// Keys that `SCAN` looks at in one call unless `COUNT` says otherwise.
pub const SCAN_COUNT_DEFAULT: u64 = 10;

/// The words of a `SCAN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanOptions<'r> {
    /// 0: from the start.
    pub cursor: u64,
    /// Only keys that match this.
    pub pattern: Option<&'r [u8]>,
    /// About how many keys to look at; at least 1. The client may ask for any number: bound it.
    pub count: u64,
    /// Only keys of this data type.
    pub type_name: Option<&'r [u8]>,
}

impl<'r> ScanOptions<'r> {
    /// Reads the words of a `SCAN`, whose arity is checked.
    pub fn parse(args: Args<'r>) -> Result<ScanOptions<'r>, ErrorReply> {
        let mut options = ScanOptions {
            cursor: cursor(args.at(1))?,
            pattern: None,
            count: SCAN_COUNT_DEFAULT,
            type_name: None,
        };
        let mut words = args.from(2).iter().copied();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(ErrorReply::syntax)?;
            if word.eq_ignore_ascii_case(b"MATCH") {
                options.pattern = Some(value);
            } else if word.eq_ignore_ascii_case(b"COUNT") {
                let count = number::integer(value)?;
                options.count =
                    u64::try_from(count).ok().filter(|count| *count > 0).ok_or_else(ErrorReply::syntax)?;
            } else if word.eq_ignore_ascii_case(b"TYPE") {
                options.type_name = Some(value);
            } else {
                return Err(ErrorReply::syntax());
            }
        }
        Ok(options)
    }

    /// Whether a key with a value of the type with this tag belongs into the reply.
    pub fn wants(&self, key: &[u8], tag: u8) -> bool {
        self.pattern.is_none_or(|pattern| pattern_matches(pattern, key))
            && self.type_name.is_none_or(|name| type_name(tag).as_bytes().eq_ignore_ascii_case(name))
    }
}

/// Whether `KEYS` or `SCAN … MATCH` with this pattern lists `key`. Unlike other patterns `*` takes the empty key too.
pub fn pattern_matches(pattern: &[u8], key: &[u8]) -> bool {
    pattern == b"*" || glob_match(pattern, key, Case::Exact)
}

/// Decimal digits; leading zeros do no harm.
fn cursor(text: &[u8]) -> Result<u64, ErrorReply> {
    let zeros = text.iter().take_while(|byte| **byte == b'0').count();
    let digits = text.get(zeros..).unwrap_or_default();
    let read = if digits.is_empty() && zeros > 0 { Some(0) } else { number::parse_u64(digits) };
    read.ok_or_else(|| ErrorReply::new("ERR invalid cursor"))
}

/// Checks the words of a `FLUSHDB` or `FLUSHALL`: nothing, `ASYNC` or `SYNC`.
pub fn check_flush(args: Args<'_>) -> Result<(), ErrorReply> {
    match args.from(1) {
        [] => Ok(()),
        [mode] if mode.eq_ignore_ascii_case(b"ASYNC") || mode.eq_ignore_ascii_case(b"SYNC") => Ok(()),
        _ => Err(ErrorReply::syntax()),
    }
}
