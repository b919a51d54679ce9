//! `kvorum backup` and `kvorum restore`.

use crate::meter::Meter;
use crate::settings::{Settings, show_bytes};
use kvorum_cluster::NodeParts;
use kvorum_cluster::backup::{self, Page};
use kvorum_engine::fs::StdFs;
use std::path::Path;
use std::time::Duration;

/// A node that does not answer a connection within this is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A connection that brings nothing for so long is given up. The node flushes before it answers, so the first byte may take a while.
const SILENT_MAX: Duration = Duration::from_secs(300);

/// Bytes of a refusal that are shown.
const REFUSAL_BYTES_MAX: u64 = 4 << 10;

/// Takes a backup of the node that `settings` name into `target`.
pub(crate) fn backup(settings: &Settings, target: &Path) -> Result<(), String> {
    let address = settings.http.as_deref().ok_or("a backup goes over HTTP, which is off: say --http ADDR")?;
    // What can be known before is said before a node works for nothing.
    backup::check_target(&StdFs, target).map_err(|error| error.to_string())?;
    let mut body = ask(settings, address)?;
    let meter = Meter::new("backup");
    let received = backup::receive(&StdFs, &mut body, target, &mut |done| meter.show(done));
    meter.end();
    let page = received.map_err(|error| format!("no backup was taken of {address}: {error}"))?;
    println!("backup of {address} in {}: {}", target.display(), about(&page));
    Ok(())
}

fn ask(settings: &Settings, address: &str) -> Result<impl std::io::Read, String> {
    let configuration = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_recv_response(Some(SILENT_MAX))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build();
    let mut request = ureq::Agent::new_with_config(configuration).post(format!("http://{address}/v1/backup"));
    if let Some(secret) = &settings.requirepass {
        request = request.header("Authorization", format!("Bearer {secret}"));
    }
    let failed = |error: ureq::Error| format!("cannot take a backup of {address}: {error}");
    let response = request.send_empty().map_err(failed)?;
    let (status, mut body) = (response.status(), response.into_body());
    if status.as_u16() == 200 {
        return Ok(body.into_with_config().limit(u64::MAX).reader());
    }
    let text = body.with_config().limit(REFUSAL_BYTES_MAX).read_to_string().unwrap_or_default();
    let remedy = match status.as_u16() {
        401 => " (--requirepass SECRET, or KVORUM_REQUIREPASS)",
        400 | 404 | 405 => " (is that the HTTP address of a Kvorum that knows backups?)",
        _ => "",
    };
    Err(format!("{address} refused a backup: {status}: {}{remedy}", text.trim()))
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
