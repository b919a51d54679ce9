//! The shell's own thread: time for busy shards, the map's changes, peers that come and go, and a look around now and then.

use super::Cluster;
use super::start::OURS;
use crate::node::Inner;
use kvorum_sync::StoreId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// How often it looks around: what is repeated while it holds must be repeated well within the life of a report.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long it waits before it tries again to do what the map asks and the store refused.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Peers that came or went and that the members were not told of yet. As many as there are nodes at most.
#[derive(Default)]
pub(super) struct Reached {
    news: Mutex<BTreeMap<StoreId, News>>,
    some: Notify,
}

#[derive(Default, Clone, Copy)]
struct News {
    /// Something under way may have been lost, also if the peer is back by now.
    lost: bool,
    up: bool,
}

impl Reached {
    pub(super) fn add(&self, store: StoreId, up: bool) {
        let mut news = self.news.lock();
        let of_store = news.entry(store).or_default();
        of_store.lost |= !up;
        of_store.up = up;
        drop(news);
        self.some.notify_one();
    }

    async fn next(&self) -> BTreeMap<StoreId, News> {
        loop {
            let news = std::mem::take(&mut *self.news.lock());
            if !news.is_empty() {
                return news;
            }
            self.some.notified().await;
        }
    }
}

/// Runs until the node ends.
pub(super) async fn run(cluster: Arc<Cluster>, node: Weak<Inner>) {
    let mut stopped = cluster.stopped.subscribe();
    let ends = async move {
        // An error says that the sender is gone, and with it the node.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tokio::select! {
        biased;
        () = ends => {}
        () = cluster.ticks.run(|shards| cluster.tick_all(shards)) => {}
        () = follow(&cluster) => {}
        () = peers(&cluster) => {}
        () = reconcile(&cluster, &node) => {}
        () = look(&cluster) => {}
    }
}

async fn follow(cluster: &Arc<Cluster>) {
    let mut map = cluster.control.changes();
    map.mark_changed();
    while map.changed().await.is_ok() {
        map.mark_unchanged();
        if cluster.follow() {
            cluster.reconcile.notify_one();
        }
    }
}

async fn peers(cluster: &Arc<Cluster>) {
    loop {
        for (store, News { lost, up }) in cluster.reached.next().await {
            if lost {
                cluster.tell_peers(store, false);
            }
            if up {
                cluster.tell_peers(store, true);
            }
        }
    }
}

/// Opening and closing waits for the disk: apart from the thread on which time passes.
async fn reconcile(cluster: &Arc<Cluster>, node: &Weak<Inner>) {
    loop {
        cluster.reconcile.notified().await;
        let again = cluster;
        let (cluster, node) = (Arc::clone(cluster), Weak::clone(node));
        let done = tokio::task::spawn_blocking(move || {
            OURS.set(true);
            node.upgrade().map_or(Ok(()), |inner| cluster.make_true(&inner, &cluster.control.map()))
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!("what the cluster map asks of this node can't be done yet: {error}");
            // The store may take writes again later, and the map need not change for that.
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
            again.reconcile.notify_one();
        }
    }
}

async fn look(cluster: &Arc<Cluster>) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        cluster.look_around();
    }
}
