//! Making, changing and dropping namespaces.

mod agreed;
mod row;
mod settings;
mod table;

pub(crate) use row::Row;
pub use settings::{Conflicts, NamespaceChange, NamespaceSettings, REPLICATION_MAX};
pub use table::NAMESPACES_MAX;
pub(crate) use table::{Namespace, SHARDS_IN_ALL_MAX, Table, check_name};

use crate::entity::blocking;
use crate::error::{Error, Result};
use crate::namespace::NamespaceId;
use crate::node::{Inner, Node};
use kvorum_engine::{Batch, Durability};

/// What is told of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Its handle.
    pub id: NamespaceId,
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: NamespaceSettings,
}

/// The namespaces of a node; from [`Node::namespaces`](crate::Node::namespaces).
#[derive(Clone)]
pub struct Namespaces {
    pub(crate) node: Node,
}

impl Namespaces {
    /// All of them, in the order in which they were made.
    pub fn list(&self) -> Vec<NamespaceInfo> {
        self.node.inner.namespaces.all().map(info).collect()
    }

    /// The one of this name.
    pub fn get(&self, name: &[u8]) -> Option<NamespaceInfo> {
        self.node.inner.namespaces.named(name).map(info)
    }

    /// Makes a namespace, durably.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Invalid`] for a name or settings that can't be, and at a limit.
    pub async fn create(&self, name: &str, settings: NamespaceSettings) -> Result<NamespaceInfo> {
        table::check_name(name)?;
        settings.check()?;
        if let Some(cluster) = self.node.inner.cluster.get() {
            return self.agree_on_new(cluster, name, settings).await;
        }
        let (node, name) = (self.node.clone(), name.to_owned());
        blocking(move || node.inner.create_namespace(&name, &settings)).await
    }

    /// Changes settings of a namespace, durably.
    ///
    /// # Errors
    /// [`Error::NoNamespace`]; [`Error::Invalid`] for settings that can't be.
    pub async fn set(&self, name: &str, changes: Vec<NamespaceChange>) -> Result<NamespaceInfo> {
        if let Some(cluster) = self.node.inner.cluster.get() {
            return self.agree_on_settings(cluster, name, changes).await;
        }
        let (node, name) = (self.node.clone(), name.to_owned());
        blocking(move || node.inner.change_namespace(&name, &changes)).await
    }

    /// Drops a namespace with all that is in it, durably. Its name can be given to another one; connections that are in it find it gone.
    ///
    /// # Errors
    /// [`Error::NoNamespace`]; [`Error::Invalid`] for those that are there from the start.
    pub async fn drop(&self, name: &str) -> Result<()> {
        if let Some(cluster) = self.node.inner.cluster.get() {
            return self.agree_on_drop(cluster, name).await;
        }
        let (node, name) = (self.node.clone(), name.to_owned());
        blocking(move || node.inner.drop_namespace(&name)).await
    }
}

fn info(namespace: &Namespace) -> NamespaceInfo {
    NamespaceInfo { id: namespace.id, name: namespace.name(), settings: namespace.settings() }
}

/// A node alone decides by itself; in a cluster the control plane does, and the nodes follow its map by `install` and `remove`.
impl Inner {
    fn create_namespace(&self, name: &str, settings: &NamespaceSettings) -> Result<NamespaceInfo> {
        let _one = self.changing_namespaces.lock();
        if self.namespaces.named(name.as_bytes()).is_some() {
            return Err(Error::Exists(name.to_owned()));
        }
        self.namespaces.check_room(settings.shards)?;
        let id = self.system.next_namespace()?;
        self.install(id, name, settings).map(info)
    }

    fn change_namespace(&self, name: &str, changes: &[NamespaceChange]) -> Result<NamespaceInfo> {
        let _one = self.changing_namespaces.lock();
        let namespace = self.find_namespace(name)?;
        let settings = namespace.settings().with(changes)?;
        self.install(namespace.id.id(), name, &settings).map(info)
    }

    fn drop_namespace(&self, name: &str) -> Result<()> {
        let _one = self.changing_namespaces.lock();
        let id = self.find_namespace(name)?.id;
        if id.is_built_in() {
            return Err(Error::Invalid(format!("{name} is there from the start, and can't be dropped")));
        }
        self.remove(id.id())
    }

    fn find_namespace(&self, name: &str) -> Result<&Namespace> {
        self.namespaces.named(name.as_bytes()).ok_or_else(|| Error::NoNamespace(name.to_owned()))
    }

    /// Notes a namespace in the store, then shows it; or the change of one. The caller holds `changing_namespaces`.
    pub(crate) fn install(&self, id: u16, name: &str, settings: &NamespaceSettings) -> Result<&Namespace> {
        let mut batch = Batch::new();
        self.system.put_namespace(&mut batch, id, &Row::kept(name, settings.clone()));
        self.write_patiently(&batch, Durability::Synced)?.wait()?;
        self.namespaces.add(id, name, settings, self.epoch)
    }

    /// Notes in the store that a namespace is gone, then drops its trees; after a crash in between they are dropped at the next start. The
    /// caller holds `changing_namespaces`, without which no trees are made.
    pub(crate) fn remove(&self, id: u16) -> Result<()> {
        let mut batch = Batch::new();
        self.system.put_namespace(&mut batch, id, &Row::Dropped);
        self.write_patiently(&batch, Durability::Synced)?.wait()?;
        self.namespaces.remove(id);
        table::drop_trees(&self.store, id)
    }
}
