//! What the table says of a command.

use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::reply::Reply;

pub(crate) mod argument;
pub(crate) mod flags;

use argument::Argument;
use flags::{Categories, Flags, Group};

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
    RandomKey,
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
    ClientRequestId,
    Time,
    Shutdown,
    Save,
    BgSave,
    LastSave,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Wait,
    WaitAof,
    NamespaceList,
    NamespaceCreate,
    NamespaceSet,
    NamespaceDrop,
    Consistency,
    ClusterInfo,
    ClusterMyId,
    ClusterNodes,
    ClusterShards,
    ClusterSlots,
    ClusterKeySlot,
    ClusterCountKeysInSlot,
    ClusterGetKeysInSlot,
    ReadOnly,
    ReadWrite,
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
    /// What it does with its keys, in the words of `COMMAND`'s key specifications: `RO access`, `RW update`, …
    pub key_flags: &'static [&'static str],
    /// Hints for clients that spread commands over nodes.
    pub tips: &'static [&'static str],
    /// Group.
    pub group: Group,
    /// The Redis version that brought it; Kvorum's for what Redis has not.
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Cost.
    pub complexity: &'static str,
    /// The grammar of its arguments.
    pub arguments: &'static [Argument],
    /// What replaces it, and since which Redis version, if Redis calls it deprecated.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// How it differs from Redis' command of this name; empty if it doesn't.
    pub differs: &'static str,
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
            key_flags: &[],
            tips: &[],
            group,
            since: "1.0.0",
            summary: "",
            complexity: "O(1)",
            arguments: &[],
            deprecated: None,
            differs: "",
            available: Available::Yes,
            subcommands: &[],
            run,
        }
    }

    /// A single key right after the name.
    pub(crate) const fn key(self, access: &'static [&'static str]) -> CommandSpec {
        self.keys(1, 1, access)
    }

    /// Keys from word 1 to word `last`, `step` words apart.
    pub(crate) const fn keys(mut self, last: i32, step: i32, access: &'static [&'static str]) -> CommandSpec {
        self.first_key = 1;
        self.last_key = last;
        self.key_step = step;
        self.key_flags = access;
        self
    }

    pub(crate) const fn flags(mut self, flags: Flags) -> CommandSpec {
        self.flags = flags;
        self
    }

    pub(crate) const fn category(mut self, categories: Categories) -> CommandSpec {
        self.categories = categories;
        self
    }

    pub(crate) const fn available(mut self, available: Available) -> CommandSpec {
        self.available = available;
        self
    }

    pub(crate) const fn docs(mut self, since: &'static str, summary: &'static str) -> CommandSpec {
        self.since = since;
        self.summary = summary;
        self
    }

    pub(crate) const fn costs(mut self, complexity: &'static str) -> CommandSpec {
        self.complexity = complexity;
        self
    }

    pub(crate) const fn arguments(mut self, arguments: &'static [Argument]) -> CommandSpec {
        self.arguments = arguments;
        self
    }

    pub(crate) const fn tips(mut self, tips: &'static [&'static str]) -> CommandSpec {
        self.tips = tips;
        self
    }

    pub(crate) const fn deprecated(mut self, since: &'static str, instead: &'static str) -> CommandSpec {
        self.deprecated = Some((since, instead));
        self
    }

    pub(crate) const fn differs(mut self, how: &'static str) -> CommandSpec {
        self.differs = how;
        self
    }

    pub(crate) const fn subcommands(mut self, subcommands: &'static [CommandSpec]) -> CommandSpec {
        self.subcommands = subcommands;
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
