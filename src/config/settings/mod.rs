//! The settings beside the policy, and those that wait for a restart.

pub(crate) mod access_log;
pub(crate) mod effective_settings;
pub(crate) mod gateway_settings;
pub(crate) mod pending_restart;
pub(crate) mod tracing;
