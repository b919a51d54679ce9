//! The command line. Its flags are made from the table of settings.

use crate::bench;
use crate::namespaces::Action;
use crate::nodes::OnNode;
use crate::playground::NODES_MAX;
use crate::settings::{CONFIG_VARIABLE, Sources, TABLE};
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use std::path::PathBuf;

/// What the program was asked to do.
pub(crate) enum Command {
    /// Serve a node.
    Serve(Sources),
    /// Show the settings in force.
    PrintConfig(Sources),
    /// Take a backup of a running node.
    Backup { sources: Sources, target: PathBuf },
    /// Make a store of a backup.
    Restore { sources: Sources, source: PathBuf },
    /// Look for damage in a closed store or a backup.
    Check { sources: Sources, dir: PathBuf, saving: Option<Saving> },
    /// Work on the namespaces of a running node.
    Namespace { sources: Sources, action: Action },
    /// Tell how a cluster stands.
    ClusterStatus { sources: Sources, shards: bool },
    /// Let a node of a cluster rest, or go.
    OnNode { sources: Sources, command: OnNode },
    /// Compare the replicas of a cluster.
    ClusterVerify(Sources),
    /// A cluster in one process.
    Playground { nodes: usize },
    /// Load a running node.
    Bench { sources: Sources, matches: Box<ArgMatches> },
}

/// What a check is to save, and where to.
pub(crate) enum Saving {
    /// What is whole of a store.
    Salvage(PathBuf),
    /// The store that a log was kept whole of.
    Rebuild(PathBuf),
}

impl Saving {
    fn of(matches: &ArgMatches) -> Option<Saving> {
        let target = |name| matches.get_one::<PathBuf>(name).cloned();
        target("salvage").map(Saving::Salvage).or_else(|| target("rebuild").map(Saving::Rebuild))
    }
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
        Some(("backup", matches)) => {
            Command::Backup { sources: sources(matches), target: folder(matches, "target") }
        }
        Some(("restore", matches)) => {
            Command::Restore { sources: sources(matches), source: folder(matches, "source") }
        }
        Some(("check", matches)) => Command::Check {
            sources: sources(matches),
            dir: folder(matches, "dir"),
            saving: Saving::of(matches),
        },
        Some(("namespace", matches)) => {
            let (word, matches) = matches.subcommand().unwrap_or(("list", matches));
            Command::Namespace { sources: sources(matches), action: Action::of(word, matches) }
        }
        Some(("cluster", matches)) => {
            let (word, matches) = matches.subcommand().unwrap_or(("status", matches));
            match OnNode::of(word, matches) {
                Some(command) => Command::OnNode { sources: sources(matches), command },
                None if word == "verify" => Command::ClusterVerify(sources(matches)),
                None => {
                    Command::ClusterStatus { sources: sources(matches), shards: matches.get_flag("shards") }
                }
            }
        }
        Some(("playground", matches)) => {
            Command::Playground { nodes: matches.get_one::<u64>("nodes").map_or(3, |nodes| *nodes as usize) }
        }
        Some(("bench", matches)) => {
            Command::Bench { sources: sources(matches), matches: Box::new(matches.clone()) }
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
    let backup = clap::Command::new("backup")
        .about("Take a backup of a running node, over HTTP")
        .arg(named_folder("target", "TARGET", "Folder of the backup; must not exist or be empty"))
        .args(flags_of(&["http", "requirepass"]))
        .args_override_self(true);
    let restore = clap::Command::new("restore")
        .about("Make a new store of a backup")
        .arg(named_folder("source", "SOURCE", "Folder of the backup, or of a checkpoint that BGSAVE made"))
        .args(flags_of(&["data"]))
        .args_override_self(true);
    let saving = |name: &'static str| {
        Arg::new(name).long(name).value_name("TARGET").value_parser(value_parser!(PathBuf))
    };
    let check = clap::Command::new("check")
        .about(
            "Look for damage in the store of a node that does not run, or in a backup; changes nothing there",
        )
        .arg(named_folder("dir", "DIR", "Folder of the store or backup"))
        .arg(saving("salvage").help(
            "Bring what is whole into a new store in this folder, which must not exist or be empty",
        ))
        .arg(saving("rebuild").conflicts_with("salvage").help(
            "DIR is the folder of a log that was kept whole (wal_retention = all) and whose data folder is lost: make the store anew in this folder",
        ))
        .args(flags_of(&["wal_dir", "memory", "max_value"]))
        .args_override_self(true);
    let load = bench::command().args(flags_of(&["resp", "http", "requirepass"])).args_override_self(true);
    clap::Command::new("kvorum")
        .about("A distributed key-value database: Redis protocol and HTTP. Without arguments it serves a single node on ./kvorum-data.")
        .version(env!("CARGO_PKG_VERSION"))
        .args(flags())
        .args_override_self(true)
        .args_conflicts_with_subcommands(true)
        .subcommand(serve)
        .subcommand(config)
        .subcommands([backup, restore, check, load])
        .subcommands(of_clusters())
}

/// What concerns namespaces and clusters.
fn of_clusters() -> [clap::Command; 3] {
    let namespace = clap::Command::new("namespace")
        .about("List, make, change and drop namespaces of a running node, over HTTP")
        .subcommand_required(true)
        .subcommands(Action::commands(&flags_of(&["http", "requirepass"])));
    let shards = Arg::new("shards").long("shards").action(ArgAction::SetTrue).help("Each shard, too");
    let status = clap::Command::new("status")
        .about("How a cluster stands, as one of its nodes sees it; over HTTP")
        .arg(shards)
        .args(flags_of(&["http", "requirepass"]))
        .args_override_self(true);
    let verify = clap::Command::new("verify")
        .about("Compare the replicas of all shards, in both modes; over HTTP. Fails if some differ")
        .args(flags_of(&["http", "requirepass"]))
        .args_override_self(true);
    let cluster = clap::Command::new("cluster")
        .about("Tell about a cluster, and let nodes rest or go")
        .subcommand_required(true)
        .subcommands([status, verify])
        .subcommands(OnNode::commands(&flags_of(&["http", "requirepass"])));
    let nodes = Arg::new("nodes").long("nodes").value_name("N").default_value("3");
    let nodes = nodes.value_parser(value_parser!(u64).range(1..=NODES_MAX as u64)).help("Number of nodes");
    let playground = clap::Command::new("playground")
        .about("A cluster in one process, on free ports, gone with its data on Ctrl-C")
        .arg(nodes);
    [namespace, cluster, playground]
}

fn named_folder(id: &'static str, name: &'static str, help: &'static str) -> Arg {
    Arg::new(id).value_name(name).help(help).required(true).value_parser(value_parser!(PathBuf))
}

fn folder(matches: &ArgMatches, id: &str) -> PathBuf {
    matches.get_one::<PathBuf>(id).cloned().unwrap_or_default()
}

/// The flags of some settings, by name; the settings file and the environment count for all.
fn flags_of(names: &[&str]) -> Vec<Arg> {
    let wanted = |flag: &Arg| flag.get_id() == "config" || names.iter().any(|name| flag.get_id() == name);
    flags().into_iter().filter(wanted).collect()
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
    // A subcommand may not have the flag.
    let given = |name| matches.try_get_one::<String>(name).ok().flatten().cloned();
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
