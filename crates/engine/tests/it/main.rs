//! The engine from outside, one module for each scenario.

mod admission;
mod atomic;
mod basics;
mod crash;
mod damage;
mod edits;
mod found;
mod limits;
mod model;
mod pacing;
#[cfg(feature = "planted-bugs")]
mod planted;
mod rebuild;
mod reopen;
mod shipping;
