//! Sets of positions in a backend's list of servers, which has at most [`crate::policy::Backend::UPSTREAMS_MAX`]
//! servers.
//!
//! Guarantees: a set is copied and combined without allocation.
//!
//! Leaves to others: the meaning of a set (`load_balancing`).

use crate::policy::Backend;

/// The words of a set, of 64 positions each.
const WORDS: usize = Backend::UPSTREAMS_MAX.div_ceil(u64::BITS as usize);

/// A set of positions, one bit each. It is used only while a server is chosen: it is too large to be kept in the state
/// of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerSet {
    words: [u64; WORDS],
    /// The number of words that may have bits. Most backends need one.
    used: usize,
}

impl ServerSet {
    /// The first `count` positions.
    pub(crate) fn first(count: usize) -> Self {
        let mut set = Self::default();
        (0..count.min(Backend::UPSTREAMS_MAX)).for_each(|position| set.add(position));
        set
    }

    /// The words that may have bits.
    fn words(&self) -> &[u64] {
        &self.words[..self.used]
    }

    pub(crate) fn add(&mut self, position: usize) {
        let (word, bit) = word_and_bit(position);
        self.words[word] |= bit;
        self.used = self.used.max(word + 1);
    }

    fn remove(&mut self, position: usize) {
        let (word, bit) = word_and_bit(position);
        self.words[word] &= !bit;
    }

    pub(crate) fn contains(&self, position: usize) -> bool {
        let (word, bit) = word_and_bit(position);
        self.words().get(word).is_some_and(|word| word & bit != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// This set without one position.
    pub(crate) fn without(mut self, position: usize) -> Self {
        self.remove(position);
        self
    }

    /// This set without the servers that were tried.
    pub(crate) fn without_tried(mut self, tried: TriedServers) -> Self {
        tried.positions().for_each(|position| self.remove(position));
        self
    }

    /// This set, or `other` if this set is empty.
    pub(crate) fn or_if_empty(self, other: Self) -> Self {
        if self.is_empty() { other } else { self }
    }

    /// The positions for which `holds` is true.
    pub(crate) fn filter(mut self, holds: impl Fn(usize) -> bool) -> Self {
        for index in 0..self.used {
            let kept = bits_of(index, self.words[index]).filter(|position| holds(*position));
            self.words[index] = kept.fold(0, |word, position| word | word_and_bit(position).1);
        }
        self
    }

    /// The position with `before` positions before it.
    pub(crate) fn nth(&self, mut before: usize) -> Option<usize> {
        for (index, word) in self.words().iter().enumerate() {
            match before.checked_sub(word.count_ones() as usize) {
                Some(rest) => before = rest,
                None => return bits_of(index, *word).nth(before),
            }
        }
        None
    }

    /// The position with the largest key.
    pub(crate) fn max_by_key<K: Ord>(&self, key: impl Fn(usize) -> K) -> Option<usize> {
        self.positions().max_by_key(|position| key(*position))
    }

    /// The positions in ascending order.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> {
        self.words().iter().enumerate().flat_map(|(index, word)| bits_of(index, *word))
    }
}

/// The word and the bit of a position.
fn word_and_bit(position: usize) -> (usize, u64) {
    (position / u64::BITS as usize, 1 << (position % u64::BITS as usize))
}

/// The positions of the bits of one word, in ascending order.
fn bits_of(index: usize, word: u64) -> impl Iterator<Item = usize> {
    let mut left = word;
    std::iter::from_fn(move || {
        let bit = left.trailing_zeros();
        left &= left.checked_sub(1)?; // clears the lowest bit
        Some(index * u64::BITS as usize + bit as usize)
    })
}

/// The servers that one request was offered to: the last [`TriedServers::MAX`] of them. A request that was offered to
/// more may be offered to the first of them once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TriedServers {
    positions: [u16; Self::MAX],
    count: u16,
}

const _: () = assert!(Backend::UPSTREAMS_MAX <= u16::MAX as usize, "each position fits");

impl TriedServers {
    /// The most servers that are remembered. A request has at most 11 attempts, and few of them are resent.
    pub(crate) const MAX: usize = 15;

    pub(crate) fn add(&mut self, position: usize) {
        if self.contains(position) {
            return;
        }
        let slot = usize::from(self.count) % Self::MAX;
        self.positions[slot] = u16::try_from(position).unwrap_or(u16::MAX);
        self.count = self.count.saturating_add(1);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.count == 0
    }

    pub(crate) fn contains(&self, position: usize) -> bool {
        self.positions().any(|tried| tried == position)
    }

    fn positions(&self) -> impl Iterator<Item = usize> {
        self.positions[..usize::from(self.count).min(Self::MAX)].iter().map(|position| usize::from(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_iterated_in_order() {
        let set = ServerSet::first(5).without(2);
        assert_eq!(set.positions().collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!((set.nth(2), set.nth(4)), (Some(3), None));
        assert_eq!([1, 2, 5, 64, 1 << 20].map(|position| set.contains(position)), [true, false, false, false, false]);
        assert!(ServerSet::first(0).is_empty() && ServerSet::default().nth(0).is_none());
        let nine = ServerSet::first(10).filter(|position| position == 9);
        assert_eq!(
            set.filter(|position| position > 1).or_if_empty(nine).max_by_key(|position| position as u64),
            Some(4)
        );
        assert_eq!(set.filter(|position| position > 9).or_if_empty(nine), nine);
    }

    #[test]
    fn sets_of_all_sizes_hold_each_position_once() {
        for count in [1, 63, 64, 65, 128, 1000, Backend::UPSTREAMS_MAX] {
            let set = ServerSet::first(count);
            assert!(set.positions().eq(0..count), "{count}");
            assert_eq!((set.nth(count - 1), set.nth(count)), (Some(count - 1), None));
            let last = set.filter(|position| position == count - 1);
            assert!(last.positions().eq([count - 1]) && last.without(count - 1).is_empty(), "{count}");
        }
    }

    #[test]
    fn tried_servers_are_left_out_and_the_last_ones_are_remembered() {
        let mut tried = TriedServers::default();
        assert!(tried.is_empty());
        for position in [3, 70, 3] {
            tried.add(position);
        }
        let left = ServerSet::first(72).without_tried(tried);
        assert_eq!(left.positions().count(), 70);
        assert!(tried.contains(70) && !left.positions().any(|position| [3, 70].contains(&position)));
        (100..100 + TriedServers::MAX - 1).for_each(|position| tried.add(position));
        assert!(!tried.contains(3) && tried.contains(70) && tried.contains(113));
    }
}
