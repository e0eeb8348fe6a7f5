//! Waiting for threads and futures from plain, blocking code.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Builder;

/// A thread that ends when it is told to; joined at most once.
pub(super) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    pub(super) fn new(thread: JoinHandle<()>) -> Self {
        Self(Some(thread))
    }

    /// Waits for its end. A panic in it has been reported by the panic hook already.
    pub(super) fn join(mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a future to its end on this thread.
pub(super) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Waits for a future; `false` if it took longer than `patience`.
pub(super) fn wait(future: impl Future<Output = ()>, patience: Duration) -> io::Result<bool> {
    block_on(async { tokio::time::timeout(patience, future).await.is_ok() })
}
