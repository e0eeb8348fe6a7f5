//! Draining: one side says "finish", the other holds a watcher until it has.

use tokio::sync::{mpsc, watch};

/// Makes the two ends of a drain.
pub fn drain() -> (DrainTrigger, DrainWatcher) {
    let (begin, begun) = watch::channel(false);
    let (held, released) = mpsc::channel(1);
    (DrainTrigger { begin, released }, DrainWatcher { begun, _held: held })
}

/// Starts the drain and waits for its end.
#[derive(Debug)]
pub struct DrainTrigger {
    begin: watch::Sender<bool>,
    released: mpsc::Receiver<()>,
}

/// Held by whatever must finish before the process may end.
#[derive(Clone, Debug)]
pub struct DrainWatcher {
    begun: watch::Receiver<bool>,
    _held: mpsc::Sender<()>,
}

impl DrainTrigger {
    /// Tells every watcher to finish.
    pub fn begin(&self) {
        let _ = self.begin.send(true); // nobody listening means nothing to drain
    }

    /// Waits until the last watcher is dropped.
    pub async fn done(mut self) {
        let _ = self.released.recv().await;
    }
}

impl DrainWatcher {
    /// Waits until the drain begins.
    pub async fn begun(&mut self) {
        let _ = self.begun.wait_for(|begun| *begun).await; // a lost trigger also means: finish
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
    async fn a_drain_ends_with_its_last_watcher() {
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
