//! `INFO`.

use crate::counters::read;
use crate::network::Door;
use crate::session::REDIS_VERSION;
use crate::shared::Shared;
use kvorum_cluster::NodeStats;
use kvorum_model::Args;
use std::fmt::Write as _;
use std::time::Duration;

/// A section's lines, without its heading.
type Section = fn(&About<'_>, &mut String) -> std::fmt::Result;

/// What is told about.
struct About<'a> {
    shared: &'a Shared,
    figures: NodeStats,
    /// The door that asks.
    door: Door,
}

const SECTIONS: &[(&str, Section)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Cluster", cluster),
    ("Keyspace", keyspace),
];

/// `INFO [section …]`: all sections without one, or with `default`, `all`, `everything`.
pub(crate) fn text(shared: &Shared, door: Door, args: Args<'_>) -> String {
    let names = args.from(1);
    let is = |name: &&[u8], section: &str| name.eq_ignore_ascii_case(section.as_bytes());
    let all = names.is_empty()
        || names.iter().any(|name| ["default", "all", "everything"].iter().any(|every| is(name, every)));
    let about = About { shared, figures: shared.node.stats(), door };
    let mut text = String::new();
    for (heading, section) in SECTIONS {
        if all || names.iter().any(|name| is(name, heading)) {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            // Writing to a String can't fail.
            let _ = write!(text, "{gap}# {heading}\r\n");
            let _ = section(&about, &mut text);
        }
    }
    text
}

fn server(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let shared = about.shared;
    let figures = &about.figures;
    let uptime = crate::time::now().duration_since(shared.started);
    write!(out, "redis_version:{REDIS_VERSION}\r\nkvorum_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    let mode = if about.door == Door::RespCluster { "cluster" } else { "standalone" };
    write!(out, "redis_mode:{mode}\r\nos:{} {}\r\n", std::env::consts::OS, std::env::consts::ARCH)?;
    write!(
        out,
        "arch_bits:{}\r\nprocess_id:{}\r\nrun_id:{}\r\n",
        usize::BITS,
        std::process::id(),
        figures.store_id
    )?;
    write!(out, "tcp_port:{}\r\n", shared.resp_address().port())?;
    if let Some(http) = shared.settings().http {
        write!(out, "http_port:{}\r\n", http.port())?;
    }
    write!(out, "network_threads:{}\r\n", shared.settings().threads)?;
    write!(out, "uptime_in_seconds:{}\r\nuptime_in_days:{}\r\n", uptime.as_secs(), uptime.as_secs() / 86_400)
}

fn clients(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let shared = about.shared;
    write!(out, "connected_clients:{}\r\n", shared.clients.list().len())?;
    write!(
        out,
        "http_connections:{}\r\n",
        shared.clients.count().saturating_sub(shared.clients.list().len())
    )?;
    write!(out, "maxclients:{}\r\nblocked_clients:0\r\n", shared.settings().max_clients)
}

fn memory(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let shared = about.shared;
    let resident = resident_bytes();
    write!(out, "used_memory:{resident}\r\nused_memory_human:{}\r\n", human(resident))?;
    write!(out, "used_memory_rss:{resident}\r\nused_memory_rss_human:{}\r\n", human(resident))?;
    let budget = shared.node.settings().memory_bytes;
    write!(out, "memory_budget:{budget}\r\nmemory_budget_human:{}\r\n", human(budget))?;
    write!(out, "maxmemory:0\r\nmaxmemory_human:0B\r\nmaxmemory_policy:noeviction\r\n")
}

fn persistence(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let shared = about.shared;
    let figures = &about.figures;
    write!(out, "loading:0\r\nasync_loading:0\r\n")?;
    let saves = &figures.saves;
    let status = if saves.last_failed { "err" } else { "ok" };
    let seconds =
        |time: Option<Duration>| time.map_or(-1, |time| i64::try_from(time.as_secs()).unwrap_or(-1));
    write!(out, "rdb_changes_since_last_save:{}\r\n", saves.changes)?;
    write!(out, "rdb_bgsave_in_progress:{}\r\n", u8::from(saves.running.is_some()))?;
    write!(out, "rdb_last_save_time:{}\r\nrdb_last_bgsave_status:{status}\r\n", saves.last_ms / 1000)?;
    write!(out, "rdb_last_bgsave_time_sec:{}\r\n", seconds(saves.last_took))?;
    write!(out, "rdb_current_bgsave_time_sec:{}\r\nrdb_saves:{}\r\n", seconds(saves.running), saves.saves)?;
    write!(out, "backup_in_progress:{}\r\n", u8::from(saves.streaming))?;
    write!(out, "aof_enabled:1\r\naof_rewrite_in_progress:0\r\naof_last_bgrewrite_status:ok\r\n")?;
    write!(out, "durability:{}\r\n", kvorum_cluster::durability_word(shared.node.durability()))?;
    for (name, value) in &figures.engine {
        write!(out, "engine_{name}:{value}\r\n")?;
    }
    Ok(())
}

fn stats(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let shared = about.shared;
    let counters = &shared.counters;
    for (name, counter) in [
        ("total_connections_received", &counters.connections),
        ("total_commands_processed", &counters.commands),
        ("total_http_requests", &counters.requests),
        ("total_net_input_bytes", &counters.input_bytes),
        ("total_net_output_bytes", &counters.output_bytes),
        ("rejected_connections", &counters.refused),
        ("cold_reads", &counters.cold_reads),
        ("unknown_outcomes", &counters.unknown_outcomes),
    ] {
        write!(out, "{name}:{}\r\n", read(counter))?;
    }
    Ok(())
}

fn replication(_: &About<'_>, out: &mut String) -> std::fmt::Result {
    write!(out, "role:master\r\nconnected_slaves:0\r\n")
}

fn cpu(_: &About<'_>, out: &mut String) -> std::fmt::Result {
    let Some((user, system)) = cpu_seconds() else { return Ok(()) };
    write!(out, "used_cpu_sys:{system:.2}\r\nused_cpu_user:{user:.2}\r\n")
}

fn cluster(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let figures = &about.figures;
    let enabled = u8::from(about.door == Door::RespCluster);
    if let Some(status) = about.shared.node.cluster_status() {
        let up = status.nodes.iter().filter(|node| node.state == "up" && node.reachable).count();
        write!(out, "cluster_id:{}\r\ncluster_map_version:{}\r\n", status.cluster, status.version)?;
        write!(out, "cluster_control_leader:{}\r\n", status.control.as_deref().unwrap_or_default())?;
        write!(out, "cluster_nodes:{}\r\ncluster_nodes_up:{up}\r\n", status.nodes.len())?;
        let led = status.shards.iter().filter(|shard| shard.led).count();
        write!(out, "cluster_shards:{}\r\ncluster_shards_led:{led}\r\n", status.shards.len())?;
    }
    write!(out, "cluster_enabled:{enabled}\r\nstore_id:{}\r\nepoch:{}\r\n", figures.store_id, figures.epoch)
}

fn keyspace(about: &About<'_>, out: &mut String) -> std::fmt::Result {
    let figures = &about.figures;
    for namespace in &figures.namespaces {
        let keys = namespace.keys_estimate;
        match namespace.namespace.number() {
            Some(number) if keys > 0 => write!(out, "db{number}:keys={keys}\r\n")?,
            None if keys > 0 => write!(out, "namespace_{}:keys={keys}\r\n", namespace.name)?,
            _ => {}
        }
    }
    Ok(())
}

/// Memory of this process that is in RAM, bytes; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time of this process in user and system mode, seconds.
pub(crate) fn cpu_seconds() -> Option<(f64, f64)> {
    /// The unit of `/proc/*/stat` on every Linux that Rust's standard library runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name in parentheses may contain spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND);
    Some((seconds()?, seconds()?))
}

fn human(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["K", "M", "G", "T"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.2}{unit}")
}
