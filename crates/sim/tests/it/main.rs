//! Integration tests of the simulator: one binary, a module for each scenario.
mod cluster;
mod planted;
mod replay;
mod swarm;
