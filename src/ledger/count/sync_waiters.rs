//! Commands of one worker that wait for a sync of the tally, and the task that wakes them.
//!
//! Guarantees:
//! - A command continues only after a sync that began after its request has ended.
//! - After the disk has failed, no command continues.
//! - The keeper wakes each worker once per sync, and the worker wakes its own commands. Waking every command across
//!   threads cost a fifth of a command at 256 connections (`loadtests metering`, 2026-11-25).

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

/// The waiting commands: at most the commands in flight. A command that is polled again before the next sync is in the
/// list twice until that sync.
#[derive(Debug, Default)]
pub(crate) struct SyncWaiters {
    /// The number of the last ended sync that this worker has observed.
    completed_sync: Cell<u64>,
    waiting: RefCell<Vec<SyncWaiter>>,
}

#[derive(Debug)]
struct SyncWaiter {
    sync: u64,
    waker: Waker,
}

/// A future that completes when its sync has ended.
#[derive(Debug)]
pub(crate) struct SyncWait<'a> {
    waiters: &'a SyncWaiters,
    sync: u64,
}

impl SyncWaiters {
    /// Waits for the sync with the number `sync`, or a later one.
    pub(crate) fn wait_for(&self, sync: u64) -> SyncWait<'_> {
        SyncWait { waiters: self, sync }
    }

    fn release(&self, done: u64) {
        self.completed_sync.set(done);
        let synced: Vec<_> = self.waiting.borrow_mut().extract_if(.., |waiter| waiter.sync <= done).collect();
        synced.into_iter().for_each(|waiter| waiter.waker.wake());
    }
}

impl Future for SyncWait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.waiters.completed_sync.get() >= self.sync {
            return Poll::Ready(());
        }
        let waiter = SyncWaiter { sync: self.sync, waker: context.waker().clone() };
        self.waiters.waiting.borrow_mut().push(waiter);
        Poll::Pending
    }
}

/// Wakes the commands of one worker whose sync has ended. Runs until the keeper is gone.
pub(crate) async fn run_notifier(waiters: Rc<SyncWaiters>, mut synced: watch::Receiver<u64>) {
    while synced.changed().await.is_ok() {
        let done = *synced.borrow_and_update();
        waiters.release(done);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(self: std::sync::Arc<Self>) {}
    }

    #[test]
    fn each_waiter_is_released_by_its_own_sync() {
        let (waiters, waker) = (SyncWaiters::default(), Waker::from(std::sync::Arc::new(Nobody)));
        let mut context = Context::from_waker(&waker);
        let (mut first, mut second) = (waiters.wait_for(1), waiters.wait_for(2));
        let mut poll = |wait: &mut SyncWait<'_>| Pin::new(wait).poll(&mut context).is_ready();
        assert!(!poll(&mut first) && !poll(&mut second));
        waiters.release(1);
        assert!(poll(&mut first) && !poll(&mut second));
        waiters.release(2);
        assert!(poll(&mut second));
        assert!(waiters.waiting.borrow().is_empty());
    }
}
