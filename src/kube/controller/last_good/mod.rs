//! The last good configuration of the cluster, on the disk: a process that starts while the API server is away serves
//! it.
//!
//! Guarantees:
//! - The file is replaced as a whole, after the new one is on the disk. A process that is killed while it writes leaves
//!   the old one.
//! - A file that is torn, altered, or of another format is refused with a message that says so.
//! - It holds keys of certificates: only the user of the process may read it.
//!
//! Leaves to others: what is live (`applied`), when the configuration is served (`first_picture`).

mod record;
mod record_disk;
mod record_keeper;
mod record_store;

pub use self::record::{LastGoodConfig, RecordFault};
pub use self::record_disk::{RecordDisk, SystemRecordDisk};
pub use self::record_store::{LastGoodError, LastGoodStore};

#[cfg(test)]
pub(super) use self::record::samples;
pub(super) use self::record_keeper::RecordKeeper;

#[cfg(test)]
pub(super) mod tests;
