//! `/metrics`: the figures of the server and the node as OpenMetrics text.

use crate::counters;
use crate::info;
use crate::shared::Shared;
use kvorum_cluster::ClusterStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The format's media type.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures now.
pub(crate) fn text(shared: &Shared) -> String {
    let mut registry = Registry::with_prefix("kvorum");
    registry.register_collector(Box::new(Figures(figures(shared))));
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Figure {
    name: String,
    help: &'static str,
    value: Value,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Counter(u64),
    Seconds(f64),
    Gauge(u64),
}

fn figures(shared: &Shared) -> Vec<Figure> {
    let of_node = shared.node.stats();
    let counters = &shared.counters;
    let mut all = Vec::new();
    let mut add = |name: &str, help, value| all.push(Figure { name: name.to_owned(), help, value });
    for (name, help, counter) in [
        ("connections", "Connections taken, of both doors", &counters.connections),
        ("connections_refused", "Connections refused because there were too many", &counters.refused),
        ("commands", "Commands of the Redis protocol", &counters.commands),
        ("http_requests", "Requests of HTTP", &counters.requests),
        ("input_bytes", "Bytes received over the Redis protocol", &counters.input_bytes),
        ("output_bytes", "Bytes sent over the Redis protocol", &counters.output_bytes),
        ("cold_reads", "Commands that had to wait for the disk", &counters.cold_reads),
        ("unknown_outcomes", "Writes whose outcome could not be told", &counters.unknown_outcomes),
    ] {
        add(name, help, Value::Counter(counters::read(counter)));
    }
    add("clients", "Open connections, of both doors", Value::Gauge(shared.clients.count() as u64));
    add("resident_bytes", "Memory of the process in RAM", Value::Gauge(info::resident_bytes()));
    if let Some((user, system)) = info::cpu_seconds() {
        add("cpu_user_seconds", "CPU time in user mode", Value::Seconds(user));
        add("cpu_system_seconds", "CPU time in system mode", Value::Seconds(system));
    }
    add("uptime_seconds", "Time since the node was opened", Value::Gauge(of_node.uptime.as_secs()));
    add("epoch", "The store's epoch: starts so far", Value::Gauge(of_node.epoch));
    let keys = of_node.namespaces.iter().map(|namespace| namespace.keys_estimate).sum();
    add("keys_estimate", "About how many keys there are", Value::Gauge(keys));
    if let Some(cluster) = shared.node.cluster_status() {
        for (name, help, value) in of_cluster(&cluster) {
            add(name, help, Value::Gauge(value));
        }
    }
    for (name, value) in &of_node.available {
        let help = "A figure of the available namespaces of a cluster";
        add(&format!("available_{name}"), help, Value::Gauge(*value));
    }
    for (name, value) in &of_node.engine {
        add(&format!("engine_{name}"), "A figure of the storage engine", Value::Gauge(*value));
    }
    all
}

/// A cluster as this node sees it.
fn of_cluster(cluster: &ClusterStatus) -> [(&'static str, &'static str, u64); 7] {
    let reachable = cluster.nodes.iter().filter(|node| node.reachable).count();
    let led = cluster.shards.iter().filter(|shard| shard.led).count();
    let here = || cluster.shards.iter().filter_map(|shard| shard.here.as_ref());
    let leads = here().filter(|member| member.role == "leader").count();
    [
        ("cluster_map_version", "Version of the cluster's map", cluster.version),
        ("cluster_nodes", "Nodes of the cluster", cluster.nodes.len() as u64),
        (
            "cluster_nodes_reachable",
            "Nodes that this one has a connection to, itself included",
            reachable as u64,
        ),
        ("cluster_shards", "Shards of namespaces in use", cluster.shards.len() as u64),
        ("cluster_shards_led", "Shards that have a leader", led as u64),
        ("cluster_members", "Shards that this node keeps", here().count() as u64),
        ("cluster_leads", "Shards that this node leads", leads as u64),
    ]
}

#[derive(Debug)]
struct Figures(Vec<Figure>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for Figure { name, help, value } in &self.0 {
            let mut put =
                |kind, metric: &dyn Encode| metric.put(encoder.encode_descriptor(name, help, None, kind)?);
            match *value {
                Value::Counter(count) => put(MetricType::Counter, &ConstCounter::new(count))?,
                Value::Seconds(seconds) => put(MetricType::Counter, &ConstCounter::new(seconds))?,
                Value::Gauge(value) => {
                    put(MetricType::Gauge, &ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)))?;
                }
            }
        }
        Ok(())
    }
}

/// `EncodeMetric` behind a reference.
trait Encode {
    fn put(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> std::fmt::Result;
}

impl<M: EncodeMetric> Encode for M {
    fn put(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> std::fmt::Result {
        self.encode(encoder)
    }
}
