//! Kvorum's data types and commands as pure functions.
#![forbid(unsafe_code)]
