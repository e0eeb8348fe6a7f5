//! Computes the memory that many series cost.
//!
//! Guarantees: an upper bound for an ordinary hour, from measurement (`loadtests series`). The bound assumes that every
//! worker uses every series, in this hour and in the hour before. A caller that sends each command over one connection
//! uses one worker, and needs at most half of the bound.

/// Bytes of the keeper for a series: its sums, rows and names.
const KEEPER_BYTES: u64 = 512;
/// Bytes for a series per worker: the worker's entry, and the keeper's copies of the worker's slots.
const WORKER_BYTES: u64 = 512;
/// Slots that one worker uses for a series: its names, this hour, and the hour before until that hour is sealed.
const SLOTS_PER_SERIES: u64 = 3;

/// The memory that series take, in addition to the memory of a gateway without series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SeriesMemory {
    /// The number of series: pairs of a department and a command.
    pub series: u64,
    /// The upper bound of the process's own memory, in bytes.
    pub own_bytes: u64,
    /// The upper bound of mapped pages of the tally, in bytes. They count as resident (`RssFile`), and the kernel can
    /// write them back.
    pub mapped_bytes: u64,
}

/// Returns the upper bound of the memory for `series` series counted by `workers` workers.
pub fn series_memory(series: u64, workers: u64) -> SeriesMemory {
    let slot = crate::ledger::tally::slot::SLOT_BYTES as u64;
    SeriesMemory {
        series,
        own_bytes: series.saturating_mul(KEEPER_BYTES + workers.saturating_mul(WORKER_BYTES)),
        mapped_bytes: series.saturating_mul(workers).saturating_mul(SLOTS_PER_SERIES * slot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_series_and_workers() {
        let memory = series_memory(100_000, 2);
        assert_eq!((memory.own_bytes, memory.mapped_bytes), (153_600_000, 307_200_000));
        assert_eq!(series_memory(0, 8), SeriesMemory { series: 0, own_bytes: 0, mapped_bytes: 0 });
    }
}
