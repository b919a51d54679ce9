//! The Redis Cluster protocol: who serves which slots, and `MOVED` to there.

use super::Session;
use crate::network::Door;
use crate::resp::integer;
use kvorum_cluster::{ReadMode, SlotRange, Topology, TopologyNode};
use kvorum_model::{Args, CommandSpec, ErrorReply, Reply, SLOTS, SessionCommand, slot};

/// Keys that `CLUSTER GETKEYSINSLOT` gives at most.
const KEYS_MAX: usize = 100_000;

impl Session {
    /// Whether the command's keys are asked for at the right place: all in one slot, which this node leads.
    pub(super) fn check_slot(&self, spec: &CommandSpec, args: Args<'_>) -> Result<(), ErrorReply> {
        let mut slots = spec.keys_of(args).map(slot);
        let Some(of) = slots.next() else { return Ok(()) };
        if slots.any(|other| other != of) {
            return Err(ErrorReply::new("CROSSSLOT Keys in request don't hash to the same slot"));
        }
        // After READONLY this node answers reads of all slots.
        if self.node.consistency.read == Some(ReadMode::Follower) && !spec.is_write() {
            return Ok(());
        }
        match self.shared.node.moved_to(of) {
            Some(address) => Err(ErrorReply::new(format!("MOVED {of} {address}"))),
            None => Ok(()),
        }
    }

    /// `CLUSTER …`, `READONLY`, `READWRITE`.
    pub(super) fn cluster(&mut self, command: SessionCommand, args: Args<'_>) -> Result<Reply, ErrorReply> {
        use SessionCommand as C;
        if self.client.door != Door::RespCluster {
            return Err(disabled());
        }
        let topology = || self.shared.node.topology(&self.shared.cluster_address());
        Ok(match command {
            C::ReadOnly => {
                self.node.consistency.read = Some(ReadMode::Follower);
                Reply::Ok
            }
            C::ReadWrite => {
                self.node.consistency.read = None;
                Reply::Ok
            }
            C::ClusterKeySlot => Reply::Integer(slot(args.at(2)).into()),
            C::ClusterMyId => {
                let nodes = topology().nodes;
                Reply::bulk(nodes.first().map(|node| node.id.as_str()).unwrap_or_default())
            }
            C::ClusterInfo => Reply::Verbatim(info(&topology())),
            C::ClusterNodes => Reply::Verbatim(nodes(&topology())),
            C::ClusterSlots => slot_ranges(&topology()),
            _ => shards(&topology()),
        })
    }
}

fn disabled() -> ErrorReply {
    ErrorReply::new("ERR This instance has cluster support disabled")
}

/// `CLUSTER COUNTKEYSINSLOT slot` and `CLUSTER GETKEYSINSLOT slot count`.
pub(super) async fn keys_in_slot(session: &Session, args: Args<'_>) -> Reply {
    match find_keys(session, args).await {
        Ok(reply) => reply,
        Err(error) => Reply::Error(error),
    }
}

async fn find_keys(session: &Session, args: Args<'_>) -> Result<Reply, ErrorReply> {
    if session.client.door != Door::RespCluster {
        return Err(disabled());
    }
    let number = |at: usize| args.get(at).and_then(integer);
    let of = number(2).and_then(|slot| u16::try_from(slot).ok()).filter(|slot| *slot < SLOTS);
    let of = of.ok_or_else(|| ErrorReply::new("ERR Invalid slot"))?;
    let counts = args.get(3).is_none();
    let wanted =
        if counts { Some(usize::MAX) } else { number(3).and_then(|count| usize::try_from(count).ok()) };
    let wanted = wanted.ok_or_else(|| ErrorReply::new("ERR Invalid number of keys"))?;
    let max = if counts { wanted } else { wanted.min(KEYS_MAX) };
    let keys = session.shared.node.keys_in_slot(of, max).await;
    let keys = keys.map_err(|error| ErrorReply::new(error.resp()))?;
    Ok(if counts {
        Reply::count(keys.len())
    } else {
        Reply::Array(keys.into_iter().map(Reply::Bulk).collect())
    })
}

/// Host and port of a node's door for cluster clients.
fn place(node: &TopologyNode) -> Option<(&str, i64)> {
    let (host, port) = node.address.as_deref()?.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']), port.parse().ok()?))
}

/// The ranges that have a leader, with it.
fn led(topology: &Topology) -> impl Iterator<Item = (&SlotRange, &TopologyNode)> {
    topology.slots.iter().filter_map(|range| Some((range, topology.nodes.get(range.leader?)?)))
}

/// The ranges that the node at this place leads.
fn led_by(topology: &Topology, at: usize) -> impl Iterator<Item = &SlotRange> {
    topology.slots.iter().filter(move |range| range.leader == Some(at))
}

fn slot_ranges(topology: &Topology) -> Reply {
    let row = |(range, node): (&SlotRange, &TopologyNode)| {
        let (host, port) = place(node)?;
        let more = Reply::Array(Vec::new());
        let leader = vec![Reply::bulk(host), Reply::Integer(port), Reply::bulk(&node.id), more];
        let (first, last) = (Reply::Integer(range.first.into()), Reply::Integer(range.last.into()));
        Some(Reply::Array(vec![first, last, Reply::Array(leader)]))
    };
    Reply::Array(led(topology).filter_map(row).collect())
}

fn shards(topology: &Topology) -> Reply {
    let row = |(at, node): (usize, &TopologyNode)| {
        let (host, port) = place(node)?;
        let ends = led_by(topology, at).flat_map(|range| [range.first, range.last]);
        let slots = ends.map(|slot| Reply::Integer(slot.into())).collect();
        let member = Reply::Map(vec![
            (Reply::text("id"), Reply::bulk(&node.id)),
            (Reply::text("port"), Reply::Integer(port)),
            (Reply::text("ip"), Reply::bulk(host)),
            (Reply::text("endpoint"), Reply::bulk(host)),
            (Reply::text("role"), Reply::text("master")),
            (Reply::text("replication-offset"), Reply::Integer(0)),
            (Reply::text("health"), Reply::text(if node.is_up { "online" } else { "fail" })),
        ]);
        Some(Reply::Map(vec![
            (Reply::text("slots"), Reply::Array(slots)),
            (Reply::text("nodes"), Reply::Array(vec![member])),
        ]))
    };
    Reply::Array(topology.nodes.iter().enumerate().filter_map(row).collect())
}

fn nodes(topology: &Topology) -> String {
    let line = |(at, node): (usize, &TopologyNode)| {
        let (host, port) = place(node)?;
        let flags = match (at, node.is_up) {
            (0, _) => "myself,master",
            (_, true) => "master",
            _ => "master,fail",
        };
        let link = if node.is_up { "connected" } else { "disconnected" };
        let slots: String =
            led_by(topology, at).map(|range| format!(" {}-{}", range.first, range.last)).collect();
        let (id, version) = (&node.id, topology.version);
        Some(format!("{id} {host}:{port}@0 {flags} - 0 0 {version} {link}{slots}\n"))
    };
    topology.nodes.iter().enumerate().filter_map(line).collect()
}

fn info(topology: &Topology) -> String {
    let up = led(topology).filter(|(_, node)| node.is_up);
    let served: u32 = up.map(|(range, _)| u32::from(range.last - range.first) + 1).sum();
    let size = (0..topology.nodes.len()).filter(|at| led_by(topology, *at).next().is_some()).count();
    let (all, known, version) = (u32::from(SLOTS), topology.nodes.len(), topology.version);
    let (state, lost) = (if served == all { "ok" } else { "fail" }, all - served);
    format!(
        "cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:{all}\r\ncluster_slots_ok:{served}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{lost}\r\ncluster_known_nodes:{known}\r\ncluster_size:{size}\r\n\
         cluster_current_epoch:{version}\r\ncluster_my_epoch:{version}\r\n"
    )
}
