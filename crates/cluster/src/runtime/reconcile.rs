//! What the map says, made true here: peers, namespaces, members, nominations, learners.

use super::{Cluster, moments};
use crate::alone::Standing;
use crate::control::{Map, NamespaceRow, ShardRow};
use crate::error::{Error, Result};
use crate::latch::ShardId;
use crate::node::Inner;
use crate::shard::{Member, MemberInput, MemberParts, Outbox};
use kvorum_sync::{Epoch, Members, StoreId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the members were told last; forgotten with the member.
#[derive(Default)]
pub(super) struct Told {
    nominated: BTreeMap<ShardId, Epoch>,
    learners: BTreeMap<ShardId, (Epoch, Members)>,
}

impl Cluster {
    /// Tells the open members what the map says now. Waits for nothing. Answers whether there is more to do that does.
    pub(super) fn follow(self: &Arc<Self>) -> bool {
        // One at a time, and each with the newest map: no member is told what was before.
        let _one = self.following.lock();
        let map = self.control.map();
        let mut more = map.namespaces.iter().any(|(id, row)| self.wants_namespace(*id, row));
        match self.alone.standing() {
            Standing::Unknown => return more || map.is_founded(),
            Standing::Alone => return more | !self.keep_alone(&map),
            Standing::Grouped => {}
        }
        for (shard, row) in &map.shards {
            let is_here = self.has_member(*shard);
            let wanted = row.everyone().contains(&self.me);
            if is_here && wanted {
                self.tell(*shard, row);
            }
            more |= is_here != wanted || (!wanted && !self.left.lock().contains(shard));
        }
        more
    }

    /// Opens and closes what the map asks for. Blocks.
    pub(super) fn make_true(self: &Arc<Self>, inner: &Arc<Inner>, map: &Map) -> Result<()> {
        self.install_all(inner, map)?;
        if let Some(map) = self.grouped(inner, map)? {
            self.install_all(inner, &map)?;
            self.open_and_close(&map)?;
        }
        self.follow();
        Ok(())
    }

    fn install_all(&self, inner: &Arc<Inner>, map: &Map) -> Result<()> {
        for (id, row) in &map.namespaces {
            if self.wants_namespace(*id, row) {
                install(inner, *id, row)?;
            }
        }
        Ok(())
    }

    fn open_and_close(self: &Arc<Self>, map: &Map) -> Result<()> {
        for (shard, row) in &map.shards {
            match (self.has_member(*shard), row.everyone().contains(&self.me)) {
                (false, true) => self.open_member(*shard, row)?,
                (true, true) => {}
                (is_here, false) => {
                    if is_here {
                        self.close_member(*shard);
                    }
                    self.leave(*shard, row)?;
                }
            }
        }
        Ok(())
    }

    fn wants_namespace(&self, id: u16, row: &NamespaceRow) -> bool {
        let here = self.table.get(id).filter(|here| !here.is_dropped());
        match here {
            Some(here) if !row.dropped => row.settings != here.settings() || row.name != here.name(),
            Some(_) => true,
            None => !row.dropped,
        }
    }

    /// Nominations and learners, each once.
    fn tell(self: &Arc<Self>, shard: ShardId, row: &ShardRow) {
        let Some(last) = row.nomination.as_ref().filter(|last| last.manager == self.me) else { return };
        let (nominate, learners) = {
            let mut told = self.told.lock();
            let nominate = told.nominated.insert(shard, last.epoch).is_none_or(|before| before < last.epoch);
            let known = (last.epoch, row.learners.clone());
            let learners = last.led && told.learners.get(&shard) != Some(&known);
            if learners {
                told.learners.insert(shard, known);
            }
            (nominate, learners)
        };
        if nominate {
            let membership = last.membership.clone();
            self.step(shard, MemberInput::Nominate { epoch: last.epoch, membership });
        }
        if learners {
            self.step(shard, MemberInput::Learners(row.learners.clone()));
        }
    }

    /// Removes what is left of a shard that others keep. Once in the life of a process it is looked for.
    fn leave(&self, shard: ShardId, row: &ShardRow) -> Result<()> {
        if !self.left.lock().insert(shard) || self.table.shard(shard).is_none() {
            return Ok(());
        }
        let done = Member::leave(&self.parts(shard), row.register.epoch());
        match &done {
            Ok(true) => {
                let ShardId { namespace, place } = shard;
                tracing::info!(namespace, place, "the data of a shard that this node left is removed");
            }
            Ok(false) => {}
            Err(_) => _ = self.left.lock().remove(&shard),
        }
        done.map(drop)
    }

    pub(super) fn parts(&self, shard: ShardId) -> MemberParts {
        MemberParts {
            store: self.store.clone(),
            fs: Arc::clone(&self.fs),
            rows: self.rows.clone(),
            shard,
            me: self.me,
            // Of this opening, not of this process: a member that stood still is opened again, while what was sent to it is under way.
            nonce: fastrand::u64(..),
            config: self.config.clone(),
        }
    }

    fn open_member(self: &Arc<Self>, shard: ShardId, row: &ShardRow) -> Result<()> {
        let Some(place) = self.table.shard(shard) else {
            let ShardId { namespace, place } = shard;
            return Err(Error::Storage(format!(
                "there is no namespace {namespace} with a shard {place} here"
            )));
        };
        self.left.lock().remove(&shard);
        let mut out = Outbox::default();
        let member = Member::open(self.parts(shard), moments::now(), &mut out)?;
        place.tree.replace(member.tree());
        place.latch().member = Some(Box::new(member));
        self.open.lock().insert(shard);
        self.carry_out(shard, out);
        for store in row.everyone().into_iter().filter(|store| *store != self.me) {
            self.tell_reachable(shard, store);
        }
        Ok(())
    }

    /// Tells a new leader who is out of reach: it takes the others for reachable, and would speak to a dead node for ever instead of resting.
    pub(super) fn tell_unreachable(self: &Arc<Self>, shard: ShardId) {
        let map = self.control.map();
        let Some(row) = map.shards.get(&shard) else { return };
        for store in row.everyone() {
            if store != self.me && !self.transport.is_up(store) {
                self.tell_reachable(shard, store);
            }
        }
    }

    /// Tells a new member whether another one can be reached. Sessions come and go meanwhile, and their news may have passed this by: it is
    /// told until what was told still holds afterwards.
    fn tell_reachable(self: &Arc<Self>, shard: ShardId, store: StoreId) {
        let mut reachable = self.transport.is_up(store);
        loop {
            self.step(shard, MemberInput::Peer { store, reachable });
            let now = self.transport.is_up(store);
            if now == reachable {
                return;
            }
            reachable = now;
        }
    }

    /// Lets go of a member: the map gives the shard to others, or it is to be opened again.
    pub(super) fn close_member(&self, shard: ShardId) {
        self.open.lock().remove(&shard);
        self.still.lock().remove(&shard);
        if let Some(place) = self.table.shard(shard) {
            // Dropped after the latch was given back.
            let member = place.latch().member.take();
            if let Some(mut member) = member {
                let mut out = Outbox::default();
                member.give_up(&mut out);
                out.done.into_iter().for_each(|(token, done)| self.waits.complete(token, done));
            }
        }
        let mut told = self.told.lock();
        told.nominated.remove(&shard);
        told.learners.remove(&shard);
    }
}

/// Makes, changes or drops a namespace as the map says.
fn install(inner: &Arc<Inner>, id: u16, row: &NamespaceRow) -> Result<()> {
    let _one = inner.changing_namespaces.lock();
    if row.dropped {
        return inner.remove(id);
    }
    inner.install(id, &row.name, &row.settings).map(drop)
}
