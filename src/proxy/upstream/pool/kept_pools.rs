//! The pools of a worker that keep connections.
//!
//! Guarantees:
//! - A sweep takes time in proportion to the pools with kept connections, not to the servers: most of the servers of a
//!   large configuration have none.
//! - A pool that is dropped closes its connections: the list does not keep it.
//!
//! Leaves to others: which connections are closed (`pool`).

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use tokio::time::Instant;

use super::ConnectionPool;

/// The pools that keep connections, each once, with the time of the last sweep.
pub(crate) struct KeptPools {
    pools: RefCell<Vec<Weak<ConnectionPool>>>,
    swept_at: Cell<Instant>,
}

impl Default for KeptPools {
    fn default() -> Self {
        Self { pools: RefCell::default(), swept_at: Cell::new(Instant::now()) }
    }
}

impl KeptPools {
    /// The time of the last sweep. It is precise enough for the idle timeout, and reading it is free.
    pub(super) fn swept_at(&self) -> Instant {
        self.swept_at.get()
    }

    /// Adds a pool that begins to keep connections.
    pub(super) fn add(&self, pool: &Rc<ConnectionPool>) {
        self.pools.borrow_mut().push(Rc::downgrade(pool));
    }

    /// Closes connections that exceeded the idle timeout, and connections that the server closed.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.swept_at.set(now);
        // A connection that is dropped may run code of the worker: the list is not borrowed meanwhile.
        let mut pools = self.pools.take();
        pools.retain(|pool| pool.upgrade().is_some_and(|pool| pool.sweep(now)));
        self.pools.borrow_mut().append(&mut pools);
    }
}
