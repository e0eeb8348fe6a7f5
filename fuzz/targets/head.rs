//! The libFuzzer target for HTTP/1.1 request heads ([`fuzz::head`]).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::head(bytes));
