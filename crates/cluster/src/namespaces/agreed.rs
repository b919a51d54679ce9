//! Namespaces of a cluster: the control plane decides, and every node follows its map.

use super::{NamespaceChange, NamespaceInfo, NamespaceSettings, Namespaces, info};
use crate::control::{Applied, Change, ControlError, Map};
use crate::error::{Error, Result};
use crate::runtime::Cluster;
use std::sync::Arc;
use std::time::Duration;

/// How long the map of this node may lag behind a change that the control plane has made.
const FOLLOW_WITHIN: Duration = Duration::from_secs(5);

/// How often it is looked whether the node has done what its map says.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Namespaces {
    pub(super) async fn agree_on_new(
        &self,
        cluster: &Arc<Cluster>,
        name: &str,
        settings: NamespaceSettings,
    ) -> Result<NamespaceInfo> {
        if cluster.control.map().namespace(name).is_some() {
            return Err(Error::Exists(name.to_owned()));
        }
        self.node.inner.namespaces.check_room(settings.shards)?;
        let change = Change::CreateNamespace { name: name.to_owned(), settings };
        let id = match agree(cluster, change).await? {
            Applied::Namespace(id) => id,
            _ => return Err(Error::Exists(name.to_owned())),
        };
        self.follow(cluster, id, |map| map.namespaces.contains_key(&id)).await?;
        let made = self.node.inner.namespaces.get(id);
        made.map(info)
            .ok_or_else(|| Error::Unknown(format!("{name} was made, but this node does not know it yet")))
    }

    pub(super) async fn agree_on_settings(
        &self,
        cluster: &Arc<Cluster>,
        name: &str,
        changes: Vec<NamespaceChange>,
    ) -> Result<NamespaceInfo> {
        let id = find(cluster, name)?;
        let map = cluster.control.map();
        let row = map.namespaces.get(&id).ok_or_else(|| Error::NoNamespace(name.to_owned()))?;
        // What can't be is told with the words of the node, not of the control plane.
        row.settings.with(&changes)?;
        agree(cluster, Change::SetNamespace { id, changes: changes.clone() }).await?;
        let is_set = |map: &Map| {
            let row = map.namespaces.get(&id);
            row.is_none_or(|row| row.settings.with(&changes).ok().as_ref() == Some(&row.settings))
        };
        self.follow(cluster, id, is_set).await?;
        let known = self.node.inner.namespaces.get(id);
        known.map(info).ok_or_else(|| Error::NoNamespace(name.to_owned()))
    }

    pub(super) async fn agree_on_drop(&self, cluster: &Arc<Cluster>, name: &str) -> Result<()> {
        let id = find(cluster, name)?;
        agree(cluster, Change::DropNamespace { id }).await?;
        self.follow(cluster, id, |map| map.namespaces.get(&id).is_none_or(|row| row.dropped)).await
    }

    /// Waits until this node's map is as it must be, and its own table as the map.
    async fn follow(
        &self,
        cluster: &Arc<Cluster>,
        id: u16,
        mut is_so: impl FnMut(&Map) -> bool,
    ) -> Result<()> {
        let follow = async {
            let mut maps = cluster.control.changes();
            // An error says that the node ends: the time runs out then.
            let _ = maps.wait_for(|map| is_so(map)).await;
            let mut looks = tokio::time::interval(LOOK_EVERY);
            while !self.is_as_the_map(&cluster.control.map(), id) {
                looks.tick().await;
            }
        };
        let late = |_| Error::Unknown("the change was made, but this node does not follow it yet".to_owned());
        tokio::time::timeout(FOLLOW_WITHIN, follow).await.map_err(late)
    }

    fn is_as_the_map(&self, map: &Map, id: u16) -> bool {
        let here = self.node.inner.namespaces.get(id).filter(|here| !here.is_dropped());
        match (map.namespaces.get(&id).filter(|row| !row.dropped), here) {
            (Some(row), Some(here)) => row.settings == here.settings() && row.name == here.name(),
            (row, here) => row.is_none() && here.is_none(),
        }
    }
}

fn find(cluster: &Cluster, name: &str) -> Result<u16> {
    cluster.control.map().namespace(name).ok_or_else(|| Error::NoNamespace(name.to_owned()))
}

async fn agree(cluster: &Cluster, change: Change) -> Result<Applied> {
    cluster.control.change(change).await.map_err(|error| match error {
        ControlError::Refused(text) => Error::Invalid(text),
        ControlError::Unknown(text) => Error::Unknown(text),
    })
}
