//! The ground floor of `proxy`: byte streams, timers, wakers, and the executor of one thread.
//!
//! Guarantees:
//! - This folder has no code for HTTP messages, configuration, or workers.
//! - It imports nothing of `proxy` from outside this folder.
//!
//! Leaves to others: which limit applies to which stream.

pub(crate) mod close_notice;
pub(crate) mod connection_activity;
pub(crate) mod deadline_timer;
pub(crate) mod lingering_close;
pub(crate) mod tcp_connection;
pub(crate) mod tick_timer;
pub(crate) mod waker_queue;
pub(crate) mod write_timeout;
