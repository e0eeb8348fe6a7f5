//! The difference between two lists of shared values, by their identity.
//!
//! Guarantees:
//! - Items that are neither added nor removed are the same values, in the same order, in both lists.
//! - The time is that of a comparison of two pointers for each item, and of a hash for the items between the first and
//!   the last difference.

use std::collections::HashSet;
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
        let same = |(one, other): &(&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, other);
        let start = before.iter().zip(after).take_while(same).count();
        let (before, after) = (&before[start..], &after[start..]);
        let end = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
        let (before, after) = (&before[..before.len() - end], &after[..after.len() - end]);
        let (old, new) = (identities(before), identities(after));
        let (kept_before, removed) = split(before, &new);
        let (kept_after, added) = split(after, &old);
        let is_in_order =
            kept_before.len() == kept_after.len() && kept_before.into_iter().zip(kept_after).all(|two| same(&two));
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
