//! The commands, by group.

pub(crate) mod generic;
pub(crate) mod string;
