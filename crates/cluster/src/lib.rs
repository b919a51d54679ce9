//! A Kvorum node: routing, shard runtimes, and what joins nodes together.
#![forbid(unsafe_code)]
