//! The difference between two lists of shared values, by their identity.
//!
//! Guarantees:
//! - Items that are neither added nor removed are the same values, in the same order, in both lists.
//! - The time is that of a comparison of two pointers for each item, and of a hash for the items between the first and
//!   the last difference.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// What is in one list only. An item that is in another place is in both fields.
#[derive(Debug)]
pub(super) struct ListChanges<'a, T> {
    pub(super) removed: Vec<&'a Arc<T>>,
    pub(super) added: Vec<&'a Arc<T>>,
}

impl<'a, T> ListChanges<'a, T> {
    /// The changes from `before` to `after`.
    pub(super) fn between(before: &'a [Arc<T>], after: &'a [Arc<T>]) -> Self {
        let kept = KeptEnds::between(before, after);
        let (before, after) = (&before[kept.replaced_before()], &after[kept.replaced_after()]);
        let (old, new) = (identities(before), identities(after));
        let (kept_before, removed) = split(before, &new);
        let (kept_after, added) = split(after, &old);
        let is_in_order = kept_before.len() == kept_after.len()
            && kept_before.iter().zip(&kept_after).all(|(one, other)| Arc::ptr_eq(one, other));
        match is_in_order {
            true => Self { removed, added },
            false => Self { removed: before.iter().collect(), added: after.iter().collect() },
        }
    }

    /// All items of both fields.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Arc<T>> {
        self.removed.iter().chain(&self.added).copied()
    }
}

/// The items at both ends of two lists that are the same values.
#[derive(Debug)]
pub(super) struct KeptEnds {
    start: usize,
    end: usize,
    before: usize,
    after: usize,
}

impl KeptEnds {
    /// The ends that two lists share.
    pub(super) fn between<T>(before: &[Arc<T>], after: &[Arc<T>]) -> Self {
        let same = |(one, other): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, other);
        let start = before.iter().zip(after).take_while(same).count();
        let rest = before[start..].iter().rev().zip(after[start..].iter().rev());
        Self { start, end: rest.take_while(same).count(), before: before.len(), after: after.len() }
    }

    /// The positions in the first list that are between the ends.
    pub(super) fn replaced_before(&self) -> Range<usize> {
        self.start..self.before - self.end
    }

    /// The positions in the second list that are between the ends.
    pub(super) fn replaced_after(&self) -> Range<usize> {
        self.start..self.after - self.end
    }

    /// Positions in the second list: those of the ends, as they were in the first list, and `between` the ends. All
    /// are in ascending order.
    pub(super) fn positions(&self, before: &[usize], between: &[usize]) -> Vec<usize> {
        let Range { start, end } = self.replaced_before();
        let first = before.partition_point(|position| *position < start);
        let last = before.partition_point(|position| *position < end);
        let moved = before[last..].iter().map(|position| position + self.after - self.before);
        before[..first].iter().chain(between).copied().chain(moved).collect()
    }
}

type Identities<T> = HashSet<*const T, RandomState>;

fn identities<T>(list: &[Arc<T>]) -> Identities<T> {
    list.iter().map(Arc::as_ptr).collect()
}

/// The items that are in `other`, and those that are not.
fn split<'a, T>(list: &'a [Arc<T>], other: &Identities<T>) -> (Vec<&'a Arc<T>>, Vec<&'a Arc<T>>) {
    list.iter().partition(|item| other.contains(&Arc::as_ptr(item)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_the_same_or_in_the_changes() {
        let all: Vec<Arc<usize>> = (0..9).map(Arc::new).collect();
        let list = |positions: &[usize]| positions.iter().map(|at| Arc::clone(&all[*at])).collect::<Vec<_>>();
        for (before, after, removed, added) in [
            (&[][..], &[][..], &[][..], &[][..]),
            (&[0, 1, 2], &[0, 1, 2], &[], &[]),
            (&[0, 1, 2], &[0, 1, 2, 3], &[], &[3]),
            (&[0, 1, 2], &[3, 0, 1, 2], &[], &[3]),
            (&[0, 1, 2], &[0, 3, 1, 4, 2], &[], &[3, 4]),
            (&[0, 1, 2, 3], &[0, 3], &[1, 2], &[]),
            (&[0, 1, 2, 3, 4], &[0, 5, 2, 6, 4], &[1, 3], &[5, 6]),
            (&[0, 1, 2, 3], &[0, 2, 1, 3], &[1, 2], &[2, 1]),
            (&[0, 1], &[0, 1, 1], &[], &[1]),
            (&[1, 0, 1], &[1, 2, 0], &[1], &[2]),
            (&[0, 1], &[], &[0, 1], &[]),
        ] {
            let (one, other) = (list(before), list(after));
            let changes = ListChanges::between(&one, &other);
            let numbers = |items: &[&Arc<usize>]| items.iter().map(|item| ***item).collect::<Vec<_>>();
            assert_eq!(
                (numbers(&changes.removed), numbers(&changes.added)),
                (removed.to_vec(), added.to_vec()),
                "{before:?} {after:?}"
            );
        }
    }
}
