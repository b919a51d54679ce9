//! A node learns that its store has left for good: by the map, or, if it was away when that happened, by asking others, who take no session of it any
//! more. It notes that in its store, so that it does not start on it again.

use super::disk::{REMOVED, find_json};
use super::map::{Map, NodeState};
use super::message::{Known, Question};
use super::{Control, Inner};
use kvorum_engine::{Batch, Store};
use kvorum_sync::StoreId;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often one of those is asked who are silent.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long such an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Who is silent for so long is asked.
const SILENT_MICROS: u64 = 2_000_000;

/// How long it waits before it tries again to note it.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    /// The name that the node had.
    name: String,
}

impl Removed {
    fn text(&self) -> String {
        format!(
            "this node (`{}`) was removed from its cluster, or replaced by another one of its name, for good: what it had is kept by others. \
             Start it with an empty data folder to let it join again",
            self.name
        )
    }
}

/// Why the node of this store must not start, if it was removed from its cluster. May wait for the disk.
pub(crate) fn was_removed(store: &Store) -> io::Result<Option<String>> {
    Ok(find_json::<Removed>(store, REMOVED)?.map(|removed| removed.text()))
}

impl Control {
    /// Waits until this node was removed from its cluster, and that stands on its disk; answers what to tell people.
    pub(crate) async fn removed(&self) -> String {
        let mut removed = self.0.removed.subscribe();
        let told = removed.wait_for(Option::is_some).await;
        match told.ok().and_then(|told| told.clone()) {
            Some(why) => why,
            // The node ended without.
            None => std::future::pending().await,
        }
    }
}

impl Inner {
    /// Whether this node has left, by a map.
    pub(super) fn has_left(&self, map: &Map) -> bool {
        map.nodes.get(&self.me).is_some_and(|row| row.state == NodeState::Left)
    }

    /// This store has left for good: notes it, then says so.
    pub(super) async fn leave_for_good(&self) {
        let removed = Removed { name: self.info.name.clone() };
        while self.removed.borrow().is_none() {
            let mut batch = Batch::new();
            let noted = match self.disk.put_json(&mut batch, REMOVED, &removed) {
                Ok(()) => self.disk.write_synced(&batch).await,
                Err(error) => Err(error),
            };
            match noted {
                Ok(()) => {
                    let text = removed.text();
                    tracing::warn!("{text}");
                    self.trouble.send_replace(Some(text.clone()));
                    self.removed.send_replace(Some(text));
                }
                Err(error) => {
                    tracing::warn!(%error, "that this node was removed from its cluster is not noted yet");
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Asks nodes that are silent whether this one was removed: one after the other, as long as there are any.
    pub(super) async fn ask_those_who_are_silent(self: Arc<Inner>) {
        for round in 0_usize.. {
            tokio::time::sleep(ASK_EVERY).await;
            let (map, now) = (self.map(), self.now());
            let silent: Vec<(StoreId, String)> = {
                let detector = self.detector.lock();
                let is_silent = |store: StoreId| detector.silent_micros(store, now) >= SILENT_MICROS;
                let others = map.addresses().into_iter().filter(|(store, _)| *store != self.me);
                others.filter(|(store, _)| is_silent(*store)).collect()
            };
            let Some((_, address)) = silent.get(round % silent.len().max(1)) else { continue };
            let question = Question::Known { store: self.me, cluster: map.cluster };
            if let Ok(Known::Left) = self.ask::<Known>(address, &question, ANSWER_WITHIN).await {
                return self.leave_for_good().await;
            }
        }
    }

    /// What this node knows of another one's store.
    pub(super) fn known(&self, store: StoreId, map: &Map) -> Known {
        match map.nodes.get(&store).map(|row| row.state) {
            Some(NodeState::Left) => Known::Left,
            Some(_) => Known::Here,
            None => Known::Unknown,
        }
    }
}
