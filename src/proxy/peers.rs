//! The callers of one worker's open connections, each looked after again and again: a caller that is not let in any more is
//! sent away even if it never says a word.
//!
//! Guarantees: everybody is looked at once in [`ROUND`] ticks, so within a second of a reload; where all must be verified
//! anew, the work is spread over as many ticks, and commands go between. Holds nobody: a connection that ends is forgotten
//! within the round.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::Snapshot;

use super::peer::Peer;

/// Ticks until everybody has been looked at.
const ROUND: usize = 8;

/// See the module. As many as there are connections, and those that have ended since the last round.
#[derive(Default)]
pub(super) struct Peers {
    all: RefCell<Vec<Weak<Peer>>>,
    next: Cell<usize>,
}

impl Peers {
    /// Looks after a caller from now on.
    pub(super) fn enter(&self, peer: &Rc<Peer>) {
        self.all.borrow_mut().push(Rc::downgrade(peer));
    }

    /// To be called every tick.
    pub(super) fn tick(&self, snapshot: &Arc<Snapshot>, now: Timestamp) {
        let mut all = self.all.borrow_mut();
        for _ in 0..all.len().div_ceil(ROUND) {
            let position = self.next.get();
            match all.get(position).map(Weak::upgrade) {
                None => self.next.set(0),
                Some(None) => drop(all.swap_remove(position)),
                Some(Some(peer)) => {
                    peer.look_after(snapshot, now);
                    self.next.set(position + 1);
                }
            }
        }
    }
}
