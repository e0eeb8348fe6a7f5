//! Static settings, which are read once, at start, and the settings that wait for a restart.

pub(crate) mod gateway_settings;
pub(crate) mod pending_restart;
