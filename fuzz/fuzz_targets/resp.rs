#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvorum_server::fuzz::run("resp", bytes));
