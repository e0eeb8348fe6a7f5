//! Traffic.
pub mod exchange;
