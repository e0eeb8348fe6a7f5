//! The number of recent writes of each object. A Gateway whose routes are being made has a new status after each of
//! them; its newest status is written at most [`WRITES_OF_OBJECT_MAX`] times in the spacing.
//!
//! Guarantees: only writes of the last spacing are kept.
//!
//! Leaves to others: waiting updates (`pending_updates`), writing (`status_writer`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::pending_updates::ObjectId;

/// The largest number of writes of one object in a spacing.
pub const WRITES_OF_OBJECT_MAX: usize = 2;

/// The writes that were begun in the last spacing.
#[derive(Debug)]
pub(super) struct RecentWrites {
    spacing: Duration,
    counts: BTreeMap<ObjectId, usize>,
    order: VecDeque<(Instant, ObjectId)>,
}

impl RecentWrites {
    pub(super) fn within(spacing: Duration) -> Self {
        Self { spacing, counts: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Whether a write of the object may begin.
    pub(super) fn may_begin(&self, id: &ObjectId) -> bool {
        self.counts.get(id).is_none_or(|count| *count < WRITES_OF_OBJECT_MAX)
    }

    /// Notes that a write begins at `now`, which is not before that of any earlier write.
    pub(super) fn insert(&mut self, id: ObjectId, now: Instant) {
        *self.counts.entry(id.clone()).or_default() += 1;
        self.order.push_back((now, id));
    }

    /// The time at which the oldest write is no longer recent.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.order.front().map(|(begun, _)| *begun + self.spacing)
    }

    /// Forgets the writes that are no longer recent.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.next_end().is_some_and(|end| end <= now) {
            let Some((_, id)) = self.order.pop_front() else { return };
            if let Entry::Occupied(mut count) = self.counts.entry(id) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::objects::{ObjectKey, ObjectKind};

    #[test]
    fn object_is_written_twice_in_a_spacing() {
        let spacing = Duration::from_secs(1);
        let id = |name: &str| (ObjectKind::Gateway, ObjectKey::new("infra", name));
        let mut recent = RecentWrites::within(spacing);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(recent.may_begin(&id("a")) && recent.next_end().is_none());
        recent.insert(id("a"), at(0));
        assert!(recent.may_begin(&id("a")));
        recent.insert(id("a"), at(300));
        assert!(!recent.may_begin(&id("a")) && recent.may_begin(&id("b")));
        recent.forget_old(at(999));
        assert!(!recent.may_begin(&id("a")), "1 ms too early");
        assert_eq!(recent.next_end(), Some(at(1000)));
        recent.forget_old(at(1000));
        assert!(recent.may_begin(&id("a")));
        recent.insert(id("a"), at(1000));
        assert!(!recent.may_begin(&id("a")), "the write at 300 ms is recent");
        recent.forget_old(at(2000));
        assert!(recent.counts.is_empty() && recent.order.is_empty(), "{recent:?}");
    }
}
