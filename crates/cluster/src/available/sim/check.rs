//! What must hold when all is mended.

use super::client::KEYS;
use super::world::World;
use super::*;
use kvorum_model::slot;

impl World {
    /// What stands on all disks.
    pub(super) fn print(&self) -> String {
        let keys = (0..KEYS).map(|number| format!("key{number}"));
        let of = |key: &String| {
            let ups = self.nodes.iter().filter_map(|node| node.up.as_ref());
            ups.map(|up| up.replica.entries(key.as_bytes()).expect("entries")).collect::<Vec<_>>()
        };
        format!("{:?}", keys.map(|key| of(&key)).collect::<Vec<_>>())
    }

    /// Replicas have all that they should and are equal, copies are not more than `from`, nothing acknowledged is lost, nothing deleted is back.
    pub(super) fn check(&self) {
        let seed = self.seed;
        for node in self.nodes.iter().filter(|node| !node.is_gone) {
            let replica = &node.up.as_ref().expect("it is up").replica;
            assert!(replica.is_whole(), "seed {seed}: {} lacks {:?}", node.name, replica.lacking());
        }
        for key in (0..KEYS).map(|number| format!("key{number}")) {
            self.check_key(&key);
        }
    }

    fn check_key(&self, key: &str) {
        let seed = self.seed;
        let mut stores = self.order().of_slot(slot(key.as_bytes()));
        let there = self.nodes.iter().filter(|node| !node.is_gone).map(|node| node.store_id);
        let aside: Vec<_> = there.filter(|store| !stores.contains(store)).collect();
        stores.extend(aside);
        let entries = |store: &StoreId| {
            let at = self.at(*store).expect("a node");
            self.nodes[at].up.as_ref().expect("it is up").replica.entries(key.as_bytes()).expect("entries")
        };
        let entries: Vec<_> = stores.iter().map(entries).collect();
        let firsts = entries.iter().filter_map(|entries| entries.first());
        let newest = firsts.max_by_key(|entry| (entry.version, !entry.shadow));
        let written = self.writes.iter().filter(|write| write.key == key);
        if let Some(least) = written.max_by_key(|write| write.version) {
            assert!(
                self.holds(least, newest),
                "seed {seed}: {key} is {newest:?}, acknowledged was {least:?}: {entries:#?}"
            );
        }
        let Some(newest) = newest else { return };
        let expected = entries.iter().find(|entries| entries.first() == Some(newest));
        for (rank, entries_there) in (0..).zip(&entries) {
            let there = entries_there.first();
            if rank >= newest.from || newest.value.is_none() {
                let is_gone = there.is_none_or(|entry| entry.value.is_none());
                assert!(is_gone, "seed {seed}: a copy of {key} too many: {entries:#?}");
            } else {
                assert_eq!(Some(entries_there), expected, "seed {seed}: {key} at {rank}: {entries:#?}");
            }
        }
    }
}
