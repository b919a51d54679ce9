//! A node over a real store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod available;
mod backup;
mod cluster;
mod cluster_of_one;
mod cold;
mod commands;
mod company;
mod crash;
mod durability;
mod expiry;
mod fixture;
mod leave;
mod namespaces;
mod restart;
mod scan;
mod shard;
mod threads;
mod transactions;
mod upkeep;
mod world;
