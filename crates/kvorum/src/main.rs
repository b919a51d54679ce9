//! The `kvorum` program: settings, subcommands, start lines, signals.
#![forbid(unsafe_code)]

mod cli;
mod probe;
mod serve;
mod settings;

use std::process::ExitCode;

// Values are allocated on one network thread and freed on another all day long; the system's allocator makes both wait.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = cli::parse();
    let outcome = match command {
        cli::Command::Serve(sources) => load(&sources).and_then(|settings| serve::serve(&settings)),
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
