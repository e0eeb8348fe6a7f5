//! A set of positions in a subsystem's list of servers, which has at most [`crate::policy::Subsystem::UPSTREAMS_MAX`]
//! servers.
//!
//! Guarantees: one bit per server; a set is copied and combined without allocation.
//!
//! Leaves to others: the meaning of a set (`load_balancing`).

use crate::policy::Subsystem;

/// A set of positions, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerSet(u64);

const _: () = assert!(Subsystem::UPSTREAMS_MAX == u64::BITS as usize, "each server has a bit");

impl ServerSet {
    /// The first `count` positions.
    pub(crate) fn first(count: usize) -> Self {
        match count {
            64.. => Self(u64::MAX),
            count => Self((1 << count) - 1),
        }
    }

    /// A set with one position.
    pub(crate) fn single(position: usize) -> Self {
        Self(1 << position)
    }

    pub(crate) fn add(&mut self, position: usize) {
        self.0 |= 1 << position;
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// This set, or `other` if this set is empty.
    pub(crate) fn or_if_empty(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }

    /// The positions for which `holds` is true.
    pub(crate) fn filter(self, holds: impl Fn(usize) -> bool) -> Self {
        self.positions().filter(|position| holds(*position)).fold(Self::default(), |kept, one| Self(kept.0 | 1 << one))
    }

    /// The position with `before` positions before it.
    pub(crate) fn nth(self, before: usize) -> Option<usize> {
        self.positions().nth(before)
    }

    /// The position with the largest key.
    pub(crate) fn max_by_key<K: Ord>(self, key: impl Fn(usize) -> K) -> Option<usize> {
        self.positions().max_by_key(|position| key(*position))
    }

    /// The positions in ascending order.
    pub(crate) fn positions(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let position = left.trailing_zeros();
            left &= left.checked_sub(1)?; // clears the lowest bit
            Some(position as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_iterated_in_order() {
        let set = ServerSet::first(5).without(ServerSet::single(2));
        assert_eq!(set.positions().collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!((set.nth(2), set.nth(4)), (Some(3), None));
        assert_eq!(ServerSet::first(64).positions().count(), 64);
        assert!(ServerSet::first(0).is_empty() && ServerSet::default().nth(0).is_none());
        assert_eq!(
            set.filter(|position| position > 1)
                .or_if_empty(ServerSet::single(9))
                .max_by_key(|position| position as u64),
            Some(4)
        );
    }
}
