//! Revalidates the callers of one worker's open connections.
//!
//! A caller that is no longer authorized is disconnected even if its connection is idle.
//!
//! Guarantees:
//! - Every caller is checked once in [`SWEEP_TICKS`] ticks, so within one second of a reload.
//! - Where a reload changes the trust, all certificates must be verified again. This work is spread over the same
//!   ticks, and commands run in between.
//! - The list holds weak references only. A closed connection leaves the list within one round.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::PolicySnapshot;

use super::peer::DownstreamPeer;

/// The number of ticks in which every caller is checked once.
const SWEEP_TICKS: usize = 8;

/// The list of callers to check. Its length is at most the open connections plus those that have closed since the last
/// round.
#[derive(Default)]
pub(crate) struct PeerRevalidator {
    peers: RefCell<Vec<Weak<DownstreamPeer>>>,
    next: Cell<usize>,
}

impl PeerRevalidator {
    /// Adds a caller to the list.
    pub(crate) fn watch(&self, peer: &Rc<DownstreamPeer>) {
        self.peers.borrow_mut().push(Rc::downgrade(peer));
    }

    /// Checks the next part of the list. Called every tick.
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
