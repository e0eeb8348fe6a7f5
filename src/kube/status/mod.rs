//! Status from state: what an object should show, compared with what it shows, and the writer of the difference.
//!
//! Guarantees:
//! - The comparison is pure. Equal means no write, so a cluster at rest sees none.
//! - The time of a condition changes only with its status.
//! - Entries of other controllers are kept as they are, in their places. Ours for parents that are gone are removed.
//! - The writer keeps no queue of events: of each object it knows the newest difference.
//! - Nothing waits for a write. Without the lease nothing is written.
//!
//! Leaves to others:
//! - what is wanted: `translate`;
//! - who leads: `lease`.

mod comparison;
mod conditions;
mod entries;
mod pending_updates;
mod recent_writes;
mod status_writer;
mod wanted;

pub use self::comparison::{STATUS_ADDRESSES_MAX, StatusUpdate, compare_status, new_status};
pub use self::entries::{ANCESTORS_MAX, PARENTS_MAX};
pub use self::pending_updates::UPDATES_MAX;
pub use self::recent_writes::WRITES_OF_OBJECT_MAX;
pub use self::status_writer::{StatusQueue, WriteCounts, WriteTimes, run_status_writer};
pub use self::wanted::{ConditionStatus, WantedCondition, WantedIngress, WantedListener, WantedParent, WantedStatus};

#[cfg(test)]
mod tests;
