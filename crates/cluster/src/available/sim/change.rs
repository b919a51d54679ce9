//! What happens to the nodes: they come, lose their disks, leave, sleep, and have their clocks set.

use super::client::Write;
use super::world::{AHEAD_MS, GRACE_MS, World};
use super::*;

/// A change that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A new node.
    Join,
    /// A disk is lost: a new store under the old name.
    Wipe,
    /// A node hands over what it keeps, and leaves.
    Leave,
    /// It has handed over.
    Left(usize),
    /// A node sleeps for longer than the grace, switched off or standing still.
    Sleep,
    /// It wakes, after so many more leaps of time.
    Wake(usize, u64),
    /// Some nodes are cut off for longer than the grace, all of them running on.
    Part,
    /// They reach the others again, after so many more leaps of time.
    Reunite(u64),
    /// The clock of a node is set, and set right again later.
    Jump,
    SetRight(usize),
}

/// Requests before the first change.
const REQUESTS_BEFORE: u64 = 60;

impl World {
    /// A world whose nodes change: which of all that may happen does, the seed says.
    pub(super) fn changing(seed: u64) -> World {
        let mut world = World::new(seed, 3, false);
        let mut all = vec![Change::Join, Change::Join, Change::Wipe, Change::Leave];
        match seed % 4 {
            0 => all.push(Change::Sleep),
            1 => all.push(Change::Jump),
            _ => all.extend([Change::Sleep, Change::Jump]),
        }
        // Who sleeps by a clock that was set back can't tell for how long.
        world.jumps_back = seed % 4 == 1;
        if seed.is_multiple_of(3) {
            all.push(Change::Part);
        }
        for _ in 0..all.len() {
            let (one, other) = (world.dice.index(all.len()), world.dice.index(all.len()));
            all.swap(one, other);
        }
        all.truncate(1 + world.dice.index(all.len()));
        world.changes = all;
        world.keeps_losers = seed % 5 == 4;
        for node in &world.nodes {
            if let Some(up) = &node.up {
                up.replica.set_keeps_losers(world.keeps_losers);
            }
        }
        world
    }

    /// A world that falls apart for longer than the grace.
    pub(super) fn parting(seed: u64) -> World {
        let mut world = World::new(seed, 3 + (seed % 3) as usize, false);
        world.changes = vec![Change::Part; 1 + (seed % 2) as usize];
        world
    }

    /// The next change begins, once the last one is known to all or by chance.
    pub(super) fn change(&mut self) {
        let Some(next) = self.changes.last().copied() else { return };
        if self.begun < REQUESTS_BEFORE {
            return;
        }
        let at = self.dice.index(self.nodes.len());
        let keepers = self.order().len();
        match next {
            Change::Join => {
                self.changes.pop();
                self.join();
            }
            Change::Wipe if !self.nodes[at].is_gone && self.is_whole() => {
                self.changes.pop();
                self.wipe(at);
            }
            Change::Leave if keepers > 3 && self.order().has(self.nodes[at].store_id) => {
                self.changes.pop();
                self.changes.push(Change::Left(at));
                let store = self.nodes[at].store_id;
                self.enact(Some(store));
            }
            Change::Leave if !self.changes.contains(&Change::Join) && keepers <= 3 => {
                self.changes.pop();
            }
            Change::Leave => self.changes.rotate_right(1),
            Change::Left(at) => self.leave(at),
            Change::Sleep if self.is_whole() && !self.nodes[at].is_gone => {
                self.changes.pop();
                self.changes.push(Change::Wake(at, 8));
                self.sleep(at);
            }
            Change::Wake(at, leaps) => {
                self.changes.pop();
                self.leap(at);
                match leaps {
                    0 => self.wake_up(at),
                    _ => self.changes.push(Change::Wake(at, leaps - 1)),
                }
            }
            Change::Part if self.is_whole() => {
                self.changes.pop();
                let leaps = 4 + self.dice.below(10);
                self.changes.push(Change::Reunite(leaps));
                // Half of them at most.
                let count = 1 + self.dice.index((keepers / 2).max(1));
                (0..count).for_each(|more| _ = self.apart.insert((at + more) % self.nodes.len()));
            }
            Change::Reunite(leaps) => {
                self.changes.pop();
                self.leap(usize::MAX);
                match leaps {
                    0 => self.reunite(),
                    _ => self.changes.push(Change::Reunite(leaps - 1)),
                }
            }
            Change::Jump if !self.nodes[at].is_gone => {
                self.changes.pop();
                self.changes.push(Change::SetRight(at));
                self.nodes[at].skew_ms = match self.dice.below(4) {
                    1 if self.jumps_back => -2 * GRACE_MS as i64,
                    0 | 1 => 2 * GRACE_MS as i64,
                    2 => AHEAD_MS as i64 + 5000,
                    _ => -(AHEAD_MS as i64),
                };
            }
            Change::SetRight(at) if self.dice.below(8) == 0 => {
                self.changes.pop();
                self.nodes[at].skew_ms = 0;
            }
            _ => {}
        }
    }

    /// Whether every node has all that it should, so that losing one more copy is survived.
    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| match &node.up {
            Some(up) => up.replica.is_whole(),
            None => node.is_gone,
        })
    }

    pub(super) fn join(&mut self) -> usize {
        let at = self.add_node();
        self.enact(None);
        self.nodes[at].map = self.maps.len() - 1;
        self.start(at, false);
        at
    }

    /// A new disk, and so a new store, under the old name. Only what other replicas have acknowledged as well is still promised.
    pub(super) fn wipe(&mut self, at: usize) {
        self.crash(at);
        self.changes.retain(|change| *change != Change::Wipe);
        let node = &mut self.nodes[at];
        node.store_id = StoreId(node.store_id.0 + 100);
        node.fs = SimFs::new(self.seed * 100 + 50);
        self.writes.retain(|write| write.ack >= 2);
        for client in self.clients.values_mut() {
            // The wiped replica may be among those that answered already.
            client.forget();
        }
        self.enact(None);
        self.nodes[at].map = self.maps.len() - 1;
        self.start(at, false);
    }

    /// A node that keeps nothing any more leaves for good.
    fn leave(&mut self, at: usize) {
        let Some(up) = &self.nodes[at].up else { return };
        let knows = up.replica.is_among(self.order());
        let is_empty = |place| {
            let found = up.replica.misplaced(place, self.order(), None);
            found.expect("a list").is_empty()
        };
        if knows && !up.replica.doubts() && (0..world::SHARDS).all(is_empty) {
            self.changes.pop();
            // What it coordinates goes on, or is lost with it.
            self.nodes[at].up = None;
            self.nodes[at].is_gone = true;
            self.enact(None);
        }
    }

    fn sleep(&mut self, at: usize) {
        if self.dice.coin() {
            self.crash(at);
        } else {
            self.nodes[at].is_paused = true;
        }
    }

    /// Whether a node sleeps that must not be woken.
    pub(super) fn sleeps(&self, at: usize) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Wake(other, _) if *other == at))
    }

    /// A part of the grace goes by. Those that are awake are in touch: they give each other what they lack, and forget deletions.
    pub(super) fn leap(&mut self, asleep: usize) {
        self.cut.clear();
        let awake: Vec<usize> =
            (0..self.nodes.len()).filter(|at| *at != asleep && !self.nodes[*at].is_gone).collect();
        for at in &awake {
            self.up(*at);
        }
        self.now_ms += GRACE_MS / 6;
        for at in &awake {
            self.pulse(*at);
        }
        self.drain();
        self.mend_all(&awake);
        for at in awake {
            self.look_at_floors(at);
            self.drain();
            self.look_at_floors(at);
        }
    }

    /// Those that were apart reach the others again. What these deleted meanwhile and have forgotten may be what those have written: of two sides
    /// that could not know of each other the write is what stays.
    pub(super) fn reunite(&mut self) {
        if self.apart.is_empty() {
            return;
        }
        self.apart.clear();
        let lone = std::mem::take(&mut self.lone);
        self.writes.retain(|write| {
            !write.deletes || lone.get(&write.key).is_none_or(|oldest| *oldest > write.version)
        });
        for client in self.clients.values_mut() {
            client.forget();
        }
    }

    pub(super) fn wake_up(&mut self, at: usize) {
        self.nodes[at].is_paused = false;
        if self.nodes[at].up.is_some() {
            self.pulse(at);
        } else {
            self.up(at);
        }
    }

    /// What only a node has that slept too long is promised no more: others had the time to get it.
    pub(super) fn renounce(&mut self, at: usize) {
        let ups: Vec<_> = (0..self.nodes.len())
            .filter(|other| *other != at)
            .filter_map(|other| self.nodes[other].up.as_ref())
            .collect();
        let stands = |write: &Write| {
            let found = ups.iter().filter_map(|up| up.replica.entry(&write.key).expect("an entry"));
            // They may have forgotten a deletion, but then they have nothing that is older.
            self.holds(write, found.max_by_key(|entry| entry.version).as_ref())
        };
        let up = self.nodes[at].up.as_ref().expect("it is up");
        let alone_from = up.hybrid.floor(up.touch.alone_ms() + world::AHEAD_MS);
        let is_its = |write: &Write| write.version > alone_from && write.at == at;
        let is_promised = |write: &&Write| stands(write) || is_its(write);
        let writes = self.writes.iter().filter(is_promised).cloned().collect();
        self.writes = writes;
        for client in self.clients.values_mut() {
            client.forget();
        }
    }
}
