//! What a ledger of many series costs in memory.
//!
//! Guarantees: a bound for an ordinary hour, from measurement (`loadtests series`): every series is in use, by every worker,
//! in this hour and the one before. Whoever calls each command over one connection uses one worker, and a half of it or less.

/// The keeper's sums and rows of a series, and its names.
const KEEPER_BYTES: u64 = 512;
/// A worker's entry for a series, and what the keeper has seen of the worker's slots.
const WORKER_BYTES: u64 = 512;
/// Slots of a series that one worker uses: its names, this hour, the hour before until that is sealed.
const SLOTS_PER_SERIES: u64 = 3;

/// Bytes that series take, beside what a gateway has without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SeriesMemory {
    /// How many series: pairs of a department and a command.
    pub series: u64,
    /// The process's own memory, at most.
    pub own_bytes: u64,
    /// Pages of the tally that are mapped, at most. They count as resident (`RssFile`) and the kernel can write them back.
    pub mapped_bytes: u64,
}

/// What so many series cost at most that so many workers count.
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
