//! See [`fuzz::response`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::response(bytes));
