//! Loading and reloading of a configuration from its files: the loader, `include`, TLS files, and the file watcher.
//!
//! Guarantees:
//! - A configuration is always compiled as a whole.
//! - No change of a file is missed.
//!
//! Leaves to others:
//! - YAML: `parse`;
//! - the meaning of the document: `compile`.

pub(crate) mod command_check;
pub(crate) mod configuration;
pub(crate) mod file_watcher;
mod include;
pub(crate) mod loader;
pub(crate) mod source_set;
pub(crate) mod tls_loader;
