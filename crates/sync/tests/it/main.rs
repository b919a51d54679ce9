//! Integration tests of the Sync core: one binary, a module for each scenario.
mod allocation;
mod group;
mod model;
mod named;
