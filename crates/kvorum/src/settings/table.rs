//! Every setting, once.

use super::Setting;
use super::parse::{
    address, bytes_from, count, durability, host, node_name, peers, show_bytes, show_durability, show_yes_no,
    yes_no,
};
use std::path::PathBuf;

/// Less memory than this leaves no room for write buffers beside the caches.
const MEMORY_BYTES_MIN: u64 = 16 << 20;
const THREADS_MAX: usize = 1024;
const CLIENTS_MAX: usize = 1_000_000;
const TIMEOUT_SECONDS_MAX: usize = 365 * 86_400;

/// All settings, in the order in which they are shown.
pub(crate) const TABLE: &[Setting] = &[
    Setting {
        name: "data",
        value: "DIR",
        default: "./kvorum-data",
        help: "Folder of the data; made if missing.",
        set: |settings, text| path(text).map(|path| settings.data = path),
        get: |settings| settings.data.display().to_string(),
        quoted: true,
    },
    Setting {
        name: "wal_dir",
        value: "DIR",
        default: "",
        help: "Folder of the write-ahead log, for a log on a device of its own. None: in the data folder.",
        set: |settings, text| optional(text, path).map(|path| settings.wal_dir = path),
        get: |settings| settings.wal_dir.as_ref().map_or_else(String::new, |path| path.display().to_string()),
        quoted: true,
    },
    Setting {
        name: "resp",
        value: "ADDR",
        default: "127.0.0.1:6379",
        help: "Address of the Redis protocol. Port 0: any free port; the start lines say which.",
        set: |settings, text| address(text).map(|address| settings.resp = address),
        get: |settings| settings.resp.clone(),
        quoted: true,
    },
    Setting {
        name: "http",
        value: "ADDR|off",
        default: "127.0.0.1:8379",
        help: "Address of HTTP (entities, JSON, health, metrics), or off.",
        set: |settings, text| {
            settings.http = if text == "off" || text == "no" { None } else { Some(address(text)?) };
            Ok(())
        },
        get: |settings| settings.http.clone().unwrap_or_else(|| String::from("off")),
        quoted: true,
    },
    Setting {
        name: "resp_cluster",
        value: "ADDR",
        default: "",
        help: "Address of the Redis protocol for cluster clients, which find the node of a key by themselves (CLUSTER SLOTS, MOVED).\n\
               None: no such door; any node takes any command at `resp` all the same.",
        set: |settings, text| optional(text, address).map(|address| settings.resp_cluster = address),
        get: |settings| settings.resp_cluster.clone().unwrap_or_default(),
        quoted: true,
    },
    Setting {
        name: "advertise",
        value: "HOST",
        default: "",
        help: "Name or address by which clients and other nodes reach this node. None: the addresses that it listens on.",
        set: |settings, text| optional(text, host).map(|host| settings.advertise = host),
        get: |settings| settings.advertise.clone().unwrap_or_default(),
        quoted: true,
    },
    Setting {
        name: "durability",
        value: "CLASS",
        default: "synced",
        help: "What an acknowledged write survives: `synced` power loss; `written` a killed process, and power loss but for the\n\
               last second; `buffered` neither.",
        set: |settings, text| durability(text).map(|class| settings.durability = class),
        get: |settings| show_durability(settings.durability),
        quoted: true,
    },
    Setting {
        name: "memory",
        value: "SIZE",
        default: "256MiB",
        help: "Memory of the process, kept within a tenth from 128MiB on: a quarter for write buffers, a sixteenth for the log's, 80MiB (at\n\
               most three eighths) for the program, connections and work in the background, the rest for caches and filters.",
        set: |settings, text| bytes_from(text, MEMORY_BYTES_MIN).map(|bytes| settings.memory_bytes = bytes),
        get: |settings| show_bytes(settings.memory_bytes),
        quoted: true,
    },
    Setting {
        name: "max_value",
        value: "SIZE",
        default: "",
        help: "Largest value. None: an eighth of `memory`, at most 512MiB.",
        set: |settings, text| {
            optional(text, |text| bytes_from(text, 1)).map(|bytes| settings.max_value_bytes = bytes)
        },
        get: |settings| settings.max_value_bytes.map_or_else(String::new, show_bytes),
        quoted: true,
    },
    Setting {
        name: "background_rate",
        value: "SIZE",
        default: "0",
        help: "What flushes and compactions may read and write in a second; 0 for no limit. Flushes count and never wait; compactions wait,\n\
               but not when so much has piled up that writes would soon be slowed.",
        set: |settings, text| bytes_from(text, 0).map(|bytes| settings.background_bytes_per_second = bytes),
        get: |settings| show_bytes(settings.background_bytes_per_second),
        quoted: true,
    },
    Setting {
        name: "wal_retention",
        value: "needed|all",
        default: "needed",
        help: "`all` keeps the whole write-ahead log, from which an empty data folder can be rebuilt.",
        set: |settings, text| {
            settings.keep_whole_wal = match text {
                "needed" => false,
                "all" => true,
                _ => return Err(String::from("needed or all")),
            };
            Ok(())
        },
        get: |settings| String::from(if settings.keep_whole_wal { "all" } else { "needed" }),
        quoted: true,
    },
    Setting {
        name: "requirepass",
        value: "SECRET",
        default: "",
        help: "Password of RESP (AUTH) and HTTP (Basic or Bearer). As a flag it is visible to other users of the machine: prefer\n\
               the file or the environment.",
        set: |settings, text| {
            settings.requirepass = (!text.is_empty()).then(|| text.to_owned());
            Ok(())
        },
        get: |settings| settings.requirepass.clone().unwrap_or_default(),
        quoted: true,
    },
    Setting {
        name: "protected_mode",
        value: "yes|no",
        default: "yes",
        help: "Without a password, refuse clients that do not come from this machine.",
        set: |settings, text| yes_no(text).map(|flag| settings.protected_mode = flag),
        get: |settings| show_yes_no(settings.protected_mode),
        quoted: true,
    },
    Setting {
        name: "threads",
        value: "N",
        default: "0",
        help: "Network threads. 0: one for each core.",
        set: |settings, text| count(text, 0, THREADS_MAX).map(|threads| settings.threads = threads),
        get: |settings| settings.threads.to_string(),
        quoted: false,
    },
    Setting {
        name: "max_clients",
        value: "N",
        default: "10000",
        help: "Connections served at one time; further ones are refused with an error.",
        set: |settings, text| count(text, 1, CLIENTS_MAX).map(|clients| settings.max_clients = clients),
        get: |settings| settings.max_clients.to_string(),
        quoted: false,
    },
    Setting {
        name: "timeout",
        value: "SECONDS",
        default: "0",
        help: "Idle connections of the Redis protocol are closed after this time. 0: never.",
        set: |settings, text| {
            count(text, 0, TIMEOUT_SECONDS_MAX).map(|seconds| settings.timeout_seconds = seconds)
        },
        get: |settings| settings.timeout_seconds.to_string(),
        quoted: false,
    },
    Setting {
        name: "http_hosts",
        value: "NAME,…",
        default: "",
        help: "Names besides localhost and plain addresses that HTTP clients without a password may call this server by.",
        set: |settings, text| {
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            settings.http_hosts = names.map(str::to_ascii_lowercase).collect();
            Ok(())
        },
        get: |settings| settings.http_hosts.join(","),
        quoted: true,
    },
    Setting {
        name: "entity_namespace",
        value: "NAME",
        default: "entity",
        help: "Name of the available namespace that /v0/entity speaks to.",
        set: |settings, text| {
            if text.is_empty() || text.len() > 64 || text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(String::from("a name of 1 to 64 bytes that is not a number"));
            }
            text.clone_into(&mut settings.entity_namespace);
            Ok(())
        },
        get: |settings| settings.entity_namespace.clone(),
        quoted: true,
    },
    Setting {
        name: "name",
        value: "NAME",
        default: "",
        help: "Name of this node in its cluster. None: that of its address in `peers`, else the machine's with the peer port. A new, empty\n\
               node under the name of one that is gone takes its place.",
        set: |settings, text| optional(text, node_name).map(|name| settings.name = name),
        get: |settings| settings.name.clone().unwrap_or_default(),
        quoted: true,
    },
    Setting {
        name: "peer",
        value: "ADDR",
        default: "",
        help: "Address for the other nodes of a cluster: makes this node one of a cluster. None: the one of `name` in `peers`, else\n\
               127.0.0.1:7379 with `join`; without any of them the node is alone.",
        set: |settings, text| optional(text, address).map(|address| settings.peer = address),
        get: |settings| settings.peer.clone().unwrap_or_default(),
        quoted: true,
    },
    Setting {
        name: "peers",
        value: "NAME=ADDR,…",
        default: "",
        help: "All nodes of a new cluster, this one among them; each is started with the same list. Once the cluster is there, it knows\n\
               its nodes by itself.",
        set: |settings, text| peers(text).map(|peers| settings.peers = peers),
        get: |settings| {
            let each = settings.peers.iter().map(|(name, address)| format!("{name}={address}"));
            each.collect::<Vec<_>>().join(",")
        },
        quoted: true,
    },
    Setting {
        name: "join",
        value: "ADDR",
        default: "",
        help: "Peer address of any node of a running cluster, which this node, being empty, joins.",
        set: |settings, text| optional(text, address).map(|address| settings.join = address),
        get: |settings| settings.join.clone().unwrap_or_default(),
        quoted: true,
    },
    Setting {
        name: "cluster_secret_file",
        value: "FILE",
        default: "",
        help: "File with the secret that all nodes of the cluster have, of at least 16 bytes. None: whoever reaches the peer port can read\n\
               and change everything.",
        set: |settings, text| optional(text, path).map(|path| settings.cluster_secret_file = path),
        get: |settings| shown(settings.cluster_secret_file.as_ref()),
        quoted: true,
    },
    Setting {
        name: "cluster_tls_certificate",
        value: "FILE",
        default: "",
        help: "Certificate of this node for mutual TLS between nodes (PEM), with those between it and the authority; good for the host in its\n\
               peer address. With the key and the authority, or none of them.",
        set: |settings, text| optional(text, path).map(|path| settings.cluster_tls_certificate = path),
        get: |settings| shown(settings.cluster_tls_certificate.as_ref()),
        quoted: true,
    },
    Setting {
        name: "cluster_tls_key",
        value: "FILE",
        default: "",
        help: "Private key of `cluster_tls_certificate` (PEM).",
        set: |settings, text| optional(text, path).map(|path| settings.cluster_tls_key = path),
        get: |settings| shown(settings.cluster_tls_key.as_ref()),
        quoted: true,
    },
    Setting {
        name: "cluster_tls_authority",
        value: "FILE",
        default: "",
        help: "Certificate of the authority that signed those of all nodes (PEM).",
        set: |settings, text| optional(text, path).map(|path| settings.cluster_tls_authority = path),
        get: |settings| shown(settings.cluster_tls_authority.as_ref()),
        quoted: true,
    },
    Setting {
        name: "log",
        value: "LEVEL",
        default: "info",
        help: "What is logged on standard error: error, warn, info, debug or trace.",
        set: |settings, text| {
            if !["error", "warn", "info", "debug", "trace"].contains(&text) {
                return Err(String::from("error, warn, info, debug or trace"));
            }
            text.clone_into(&mut settings.log);
            Ok(())
        },
        get: |settings| settings.log.clone(),
        quoted: true,
    },
];

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err(String::from("a folder")) } else { Ok(PathBuf::from(text)) }
}

fn shown(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}
