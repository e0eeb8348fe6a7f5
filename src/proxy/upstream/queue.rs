//! Where the commands of one worker wait for a place at a subsystem's servers, in order of arrival.
//!
//! Guarantees: only the first in the line may take a place, so that nobody overtakes; it is woken whenever a place was given
//! back; who leaves the line, in whatever way, lets the next one come first. Leaves to [`super::Upstreams`] who has room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::telemetry::QueueStats;

/// The line before one subsystem; it outlives configurations.
pub(super) struct Line {
    waiting: RefCell<VecDeque<Rc<Notify>>>,
    pub(super) stats: Arc<QueueStats>,
}

/// A place in the line.
pub(super) struct Waiting {
    line: Rc<Line>,
    woken: Rc<Notify>,
}

/// What one worker has in flight at one server, and who waits for it to become less.
pub(super) struct Here {
    in_flight: Cell<usize>,
    pub(super) line: Rc<Line>,
}

impl Line {
    pub(super) fn new(stats: Arc<QueueStats>) -> Self {
        Self { waiting: RefCell::default(), stats }
    }

    /// Whether nobody waits, so that who comes now overtakes nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Joins the line, unless as many wait as may.
    pub(super) fn join(self: &Rc<Self>, length: usize) -> Option<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= length {
            return None;
        }
        let woken = Rc::new(Notify::new());
        waiting.push_back(Rc::clone(&woken));
        self.stats.waiting.up();
        Some(Waiting { line: Rc::clone(self), woken })
    }

    /// There may be a place: the first one should look.
    pub(super) fn wake_first(&self) {
        if let Some(first) = self.waiting.borrow().front() {
            first.notify_one();
        }
    }
}

impl Waiting {
    /// Waits until there may be a place.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Whether it may take a place.
    pub(super) fn is_first(&self) -> bool {
        self.line.waiting.borrow().front().is_some_and(|first| Rc::ptr_eq(first, &self.woken))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.line.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.woken));
        self.line.stats.waiting.down();
        self.line.wake_first();
    }
}

impl Here {
    pub(super) fn new(line: Rc<Line>) -> Self {
        Self { in_flight: Cell::new(0), line }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(super) fn enter(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(super) fn leave(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.line.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_may_go_and_who_leaves_lets_the_next_be_first() {
        let line = Rc::new(Line::new(Arc::default()));
        let (one, two) = (line.join(3).expect("room"), line.join(3).expect("room"));
        let three = line.join(3).expect("room");
        assert!(line.join(3).is_none(), "three wait already");
        assert_eq!((one.is_first(), two.is_first(), line.stats.waiting.get()), (true, false, 3));
        drop(two);
        assert!(!three.is_first());
        drop(one);
        assert!(three.is_first());
        drop(three);
        assert!(line.is_empty() && line.stats.waiting.get() == 0);
    }
}
