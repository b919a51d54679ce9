//! Commands that concern the connection.

use super::answer;
use crate::spec::argument::Argument;
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{AnswerFn, CommandSpec, Run, SessionCommand};

const ANY_TIME: Flags = Flags::LOADING.with(Flags::STALE);
const QUIET: Flags = ANY_TIME.with(Flags::NOSCRIPT);
const BEFORE_AUTH: Flags = QUIET.with(Flags::FAST).with(Flags::NO_AUTH).with(Flags::ALLOW_BUSY);

const fn session(name: &'static str, arity: i32, run: SessionCommand) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Connection, Run::Session(run)).category(Categories::CONNECTION)
}

const fn answer(name: &'static str, arity: i32, run: AnswerFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Connection, Run::Answer(run)).category(Categories::CONNECTION)
}

const CREDENTIALS: &[Argument] = &[Argument::string("username"), Argument::string("password")];

pub(crate) const SPECS: &[CommandSpec] = &[
    answer("ping", -1, answer::ping)
        .flags(Flags::FAST)
        .arguments(&[Argument::string("message").optional()])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("1.0.0", "Answers PONG, or the message."),
    answer("echo", 2, answer::echo)
        .flags(ANY_TIME.with(Flags::FAST))
        .arguments(&[Argument::string("message")])
        .docs("1.0.0", "Answers the message."),
    session("select", 2, SessionCommand::Select)
        .flags(ANY_TIME.with(Flags::FAST))
        .arguments(&[Argument::integer("index")])
        .differs("Takes 0 to 15, and the names of other namespaces.")
        .docs("1.0.0", "Chooses the namespace that the connection works on."),
    session("auth", -2, SessionCommand::Auth)
        .flags(BEFORE_AUTH)
        .arguments(&[Argument::string("username").since("6.0.0").optional(), Argument::string("password")])
        .costs("O(N) where N is the number of passwords defined for the user.")
        .docs("1.0.0", "Says who the connection belongs to."),
    session("hello", -1, SessionCommand::Hello)
        .flags(BEFORE_AUTH)
        .arguments(&[Argument::block(
            "arguments",
            &[
                Argument::integer("protover"),
                Argument::block("auth", CREDENTIALS).token("AUTH").optional(),
                Argument::string("clientname").token("SETNAME").optional(),
            ],
        )
        .optional()])
        .docs("6.0.0", "Chooses the protocol version and tells about the server."),
    session("quit", -1, SessionCommand::Quit)
        .flags(BEFORE_AUTH)
        .deprecated("7.2.0", "just closing the connection")
        .docs("1.0.0", "Closes the connection."),
    session("reset", 1, SessionCommand::Reset)
        .flags(BEFORE_AUTH)
        .docs("6.2.0", "Makes the connection as if it were new."),
    CommandSpec::new("client", -2, Group::Connection, Run::Container)
        .category(Categories::NONE)
        .subcommands(CLIENT)
        .costs("Depends on subcommand.")
        .docs("2.4.0", "A container for commands about connections."),
];

const CLIENT: &[CommandSpec] = &[
    session("client|id", 2, SessionCommand::ClientId)
        .flags(QUIET)
        .docs("5.0.0", "Returns the number of the connection."),
    session("client|getname", 2, SessionCommand::ClientGetName)
        .flags(QUIET)
        .docs("2.6.9", "Returns the name of the connection."),
    session("client|setname", 3, SessionCommand::ClientSetName)
        .flags(QUIET)
        .arguments(&[Argument::string("connection-name")])
        .docs("2.6.9", "Gives the connection a name."),
    session("client|setinfo", 4, SessionCommand::ClientSetInfo)
        .flags(QUIET)
        .arguments(&[Argument::one_of(
            "attr",
            &[Argument::string("libname").token("LIB-NAME"), Argument::string("libver").token("LIB-VER")],
        )])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .docs("7.2.0", "Tells which client library the connection is used by."),
    session("client|requestid", 3, SessionCommand::ClientRequestId)
        .flags(QUIET)
        .arguments(&[Argument::string("request-id")])
        .docs(
            super::OWN,
            "Names the next command or transaction that writes: executed once, however often it comes under this name.",
        ),
    session("client|info", 2, SessionCommand::ClientInfo)
        .flags(QUIET)
        .tips(&["nondeterministic_output"])
        .docs("6.2.0", "Tells about the connection."),
    session("client|list", -2, SessionCommand::ClientList)
        .flags(QUIET.with(Flags::ADMIN))
        .arguments(&[
            Argument::one_of(
                "client-type",
                &[
                    Argument::word("normal", "NORMAL"),
                    Argument::word("master", "MASTER"),
                    Argument::word("replica", "REPLICA"),
                    Argument::word("pubsub", "PUBSUB"),
                ],
            )
            .token("TYPE")
            .since("5.0.0")
            .optional(),
            Argument::integer("client-id").token("ID").since("6.2.0").optional().multiple(),
        ])
        .tips(&["nondeterministic_output"])
        .costs("O(N) where N is the number of client connections.")
        .docs("2.4.0", "Tells about the open connections."),
    answer("client|help", 2, answer::client_help)
        .flags(ANY_TIME)
        .docs("5.0.0", "Explains the subcommands of CLIENT."),
];
