//! Commands that concern the server.

use super::answer;
use crate::spec::argument::{Argument, ArgumentKind};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{AnswerFn, CommandSpec, Run, SessionCommand};

const ANY_TIME: Flags = Flags::LOADING.with(Flags::STALE);
const ADMIN: Flags = ANY_TIME.with(Flags::ADMIN).with(Flags::NOSCRIPT);

const SAVING: Flags = Flags::ADMIN.with(Flags::NOSCRIPT).with(Flags::NO_ASYNC_LOADING);

const fn session(name: &'static str, arity: i32, run: SessionCommand) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Server, Run::Session(run))
}

const fn about_table(name: &'static str, arity: i32, run: AnswerFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Server, Run::Answer(run))
        .flags(ANY_TIME)
        .category(Categories::CONNECTION)
}

pub(crate) const SPECS: &[CommandSpec] = &[
    session("info", -1, SessionCommand::Info)
        .flags(ANY_TIME)
        .category(Categories::DANGEROUS)
        .arguments(&[Argument::string("section").optional().multiple()])
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .docs("1.0.0", "Tells about the server, by section."),
    session("time", 1, SessionCommand::Time)
        .flags(ANY_TIME.with(Flags::FAST))
        .tips(&["nondeterministic_output"])
        .docs("2.6.0", "Returns the server's time: Unix seconds, and microseconds of the current one."),
    session("shutdown", -1, SessionCommand::Shutdown)
        .flags(ADMIN.with(Flags::NO_MULTI).with(Flags::ALLOW_BUSY))
        .arguments(&[
            Argument::one_of(
                "save-selector",
                &[Argument::word("nosave", "NOSAVE"), Argument::word("save", "SAVE")],
            )
            .optional(),
            Argument::word("now", "NOW").since("7.0.0").optional(),
            Argument::word("force", "FORCE").since("7.0.0").optional(),
            Argument::word("abort", "ABORT").since("7.0.0").optional(),
        ])
        .differs("All acknowledged writes are kept, with NOSAVE too.")
        .docs("1.0.0", "Stops the server."),
    session("bgsave", -1, SessionCommand::BgSave)
        .flags(SAVING)
        .arguments(&[Argument::word("schedule", "SCHEDULE").since("3.2.2").optional()])
        .differs("Makes a checkpoint in `checkpoints` below the data folder, at the cost of a flush; the last one is kept. See backup.md.")
        .docs("1.0.0", "Makes a checkpoint of all data in the background."),
    session("save", 1, SessionCommand::Save)
        .flags(SAVING.with(Flags::NO_MULTI))
        .differs("As BGSAVE, and answers when it is done; other clients go on.")
        .docs("1.0.0", "Makes a checkpoint of all data."),
    session("lastsave", 1, SessionCommand::LastSave)
        .flags(ANY_TIME.with(Flags::FAST))
        .category(Categories::ADMIN.with(Categories::DANGEROUS))
        .tips(&["nondeterministic_output"])
        .docs("1.0.0", "Returns when the last checkpoint was made: Unix seconds."),
    CommandSpec::new("config", -2, Group::Server, Run::Container)
        .subcommands(CONFIG)
        .costs("Depends on subcommand.")
        .docs("2.0.0", "A container for commands about settings."),
    about_table("command", -1, answer::command)
        .subcommands(COMMAND)
        .tips(&["nondeterministic_output_order"])
        .costs("O(N) where N is the number of commands.")
        .docs("2.8.13", "Describes all commands."),
];

const CONFIG: &[CommandSpec] = &[
    session("config|get", -3, SessionCommand::ConfigGet)
        .flags(ADMIN)
        .arguments(&[Argument::string("parameter").multiple()])
        .costs("O(N) where N is the number of parameters.")
        .docs("2.0.0", "Returns the settings whose names match the patterns."),
    session("config|set", -4, SessionCommand::ConfigSet)
        .flags(ADMIN)
        .arguments(&[
            Argument::block("data", &[Argument::string("parameter"), Argument::string("value")]).multiple()
        ])
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .costs("O(N) where N is the number of parameters.")
        .docs("2.0.0", "Changes settings of the running server."),
    CommandSpec::new("config|help", 2, Group::Server, Run::Answer(answer::config_help))
        .flags(ANY_TIME)
        .docs("5.0.0", "Explains the subcommands of CONFIG."),
];

const NAMES: &[Argument] = &[Argument::string("command-name").optional().multiple()];
const CALL: &[Argument] = &[Argument::string("command"), Argument::string("arg").optional().multiple()];

const COMMAND: &[CommandSpec] = &[
    about_table("command|count", 2, answer::command_count).docs("2.8.13", "Counts the commands."),
    about_table("command|docs", -2, answer::command_docs)
        .arguments(NAMES)
        .tips(&["nondeterministic_output_order"])
        .costs("O(N) where N is the number of commands to look up.")
        .docs("7.0.0", "Returns the documentation of commands."),
    about_table("command|info", -2, answer::command_info)
        .arguments(NAMES)
        .tips(&["nondeterministic_output_order"])
        .costs("O(N) where N is the number of commands to look up.")
        .docs("2.8.13", "Describes the named commands."),
    about_table("command|list", -2, answer::command_list)
        .arguments(&[Argument::one_of(
            "filterby",
            &[
                Argument::string("module-name").token("MODULE"),
                Argument::string("category").token("ACLCAT"),
                Argument::new("pattern", ArgumentKind::Pattern).token("PATTERN"),
            ],
        )
        .token("FILTERBY")
        .optional()])
        .tips(&["nondeterministic_output_order"])
        .costs("O(N) where N is the number of commands.")
        .docs("7.0.0", "Returns the names of commands."),
    about_table("command|getkeys", -3, answer::command_getkeys)
        .arguments(CALL)
        .costs("O(N) where N is the number of words of the command.")
        .docs("2.8.13", "Returns the keys among the words of a command."),
    about_table("command|getkeysandflags", -3, answer::command_getkeysandflags)
        .arguments(CALL)
        .costs("O(N) where N is the number of words of the command.")
        .docs("7.0.0", "Returns the keys among the words of a command, and what it does with them."),
    about_table("command|help", 2, answer::command_help)
        .docs("5.0.0", "Explains the subcommands of COMMAND."),
];
