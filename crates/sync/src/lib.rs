//! Sync: the replication core of Kvorum's strong namespaces, without I/O.
#![forbid(unsafe_code)]
