//! Development only: seeded simulation of replica groups and clusters, and checkers of their histories.
#![forbid(unsafe_code)]

pub mod dice;
pub mod history;
pub mod linear;
