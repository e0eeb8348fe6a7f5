//! Counts the commands of one worker into slots of the tally.
//!
//! Guarantees: a command is on the tally when its ticket is open, and ended when its ticket is gone; no lock, no
//! system call and no wait on the path of a command. Leaves to `tally`: the order of the stores; to `keeper`: the
//! disk.

pub(crate) mod meter;
pub(crate) mod series_memory;
mod slot_allocator;
mod sync_waiters;
