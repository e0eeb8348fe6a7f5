//! Concurrency limits: connections, handshakes, commands in flight (load shedding), and small semaphores of one thread.
//!
//! Guarantees:
//! - A permit is released when it is dropped.
//! - No interleaving of threads exceeds a limit.
//!
//! Leaves to others: the refusal, and its count, when no permit is free. Rates and quotas are in `limit`.

pub(crate) mod connections;
pub(crate) mod handshakes;
pub(crate) mod load_shedding;
