//! Maps a part of the tally into memory: the only `unsafe` expression of the crate.

use std::fs::File;
use std::io;

use memmap2::{MmapMut, MmapOptions};
use zerocopy::FromBytes;

use super::slot::{SLOT_BYTES, Slot};

/// Maps `slots` slots of `file` from byte `offset` on, for the rest of the process's life.
///
/// The mapping is never removed: a ticket may outlive its ledger, and there is one mapping per segment.
pub(crate) fn map_slots(file: &File, offset: u64, slots: usize) -> io::Result<&'static [Slot]> {
    let mut options = MmapOptions::new();
    options.offset(offset).len(slots * SLOT_BYTES);
    #[expect(
        unsafe_code,
        reason = "Mapping a file is unsafe because the file may change or shrink under the map. Here: the gateway holds an \
                  exclusive lock beside the file and never truncates it; the stretch was written and synced before it is \
                  mapped, so no page is a hole; and it is only ever seen as atomic words, for which every bit pattern is a \
                  value and every change by another is allowed."
    )]
    let map: MmapMut = unsafe { options.map_mut(file) }?;
    let map: &'static mut MmapMut = Box::leak(Box::new(map));
    match <[Slot]>::mut_from_bytes(map) {
        Ok(slots) => Ok(slots),
        Err(error) => Err(io::Error::other(format!("the map does not hold whole slots: {error}"))),
    }
}
