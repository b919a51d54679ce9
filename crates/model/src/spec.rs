//! What the table says of a command.

use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::reply::Reply;
use std::ops::BitOr;

/// A command that reads and writes keys. The arity has been checked. Run it by [`evaluate`](crate::evaluate).
pub type DataFn = for<'r> fn(&mut Context<'_, 'r>, Args<'r>) -> Result<Reply, Stop>;

/// A command whose reply follows from its words alone. The arity has been checked.
pub type AnswerFn = fn(Args<'_>) -> Result<Reply, ErrorReply>;

/// Who runs a command.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// The shards of its keys, by [`evaluate`](crate::evaluate).
    Data(DataFn),
    /// The node, over all keys of the namespace.
    Keyspace(Keyspace),
    /// The server: it concerns the connection or the process.
    Session(SessionCommand),
    /// Anybody: the reply follows from the words (`PING`, `ECHO`, `COMMAND …`, `… HELP`).
    Answer(AnswerFn),
    /// A container of subcommands; [`resolve`](crate::resolve) never hands one out.
    Container,
}

/// Commands over all keys of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the Redis command of this name")]
pub enum Keyspace {
    Scan,
    Keys,
    DbSize,
    FlushDb,
    FlushAll,
}

/// Commands that the server runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the Redis command of this name")]
pub enum SessionCommand {
    Select,
    Auth,
    Hello,
    Quit,
    Reset,
    Info,
    ConfigGet,
    ConfigSet,
    ClientId,
    ClientGetName,
    ClientSetName,
    ClientSetInfo,
    ClientList,
    ClientInfo,
    Time,
    Shutdown,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
}

/// A set of command flags, as `COMMAND` tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u32);

#[expect(missing_docs, reason = "each is the Redis flag of this name")]
impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const WRITE: Flags = Flags(1);
    pub const READONLY: Flags = Flags(1 << 1);
    pub const DENYOOM: Flags = Flags(1 << 2);
    pub const ADMIN: Flags = Flags(1 << 3);
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    pub const LOADING: Flags = Flags(1 << 5);
    pub const STALE: Flags = Flags(1 << 6);
    pub const SKIP_MONITOR: Flags = Flags(1 << 7);
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 8);
    pub const FAST: Flags = Flags(1 << 9);
    pub const NO_AUTH: Flags = Flags(1 << 10);
    pub const ALLOW_BUSY: Flags = Flags(1 << 11);
    pub const NO_MULTI: Flags = Flags(1 << 12);

    /// Both sets together.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

/// A set of access categories (`@read`, `@string`, …), for rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Categories(u32);

#[expect(missing_docs, reason = "each is the Redis category of this name")]
impl Categories {
    pub const NONE: Categories = Categories(0);
    pub const KEYSPACE: Categories = Categories(1);
    pub const READ: Categories = Categories(1 << 1);
    pub const WRITE: Categories = Categories(1 << 2);
    pub const STRING: Categories = Categories(1 << 3);
    pub const ADMIN: Categories = Categories(1 << 4);
    pub const FAST: Categories = Categories(1 << 5);
    pub const SLOW: Categories = Categories(1 << 6);
    pub const DANGEROUS: Categories = Categories(1 << 7);
    pub const CONNECTION: Categories = Categories(1 << 8);
    pub const TRANSACTION: Categories = Categories(1 << 9);

    /// Both sets together.
    pub const fn with(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Categories) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a command belongs to, as `COMMAND DOCS` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the Redis group of this name")]
pub enum Group {
    String,
    Generic,
    Connection,
    Server,
    Transactions,
}

/// Whether an available namespace can take the command.
#[derive(Debug, Clone, Copy)]
pub enum Available {
    /// It neither reads before it writes nor promises atomicity over keys.
    Yes,
    /// It does.
    No,
    /// It depends on the options: true if these words fit.
    If(fn(Args<'_>) -> bool),
}

/// One command (or subcommand) of the table.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec {
    /// Lower case; of a subcommand with its container: `client|setname`.
    pub name: &'static str,
    /// Number of words, the name (and subcommand) included; negative: at least as many.
    pub arity: i32,
    /// Flags.
    pub flags: Flags,
    /// Access categories, except those that follow from the flags: see [`all_categories`](CommandSpec::all_categories).
    pub categories: Categories,
    /// Place of the first key; 0: takes no keys.
    pub first_key: i32,
    /// Place of the last key; negative: counted from the end (−1 is the last word).
    pub last_key: i32,
    /// Words from one key to the next.
    pub key_step: i32,
    /// Group.
    pub group: Group,
    /// The Redis version that brought it; Kvorum's for what Redis has not.
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Cost.
    pub complexity: &'static str,
    /// Whether an available namespace can take it.
    pub available: Available,
    /// Subcommands of a container.
    pub subcommands: &'static [CommandSpec],
    /// Who runs it.
    pub run: Run,
}

impl CommandSpec {
    /// A command with neither keys nor flags; the other methods add them.
    pub(crate) const fn new(name: &'static str, arity: i32, group: Group, run: Run) -> CommandSpec {
        CommandSpec {
            name,
            arity,
            flags: Flags::NONE,
            categories: Categories::NONE,
            first_key: 0,
            last_key: 0,
            key_step: 0,
            group,
            since: "1.0.0",
            summary: "",
            complexity: "O(1)",
            available: Available::Yes,
            subcommands: &[],
            run,
        }
    }

    pub(crate) const fn keys(mut self, first: i32, last: i32, step: i32) -> CommandSpec {
        self.first_key = first;
        self.last_key = last;
        self.key_step = step;
        self
    }

    pub(crate) const fn flags(mut self, flags: Flags) -> CommandSpec {
        self.flags = self.flags.with(flags);
        self
    }

    pub(crate) const fn category(mut self, categories: Categories) -> CommandSpec {
        self.categories = self.categories.with(categories);
        self
    }

    pub(crate) const fn available(mut self, available: Available) -> CommandSpec {
        self.available = available;
        self
    }

    pub(crate) const fn docs(
        mut self,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> CommandSpec {
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self
    }

    /// Whether `words` words (the name included) are as many as the command takes.
    pub fn takes(&self, words: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= wanted } else { words == wanted }
    }

    /// Whether it may change keys.
    pub fn is_write(&self) -> bool {
        self.flags.has(Flags::WRITE)
    }

    /// All access categories, those that follow from the flags included.
    pub fn all_categories(&self) -> Categories {
        let mut all = self.categories;
        let mut add = |when: bool, category| {
            if when {
                all = all.with(category);
            }
        };
        add(self.flags.has(Flags::WRITE), Categories::WRITE);
        add(self.flags.has(Flags::READONLY), Categories::READ);
        add(self.flags.has(Flags::ADMIN), Categories::ADMIN.with(Categories::DANGEROUS));
        add(self.flags.has(Flags::FAST), Categories::FAST);
        add(!self.flags.has(Flags::FAST), Categories::SLOW);
        all
    }

    /// The keys among `args`, in order; none for a command without keys.
    pub fn keys_of<'r>(&self, args: Args<'r>) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let words = args.words();
        let first = usize::try_from(self.first_key).unwrap_or(0);
        let end = match usize::try_from(self.last_key) {
            Ok(last) => (last + 1).min(words.len()),
            Err(_) => (words.len() + 1).saturating_sub(self.last_key.unsigned_abs() as usize),
        };
        let end = if first == 0 { 0 } else { end };
        let step = usize::try_from(self.key_step).unwrap_or(1).max(1);
        words.get(first..end).unwrap_or_default().iter().step_by(step).copied()
    }

    /// `ERR needs a strong namespace` unless an available namespace can take these words.
    pub fn check_available(&self, args: Args<'_>) -> Result<(), ErrorReply> {
        let fits = match self.available {
            Available::Yes => true,
            Available::No => false,
            Available::If(fits) => fits(args),
        };
        if fits { Ok(()) } else { Err(ErrorReply::needs_strong()) }
    }
}
