//! The operator's side: command line, admin listener, reload, graceful shutdown, logs, manual, third-party tools.

mod admin_listener;
mod command_line;
mod config_reload;
mod graceful_shutdown;
mod logging;
mod manual;
pub(crate) mod third_party_tools;
