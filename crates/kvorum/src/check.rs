//! `kvorum check`: a look at a store that nobody serves, or at a backup; and saving what is whole.

use crate::backup::{about, show_size};
use crate::cli::Saving;
use crate::meter::Meter;
use crate::settings::Settings;
use kvorum_cluster::NodeParts;
use kvorum_cluster::backup;
use kvorum_engine::fs::StdFs;
use kvorum_engine::{CheckProgress, Checked, Error, Parts};
use std::path::Path;

/// Reads everything in `dir` and tells what is damaged; that there is damage is an error. With `saving`, what is whole is brought elsewhere.
pub(crate) fn check(settings: &Settings, dir: &Path, saving: Option<&Saving>) -> Result<(), String> {
    if backup::is_backup(&StdFs, dir).map_err(|error| error.to_string())? {
        return match saving {
            None => check_backup(dir),
            Some(_) => Err(format!("{} is a backup: kvorum restore makes a store of it", dir.display())),
        };
    }
    let mut engine = kvorum_engine::Settings::default();
    engine.wal_dir.clone_from(&settings.wal_dir);
    engine.memory_bytes = settings.memory_bytes;
    engine.max_value_bytes = settings.max_value_bytes;
    let parts = Parts::real();
    let Some(saving) = saving else { return check_store(&engine, &parts, dir) };
    let (saved, target) = match saving {
        Saving::Salvage(target) => (kvorum_engine::salvage(dir, target, &engine, &parts), target),
        Saving::Rebuild(target) => (kvorum_engine::rebuild(dir, target, &engine, &parts), target),
    };
    let saved = saved.map_err(|error| match saving {
        Saving::Salvage(_) => explain(dir, &error),
        Saving::Rebuild(_) => format!("cannot make a store of the log in {}: {error}", dir.display()),
    })?;
    let told = tell(dir, &saved.checked);
    let parts = NodeParts::real().map_err(|error| error.to_string())?;
    let store_id = backup::make_own(&parts, target).map_err(|error| error.to_string())?;
    println!("brought {} operations to {}", saved.operations, target.display());
    println!("a store of its own: id {store_id}; serve it with: kvorum --data {}", target.display());
    told
}

fn check_store(engine: &kvorum_engine::Settings, parts: &Parts, dir: &Path) -> Result<(), String> {
    let meter = Meter::new("check");
    let mut show = |at: CheckProgress| meter.show_bytes(at.bytes, at.of_bytes);
    let checked = kvorum_engine::check_showing(dir, engine, parts, &mut show);
    meter.end();
    tell(dir, &checked.map_err(|error| explain(dir, &error))?)
}

fn check_backup(dir: &Path) -> Result<(), String> {
    let meter = Meter::new("check");
    let inspected = backup::inspect(&StdFs, dir, &mut |done| meter.show(done));
    meter.end();
    let (page, damages) = inspected.map_err(|error| error.to_string())?;
    for damage in &damages {
        println!("{damage}");
    }
    println!("backup in {}: {}", dir.display(), about(&page));
    verdict(dir, damages.len() as u64)
}

fn tell(dir: &Path, checked: &Checked) -> Result<(), String> {
    for damage in &checked.damages {
        println!("{damage}");
    }
    let more = checked.damage_count.saturating_sub(checked.damages.len() as u64);
    if more > 0 {
        println!("and {more} damages more");
    }
    let size = show_size(checked.bytes);
    println!(
        "store in {}: {} files, {size}, {} records in the log",
        dir.display(),
        checked.files,
        checked.log_records
    );
    verdict(dir, checked.damage_count)
}

fn verdict(dir: &Path, damages: u64) -> Result<(), String> {
    if damages == 0 {
        println!("no damage");
        return Ok(());
    }
    let plural = if damages == 1 { "" } else { "s" };
    Err(format!("{} has {damages} damage{plural}, listed above", dir.display()))
}

fn explain(dir: &Path, error: &Error) -> String {
    match error {
        Error::Locked { .. } => {
            format!("{error}: stop it first, or take a backup of it: kvorum backup TARGET")
        }
        _ => format!("cannot check {}: {error}", dir.display()),
    }
}
