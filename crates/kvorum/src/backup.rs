//! `kvorum backup` and `kvorum restore`.

use crate::ask::{Ask, Asked};
use crate::meter::Meter;
use crate::settings::{Settings, show_bytes};
use kvorum_cluster::NodeParts;
use kvorum_cluster::backup::{self, Page};
use kvorum_engine::fs::StdFs;
use std::path::Path;

/// Takes a backup of the node that `settings` name into `target`.
pub(crate) fn backup(settings: &Settings, target: &Path) -> Result<(), String> {
    let asked = Asked::of(settings, "a backup")?;
    let address = asked.address;
    // What can be known before is said before a node works for nothing.
    backup::check_target(&StdFs, target).map_err(|error| error.to_string())?;
    let mut body = asked.ask("/v1/backup", &Ask::Post)?.into_with_config().limit(u64::MAX).reader();
    let meter = Meter::new("backup");
    let received = backup::receive(&StdFs, &mut body, target, &mut |done| meter.show(done));
    meter.end();
    let page = received.map_err(|error| format!("no backup was taken of {address}: {error}"))?;
    println!("backup of {address} in {}: {}", target.display(), about(&page));
    Ok(())
}

/// Makes a store in the settings' data folder of the backup in `source`.
pub(crate) fn restore(settings: &Settings, source: &Path) -> Result<(), String> {
    let data = &settings.data;
    let parts = NodeParts::real().map_err(|error| error.to_string())?;
    let meter = Meter::new("restore");
    let restored = backup::restore(&parts, source, data, &mut |done| meter.show(done));
    meter.end();
    let restored = restored
        .map_err(|error| format!("cannot restore {} to {}: {error}", source.display(), data.display()))?;
    println!("restored {} to {}: {}", source.display(), data.display(), about(&restored.page));
    println!("a store of its own: id {}, epoch {}", restored.store_id, restored.epoch);
    println!("serve it with: kvorum --data {}", data.display());
    Ok(())
}

/// A backup in a few words.
pub(crate) fn about(page: &Page) -> String {
    format!(
        "{} files, {}, store {}, sequence {}",
        page.files.len(),
        show_size(page.bytes()),
        page.store_id,
        page.sequence
    )
}

/// A size to be read by people; exact where that is short.
pub(crate) fn show_size(bytes: u64) -> String {
    match bytes {
        0..1024 => show_bytes(bytes),
        _ => indicatif::HumanBytes(bytes).to_string(),
    }
}
