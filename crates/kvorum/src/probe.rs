//! Who holds the port that we wanted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(500);
const REPLY_BYTES_MAX: u64 = 64 * 1024;

/// What answers at an address: ` (it answers PING as Redis 7.0.15)`, or nothing if it does not speak that protocol.
pub(crate) fn describe(address: SocketAddr) -> String {
    match ask(address) {
        Some(name) => format!(" (it answers PING as {name})"),
        None => String::new(),
    }
}

fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"PING\r\nINFO server\r\nQUIT\r\n").ok()?;
    let mut reply = Vec::new();
    // A peer that never closes ends the read by its time limit; what came until then counts.
    let _ = stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply);
    let reply = String::from_utf8_lossy(&reply);
    let protected = reply.starts_with("-NOAUTH") || reply.starts_with("-DENIED");
    if !reply.starts_with("+PONG") && !protected {
        return None;
    }
    let field = |name: &str| {
        reply.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    if let Some(version) = field("kvorum_version:") {
        return Some(format!("Kvorum {version}"));
    }
    Some(
        field("redis_version:").map_or_else(|| String::from("a Redis"), |version| format!("Redis {version}")),
    )
}

/// The next address after `address` on which one could listen instead.
pub(crate) fn free_neighbour(address: SocketAddr) -> SocketAddr {
    let candidates = (1..=20).filter_map(|step| address.port().checked_add(step));
    let mut candidates = candidates.map(|port| SocketAddr::new(address.ip(), port));
    candidates
        .find(|candidate| TcpListener::bind(candidate).is_ok())
        .unwrap_or(SocketAddr::new(address.ip(), 0))
}
