//! Counts the commands of one worker into slots of the tally.
//!
//! Guarantees:
//! - As soon as a ticket is open, its command is on the tally.
//! - When the ticket is dropped, the command has ended on the tally.
//! - The path of a command takes no lock, makes no system call and does not wait.
//!
//! Leaves to `tally`: the order of the stores. Leaves to `keeper`: the disk.

pub(crate) mod meter;
pub(crate) mod series_memory;
mod slot_allocator;
mod sync_waiters;
