#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvorum_cluster::fuzz::run("shard_message", bytes));
