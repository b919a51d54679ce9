//! From a node that keeps everything by itself to one whose shards are kept by groups: when the map shows company.

use super::Cluster;
use crate::alone::Standing;
use crate::control::{Map, Report};
use crate::error::{Error, Result};
use crate::namespace::Mode;
use crate::node::Inner;
use crate::shard::Member;
use kvorum_engine::{Batch, Durability};
use kvorum_sync::Epoch;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Cluster {
    /// Does what the map asks of a node that keeps everything by itself. Answers `false`, and does nothing, if it has company now.
    pub(super) fn keep_alone(&self, map: &Map) -> bool {
        if self.has_company(map) {
            return false;
        }
        let mut is_news = false;
        for (id, row) in map.namespaces.iter().filter(|(_, row)| row.active && !row.dropped) {
            if row.settings.mode == Mode::Strong
                && let Some(namespace) = self.table.get(*id)
            {
                is_news |= namespace.set_in_use();
            }
        }
        for (shard, row) in &map.shards {
            // It leads wherever it is named. No promise is needed for that: it is what every majority needs.
            if let Some(last) = row.nomination.as_ref().filter(|last| !last.led) {
                self.control.report(&Report::Led { shard: *shard, epoch: last.epoch });
            }
        }
        if is_news {
            self.moved.notify_waiters();
        }
        true
    }

    /// Whether another node may ever keep a shard. One that has left for good may have kept some.
    fn has_company(&self, map: &Map) -> bool {
        map.nodes.keys().any(|store| *store != self.me)
            || map.shards.values().any(|row| row.everyone() != [self.me])
    }

    /// The newest map, if members of groups do what it says; `None` while the node does it by itself, or there is no map. Blocks.
    pub(super) fn grouped(&self, inner: &Inner, map: &Map) -> Result<Option<Arc<Map>>> {
        match self.alone.standing() {
            Standing::Unknown if !map.is_founded() => return Ok(None),
            Standing::Unknown if !self.has_company(map) && !inner.system.is_grouped()? => {
                self.alone.begin();
                return Ok(None);
            }
            Standing::Alone if !self.has_company(map) => return Ok(None),
            Standing::Unknown | Standing::Alone => {
                self.alone.end();
                self.moved.notify_waiters();
            }
            Standing::Grouped => {}
        }
        // Of now: it has every shard that was written until the end.
        let map = self.control.map();
        self.hand_over(inner, &map)?;
        Ok(Some(map))
    }

    /// What this node wrote alone becomes the groups': all of it at once, and durably, before any of their members does anything.
    fn hand_over(&self, inner: &Inner, map: &Map) -> Result<()> {
        if self.handed_over.get().is_some() {
            return Ok(());
        }
        let mut shards = BTreeMap::new();
        let mut batch = Batch::new();
        // Above all op ids that were used. The log has them before this, so they are durable with it.
        let epoch = inner.system.next_epoch(&mut batch)?;
        let epoch = u32::try_from(epoch)
            .ok()
            .and_then(Epoch::new)
            .ok_or_else(|| Error::Storage(format!("epoch {epoch} is none that groups could go on from")))?;
        for (shard, row) in &map.shards {
            if row.members().as_slice() != [self.me] {
                continue;
            }
            let converted = Member::convert(&self.parts(*shard), epoch, inner.time.now(), &mut batch)?;
            shards.extend(converted.map(|op| (*shard, op)));
        }
        if !shards.is_empty() || !inner.system.is_grouped()? {
            inner.system.put_grouped(&mut batch);
            self.store.write_admitted(&batch, Durability::Synced)?.wait()?;
        }
        if !shards.is_empty() {
            tracing::info!(shards = shards.len(), "what this node wrote alone is kept by groups from now on");
        }
        let _ = self.handed_over.set(shards);
        self.moved.notify_waiters();
        Ok(())
    }
}
