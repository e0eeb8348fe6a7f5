//! Graceful shutdown: a trigger begins the drain, and the drain ends when every watcher is dropped.
//!
//! Guarantees:
//! - A dropped trigger begins the drain too, so no watcher waits without end.
//! - The deadline of a drain is set with its begin, and never changes.

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Creates the two ends of a drain.
pub fn drain() -> (DrainTrigger, DrainWatcher) {
    let (begin, begun) = watch::channel(DrainStage::Open);
    let (held, released) = mpsc::channel(1);
    (DrainTrigger { begin, released }, DrainWatcher { begun, _held: held })
}

/// The stage of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DrainStage {
    Open,
    /// Draining until the deadline, if one is set.
    Draining(Option<Instant>),
}

/// Begins the drain and waits for its end.
#[derive(Debug)]
pub struct DrainTrigger {
    begin: watch::Sender<DrainStage>,
    released: mpsc::Receiver<()>,
}

/// Held by each task that must finish before the process may exit.
#[derive(Clone, Debug)]
pub struct DrainWatcher {
    begun: watch::Receiver<DrainStage>,
    _held: mpsc::Sender<()>,
}

impl DrainTrigger {
    /// Notifies every watcher that the drain begins. Whoever begins it also ends it.
    pub fn begin(&self) {
        self.begin_stage(None);
    }

    /// Notifies every watcher that the drain begins, and that it must end its work by `deadline`.
    pub fn begin_until(&self, deadline: Instant) {
        self.begin_stage(Some(deadline));
    }

    fn begin_stage(&self, deadline: Option<Instant>) {
        self.begin.send_if_modified(|stage| {
            let is_open = *stage == DrainStage::Open;
            if is_open {
                *stage = DrainStage::Draining(deadline);
            }
            is_open
        });
    }

    /// Waits until the last watcher is dropped.
    pub async fn done(mut self) {
        let _ = self.released.recv().await;
    }
}

impl DrainWatcher {
    /// Waits until the drain begins.
    pub async fn begun(&mut self) {
        // A dropped trigger also begins the drain.
        let _ = self.begun.wait_for(|stage| *stage != DrainStage::Open).await;
    }

    /// Whether the drain has begun.
    pub fn is_begun(&self) -> bool {
        *self.begun.borrow() != DrainStage::Open
    }

    /// The time by which the watcher must have ended its work, if the drain has begun with one.
    pub fn deadline(&self) -> Option<Instant> {
        match *self.begun.borrow() {
            DrainStage::Draining(deadline) => deadline,
            DrainStage::Open => None,
        }
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

    #[tokio::test]
    async fn first_begin_of_a_drain_sets_its_deadline() {
        let (trigger, mut watcher) = drain();
        assert_eq!((watcher.is_begun(), watcher.deadline()), (false, None));
        let deadline = Instant::now();
        trigger.begin_until(deadline);
        trigger.begin();
        watcher.begun().await;
        assert_eq!((watcher.is_begun(), watcher.deadline()), (true, Some(deadline)));
        let (trigger, mut watcher) = drain();
        drop(trigger);
        watcher.begun().await;
        assert_eq!(watcher.deadline(), None);
    }
}
