//! Settings that are read once, at start, and which of them wait for a restart.

pub(crate) mod gateway_settings;
pub(crate) mod pending_restart;
