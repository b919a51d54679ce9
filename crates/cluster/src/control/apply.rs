//! How changes act on the map.

use super::change::{Applied, Change, Refused};
use super::map::{
    ClusterId, Map, NAME_BYTES_MAX, NODES_MAX, NamespaceRow, NodeInfo, NodeRow, NodeState, Nomination,
    ShardId, ShardRow,
};
use super::placement;
use crate::error::Error;
use crate::namespace::{BUILT_IN, Mode};
use crate::namespaces::{
    NAMESPACES_MAX, NamespaceChange, NamespaceSettings, REPLICATION_MAX, SHARDS_IN_ALL_MAX, check_name,
};
use kvorum_sync::{Epoch, Members, Register, StoreId};
use std::collections::BTreeMap;

type Answer = Result<Applied, Refused>;

fn refuse(why: impl Into<String>) -> Answer {
    Err(Refused(why.into()))
}

impl Map {
    /// Applies one change: it happens as a whole or not at all.
    pub(crate) fn apply(&mut self, change: &Change) -> Answer {
        if !self.is_founded() && !matches!(change, Change::Found { .. }) {
            return refuse("the cluster is not founded yet");
        }
        match change {
            Change::Found { cluster, nodes, namespaces } => self.found(*cluster, nodes, namespaces),
            Change::Join { store, info, replaces } => self.join(*store, info, *replaces),
            Change::SetNode { store, from, to } => self.set_node(*store, *from, *to),
            Change::CreateNamespace { name, settings } => self.create_namespace(name, settings),
            Change::SetNamespace { id, changes } => self.set_namespace(*id, changes),
            Change::DropNamespace { id } => self.drop_namespace(*id),
            Change::Activate { id } => self.activate(*id),
            Change::Nominate { shard, last, above, manager, members } => {
                self.nominate(*shard, *last, *above, *manager, members)
            }
            Change::Led { shard, epoch } => Ok(self.led(*shard, *epoch)),
            Change::Learners { shard, last, learners } => self.set_learners(*shard, *last, learners),
        }
    }

    fn found(
        &mut self,
        cluster: ClusterId,
        nodes: &BTreeMap<StoreId, NodeInfo>,
        namespaces: &BTreeMap<u16, NamespaceRow>,
    ) -> Answer {
        if self.is_founded() {
            return if self.cluster == cluster {
                Ok(Applied::Outdated)
            } else {
                refuse(format!("this is the cluster {} already", self.cluster))
            };
        }
        let mut map = Map { cluster, version: self.version, voters: self.voters.clone(), ..Map::default() };
        for (store, info) in nodes {
            map.enter(*store, info)?;
        }
        for (id, row) in namespaces {
            row.settings.check()?;
            map.namespaces.insert(*id, NamespaceRow { active: false, ..row.clone() });
        }
        for (id, row) in namespaces {
            if row.active {
                map.activate(*id)?;
            }
        }
        *self = map;
        Ok(Applied::Done)
    }

    fn join(&mut self, store: StoreId, info: &NodeInfo, replaces: Option<StoreId>) -> Answer {
        if let Some(row) = self.nodes.get(&store) {
            if row.state == NodeState::Left {
                return refuse(format!(
                    "the store of `{}` has left this cluster: start it with an empty data folder",
                    row.info.name
                ));
            }
            if row.info == *info {
                return Ok(Applied::Outdated);
            }
        }
        let named = self.named(&info.name).filter(|named| *named != store);
        if let Some(other) = named
            && replaces != Some(other)
        {
            return refuse(format!("there is another node called `{}` (store {other})", info.name));
        }
        check_node(info)?;
        if let Some(row) = self.nodes.get_mut(&store) {
            // Epochs of a store never fall.
            let epoch = row.info.epoch.max(info.epoch);
            row.info = NodeInfo { epoch, ..info.clone() };
        } else {
            self.enter(store, info)?;
        }
        if let Some(row) = named.and_then(|other| self.nodes.get_mut(&other)) {
            row.state = NodeState::Left;
        }
        Ok(Applied::Done)
    }

    /// Gives a new node its row and a slot.
    fn enter(&mut self, store: StoreId, info: &NodeInfo) -> Result<(), Refused> {
        check_node(info)?;
        if self.nodes.len() >= NODES_MAX {
            self.forget_one()?;
        }
        let taken: std::collections::BTreeSet<u16> = self.nodes.values().map(|row| row.slot).collect();
        // Above all that were ever given out, as long as that goes: the slots of those that left rest longest.
        let above = taken.last().map_or(0, |last| last + 1);
        let slot = if usize::from(above) < NODES_MAX {
            above
        } else {
            (0..above).find(|slot| !taken.contains(slot)).unwrap_or_default()
        };
        self.nodes.insert(store, NodeRow { info: info.clone(), slot, state: NodeState::Up });
        Ok(())
    }

    /// Makes room by a node that left and that no shard names any more.
    fn forget_one(&mut self) -> Result<(), Refused> {
        let kept = self.kept();
        let gone = |(store, row): (&StoreId, &NodeRow)| {
            (row.state == NodeState::Left && kept.get(store).is_none_or(|count| *count == 0))
                .then_some(*store)
        };
        let Some(store) = self.nodes.iter().find_map(gone) else {
            return Err(Refused(format!("a cluster has at most {NODES_MAX} nodes")));
        };
        self.nodes.remove(&store);
        Ok(())
    }

    fn set_node(&mut self, store: StoreId, from: NodeState, to: NodeState) -> Answer {
        let Some(row) = self.nodes.get(&store) else {
            return refuse(format!("there is no node with the store {store}"));
        };
        if row.state != from || from == to {
            return Ok(Applied::Outdated);
        }
        let name = &row.info.name;
        match (from, to) {
            (NodeState::Left, _) => return refuse(format!("the node `{name}` has left for good")),
            (NodeState::Leaving, to) if to != NodeState::Left => {
                return refuse(format!("the node `{name}` is being removed, and can't come back"));
            }
            (_, NodeState::Leaving | NodeState::Left) if !self.has_others(store) => {
                return refuse(format!(
                    "the node `{name}` is the last one: nobody else can keep what it has"
                ));
            }
            _ => {}
        }
        if let Some(row) = self.nodes.get_mut(&store) {
            row.state = to;
        }
        Ok(Applied::Done)
    }

    /// Whether another node stays.
    fn has_others(&self, store: StoreId) -> bool {
        self.eligible().any(|(other, _)| other != store)
    }

    fn create_namespace(&mut self, name: &str, settings: &NamespaceSettings) -> Answer {
        check_name(name)?;
        settings.check()?;
        if self.namespace(name).is_some() {
            return refuse(format!("there is a namespace `{name}` already"));
        }
        let living = || self.namespaces.values().filter(|row| !row.dropped);
        let shards: u32 = living().map(|row| u32::from(row.settings.shards)).sum();
        if living().count() >= NAMESPACES_MAX {
            return refuse(format!("a cluster has at most {NAMESPACES_MAX} namespaces"));
        }
        if shards + u32::from(settings.shards) > SHARDS_IN_ALL_MAX {
            return refuse(format!(
                "all namespaces have {shards} shards, {} more would be over the limit of {SHARDS_IN_ALL_MAX}",
                settings.shards
            ));
        }
        let last = self.namespaces.last_key_value().map_or(0, |(last, _)| *last);
        let Some(id) = last.checked_add(1) else {
            return refuse("the numbers of namespaces are used up: each is given once");
        };
        let settings = settings.clone();
        self.namespaces
            .insert(id, NamespaceRow { name: name.to_owned(), settings, active: false, dropped: false });
        Ok(Applied::Namespace(id))
    }

    fn set_namespace(&mut self, id: u16, changes: &[NamespaceChange]) -> Answer {
        let row = self.living_mut(id)?;
        let settings = row.settings.with(changes)?;
        if settings == row.settings {
            return Ok(Applied::Outdated);
        }
        row.settings = settings;
        Ok(Applied::Done)
    }

    fn drop_namespace(&mut self, id: u16) -> Answer {
        if id < BUILT_IN {
            return refuse("this namespace is there from the start, and can't be dropped");
        }
        self.living_mut(id)?.dropped = true;
        self.shards.retain(|shard, _| shard.namespace != id);
        Ok(Applied::Done)
    }

    fn activate(&mut self, id: u16) -> Answer {
        let row = self.living_mut(id)?;
        if row.active {
            return Ok(Applied::Outdated);
        }
        if row.settings.mode == Mode::Strong {
            let shards = row.settings.shards;
            let chosen = placement::first_members(self, id, shards);
            if chosen.iter().any(|(_, members)| members.is_empty()) {
                return refuse("no node can take a shard now: all have left");
            }
            for (shard, members) in chosen {
                let register = Register::new(Members::of(&members));
                self.shards
                    .insert(shard, ShardRow { register, nomination: None, learners: Members::of(&[]) });
            }
        }
        self.living_mut(id)?.active = true;
        Ok(Applied::Done)
    }

    fn nominate(
        &mut self,
        shard: ShardId,
        last: Epoch,
        above: Epoch,
        manager: StoreId,
        members: &Members,
    ) -> Answer {
        // Above all that the members' stores wrote by themselves.
        let own = |store: &StoreId| self.nodes.get(store).map_or(Epoch::ZERO, |row| row.info.epoch);
        let floor = members.as_slice().iter().map(own).max().unwrap_or_default();
        let Some(row) = self.shards.get_mut(&shard) else { return Ok(Applied::Outdated) };
        if row.register.epoch() != last {
            return Ok(Applied::Outdated);
        }
        if members.as_slice().len() > usize::from(REPLICATION_MAX) + 1 {
            return refuse(format!("a shard has at most {REPLICATION_MAX} members, and one on its way"));
        }
        if !members.contains(manager) || !row.members().contains(manager) {
            return refuse(format!(
                "{manager} can't manage shard {} of namespace {}: it must be in the old and new member list",
                shard.place, shard.namespace
            ));
        }
        let nominated = row.register.nominate(above.max(floor), members.clone());
        let (epoch, membership) = nominated.map_err(|error| Refused(error.to_string()))?;
        row.nomination = Some(Nomination { epoch, manager, membership, led: false });
        Ok(Applied::Nominated(epoch))
    }

    fn led(&mut self, shard: ShardId, epoch: Epoch) -> Applied {
        let Some(row) = self.shards.get_mut(&shard) else { return Applied::Outdated };
        let known = row.is_led();
        if known || !row.register.led(epoch) {
            return Applied::Outdated;
        }
        if let Some(last) = &mut row.nomination {
            last.led = true;
        }
        let still: Vec<StoreId> = row.learners.as_slice().to_vec();
        let members = row.members().clone();
        row.learners = still.into_iter().filter(|store| !members.contains(*store)).collect::<Vec<_>>().into();
        Applied::Done
    }

    fn set_learners(&mut self, shard: ShardId, last: Epoch, learners: &Members) -> Answer {
        let known = |store: &StoreId| self.nodes.get(store).is_some_and(|row| row.state != NodeState::Left);
        if !learners.as_slice().iter().all(known) {
            return refuse("a learner must be a node of the cluster");
        }
        let Some(row) = self.shards.get_mut(&shard) else { return Ok(Applied::Outdated) };
        let is_member = |store: &StoreId| row.members().contains(*store) || row.acting().contains(*store);
        if row.register.epoch() != last || row.learners == *learners {
            return Ok(Applied::Outdated);
        }
        if learners.as_slice().iter().any(is_member) {
            return refuse("a member is no learner");
        }
        if learners.as_slice().len() > usize::from(REPLICATION_MAX) {
            return refuse(format!("a shard has at most {REPLICATION_MAX} learners"));
        }
        row.learners = learners.clone();
        Ok(Applied::Done)
    }

    fn living_mut(&mut self, id: u16) -> Result<&mut NamespaceRow, Refused> {
        let row = self.namespaces.get_mut(&id).filter(|row| !row.dropped);
        row.ok_or_else(|| Refused(format!("there is no namespace with the number {id}")))
    }
}

fn check_node(info: &NodeInfo) -> Result<(), Refused> {
    let NodeInfo { name, peer, resp, resp_cluster, http, .. } = info;
    let fits = |text: &String| text.len() <= NAME_BYTES_MAX;
    if name.is_empty() || ![name, peer, resp, resp_cluster, http].into_iter().all(fits) {
        return Err(Refused(format!("name and addresses of a node have 1 to {NAME_BYTES_MAX} bytes")));
    }
    if peer.is_empty() {
        return Err(Refused(format!("the node `{name}` names no address for its peers")));
    }
    Ok(())
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused(error.to_string())
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
