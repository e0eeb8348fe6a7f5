//! The updates that wait: of each object the newest.
//!
//! Guarantees:
//! - An update takes the place of an older one of its object in the order: no object waits for ever.
//! - At most [`UPDATES_MAX`] objects. Further ones are dropped and counted; the regular comparison brings them back.
//!
//! Leaves to others:
//! - writing: `status_writer`.

use std::collections::BTreeMap;

use super::comparison::StatusUpdate;
use crate::kube::objects::{ObjectKey, ObjectKind};

/// The largest number of objects with a waiting update. An update has about 2 KiB.
pub const UPDATES_MAX: usize = 50_000;

/// An object.
pub(super) type ObjectId = (ObjectKind, ObjectKey);

/// Updates in the order of their arrival, one for each object.
#[derive(Debug, Default)]
pub(super) struct PendingUpdates {
    updates: BTreeMap<ObjectId, (u64, StatusUpdate)>,
    order: BTreeMap<u64, ObjectId>,
    next: u64,
}

impl PendingUpdates {
    /// Takes an update. Returns whether there was a place for it.
    pub(super) fn put(&mut self, update: StatusUpdate) -> bool {
        let id = (update.kind, update.key.clone());
        if let Some((_, older)) = self.updates.get_mut(&id) {
            *older = update;
            return true;
        }
        if self.updates.len() >= UPDATES_MAX {
            return false;
        }
        self.next += 1;
        self.order.insert(self.next, id.clone());
        self.updates.insert(id, (self.next, update));
        true
    }

    /// Takes an update back that failed, unless a newer one waits.
    pub(super) fn put_back(&mut self, update: StatusUpdate) {
        if !self.updates.contains_key(&(update.kind, update.key.clone())) {
            self.put(update);
        }
    }

    /// Drops the update of an object.
    pub(super) fn forget(&mut self, id: &ObjectId) {
        if let Some((place, _)) = self.updates.remove(id) {
            self.order.remove(&place);
        }
    }

    /// Removes and returns the oldest update whose object `may_start`.
    pub(super) fn take(&mut self, may_start: impl Fn(&ObjectId) -> bool) -> Option<StatusUpdate> {
        let place = self.order.iter().find(|(_, id)| may_start(id)).map(|(place, _)| *place)?;
        let id = self.order.remove(&place)?;
        self.updates.remove(&id).map(|(_, update)| update)
    }

    pub(super) fn clear(&mut self) {
        self.updates.clear();
        self.order.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.updates.len()
    }
}
