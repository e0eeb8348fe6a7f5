//! The libFuzzer target for client certificates ([`fuzz::certificate`]).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::certificate(bytes));
