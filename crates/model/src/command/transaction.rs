//! Commands that hold others together.

use super::access::RO;
use crate::spec::argument::KEYS;
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, Run, SessionCommand};

const QUIET: Flags = Flags::NOSCRIPT.with(Flags::LOADING).with(Flags::STALE);
const QUICK: Flags = QUIET.with(Flags::FAST).with(Flags::ALLOW_BUSY);

const fn spec(name: &'static str, arity: i32, run: SessionCommand) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Transactions, Run::Session(run))
        .flags(QUICK)
        .category(Categories::TRANSACTION)
        .available(Available::No)
}

pub(crate) const SPECS: &[CommandSpec] = &[
    spec("multi", 1, SessionCommand::Multi)
        .differs("A transaction is one durable batch: after a crash it is there whole or not at all.")
        .docs("1.2.0", "Starts a transaction: the commands that follow are queued."),
    spec("exec", 1, SessionCommand::Exec)
        .flags(QUIET.with(Flags::SKIP_SLOWLOG))
        .costs("Depends on commands in the transaction")
        .docs("1.2.0", "Runs the queued commands as one."),
    spec("discard", 1, SessionCommand::Discard)
        .costs("O(N) where N is the number of queued commands.")
        .docs("2.0.0", "Drops the queued commands."),
    spec("watch", -2, SessionCommand::Watch)
        .keys(-1, 1, RO)
        .arguments(&[KEYS])
        .costs("O(1) for every key.")
        .differs("Compares versions: a key that was changed and changed back counts as changed.")
        .docs("2.2.0", "Lets the next transaction run only if these keys stay as they are."),
    spec("unwatch", 1, SessionCommand::Unwatch).docs("2.2.0", "Forgets all watched keys."),
];
