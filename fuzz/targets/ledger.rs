//! The libFuzzer target for edited ledgers ([`fuzz::ledger`]).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::ledger(bytes));
