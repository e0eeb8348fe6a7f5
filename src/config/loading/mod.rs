//! From files to a configuration, again and again: the loader, `include`, and the file watcher.
//!
//! Guarantees: a configuration is compiled whole; no change of a file is missed. Leaves to `parse`: YAML; to
//! `compile`: meaning.

pub(crate) mod configuration;
pub(crate) mod file_checks;
pub(crate) mod file_watcher;
mod include;
pub(crate) mod loader;
