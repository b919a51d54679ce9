//! Commands that wait for a disk or for other nodes, so that the replies before them are sent first.

use super::{Session, cluster, namespace, save};
use kvorum_model::{Args, Reply, SessionCommand};

/// Whether a command is executed by [`Session::wait_for`].
pub(crate) fn is_waiting(command: SessionCommand) -> bool {
    use SessionCommand as C;
    matches!(
        command,
        C::Save
            | C::NamespaceCreate
            | C::NamespaceSet
            | C::NamespaceDrop
            | C::ClusterCountKeysInSlot
            | C::ClusterGetKeysInSlot
    )
}

impl Session {
    /// Executes one of them.
    pub(crate) async fn wait_for(&self, command: SessionCommand, args: Args<'_>) -> Reply {
        match command {
            SessionCommand::Save => save::save(self.shared.node.clone()).await,
            SessionCommand::ClusterCountKeysInSlot | SessionCommand::ClusterGetKeysInSlot => {
                cluster::keys_in_slot(self, args).await
            }
            _ => namespace::namespace_command(&self.shared.node, command, args).await,
        }
    }
}
