//! How many at once: connections, handshakes, commands in flight, and small budgets of one thread.
//!
//! Guarantees: every permit is released when it is dropped; no limit is exceeded, by any interleaving of threads.
//! Leaves to others: refusing and counting what finds no permit; rates and quotas are in `limit`.

pub(crate) mod connections;
pub(crate) mod handshakes;
pub(crate) mod in_flight;
pub(crate) mod local_semaphore;
