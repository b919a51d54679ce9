//! The engine from outside, one module for each scenario.

mod basics;
mod model;
mod reopen;
