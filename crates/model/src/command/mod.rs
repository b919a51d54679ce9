//! The commands, by group.

mod answer;
pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod counter;
pub(crate) mod expiry;
pub(crate) mod generic;
pub(crate) mod keyspace;
pub(crate) mod many;
pub(crate) mod namespace;
pub(crate) mod part;
pub(crate) mod server;
mod set_options;
pub(crate) mod string;
pub(crate) mod transaction;

/// The Kvorum version that brought the commands that Redis has not.
const OWN: &str = "0.1.0";

/// What commands do with their keys, in the words of key specifications.
mod access {
    pub(super) const RO: &[&str] = &["RO"];
    pub(super) const RO_ACCESS: &[&str] = &["RO", "access"];
    pub(super) const RW_UPDATE: &[&str] = &["RW", "update"];
    pub(super) const RW_INSERT: &[&str] = &["RW", "insert"];
    pub(super) const RW_ACCESS_UPDATE: &[&str] = &["RW", "access", "update"];
    pub(super) const RW_ACCESS_DELETE: &[&str] = &["RW", "access", "delete"];
    pub(super) const OW_UPDATE: &[&str] = &["OW", "update"];
    pub(super) const OW_INSERT: &[&str] = &["OW", "insert"];
    pub(super) const RM_DELETE: &[&str] = &["RM", "delete"];
}
