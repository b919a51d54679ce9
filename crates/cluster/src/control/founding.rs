//! What the answers of the listed peers say: wait, enter, or found; and who founds. No clock, no socket.

use super::map::{ClusterId, NodeInfo};
use super::message::{Introduction, Standing};
use kvorum_sync::StoreId;
use std::collections::{BTreeMap, BTreeSet};

/// Who votes at most.
pub(super) const VOTERS_MAX: usize = 5;

/// The id of the cluster that these stores found.
pub(super) fn cluster_of(stores: impl Iterator<Item = StoreId>) -> ClusterId {
    let stores: BTreeSet<StoreId> = stores.collect();
    let bytes: Vec<u8> = stores.iter().flat_map(|store| store.0.to_le_bytes()).collect();
    // Never zero, which stands for no cluster.
    ClusterId(xxhash_rust::xxh3::xxh3_128(&bytes).max(1))
}

/// What a node that waits for its peers does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Not all have answered, or not all with the same list: for people.
    Wait(String),
    /// These addresses belong to a cluster.
    Join(Vec<String>),
    /// All are new: these are they, and which of them begins the log.
    Ready { nodes: BTreeMap<StoreId, NodeInfo>, first: Option<StoreId> },
}

/// Judges the answers of all listed peers, this node's own among them.
pub(super) fn judge(peers: &[String], answers: &[(String, Option<Introduction>)]) -> Round {
    let is_member = |answer: &Introduction| matches!(answer.standing, Standing::Member { .. });
    let members = answers.iter().filter(|(_, answer)| answer.as_ref().is_some_and(is_member));
    let members: Vec<String> = members.map(|(address, _)| address.clone()).collect();
    if !members.is_empty() {
        return Round::Join(members);
    }
    let mut nodes = BTreeMap::new();
    let mut first: Option<StoreId> = None;
    let mut missing = Vec::new();
    for (address, answer) in answers {
        let Some(Introduction { store, info, standing: Standing::New { peers: theirs, voted } }) = answer
        else {
            missing.push(address.as_str());
            continue;
        };
        if theirs != peers {
            return Round::Wait(format!(
                "the node at {address} was started with other peers ({}): give all the same list",
                theirs.join(", ")
            ));
        }
        if !voted {
            first = Some(first.map_or(*store, |first| first.min(*store)));
        }
        nodes.insert(*store, info.clone());
    }
    if !missing.is_empty() {
        return Round::Wait(format!("waiting for {}", missing.join(", ")));
    }
    let names: BTreeSet<&str> = nodes.values().map(|info| info.name.as_str()).collect();
    if nodes.len() < answers.len() || names.len() < nodes.len() {
        return Round::Wait("two of the peers are the same node, or have the same name".to_owned());
    }
    Round::Ready { nodes, first }
}

/// The first voters: an odd number, because one more to an odd one makes a majority larger and nothing safer.
pub(super) fn founders(nodes: &BTreeMap<StoreId, NodeInfo>, first: StoreId) -> BTreeMap<u64, NodeInfo> {
    let most = nodes.len().min(VOTERS_MAX);
    let count = if most.is_multiple_of(2) { most - 1 } else { most };
    let mut ranked: Vec<_> = nodes.iter().collect();
    ranked.sort_by_key(|(store, _)| **store != first);
    ranked.into_iter().take(count).map(|(store, info)| (store.0, info.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction(store: u64, name: &str, standing: Standing) -> Option<Introduction> {
        let info = NodeInfo { name: name.into(), peer: format!("{name}:1"), ..NodeInfo::default() };
        Some(Introduction { store: StoreId(store), info, standing })
    }

    fn new() -> Standing {
        Standing::New { peers: vec!["a:1".into(), "b:1".into(), "c:1".into()], voted: false }
    }

    fn judged(answers: [Option<Introduction>; 3]) -> Round {
        let addresses = ["a:1", "b:1", "c:1"].map(String::from);
        let answers: Vec<_> = addresses.iter().cloned().zip(answers).collect();
        judge(&addresses, &answers)
    }

    #[test]
    fn a_cluster_is_founded_when_all_are_there_and_new() {
        let (a, b, c) =
            (introduction(3, "a", new()), introduction(1, "b", new()), introduction(2, "c", new()));
        let Round::Ready { nodes, first } = judged([a.clone(), b.clone(), c]) else {
            panic!("they are all there")
        };
        assert_eq!(nodes.keys().map(|store| store.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(first, Some(StoreId(1)));
        let Round::Wait(why) = judged([a, b, None]) else { panic!("one is not there") };
        assert_eq!(why, "waiting for c:1");
    }

    #[test]
    fn who_has_voted_begins_no_log() {
        let Standing::New { peers, .. } = new() else { panic!("new") };
        let voted = introduction(1, "b", Standing::New { peers, voted: true });
        let round = judged([introduction(3, "a", new()), voted, introduction(2, "c", new())]);
        let Round::Ready { nodes, first: Some(first) } = round else { panic!("{round:?}") };
        assert_eq!(first, StoreId(2), "the lowest of the others");
        assert_eq!(founders(&nodes, first).len(), 3);
        let two = nodes.into_iter().take(2).collect();
        assert_eq!(founders(&two, first).into_keys().collect::<Vec<_>>(), [2], "it is one of them itself");
    }

    #[test]
    fn one_member_is_enough_to_found_no_second_cluster() {
        let member = introduction(9, "c", Standing::Member { cluster: ClusterId(4) });
        assert_eq!(judged([introduction(1, "a", new()), None, member]), Round::Join(vec!["c:1".into()]));
    }

    #[test]
    fn other_lists_and_other_names_are_told() {
        let (a, b) = (introduction(1, "a", new()), introduction(2, "b", new()));
        let other = introduction(3, "c", Standing::New { peers: vec!["c:1".into()], voted: false });
        let Round::Wait(why) = judged([a.clone(), b.clone(), other]) else { panic!("another list") };
        assert!(why.contains("the same list"), "{why}");
        for twice in [introduction(2, "c", new()), introduction(3, "b", new())] {
            let Round::Wait(why) = judged([a.clone(), b.clone(), twice]) else { panic!("one twice") };
            assert!(why.contains("same name"), "{why}");
        }
    }

    #[test]
    fn voters_are_odd_and_the_clusters_name_is_the_founders() {
        let nodes = |count: u64| (1..=count).map(|n| (StoreId(n), NodeInfo::default())).collect();
        let counts: Vec<usize> = (1..=7).map(|count| founders(&nodes(count), StoreId(1)).len()).collect();
        assert_eq!(counts, [1, 1, 3, 3, 5, 5, 5]);
        let of = |stores: &[u64]| cluster_of(stores.iter().copied().map(StoreId));
        assert_eq!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1, 2]), of(&[1, 3]));
    }
}
