//! The sums of a series since the ledger began, as shown to readers.
//!
//! Guarantees:
//! - Sums saturate at the greatest number and never wrap.
//! - Packed sums are the same sums in less memory.
//!
//! Leaves to `fold`: rows by hour.

use crate::ledger::values::measures::SeriesTotals;
use crate::model::{Finished, Refused};

use super::sparse_row::{ROW_NUMBERS, SparseRow};
use super::{FoldRow, SeriesNames};

/// Sums of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeriesSums {
    admitted: u64,
    /// Units of commands that ended.
    units: u64,
    /// Bytes of request bodies, including commands in flight.
    request_bytes: u64,
    /// Bytes of response bodies, including commands in flight.
    response_bytes: u64,
    /// Ended commands by outcome.
    finished: [u64; Finished::ALL.len()],
    /// Refused commands by reason.
    refused: [u64; Refused::ALL.len()],
}

/// Offsets in packed sums: the first number of ended commands, the first number of refused commands, and the end.
const FINISHED_AT: usize = 4;
const REFUSED_AT: usize = FINISHED_AT + Finished::ALL.len();
const NUMBERS_END: usize = REFUSED_AT + Refused::ALL.len();
const _: () = assert!(NUMBERS_END <= ROW_NUMBERS, "sums fit");

impl SeriesSums {
    /// Returns the sums of a series from its row in the book.
    pub(crate) fn from_book(row: &FoldRow) -> Self {
        let mut sums = Self::default();
        let bytes = row.finished.iter().map(|ended| (ended.request_bytes, ended.response_bytes));
        bytes.for_each(|(request, response)| sums.add_bytes(request, response));
        sums.add_growth(row);
        sums
    }

    /// Adds the growth of a row. Bytes are added separately: they are shown before their command has ended.
    pub(crate) fn add_growth(&mut self, more: &FoldRow) {
        self.admitted = self.admitted.saturating_add(more.admitted.commands);
        for (sum, more) in self.finished.iter_mut().zip(&more.finished) {
            *sum = sum.saturating_add(more.commands);
            self.units = self.units.saturating_add(more.units);
        }
        for (sum, more) in self.refused.iter_mut().zip(&more.refused) {
            *sum = sum.saturating_add(*more);
        }
    }

    /// Adds bytes of bodies.
    pub(crate) fn add_bytes(&mut self, request: u64, response: u64) {
        self.request_bytes = self.request_bytes.saturating_add(request);
        self.response_bytes = self.response_bytes.saturating_add(response);
    }

    /// Returns the sums with the names of their series.
    pub(crate) fn with_names(self, names: &SeriesNames) -> SeriesTotals {
        let Self { admitted, units, request_bytes, response_bytes, finished, refused } = self;
        let SeriesNames { department, subsystem, command } = names.clone();
        SeriesTotals {
            department,
            subsystem,
            command,
            admitted,
            units,
            request_bytes,
            response_bytes,
            finished,
            refused,
        }
    }

    fn as_numbers(&self) -> [u64; ROW_NUMBERS] {
        let mut numbers = [0; ROW_NUMBERS];
        numbers[..FINISHED_AT].copy_from_slice(&[self.admitted, self.units, self.request_bytes, self.response_bytes]);
        numbers[FINISHED_AT..REFUSED_AT].copy_from_slice(&self.finished);
        numbers[REFUSED_AT..NUMBERS_END].copy_from_slice(&self.refused);
        numbers
    }

    fn from_numbers(numbers: &[u64; ROW_NUMBERS]) -> Self {
        let [admitted, units, request_bytes, response_bytes, ..] = *numbers;
        let mut sums = Self { admitted, units, request_bytes, response_bytes, ..Self::default() };
        sums.finished.copy_from_slice(&numbers[FINISHED_AT..REFUSED_AT]);
        sums.refused.copy_from_slice(&numbers[REFUSED_AT..NUMBERS_END]);
        sums
    }
}

/// [`SeriesSums`] in compact form for storage: most of their numbers are 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct PackedSums(SparseRow);

impl PackedSums {
    /// Stores sums.
    pub(crate) fn store(&mut self, sums: &SeriesSums) {
        self.0.store(&sums.as_numbers());
    }

    /// Returns the stored sums.
    pub(crate) fn load(&self) -> SeriesSums {
        SeriesSums::from_numbers(&self.0.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_sums_are_unpacked_unchanged() {
        let numbers = std::array::from_fn(|at| if at < NUMBERS_END { at as u64 + 1 } else { 0 });
        let sums = SeriesSums::from_numbers(&numbers);
        assert_eq!(sums.as_numbers(), numbers);
        assert_eq!((sums.admitted, sums.response_bytes, sums.finished[0], sums.refused[0]), (1, 4, 5, 13));
        let mut packed = PackedSums::default();
        packed.store(&sums);
        assert_eq!(packed.load(), sums);
    }
}
