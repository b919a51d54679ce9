//! Compaction: which tables to rewrite, what of them must stay, and the rewriting.

#[cfg(test)]
mod choices;
mod garbage;
mod job;
mod memtables;
mod output;
mod pacing;
mod rules;
mod standing;
mod strategy;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod views;

pub use job::CompactionStats;
pub(crate) use job::Compactions;
pub(crate) use output::{Written, sync_dirs};
