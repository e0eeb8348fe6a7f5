//! The libFuzzer target for PROXY protocol headers ([`fuzz::proxied`]).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::proxied(bytes));
