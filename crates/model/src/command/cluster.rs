//! The Redis Cluster protocol: where the hash slots are. On the door for cluster clients alone.

use super::answer;
use crate::spec::argument::Argument;
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{CommandSpec, Run, SessionCommand};

const ANY_TIME: Flags = Flags::LOADING.with(Flags::STALE);
const QUICK: Flags = ANY_TIME.with(Flags::FAST);
const CHANGING: &[&str] = &["nondeterministic_output"];

const fn session(name: &'static str, arity: i32, run: SessionCommand) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Cluster, Run::Session(run))
}

pub(crate) const SPECS: &[CommandSpec] = &[
    CommandSpec::new("cluster", -2, Group::Cluster, Run::Container)
        .subcommands(CLUSTER)
        .costs("Depends on subcommand.")
        .differs("On the listener `--resp-cluster` alone, as any Redis without cluster support. Every node is a primary; a slot's other members are not told.")
        .docs("3.0.0", "A container for commands about the cluster."),
    session("readonly", 1, SessionCommand::ReadOnly)
        .flags(QUICK)
        .category(Categories::CONNECTION)
        .differs("Reads are then answered by this node, as fresh as the leader's answers.")
        .docs("3.0.0", "Lets this node answer reads of slots that another one leads."),
    session("readwrite", 1, SessionCommand::ReadWrite)
        .flags(QUICK)
        .category(Categories::CONNECTION)
        .docs("3.0.0", "Ends READONLY."),
];

const SLOT: Argument = Argument::integer("slot");

const CLUSTER: &[CommandSpec] = &[
    session("cluster|info", 2, SessionCommand::ClusterInfo)
        .flags(Flags::STALE)
        .tips(CHANGING)
        .docs("3.0.0", "Tells about the state of the cluster."),
    session("cluster|myid", 2, SessionCommand::ClusterMyId)
        .flags(Flags::STALE)
        .docs("3.0.0", "Returns the id of the node."),
    session("cluster|nodes", 2, SessionCommand::ClusterNodes)
        .flags(Flags::STALE)
        .tips(CHANGING)
        .costs("O(N) where N is the number of nodes.")
        .docs("3.0.0", "Lists the nodes with their slots."),
    session("cluster|shards", 2, SessionCommand::ClusterShards)
        .flags(ANY_TIME)
        .tips(CHANGING)
        .costs("O(N) where N is the number of nodes.")
        .docs("7.0.0", "Returns the slots with the nodes that serve them."),
    session("cluster|slots", 2, SessionCommand::ClusterSlots)
        .flags(ANY_TIME)
        .tips(CHANGING)
        .costs("O(N) where N is the number of nodes.")
        .deprecated("7.0.0", "`CLUSTER SHARDS`")
        .docs("3.0.0", "Returns the ranges of slots with the nodes that serve them."),
    session("cluster|keyslot", 3, SessionCommand::ClusterKeySlot)
        .flags(Flags::STALE)
        .arguments(&[Argument::string("key")])
        .costs("O(N) where N is the number of bytes of the key.")
        .docs("3.0.0", "Returns the hash slot of a key."),
    session("cluster|countkeysinslot", 3, SessionCommand::ClusterCountKeysInSlot)
        .flags(Flags::STALE)
        .arguments(&[SLOT])
        .costs("O(N) where N is the number of keys in the slot's shard.")
        .docs("3.0.0", "Counts the keys of a slot that are on this node."),
    session("cluster|getkeysinslot", 4, SessionCommand::ClusterGetKeysInSlot)
        .flags(Flags::STALE)
        .arguments(&[SLOT, Argument::integer("count")])
        .tips(CHANGING)
        .costs("O(N) where N is the number of keys in the slot's shard.")
        .docs("3.0.0", "Returns keys of a slot that are on this node."),
    CommandSpec::new("cluster|help", 2, Group::Cluster, Run::Answer(answer::cluster_help))
        .flags(ANY_TIME)
        .docs("5.0.0", "Explains the subcommands of CLUSTER."),
];
