//! The command model as a whole, from outside. One binary: a module for each subject.

#![expect(clippy::unwrap_used, reason = "a helper of tests may fail as a test does")]

mod cases;
mod compare;
mod overlay;
mod page;
mod random;
mod store;
mod table;
