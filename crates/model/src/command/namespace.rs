//! Commands about namespaces, and about what a connection asks of them.

use super::{OWN, answer};
use crate::spec::argument::Argument;
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{CommandSpec, Run, SessionCommand};

const ANY_TIME: Flags = Flags::LOADING.with(Flags::STALE);
/// They wait for a disk, and in a cluster for other nodes, and so stand for themselves.
const CHANGE: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::NO_MULTI);

const NAME: Argument = Argument::string("name");
const SETTINGS: Argument =
    Argument::block("settings", &[Argument::string("setting"), Argument::string("value")]).multiple();

const fn session(name: &'static str, arity: i32, run: SessionCommand) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Server, Run::Session(run))
}

pub(crate) const SPECS: &[CommandSpec] = &[
    CommandSpec::new("namespace", -2, Group::Server, Run::Container)
        .subcommands(NAMESPACE)
        .costs("Depends on subcommand.")
        .docs(OWN, "A container for commands about namespaces."),
    CommandSpec::new("consistency", -1, Group::Connection, Run::Session(SessionCommand::Consistency))
        .category(Categories::CONNECTION)
        .flags(ANY_TIME.with(Flags::NOSCRIPT).with(Flags::FAST))
        .arguments(&[
            Argument::one_of(
                "read",
                &[
                    Argument::word("leader", "LEADER"),
                    Argument::word("follower", "FOLLOWER"),
                    Argument::word("stale", "STALE"),
                    Argument::word("default", "DEFAULT"),
                ],
            )
            .token("READ")
            .optional(),
            Argument::string("ack").token("ACK").optional(),
            Argument::string("from").token("FROM").optional(),
            Argument::one_of(
                "durability",
                &[
                    Argument::word("synced", "SYNCED"),
                    Argument::word("written", "WRITTEN"),
                    Argument::word("buffered", "BUFFERED"),
                    Argument::word("default", "DEFAULT"),
                ],
            )
            .token("DURABILITY")
            .optional(),
        ])
        .docs(OWN, "Chooses who answers reads and what a write survives on this connection; answers with what is in force."),
];

const NAMESPACE: &[CommandSpec] = &[
    session("namespace|list", 2, SessionCommand::NamespaceList)
        .flags(ANY_TIME)
        .costs("O(N) where N is the number of namespaces.")
        .docs(OWN, "Lists the namespaces with their settings."),
    session("namespace|create", -3, SessionCommand::NamespaceCreate)
        .flags(CHANGE)
        .arguments(&[NAME, SETTINGS.optional()])
        .docs(
            OWN,
            "Makes a namespace: mode, shards, replication, durability, history, grace, read, conflicts.",
        ),
    session("namespace|set", -5, SessionCommand::NamespaceSet)
        .flags(CHANGE)
        .arguments(&[NAME, SETTINGS])
        .docs(OWN, "Changes settings of a namespace, all or none; mode and shards stay as they were made."),
    session("namespace|drop", 3, SessionCommand::NamespaceDrop)
        .flags(CHANGE)
        .category(Categories::DANGEROUS)
        .arguments(&[NAME])
        .costs("O(1) for every shard, however many keys there are.")
        .docs(OWN, "Drops a namespace with all that is in it."),
    CommandSpec::new("namespace|help", 2, Group::Server, Run::Answer(answer::namespace_help))
        .flags(ANY_TIME)
        .docs(OWN, "Explains the subcommands of NAMESPACE."),
];
