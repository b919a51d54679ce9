//! Integration tests of the simulator: one binary, a module for each scenario.
mod replay;
mod swarm;
