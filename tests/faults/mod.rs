//! Fault injection on the real binary:
//! - `process_kill`: SIGKILL under load (crash safety).
//! - `clock_jumps`: the wall clock is set forward and back.
//! - `disk_errors`, `disk_full`: failing system calls (EIO), a full file system (ENOSPC).
//! - `lost_files`: ledger files that are removed, replaced or restored from a backup.

mod clock_jumps;
mod disk_errors;
pub(crate) mod disk_full;
mod lost_files;
mod process_kill;
