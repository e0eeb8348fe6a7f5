//! The backends of a command, and the choice between them by weight.
//!
//! Guarantees:
//! - The shares of a command follow its weights: after `n` choices in a row, each share differs from its exact value by
//!   a few choices, for any `n`.
//! - A share with weight 0 is never chosen.
//! - The choice is a pure function of the phase. It allocates nothing.
//!
//! Leaves to others: the phase of each command (`proxy::worker`), and the servers of a backend (`proxy::upstream`).

use http::StatusCode;

use super::command_shape::FieldEdits;

/// The backends of a command.
#[derive(Debug, Default)]
pub enum CommandBackends {
    /// None: the command is never forwarded.
    #[default]
    None,
    /// One backend, by its number, for all requests.
    One(u32),
    /// Several backends, or one with edits of its own.
    Weighted(Box<WeightedBackends>),
}

/// Backends with weights.
#[derive(Debug)]
pub struct WeightedBackends {
    /// The shares: at least one, and at most [`WeightedBackends::MAX`].
    pub shares: Vec<BackendShare>,
    /// The sum of all weights.
    total: u64,
}

/// One backend of a command with its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendShare {
    /// What happens to the requests of this share.
    pub target: ShareTarget,
    /// The weight: the share of the requests relative to the other weights, at most [`BackendShare::WEIGHT_MAX`].
    pub weight: u32,
    /// The header edits of the command together with those of the share, if the share has any.
    pub edits: Option<Box<ShareEdits>>,
}

/// What happens to the requests of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareTarget {
    /// They are forwarded to the backend with this number.
    Backend(u32),
    /// The gateway answers them with this status, 500 to 599: the backend does not exist.
    Status(StatusCode),
}

/// The header edits for the requests of one share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareEdits {
    /// Edits of the request headers, towards the backend.
    pub request: FieldEdits,
    /// Edits of the response headers, towards the caller.
    pub response: FieldEdits,
}

impl CommandBackends {
    /// The numbers of all its backends.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let (one, shares) = match self {
            Self::None => (None, &[][..]),
            Self::One(number) => (Some(*number), &[][..]),
            Self::Weighted(weighted) => (None, &weighted.shares[..]),
        };
        one.into_iter().chain(shares.iter().filter_map(|share| match share.target {
            ShareTarget::Backend(number) => Some(number),
            ShareTarget::Status(_) => None,
        }))
    }
}

impl BackendShare {
    /// The largest weight (Gateway API, `HTTPBackendRef`).
    pub const WEIGHT_MAX: u32 = 1_000_000;
}

impl WeightedBackends {
    /// The most backends of one command (Gateway API, `HTTPRouteRule`).
    pub const MAX: usize = 16;

    /// The step from one phase to the next: 2^64 divided by the golden ratio. The phases of a row of choices then are
    /// spread as evenly as possible (a Weyl sequence).
    const PHASE_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    /// The backends with these shares.
    pub fn new(shares: Vec<BackendShare>) -> Self {
        let total = shares.iter().map(|share| u64::from(share.weight)).sum();
        Self { shares, total }
    }

    /// The phase after `phase`.
    pub fn next_phase(phase: u64) -> u64 {
        phase.wrapping_add(Self::PHASE_STEP)
    }

    /// The position of the share at this phase; `None` if all weights are 0.
    pub fn share_at(&self, phase: u64) -> Option<usize> {
        let point = u64::try_from((u128::from(phase) * u128::from(self.total)) >> u64::BITS).unwrap_or(u64::MAX);
        let mut end = 0;
        self.shares.iter().position(|share| {
            end += u64::from(share.weight);
            point < end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32]) -> WeightedBackends {
        let share = |(number, weight): (u32, &u32)| BackendShare {
            target: ShareTarget::Backend(number),
            weight: *weight,
            edits: None,
        };
        WeightedBackends::new((0..).zip(weights).map(share).collect())
    }

    /// The number of choices of each share among `count`, from this phase on.
    fn chosen(weights: &[u32], mut phase: u64, count: usize) -> Vec<usize> {
        let backends = shares(weights);
        let mut chosen = vec![0; weights.len()];
        for _ in 0..count {
            phase = WeightedBackends::next_phase(phase);
            chosen[backends.share_at(phase).expect("a share")] += 1;
        }
        chosen
    }

    #[test]
    fn shares_are_exact_within_one_percent_after_a_few_hundred_choices() {
        for weights in [&[1][..], &[90, 10], &[1, 1, 1], &[999_999, 1], &[1, 0, 3], &[1_000_000; 16], &[0, 0, 7]] {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for phase in [0, 1, u64::MAX / 3, u64::MAX - 1, 0x1234_5678_9abc_def0] {
                for (position, count) in chosen(weights, phase, 400).into_iter().enumerate() {
                    let exact = 400 * u64::from(weights[position]) / total;
                    assert!((count as u64).abs_diff(exact) <= 4, "{weights:?} from {phase}: {count} of {position}");
                    assert!(weights[position] > 0 || count == 0, "{weights:?}: weight 0 was chosen");
                }
            }
        }
    }

    #[test]
    fn first_hundred_choices_are_spread_and_not_in_a_row() {
        let backends = shares(&[1, 1]);
        let (mut phase, mut run, mut longest, mut last) = (0, 0, 0, None);
        for _ in 0..100 {
            phase = WeightedBackends::next_phase(phase);
            let share = backends.share_at(phase);
            run = if share == last { run + 1 } else { 1 };
            (longest, last) = (longest.max(run), share);
        }
        assert!(longest <= 2, "{longest} choices in a row");
    }

    #[test]
    fn no_share_is_chosen_if_all_weights_are_zero() {
        assert_eq!(shares(&[0, 0]).share_at(7), None);
        assert_eq!(shares(&[]).share_at(u64::MAX), None);
    }

    #[test]
    fn whole_range_of_phases_belongs_to_a_share() {
        let backends = shares(&[3, 1]);
        assert_eq!((backends.share_at(0), backends.share_at(u64::MAX)), (Some(0), Some(1)));
        assert_eq!((backends.share_at(u64::MAX / 4 * 3), backends.share_at(3 << 62)), (Some(0), Some(1)));
    }
}
