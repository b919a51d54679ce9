//! Integration tests of the Sync core: one binary, a module for each scenario.
mod model;
