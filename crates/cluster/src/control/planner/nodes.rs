//! States of nodes: down and up by what is heard, left when nothing is kept any more.

use super::super::map::NodeState;
use super::{Change, Round};

impl Round<'_> {
    pub(super) fn node_states(&mut self) {
        for (&store, row) in &self.map.nodes {
            let silent = self.view.dead.get(&store).map_or(0, |since| self.view.now.saturating_sub(*since));
            let keeps = self.kept.get(&store).is_some_and(|count| *count > 0);
            let to = match row.state {
                NodeState::Up if silent >= self.config.down_after_micros => NodeState::Down,
                NodeState::Down if self.view.is_alive(store) => NodeState::Up,
                NodeState::Leaving if !keeps => NodeState::Left,
                _ => continue,
            };
            self.changes.push(Change::SetNode { store, from: row.state, to });
        }
    }
}
