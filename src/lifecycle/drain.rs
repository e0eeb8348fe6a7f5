//! Graceful shutdown: a trigger begins the drain, and the drain ends when every watcher is dropped.

use tokio::sync::{mpsc, watch};

/// Creates the two ends of a drain.
pub fn drain() -> (DrainTrigger, DrainWatcher) {
    let (begin, begun) = watch::channel(false);
    let (held, released) = mpsc::channel(1);
    (DrainTrigger { begin, released }, DrainWatcher { begun, _held: held })
}

/// Begins the drain and waits for its end.
#[derive(Debug)]
pub struct DrainTrigger {
    begin: watch::Sender<bool>,
    released: mpsc::Receiver<()>,
}

/// Held by each task that must finish before the process may exit.
#[derive(Clone, Debug)]
pub struct DrainWatcher {
    begun: watch::Receiver<bool>,
    _held: mpsc::Sender<()>,
}

impl DrainTrigger {
    /// Notifies every watcher that the drain begins.
    pub fn begin(&self) {
        let _ = self.begin.send(true); // no receiver: nothing to drain
    }

    /// Waits until the last watcher is dropped.
    pub async fn done(mut self) {
        let _ = self.released.recv().await;
    }
}

impl DrainWatcher {
    /// Waits until the drain begins.
    pub async fn begun(&mut self) {
        let _ = self.begun.wait_for(|begun| *begun).await; // a dropped trigger also begins the drain
    }

    /// Whether the drain has begun.
    pub fn is_begun(&self) -> bool {
        *self.begun.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_completes_with_its_last_watcher() {
        let (trigger, watcher) = drain();
        let mut other = watcher.clone();
        drop(watcher);
        trigger.begin();
        other.begun().await;
        assert!(other.is_begun());
        let done = tokio::spawn(trigger.done());
        assert!(!done.is_finished());
        drop(other);
        done.await.expect("the drain ends");
    }
}
