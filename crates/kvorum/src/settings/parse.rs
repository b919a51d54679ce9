//! Values as people write them: sizes, addresses, yes and no, durability classes.

use kvorum_cluster::Durability;
use std::net::ToSocketAddrs as _;

const UNITS: &[(&str, u64)] = &[
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
    ("", 1),
];

/// A size in bytes: `256MiB`, `1 GB`, `1048576`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    let bytes =
        number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| String::from("a size such as 256MiB or 1GB"))
}

/// A size as one would write it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    for (name, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{name}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A size of at least `least`.
pub(super) fn bytes_from(text: &str, least: u64) -> Result<u64, String> {
    let size = bytes(text)?;
    if size < least {
        return Err(format!("at least {}", show_bytes(least)));
    }
    Ok(size)
}

/// `yes` or `no`.
pub(super) fn yes_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(String::from("yes or no")),
    }
}

/// `yes` or `no`.
pub(super) fn show_yes_no(value: bool) -> String {
    String::from(if value { "yes" } else { "no" })
}

/// `host:port`, where the host may be a name of this machine.
pub(super) fn address(text: &str) -> Result<String, String> {
    match text.to_socket_addrs().ok().and_then(|mut found| found.next()) {
        Some(_) => Ok(text.to_owned()),
        None => Err(String::from(
            "an address such as 127.0.0.1:6379, [::1]:6379 or 0.0.0.0:0 (port 0: any free one)",
        )),
    }
}

/// A name or an address, without a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let fits = !text.contains(':') || text.parse::<std::net::Ipv6Addr>().is_ok();
    if fits && !text.contains(char::is_whitespace) && text.len() <= 253 {
        return Ok(text.to_owned());
    }
    Err(String::from("a name or an address without a port, such as 10.0.0.7 or db1.internal"))
}

/// The name of a node.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(String::from("a name of 1 to 64 letters, digits, `.`, `-`, `_`, `:`"))
}

/// Names and addresses of nodes. The addresses are resolved when they are used: not all nodes need to be there yet.
pub(super) fn peers(text: &str) -> Result<Vec<(String, String)>, String> {
    let form =
        || String::from("a list as n1=10.0.0.1:7379,n2=10.0.0.2:7379, each name and each address once");
    let mut peers: Vec<(String, String)> = Vec::new();
    for peer in text.split(',').map(str::trim).filter(|peer| !peer.is_empty()) {
        let (name, address) = peer.split_once('=').ok_or_else(form)?;
        let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let twice = peers.iter().any(|(other, there)| other == name || there == address);
        if twice || port.is_none_or(|(host, port)| host.is_empty() || port == 0) {
            return Err(form());
        }
        peers.push((node_name(name)?, address.to_owned()));
    }
    Ok(peers)
}

/// A whole number between two bounds, both included.
pub(super) fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("a whole number from {least} to {most}"))
}

/// A durability class.
pub(super) fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "synced" => Ok(Durability::Synced),
        "written" => Ok(Durability::Written),
        "buffered" => Ok(Durability::Buffered),
        _ => Err(String::from("synced, written or buffered")),
    }
}

/// A durability class as it is written.
pub(super) fn show_durability(durability: Durability) -> String {
    String::from(match durability {
        Durability::Synced => "synced",
        Durability::Written => "written",
        Durability::Buffered => "buffered",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, size) in
            [("0", 0), ("1024", 1024), ("4KiB", 4096), ("1 MB", 1_000_000), ("2gib", 2 << 30), ("7b", 7)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "1XB", "99999999999TiB", "1 2"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for size in [1, 1000, 4096, 256 << 20, 3 << 30] {
            assert_eq!(bytes(&show_bytes(size)), Ok(size));
        }
    }

    #[test]
    fn peers_are_named_and_each_there_once() {
        let two = [("n1".to_owned(), "h1:7379".to_owned()), ("n2".to_owned(), "[::1]:7379".to_owned())];
        assert_eq!(peers("n1=h1:7379, n2=[::1]:7379,"), Ok(two.to_vec()));
        assert_eq!(peers(""), Ok(Vec::new()));
        for text in ["n1", "n1=", "n1=h1", "n1=h1:0", "n1=:7379", "a=h:1,a=h:2", "a=h:1,b=h:1", "a b=h:1"] {
            assert!(peers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for text in ["127.0.0.1:0", "[::1]:6379", "0.0.0.0:65535", "localhost:80"] {
            assert_eq!(address(text), Ok(text.to_owned()));
        }
        for text in ["", "6379", "127.0.0.1", "127.0.0.1:70000", "::1"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
