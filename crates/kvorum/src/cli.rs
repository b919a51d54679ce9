//! The command line. Its flags are made from the table of settings.

use crate::settings::{CONFIG_VARIABLE, Sources, TABLE};
use clap::{Arg, ArgAction, ArgMatches};
use std::path::PathBuf;

/// What the program was asked to do.
pub(crate) enum Command {
    /// Serve a node.
    Serve(Sources),
    /// Show the settings in force.
    PrintConfig(Sources),
}

/// Reads the command line and the environment; ends the program with a message if they make no sense.
pub(crate) fn parse() -> Command {
    let matches = program().get_matches();
    match matches.subcommand() {
        Some(("config", matches)) => {
            if !matches.get_flag("print") {
                let mut program = program();
                program.build();
                let usage = "nothing to do: say `kvorum config --print`";
                program.error(clap::error::ErrorKind::MissingRequiredArgument, usage).exit();
            }
            Command::PrintConfig(sources(matches))
        }
        Some((_, matches)) => Command::Serve(sources(matches)),
        None => Command::Serve(sources(&matches)),
    }
}

fn program() -> clap::Command {
    let serve = clap::Command::new("serve")
        .about("Serve a node (also without this word)")
        .args(flags())
        .args_override_self(true);
    let config = clap::Command::new("config")
        .about("Show the settings in force, documented, as a TOML file")
        .arg(Arg::new("print").long("print").action(ArgAction::SetTrue).help("Print them"))
        .args(flags())
        .args_override_self(true);
    clap::Command::new("kvorum")
        .about("A distributed key-value database: Redis protocol and HTTP. Without arguments it serves a single node on ./kvorum-data.")
        .version(env!("CARGO_PKG_VERSION"))
        .args(flags())
        .args_override_self(true)
        .args_conflicts_with_subcommands(true)
        .subcommand(serve)
        .subcommand(config)
}

fn flags() -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("Settings file (TOML) [env: {CONFIG_VARIABLE}]"));
    let settings = TABLE.iter().map(|setting| {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        Arg::new(setting.name).long(clap::builder::Str::from(setting.flag())).value_name(setting.value).help(
            format!("{} [default: {default}] [env: {}]", setting.help.replace('\n', " "), setting.variable()),
        )
    });
    std::iter::once(file).chain(settings).collect()
}

fn sources(matches: &ArgMatches) -> Sources {
    let given = |name| matches.get_one::<String>(name).cloned();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources {
        file: given("config").or_else(|| std::env::var(CONFIG_VARIABLE).ok()).map(PathBuf::from),
        environment: environment.collect(),
        flags: TABLE.iter().filter_map(|setting| Some((setting.name, given(setting.name)?))).collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::program().debug_assert();
    }
}
