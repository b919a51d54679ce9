//! Integration tests of the Sync core: one binary, a module for each scenario.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod allocation;
mod cases;
mod face;
mod group;
mod model;
mod moves;
mod named;
mod random;
mod rebuilt;
mod rules;
mod store;
