//! States of nodes: down and up by what is heard, left when nothing has to come from them any more.

use super::super::leave;
use super::super::map::NodeState;
use super::{Change, Round};

impl Round<'_> {
    pub(super) fn node_states(&mut self) {
        for (&store, row) in &self.map.nodes {
            let silent = self.view.dead.get(&store).map_or(0, |since| self.view.now.saturating_sub(*since));
            let to = match row.state {
                NodeState::Up if silent >= self.config.down_after_micros => NodeState::Down,
                NodeState::Down if self.view.is_alive(store) => NodeState::Up,
                NodeState::Leaving if leave::leaving(self.map, self.view, store).is_done => NodeState::Left,
                _ => continue,
            };
            self.changes.push(Change::SetNode { store, from: row.state, to });
        }
    }
}
