//! Waiting for threads and futures from plain, blocking code.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::runtime::Builder;

/// A thread that ends when it is told to; joined at most once.
pub(crate) struct ThreadHandle(Option<JoinHandle<()>>);

impl ThreadHandle {
    pub(crate) fn new(thread: JoinHandle<()>) -> Self {
        Self(Some(thread))
    }

    /// Waits for its end. A panic in it has been reported by the panic hook already.
    pub(crate) fn join(mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a future to its end on a thread of its own, so that it works inside and outside of other runtimes.
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

/// Does heavy work on a thread of its own and waits for it. The thread has a lower priority (nice value), so that the threads
/// of traffic go first where there are not enough cores for all. It cannot be raised again without a privilege: so the work
/// must take no lock that traffic waits for, and its thread ends with it.
pub(crate) fn run_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let run = || {
        let _ = setpriority_process(None, LOW_PRIORITY_NICE); // where that is not allowed, it works all the same
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("aside".to_owned()).spawn_scoped(scope, run)?;
        thread.join().map_err(|_| io::Error::other("a helper thread panicked"))
    })
}

/// The nice value of work that can wait: about a third of the share of a traffic thread on a core that both want (sched(7)).
const LOW_PRIORITY_NICE: i32 = 5;

/// Waits for a future; `false` if it took longer than `timeout`.
pub(crate) fn wait_timeout(future: impl Future<Output = ()> + Send, timeout: Duration) -> io::Result<bool> {
    block_on(async { tokio::time::timeout(timeout, future).await.is_ok() })
}
