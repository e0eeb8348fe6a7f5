//! The callers of one worker's open connections, each looked after again and again: a caller that is not let in any more is
//! sent away even if it never says a word.
//!
//! Guarantees: everybody is looked at once in [`SWEEP_TICKS`] ticks, so within a second of a reload; where all must be verified
//! anew, the work is spread over as many ticks, and commands go between. Holds nobody: a connection that ends is forgotten
//! within the round.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::PolicySnapshot;

use super::peer::DownstreamPeer;

/// Ticks until everybody has been looked at.
const SWEEP_TICKS: usize = 8;

/// See the module. As many as there are connections, and those that have ended since the last round.
#[derive(Default)]
pub(crate) struct PeerRevalidator {
    peers: RefCell<Vec<Weak<DownstreamPeer>>>,
    next: Cell<usize>,
}

impl PeerRevalidator {
    /// Looks after a caller from now on.
    pub(crate) fn watch(&self, peer: &Rc<DownstreamPeer>) {
        self.peers.borrow_mut().push(Rc::downgrade(peer));
    }

    /// To be called every tick.
    pub(crate) fn tick(&self, snapshot: &Arc<PolicySnapshot>, now: Timestamp) {
        let mut all = self.peers.borrow_mut();
        for _ in 0..all.len().div_ceil(SWEEP_TICKS) {
            let position = self.next.get();
            match all.get(position).map(Weak::upgrade) {
                None => self.next.set(0),
                Some(None) => drop(all.swap_remove(position)),
                Some(Some(peer)) => {
                    peer.revalidate(snapshot, now);
                    self.next.set(position + 1);
                }
            }
        }
    }
}
