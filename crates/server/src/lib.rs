//! Kvorum's doors: the Redis protocol, HTTP, metrics.
#![forbid(unsafe_code)]
