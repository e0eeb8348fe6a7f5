//! Round robin with weights: nginx's smooth weighted round robin.
//!
//! Guarantees:
//! - Among servers that stay the same, each gets exactly its share of every `sum(shares)` choices, spread evenly and
//!   not in a row.
//! - The choice is deterministic.
//!
//! Leaves to others: which servers take part (`load_balancing`).

use std::cell::RefCell;

use super::ServerSet;

/// The claim of each server, by position.
///
/// The sum of all claims stays 0. A claim therefore stays within a few times the sum of all shares, which is at most
/// 1024 servers x 1000 x [`super::FULL_WEIGHT`].
pub(crate) struct SmoothWrr(RefCell<Vec<i64>>);

impl SmoothWrr {
    pub(crate) fn new(servers: usize) -> Self {
        Self(RefCell::new(vec![0; servers]))
    }

    /// The next server of a set: each claim grows by its share, and the server with the largest claim is chosen and
    /// pays the sum.
    pub(crate) fn select_next(&self, set: ServerSet, share: impl Fn(usize) -> u64) -> Option<usize> {
        let mut claims = self.0.borrow_mut();
        let mut whole = 0;
        let mut next: Option<usize> = None;
        for position in set.positions() {
            let share = i64::try_from(share(position)).unwrap_or(i64::MAX);
            whole += share;
            claims[position] += share;
            if next.is_none_or(|best| claims[best] < claims[position]) {
                next = Some(position);
            }
        }
        claims[next?] -= whole;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_equals_that_of_nginx() {
        let turns = SmoothWrr::new(3);
        let shares = [5, 1, 1];
        let next = |_| turns.select_next(ServerSet::first(3), |position| shares[position]).expect("somebody");
        assert_eq!((0..14).map(next).collect::<Vec<_>>(), [0, 0, 1, 0, 2, 0, 0].repeat(2));
        assert_eq!(turns.select_next(ServerSet::default(), |_| 1), None);
    }

    #[test]
    fn current_weights_stay_bounded_for_changing_sets() {
        let turns = SmoothWrr::new(5);
        let random = RefCell::new(fastrand::Rng::with_seed(1));
        for _ in 0..100_000 {
            let set = ServerSet::first(5).filter(|_| random.borrow_mut().bool());
            turns.select_next(set, |position| 1 << (2 * position));
        }
        let claims = turns.0.borrow();
        assert_eq!(claims.iter().sum::<i64>(), 0);
        assert!(claims.iter().all(|claim| claim.abs() < 5 * 341), "{claims:?}");
    }
}
