//! The grammar of a command's arguments, as `COMMAND DOCS` tells it: clients complete and check input by it.

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the Redis argument type of this name")]
pub enum ArgumentKind {
    Key,
    String,
    Integer,
    Double,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl ArgumentKind {
    /// The name in `COMMAND DOCS`.
    pub fn name(self) -> &'static str {
        match self {
            ArgumentKind::Key => "key",
            ArgumentKind::String => "string",
            ArgumentKind::Integer => "integer",
            ArgumentKind::Double => "double",
            ArgumentKind::Pattern => "pattern",
            ArgumentKind::UnixTime => "unix-time",
            ArgumentKind::PureToken => "pure-token",
            ArgumentKind::OneOf => "oneof",
            ArgumentKind::Block => "block",
        }
    }
}

/// One argument of a command, possibly made of others.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: ArgumentKind,
    /// The word before it, or, of a pure token, the word itself.
    pub token: Option<&'static str>,
    /// The Redis version that brought it, where it is younger than the command.
    pub since: Option<&'static str>,
    /// Whether it may be missing.
    pub optional: bool,
    /// Whether it may stand several times.
    pub multiple: bool,
    /// The alternatives of a `oneof`, the parts of a `block`.
    pub arguments: &'static [Argument],
}

/// The usual single key.
pub(crate) const KEY: Argument = Argument::new("key", ArgumentKind::Key);
/// A key once or more.
pub(crate) const KEYS: Argument = KEY.multiple();
/// A value of any bytes.
pub(crate) const VALUE: Argument = Argument::string("value");

impl Argument {
    pub(crate) const fn new(name: &'static str, kind: ArgumentKind) -> Argument {
        Argument { name, kind, token: None, since: None, optional: false, multiple: false, arguments: &[] }
    }

    pub(crate) const fn string(name: &'static str) -> Argument {
        Argument::new(name, ArgumentKind::String)
    }

    pub(crate) const fn integer(name: &'static str) -> Argument {
        Argument::new(name, ArgumentKind::Integer)
    }

    pub(crate) const fn unix_time(name: &'static str) -> Argument {
        Argument::new(name, ArgumentKind::UnixTime)
    }

    /// A word that stands for itself.
    pub(crate) const fn word(name: &'static str, token: &'static str) -> Argument {
        Argument::new(name, ArgumentKind::PureToken).token(token)
    }

    pub(crate) const fn one_of(name: &'static str, arguments: &'static [Argument]) -> Argument {
        let mut all = Argument::new(name, ArgumentKind::OneOf);
        all.arguments = arguments;
        all
    }

    pub(crate) const fn block(name: &'static str, arguments: &'static [Argument]) -> Argument {
        let mut all = Argument::new(name, ArgumentKind::Block);
        all.arguments = arguments;
        all
    }

    pub(crate) const fn token(mut self, token: &'static str) -> Argument {
        self.token = Some(token);
        self
    }

    pub(crate) const fn since(mut self, version: &'static str) -> Argument {
        self.since = Some(version);
        self
    }

    pub(crate) const fn optional(mut self) -> Argument {
        self.optional = true;
        self
    }

    pub(crate) const fn multiple(mut self) -> Argument {
        self.multiple = true;
        self
    }

    /// How a person would write it: `key`, `[EX seconds]`, `<NX | XX>`, `key [key ...]`.
    pub fn syntax(&self) -> String {
        let inner = match self.kind {
            ArgumentKind::PureToken => self.token.unwrap_or(self.name).to_owned(),
            ArgumentKind::OneOf => {
                let all: Vec<_> = self.arguments.iter().map(Argument::syntax).collect();
                // Brackets of its own unless those of an option are around it.
                let bare = self.optional && self.token.is_none();
                if bare { all.join(" | ") } else { format!("<{}>", all.join(" | ")) }
            }
            ArgumentKind::Block => self.arguments.iter().map(Argument::syntax).collect::<Vec<_>>().join(" "),
            _ => self.name.to_owned(),
        };
        let inner = if self.multiple { format!("{inner} [{inner} ...]") } else { inner };
        let inner = match self.token {
            Some(token) if self.kind != ArgumentKind::PureToken => format!("{token} {inner}"),
            _ => inner,
        };
        if self.optional { format!("[{inner}]") } else { inner }
    }
}
