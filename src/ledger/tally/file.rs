//! The tally's file: a header and segments of slots. Each segment is mapped when it is added.
//!
//! Guarantees:
//! - A tally appears under its name complete or not at all.
//! - Every mapped byte was written and synced before it was mapped, so no store can hit a hole (a SIGBUS).
//!
//! Leaves to `count`: which worker writes which slot. Leaves to `fold`: the meaning of the slots.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::ledger::files::file_identity::FileIdentity;
use crate::ledger::values::error::LedgerError;

use super::disk::TallyDisk;
use super::slot::{SLOT_BYTES, Slot, SlotKind, WORDS, offset, pack_halves, write_text};
use super::slot_copy::SlotCopy;
use super::stores::journaled_stores;

/// Slots in a segment: 1 MiB. A worker needs at least a tenth of a second to fill a segment, even if every command is
/// of a new series.
pub(crate) const SEGMENT_SLOTS: u32 = 2048;
/// Slots in the header's page; only the first is used.
const HEADER_SLOTS: usize = 8;
const TALLY_FORMAT: u32 = 3;
/// Format 2: every command cost its units.
const TALLY_FORMAT_2: u32 = 2;
/// The oldest readable format. Format 1 had no slots of late ends and no journal, so those words are 0.
const TALLY_FORMAT_MIN: u32 = 1;
const TALLY_MAGIC: u64 = u64::from_le_bytes(*b"TALLYGAT");

/// Positions of words in the header.
mod header_offset {
    pub(super) const MAGIC: usize = 0;
    pub(super) const FORMAT: usize = 1; // high half: bytes in a slot
    pub(super) const EPOCH: usize = 2;
    pub(super) const CREATED: usize = 3;
    pub(super) const PROCESS: usize = 4; // high half: slots in a segment
    pub(super) const SYNCED_AT: usize = 5;
    pub(super) const SYNCED_NS: usize = 6;
    /// The inode of the file at its creation: a file with another inode is a copy. 0 in tallies written before this
    /// word existed.
    pub(super) const INODE: usize = 7;
    pub(super) const GATEWAY: usize = 8;
    pub(super) const BOOT: usize = 16;
    pub(super) const TEXT_WORDS: usize = 8;
}

/// The identity of the epoch and process that wrote the tally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TallyHeader {
    pub(crate) epoch: u32,
    pub(crate) gateway: String,
    pub(crate) boot_id: String,
    pub(crate) process_id: u32,
    /// Slots in each segment: a whole number of pages.
    pub(crate) segment_slots: u32,
    pub(crate) created_at: Timestamp,
    /// The beginning of the last sync, on the wall clock and on the epoch's monotonic clock.
    pub(crate) synced_at: Timestamp,
    pub(crate) synced_ns: u64,
}

/// A contiguous range of slots for one worker. The first slot is the worker's own.
#[derive(Debug)]
pub(crate) struct SlotSegment {
    /// The position of the segment's first slot in the file.
    pub(crate) first_position: u32,
    pub(crate) slots: &'static [Slot],
}

/// The open tally.
#[derive(Debug)]
pub(crate) struct TallyFile {
    path: PathBuf,
    file: File,
    disk: Box<dyn TallyDisk>,
    header: &'static Slot,
    segment_slots: usize,
    segments: Vec<&'static [Slot]>,
}

impl TallyFile {
    /// Creates a tally with one segment for each of `workers`.
    pub(crate) fn create(
        disk: Box<dyn TallyDisk>,
        path: &Path,
        header: &TallyHeader,
        workers: u32,
    ) -> Result<(Self, Vec<SlotSegment>), LedgerError> {
        let draft = path.with_extension("tally-new");
        let refused = |action, error| LedgerError::file(action, &draft, error);
        if draft.exists() {
            disk.remove(&draft).map_err(|error| refused("remove the unfinished tally", error))?;
        }
        let file = disk.create(&draft).map_err(|error| refused("make", error))?;
        disk.extend(&file, 0, bytes_of_slots(HEADER_SLOTS)).map_err(|error| refused("write the header of", error))?;
        let page = disk.map(&file, 0, HEADER_SLOTS).map_err(|error| refused("map the header of", error))?;
        write_header(&page[0], header);
        let made = file.metadata().map_err(|error| refused("inspect", error))?;
        page[0].set(header_offset::INODE, FileIdentity::from_metadata(&made).inode());
        let segment_slots = header.segment_slots as usize;
        let mut tally = Self { path: draft.clone(), file, disk, header: &page[0], segment_slots, segments: Vec::new() };
        let segments = (0..workers).map(|worker| tally.add_segment(worker)).collect::<Result<_, _>>()?;
        tally.disk.sync(&tally.file).map_err(|error| LedgerError::sync(&draft, error))?;
        tally.disk.rename(&draft, path).map_err(|error| refused("rename the new file to", error))?;
        tally.path = path.to_owned();
        Ok((tally, segments))
    }

    /// Adds a segment for a worker: zeros are written and synced, then mapped.
    pub(crate) fn add_segment(&mut self, worker: u32) -> Result<SlotSegment, LedgerError> {
        let first = HEADER_SLOTS + self.segments.len() * self.segment_slots;
        let (from, length) = (bytes_of_slots(first), bytes_of_slots(self.segment_slots));
        self.disk.extend(&self.file, from, length).map_err(|error| LedgerError::file("grow", &self.path, error))?;
        self.disk.sync(&self.file).map_err(|error| LedgerError::sync(&self.path, error))?;
        let slots = self
            .disk
            .map(&self.file, from, self.segment_slots)
            .map_err(|error| LedgerError::file("map", &self.path, error))?;
        slots[0].begin_use(SlotKind::Worker, |slot| slot.set(offset::WORKER, u64::from(worker)));
        self.segments.push(slots);
        let first = u32::try_from(first).unwrap_or(u32::MAX); // 2^32 slots are 2 TiB
        Ok(SlotSegment { first_position: first, slots })
    }

    /// Syncs all stores made before this call to the disk, and records in the header when the sync began.
    pub(crate) fn sync(&self, clock: &Clock) -> Result<(), LedgerError> {
        self.header.set(header_offset::SYNCED_AT, encode_time(clock.wall()));
        self.header.set(header_offset::SYNCED_NS, clock.monotonic().nanoseconds());
        self.disk.sync(&self.file).map_err(|error| LedgerError::sync(&self.path, error))
    }

    /// Returns the slots that are or were in use, with their positions.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (usize, &'static Slot)> + '_ {
        let segments = self.segments.iter().enumerate();
        segments.flat_map(|(number, slots)| {
            let first = HEADER_SLOTS + number * self.segment_slots;
            let used = usize::try_from(slots[0].get(offset::SLOTS_USED)).unwrap_or(usize::MAX);
            slots.iter().enumerate().take(used.max(1)).map(move |(at, slot)| (first + at, slot))
        })
    }

    /// Returns the workers' own slots.
    pub(crate) fn worker_slots(&self) -> impl Iterator<Item = &'static Slot> + '_ {
        self.segments.iter().map(|slots| &slots[0])
    }

    /// Returns the slot at a position; `None` in the header's page and beyond the end.
    pub(crate) fn slot(&self, position: u32) -> Option<&'static Slot> {
        let position = (position as usize).checked_sub(HEADER_SLOTS)?;
        self.segments.get(position / self.segment_slots).map(|slots| &slots[position % self.segment_slots])
    }

    /// Returns the tally's path and the identity of its file.
    pub(crate) fn file_identity(&self) -> Result<(PathBuf, FileIdentity), LedgerError> {
        let metadata = self.file.metadata().map_err(|error| LedgerError::file("inspect", &self.path, error))?;
        Ok((self.path.clone(), FileIdentity::from_metadata(&metadata)))
    }

    /// Returns the disk that holds the tally.
    pub(crate) fn disk(&self) -> &dyn TallyDisk {
        &*self.disk
    }

    /// Removes the tally's file. The mapped memory stays mapped.
    pub(crate) fn remove(self) -> Result<(), LedgerError> {
        self.disk.remove(&self.path).map_err(|error| LedgerError::file("remove", &self.path, error))
    }
}

/// A tally as read from the disk.
#[derive(Clone, Debug)]
pub(crate) struct TallyImage {
    pub(crate) header: TallyHeader,
    /// The inode of the file that the gateway created; 0 if none was recorded.
    pub(crate) inode: u64,
    /// All slots, including the header's page, so that positions are indices.
    pub(crate) slots: Vec<SlotCopy>,
}

/// The reason why a file is not a readable tally.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTally {
    #[error("it has no header of a tally")]
    NoHeader,
    #[error("it has format {0}, this Tallygate supports formats {TALLY_FORMAT_MIN} to {TALLY_FORMAT}")]
    Format(u32),
    #[error("its slots have {0} bytes, not {SLOT_BYTES}")]
    SlotBytes(u32),
    #[error("its header is damaged")]
    Damaged,
}

impl TallyImage {
    /// Parses a tally. Bytes beyond the last whole slot belong to an unfinished growth that was never used.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BadTally> {
        let mut slots: Vec<SlotCopy> = bytes.as_chunks::<SLOT_BYTES>().0.iter().map(SlotCopy::from_bytes).collect();
        let first = slots.first().ok_or(BadTally::NoHeader)?;
        let (header, format, inode) = (read_header(first)?, header_format(first), first.0[header_offset::INODE]);
        if format == TALLY_FORMAT_MIN {
            slots.iter_mut().for_each(|copy| *copy = copy.upgrade_from_format_1());
        }
        if format <= TALLY_FORMAT_2 {
            slots.iter_mut().for_each(|copy| *copy = copy.upgrade_from_format_2());
        }
        Ok(Self { header, inode, slots })
    }

    /// Returns the slot at a position, if there is one.
    pub(crate) fn slot(&self, position: u32) -> Option<&SlotCopy> {
        self.slots.get(position as usize)
    }
}

/// Returns the slots that an unfinished [`EndTransfer`](super::stores::EndTransfer) would have changed, with the stores
/// of its journal applied. Only for a tally whose process is dead.
pub(crate) fn journaled_slots(slots: &[SlotCopy]) -> BTreeMap<usize, SlotCopy> {
    let mut moved = BTreeMap::new();
    let workers = slots.iter().filter(|copy| copy.kind() == SlotKind::Worker);
    for (position, at, value) in workers.flat_map(journaled_stores) {
        let position = position as usize;
        let (Some(now), 0..WORDS) = (slots.get(position), at) else { continue };
        let word = &mut moved.entry(position).or_insert(*now).0[at];
        // After a machine crash a page may be newer than its record in the journal.
        *word = if at == offset::STARTED { value } else { value.max(*word) };
    }
    moved
}

fn write_header(slot: &Slot, header: &TallyHeader) {
    use header_offset as at;
    slot.set(at::FORMAT, pack_halves(TALLY_FORMAT, SLOT_BYTES as u32));
    slot.set(at::EPOCH, u64::from(header.epoch));
    slot.set(at::CREATED, encode_time(header.created_at));
    slot.set(at::PROCESS, pack_halves(header.process_id, header.segment_slots));
    slot.set(at::SYNCED_AT, encode_time(header.synced_at));
    slot.set(at::SYNCED_NS, header.synced_ns);
    write_text(slot, at::GATEWAY, at::TEXT_WORDS, &header.gateway);
    write_text(slot, at::BOOT, at::TEXT_WORDS, &header.boot_id);
    slot.set(at::MAGIC, TALLY_MAGIC);
}

fn header_format(slot: &SlotCopy) -> u32 {
    slot.0[header_offset::FORMAT] as u32
}

fn read_header(slot: &SlotCopy) -> Result<TallyHeader, BadTally> {
    use header_offset as at;
    let copy: &[u64; WORDS] = &slot.0;
    let (format, slot_bytes) = (header_format(slot), (copy[at::FORMAT] >> 32) as u32);
    if copy[at::MAGIC] != TALLY_MAGIC {
        return Err(BadTally::NoHeader);
    }
    if !(TALLY_FORMAT_MIN..=TALLY_FORMAT).contains(&format) {
        return Err(BadTally::Format(format));
    }
    if slot_bytes as usize != SLOT_BYTES {
        return Err(BadTally::SlotBytes(slot_bytes));
    }
    Ok(TallyHeader {
        epoch: u32::try_from(copy[at::EPOCH]).map_err(|_| BadTally::Damaged)?,
        gateway: slot.read_text(at::GATEWAY, at::TEXT_WORDS).ok_or(BadTally::Damaged)?,
        boot_id: slot.read_text(at::BOOT, at::TEXT_WORDS).ok_or(BadTally::Damaged)?,
        process_id: copy[at::PROCESS] as u32,
        segment_slots: (copy[at::PROCESS] >> 32) as u32,
        created_at: decode_time(copy[at::CREATED])?,
        synced_at: decode_time(copy[at::SYNCED_AT])?,
        synced_ns: copy[at::SYNCED_NS],
    })
}

fn encode_time(time: Timestamp) -> u64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX).cast_unsigned()
}

fn decode_time(word: u64) -> Result<Timestamp, BadTally> {
    Timestamp::from_nanosecond(i128::from(word.cast_signed())).map_err(|_| BadTally::Damaged)
}

fn bytes_of_slots(slots: usize) -> u64 {
    (slots * SLOT_BYTES) as u64
}
