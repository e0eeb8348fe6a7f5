//! Threads: joining, blocking waits for futures, and work at low priority, for code outside of a runtime.
//!
//! Guarantees: each function returns only after its thread has ended.
//!
//! Leaves to others: the threads of traffic (`proxy`), and the control thread (`control_thread`).

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::runtime::Builder;

/// A thread that ends with its drain; joined at most once.
pub(crate) struct ThreadHandle(Option<JoinHandle<()>>);

impl ThreadHandle {
    pub(crate) fn new(thread: JoinHandle<()>) -> Self {
        Self(Some(thread))
    }

    /// Waits for the end of the thread. The panic hook has already reported a panic.
    pub(crate) fn join(mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a future to its end on its own thread, so that the call works inside and outside of other runtimes.
pub(crate) fn block_on<F>(future: F) -> io::Result<F::Output>
where
    F: Future<Output: Send> + Send,
{
    let run = || Ok(Builder::new_current_thread().enable_all().build()?.block_on(future));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, run)?;
        thread.join().map_err(|_| io::Error::other("a helper thread panicked"))?
    })
}

/// Runs heavy work on its own thread with a lower priority (nice value) and waits for it. Traffic threads then go first
/// when there are not enough cores. The priority cannot be raised again without a privilege. Therefore the work must
/// take no lock that traffic waits for, and its thread ends with it.
pub(crate) fn run_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let run = || {
        // Where a lower priority is not allowed, the work runs at the normal one.
        let _ = setpriority_process(None, LOW_PRIORITY_NICE);
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("aside".to_owned()).spawn_scoped(scope, run)?;
        thread.join().map_err(|_| io::Error::other("a helper thread panicked"))
    })
}

/// The nice value of work that can wait. On a contended core it gets about a third of the share of a traffic thread
/// (sched(7)).
const LOW_PRIORITY_NICE: i32 = 5;

/// Waits for a future; `false` if `timeout` passed first.
pub(crate) fn wait_timeout(future: impl Future<Output = ()> + Send, timeout: Duration) -> io::Result<bool> {
    block_on(async { tokio::time::timeout(timeout, future).await.is_ok() })
}
