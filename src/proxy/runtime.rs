//! How hyper runs what it spawns: on the worker's own thread, because nothing of a worker is shared.

/// Runs hyper's streams on the worker's own thread.
#[derive(Clone, Copy)]
pub(super) struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
