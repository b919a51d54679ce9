//! How far a node is that is being removed, and whether one can be: functions of the map and of what the heartbeats say.
//!
//! A node is let go of when it keeps no shard, does not vote, and has handed over all that it kept of available namespaces. Only the node itself can do the
//! last of it, so one that is not heard stays what it is.

use super::detector::View;
use super::map::{Map, NamespaceRow, NodeState, REPLICATION_DEFAULT};
use crate::namespace::Mode;
use kvorum_sync::StoreId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Namespaces that are named at most.
const NAMED_MAX: usize = 4;

/// What a node that is being removed has of available namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keeping {
    /// The nodes that keep available namespaces, as it knows them: it hands over to these.
    pub(crate) among: Vec<StoreId>,
    /// Slots, of all namespaces, that are not handed over.
    pub(crate) slots: u64,
}

/// How far a node is that is being removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaving {
    /// Shards that it keeps still.
    pub(crate) shards: usize,
    /// Slots of available namespaces that it has not handed over; `None`: it has not said yet.
    pub(crate) slots: Option<u64>,
    /// What an operator has to do; `None`: nothing.
    pub(crate) waits: Option<String>,
    /// It can be let go of.
    pub(crate) is_done: bool,
}

/// How far a node is that is being removed.
pub(crate) fn leaving(map: &Map, view: &View, store: StoreId) -> Leaving {
    let shards = map.kept().get(&store).copied().unwrap_or_default();
    let stay: BTreeSet<StoreId> = map.eligible().map(|(store, _)| store).collect();
    let told = view.keeping.get(&store).filter(|_| view.is_alive(store));
    let told = told.filter(|told| told.among.iter().copied().collect::<BTreeSet<_>>() == stay);
    let slots = told.map(|told| told.slots);
    let away: Vec<StoreId> = stay.iter().copied().filter(|store| !view.is_alive(*store)).collect();
    let waits = if !view.is_alive(store) {
        Some("it is not heard: start it".to_owned())
    } else if away.is_empty() || (shards, slots) == (0, Some(0)) {
        None
    } else {
        Some(format!("not heard, and may be needed: {}", names(map, away.into_iter())))
    };
    let is_done = shards == 0 && slots == Some(0) && !map.voters.contains(&store);
    Leaving { shards, slots, waits, is_done }
}

/// What an operator should know before a node is removed; or why it can't be, as things stand.
pub(crate) fn may_leave(map: &Map, view: &View, store: StoreId) -> Result<Vec<String>, String> {
    let name = name_of(map, store);
    let stay: Vec<StoreId> = map.eligible().map(|(store, _)| store).filter(|other| *other != store).collect();
    if stay.is_empty() {
        return Err(format!("`{name}` is the last node: nobody else can keep what it has"));
    }
    if !view.is_alive(store) {
        return Err(format!(
            "`{name}` is not heard, and has to hand over what it keeps: start it, and remove it then. If it is lost for good, start a new node with its name \
             and an empty data folder (--name {name} --join …): that one takes its place and its copies, and can be removed"
        ));
    }
    let heard = |store: &&StoreId| view.is_alive(**store);
    if map.voters.iter().filter(heard).count() <= map.voters.len() / 2 {
        let voters = names(map, map.voters.iter().copied());
        return Err(format!("the control plane has no majority: start those that are down of {voters}"));
    }
    let alive = stay.iter().filter(heard).count();
    for row in in_use(map) {
        if alive <= copies(row).min(stay.len()) / 2 {
            let others = stay.len();
            let row = &row.name;
            return Err(format!(
                "only {alive} of the {others} nodes that would stay are heard, too few for `{row}`: start the others first"
            ));
        }
    }
    let lowered = in_use(map).filter(|row| copies(row) == stay.len() + 1);
    let lowered: Vec<String> = lowered.map(|row| format!("`{}`", row.name)).collect();
    let nodes =
        if stay.len() == 1 { "1 node stays".to_owned() } else { format!("{} nodes stay", stay.len()) };
    let note = || format!("{nodes}: from now on that is how many copies there are of {}", listed(&lowered));
    Ok(if lowered.is_empty() { Vec::new() } else { vec![note()] })
}

/// Namespaces that may hold something. Available ones are used without the map being told.
fn in_use(map: &Map) -> impl Iterator<Item = &NamespaceRow> {
    map.namespaces.values().filter(|row| !row.dropped && (row.active || row.settings.mode == Mode::Available))
}

fn copies(row: &NamespaceRow) -> usize {
    usize::from(row.settings.replication.unwrap_or(REPLICATION_DEFAULT))
}

fn name_of(map: &Map, store: StoreId) -> String {
    map.nodes.get(&store).map_or_else(|| store.to_string(), |row| row.info.name.clone())
}

fn names(map: &Map, stores: impl Iterator<Item = StoreId>) -> String {
    let mut names: Vec<String> = stores.map(|store| name_of(map, store)).collect();
    names.sort_unstable();
    names.join(", ")
}

fn listed(names: &[String]) -> String {
    let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

impl Map {
    /// Whether a node is being removed.
    pub(crate) fn lets_go(&self, store: StoreId) -> bool {
        self.state(store) == NodeState::Leaving
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Change;
    use super::super::map::{ClusterId, NodeInfo};
    use super::*;
    use crate::namespaces::NamespaceSettings;
    use std::collections::BTreeMap;

    const NODES: [StoreId; 4] = [StoreId(1), StoreId(2), StoreId(3), StoreId(4)];

    fn map(nodes: usize) -> Map {
        let info = |store: &StoreId| {
            let (name, peer) = (format!("n{}", store.0), format!("n{}:1", store.0));
            (*store, NodeInfo { name, peer, ..NodeInfo::default() })
        };
        let row = |name: &str, mode, active| NamespaceRow {
            name: name.into(),
            settings: NamespaceSettings { shards: 2, ..NamespaceSettings::new(mode) },
            active,
            dropped: false,
        };
        let namespaces = BTreeMap::from([
            (0, row("0", Mode::Strong, true)),
            (1, row("1", Mode::Strong, false)),
            (16, row("entity", Mode::Available, false)),
        ]);
        let nodes = NODES[..nodes].iter().map(info).collect();
        let mut map = Map::default();
        map.apply(&Change::Found { cluster: ClusterId(1), nodes, namespaces }).unwrap();
        map.version = 1;
        map.voters = map.nodes.keys().copied().take(3).collect();
        map
    }

    fn view(alive: &[StoreId]) -> View {
        View { now: 100_000_000, alive: alive.iter().map(|store| (*store, 0)).collect(), ..View::default() }
    }

    fn refused(map: &Map, alive: &[StoreId], store: StoreId) -> String {
        may_leave(map, &view(alive), store).unwrap_err()
    }

    #[test]
    fn a_node_may_leave_where_enough_others_are_heard() {
        assert_eq!(may_leave(&map(4), &view(&NODES), NODES[3]), Ok(Vec::new()));
        let notes = may_leave(&map(3), &view(&NODES[..3]), NODES[0]).unwrap();
        assert_eq!(notes, ["2 nodes stay: from now on that is how many copies there are of `0`, `entity`"]);
        assert!(refused(&map(1), &NODES[..1], NODES[0]).contains("the last node"));
        assert!(refused(&map(4), &NODES[..3], NODES[3]).contains("not heard"));
        let few = refused(&map(3), &[NODES[0], NODES[2]], NODES[2]);
        assert!(few.starts_with("only 1 of the 2 nodes that would stay are heard, too few for `0`"), "{few}");
        let mute = refused(&map(4), &[NODES[0], NODES[3]], NODES[3]);
        assert!(mute.contains("no majority") && mute.contains("n1, n2, n3"), "{mute}");
    }

    #[test]
    fn a_node_is_let_go_of_when_nothing_is_left_to_hand_over() {
        let (mut map, mut view) = (map(4), view(&NODES));
        let leaves = NODES[3];
        let set = Change::SetNode { store: leaves, from: NodeState::Up, to: NodeState::Leaving };
        map.apply(&set).unwrap();
        map.shards.retain(|_, row| !row.everyone().contains(&leaves));
        let far = |map: &Map, view: &View| leaving(map, view, leaves);
        assert_eq!(
            (far(&map, &view).slots, far(&map, &view).is_done),
            (None, false),
            "it has not said anything"
        );
        let mut told = Keeping { among: NODES.to_vec(), slots: 0 };
        view.keeping.insert(leaves, told.clone());
        assert!(!far(&map, &view).is_done, "it does not know yet that it leaves");
        told.among.pop();
        view.keeping.insert(leaves, Keeping { slots: 7, ..told.clone() });
        assert_eq!((far(&map, &view).slots, far(&map, &view).is_done), (Some(7), false));
        view.keeping.insert(leaves, told);
        assert!(far(&map, &view).is_done);
        map.voters.insert(leaves);
        assert!(!far(&map, &view).is_done, "it votes");
        map.voters.remove(&leaves);
        view.alive.remove(&leaves);
        let silent = far(&map, &view);
        assert!(!silent.is_done && silent.waits.unwrap().contains("start it"));
    }

    #[test]
    fn a_node_that_is_needed_and_not_heard_is_named() {
        let (mut map, view) = (map(4), view(&[NODES[0], NODES[2], NODES[3]]));
        map.apply(&Change::SetNode { store: NODES[3], from: NodeState::Up, to: NodeState::Leaving }).unwrap();
        let far = leaving(&map, &view, NODES[3]);
        assert_eq!(far.waits.unwrap(), "not heard, and may be needed: n2");
    }
}
