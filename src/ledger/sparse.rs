//! Numbers in a row, most of them 0, kept small.
//!
//! Guarantees: what is taken out is what was put in. The keeper holds such a row for every slot of the tally, every open
//! hour of a series and every series: with 100,000 series, whole rows of 64 words took 280 MiB, these take 40
//! (`loadtests series`).

/// How many numbers there are.
pub(super) const NUMBERS: usize = 64;

/// [`NUMBERS`] numbers, of which only those that are not 0 take space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRow {
    /// One bit for each number that is not 0.
    set: u64,
    /// These, in their order.
    values: Box<[u64]>,
}

impl SparseRow {
    /// Puts numbers in. A row whose zeros stay where they are allocates nothing.
    pub(super) fn store(&mut self, numbers: &[u64; NUMBERS]) {
        let set = bits(numbers);
        if set == self.set {
            self.values.iter_mut().zip(nonzero(numbers)).for_each(|(old, new)| *old = new);
        } else {
            *self = Self { set, values: nonzero(numbers).collect() };
        }
    }

    /// Takes the numbers out.
    pub(super) fn load(&self) -> [u64; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        let mut values = self.values.iter();
        let places = numbers.iter_mut().enumerate().filter(|(at, _)| self.set & 1 << at != 0);
        places.for_each(|(_, number)| *number = values.next().copied().unwrap_or_default());
        numbers
    }

    /// Whether the row holds just these.
    pub(super) fn holds(&self, numbers: &[u64; NUMBERS]) -> bool {
        bits(numbers) == self.set && self.values.iter().copied().eq(nonzero(numbers))
    }
}

fn bits(numbers: &[u64; NUMBERS]) -> u64 {
    numbers.iter().enumerate().fold(0, |bits, (at, number)| bits | u64::from(*number != 0) << at)
}

fn nonzero(numbers: &[u64; NUMBERS]) -> impl Iterator<Item = u64> + '_ {
    numbers.iter().copied().filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_whatever_was_there_before() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut row = SparseRow::default();
        assert_eq!(row.load(), [0; NUMBERS]);
        for _ in 0..1000 {
            let zeros = rng.u32(0..8);
            let numbers = std::array::from_fn(|_| if rng.u32(0..8) < zeros { 0 } else { rng.u64(..) });
            assert_eq!(row.holds(&numbers), row.load() == numbers);
            row.store(&numbers);
            assert_eq!((row.load(), row.holds(&numbers)), (numbers, true));
            let mut other = numbers;
            other[rng.usize(..NUMBERS)] ^= 1;
            assert!(!row.holds(&other));
        }
    }
}
