#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kvorum_engine::fuzz::run("blob", bytes));
