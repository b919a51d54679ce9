//! The `kvorum` program: settings, subcommands, start lines, signals.
#![forbid(unsafe_code)]

mod ask;
mod backup;
mod bench;
mod check;
mod cli;
mod cluster;
mod meter;
mod namespaces;
mod nodes;
mod playground;
mod probe;
mod serve;
mod settings;
mod status;
mod verify;

use std::process::ExitCode;

// Values are allocated on one network thread and freed on another all day long; the system's allocator makes both wait.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = cli::parse();
    let outcome = match command {
        cli::Command::Serve(sources) => load(&sources).and_then(|settings| serve::serve(&settings)),
        cli::Command::Backup { sources, target } => {
            load(&sources).and_then(|settings| backup::backup(&settings, &target))
        }
        cli::Command::Restore { sources, source } => {
            load(&sources).and_then(|settings| backup::restore(&settings, &source))
        }
        cli::Command::Check { sources, dir, saving } => {
            load(&sources).and_then(|settings| check::check(&settings, &dir, saving.as_ref()))
        }
        cli::Command::Bench { sources, matches } => load(&sources).and_then(|settings| {
            let (resp, http) = (settings.resp.as_str(), settings.http.as_deref());
            bench::bench(&bench::Options::of(&matches, resp, http, settings.requirepass.clone())?)
        }),
        cli::Command::Namespace { sources, action } => {
            load(&sources).and_then(|settings| namespaces::namespace(&settings, &action))
        }
        cli::Command::ClusterStatus { sources, shards } => {
            load(&sources).and_then(|settings| status::status(&settings, shards))
        }
        cli::Command::OnNode { sources, command } => {
            load(&sources).and_then(|settings| nodes::on_node(&settings, &command))
        }
        cli::Command::ClusterVerify(sources) => load(&sources).and_then(|settings| verify::verify(&settings)),
        cli::Command::Playground { nodes } => playground::playground(nodes),
        cli::Command::PrintConfig(sources) => load(&sources).map(|settings| print!("{}", settings.print())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("kvorum: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn load(sources: &settings::Sources) -> Result<settings::Settings, String> {
    settings::Settings::load(sources).map_err(|error| error.to_string())
}
