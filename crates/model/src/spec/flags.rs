//! Sets of flags and access categories, and the groups, under the names that `COMMAND` and `COMMAND DOCS` tell.

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
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 7);
    pub const FAST: Flags = Flags(1 << 8);
    pub const NO_AUTH: Flags = Flags(1 << 9);
    pub const NO_MULTI: Flags = Flags(1 << 10);
    pub const ALLOW_BUSY: Flags = Flags(1 << 11);
    pub const NO_ASYNC_LOADING: Flags = Flags(1 << 12);
}

const FLAG_NAMES: [(Flags, &str); 13] = [
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::ALLOW_BUSY, "allow_busy"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
];

impl Flags {
    /// Both sets together.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAG_NAMES.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name)
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
}

const CATEGORY_NAMES: [(Categories, &str); 10] = [
    (Categories::KEYSPACE, "keyspace"),
    (Categories::READ, "read"),
    (Categories::WRITE, "write"),
    (Categories::STRING, "string"),
    (Categories::ADMIN, "admin"),
    (Categories::FAST, "fast"),
    (Categories::SLOW, "slow"),
    (Categories::DANGEROUS, "dangerous"),
    (Categories::CONNECTION, "connection"),
    (Categories::TRANSACTION, "transaction"),
];

impl Categories {
    /// Both sets together.
    pub const fn with(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Categories) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of those that are set, without the `@`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        CATEGORY_NAMES.iter().filter(move |(category, _)| self.has(*category)).map(|(_, name)| *name)
    }

    /// The category of this name (without the `@`), in whatever case.
    pub fn named(name: &[u8]) -> Option<Categories> {
        let fits = |known: &&(Categories, &str)| known.1.as_bytes().eq_ignore_ascii_case(name);
        CATEGORY_NAMES.iter().find(fits).map(|(category, _)| *category)
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
    Cluster,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    pub fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Transactions => "transactions",
            Group::Cluster => "cluster",
        }
    }
}
