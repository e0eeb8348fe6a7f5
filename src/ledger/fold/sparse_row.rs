//! A row of numbers, most of them 0, in compact form.
//!
//! Guarantees: `load` returns the numbers of the last `store`. The keeper holds one such row per slot of the tally, per
//! open hour of a series and per series. Most numbers are 0 and the others are small, so a row of 64 words (512 bytes)
//! takes a few dozen bytes. `loadtests series` measures the memory of 100,000 series.

/// Numbers in a row.
pub(crate) const ROW_NUMBERS: usize = 64;

/// The most bytes of one encoded number: seven bits in each byte (LEB128, as in DWARF and protobuf).
const NUMBER_BYTES: usize = 10;

/// [`ROW_NUMBERS`] numbers, of which only those that are not 0 take space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SparseRow {
    /// One bit for each number that is not 0.
    set: u64,
    /// The numbers that are not 0, in order, encoded as LEB128.
    values: Box<[u8]>,
}

impl SparseRow {
    /// Stores numbers. Allocates only if the encoded length changes.
    pub(crate) fn store(&mut self, numbers: &[u64; ROW_NUMBERS]) {
        let (mut buffer, mut length) = ([0; ROW_NUMBERS * NUMBER_BYTES], 0);
        nonzero(numbers).for_each(|number| length += encode(number, &mut buffer[length..]));
        self.set = nonzero_bits(numbers);
        if self.values.len() == length {
            self.values.copy_from_slice(&buffer[..length]);
        } else {
            self.values = buffer[..length].into();
        }
    }

    /// Returns the stored numbers.
    pub(crate) fn load(&self) -> [u64; ROW_NUMBERS] {
        let mut numbers = [0; ROW_NUMBERS];
        let (mut set, mut left) = (self.set, &*self.values);
        while set != 0 {
            numbers[set.trailing_zeros() as usize] = decode(&mut left);
            set &= set - 1;
        }
        numbers
    }

    /// Returns whether the row holds exactly `numbers`.
    pub(crate) fn holds(&self, numbers: &[u64; ROW_NUMBERS]) -> bool {
        let mut left = &*self.values;
        nonzero_bits(numbers) == self.set && nonzero(numbers).all(|number| decode(&mut left) == number)
    }
}

/// Encodes a number at the beginning of `buffer`. Returns the number of bytes written.
fn encode(mut number: u64, buffer: &mut [u8]) -> usize {
    let mut length = 0;
    while number >= 0x80 {
        buffer[length] = number as u8 | 0x80; // the low seven bits, and a bit that marks more bytes
        number >>= 7;
        length += 1;
    }
    buffer[length] = number as u8;
    length + 1
}

/// Decodes a number from the beginning of `left` and advances `left`.
fn decode(left: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = left.split_first() {
        *left = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    number
}

fn nonzero_bits(numbers: &[u64; ROW_NUMBERS]) -> u64 {
    numbers.iter().enumerate().fold(0, |bits, (at, number)| bits | u64::from(*number != 0) << at)
}

fn nonzero(numbers: &[u64; ROW_NUMBERS]) -> impl Iterator<Item = u64> + '_ {
    numbers.iter().copied().filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_whatever_the_buffer_held() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut row = SparseRow::default();
        assert_eq!(row.load(), [0; ROW_NUMBERS]);
        for _ in 0..1000 {
            let zeros = rng.u32(0..8);
            let numbers =
                std::array::from_fn(|_| if rng.u32(0..8) < zeros { 0 } else { rng.u64(..) >> rng.u32(0..64) });
            assert_eq!(row.holds(&numbers), row.load() == numbers);
            row.store(&numbers);
            assert_eq!((row.load(), row.holds(&numbers)), (numbers, true));
            let mut other = numbers;
            other[rng.usize(..ROW_NUMBERS)] ^= 1;
            assert!(!row.holds(&other));
        }
    }
}
