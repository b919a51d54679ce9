//! The engine from outside, one module for each scenario.

mod basics;
mod crash;
mod model;
mod reopen;
mod shipping;
