//! Development only: seeded simulation of replica groups and clusters, and checkers of their histories.
//!
//! One seed is one run: a [`plan::Plan`] of members, network, disks, faults and operations; a world over virtual time in which the real core of
//! `kvorum-sync` runs on every node; a ledger of what was promised, checked all along; then faults stop, everything must converge, and
//! the clients' history must be linearizable. [`torture`] judges the histories of real nodes by the same search.
#![forbid(unsafe_code)]

mod client;
pub mod cluster;
mod control;
pub mod dice;
mod disk;
mod effects;
mod faults;
pub mod history;
mod ledger;
pub mod linear;
mod node;
pub mod plan;
mod profiles;
mod queue;
pub mod run;
mod server;
pub mod shrink;
pub mod torture;
mod trace;
mod transfers;
mod tree;
mod world;
