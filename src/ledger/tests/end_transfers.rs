//! The transfer of a command's end when the hour of its admission is sealed: two slots must change, and the process may
//! crash between any two stores.

use crate::ledger::tally::slot::{Slot, SlotKind, offset, pack_halves, write_text};
use crate::ledger::tally::slot_copy::SlotCopy;
use crate::ledger::tally::stores::{CommandEnd, EndTransfer, SlotRef, journaled_stores};

use super::*;

const NOW: u32 = 1002;
const THEN: u32 = 1000;

/// Returns a worker's own slot, the names of a series, a slot of a sealed hour with one command in flight, and a late
/// slot.
fn slots() -> Vec<&'static Slot> {
    let slots: Vec<&'static Slot> = (0..4).map(|_| &*Box::leak(Box::new(Slot::empty()))).collect();
    slots[0].begin_use(SlotKind::Worker, |_| ());
    slots[1].begin_use(SlotKind::Series, |slot| {
        for (number, name) in ["police", "cameras", "read"].into_iter().enumerate() {
            write_text(slot, offset::NAMES + number * offset::NAME_WORDS, offset::NAME_WORDS, name);
        }
    });
    for (position, window, of) in [(2, THEN, 0), (3, NOW, THEN)] {
        slots[position].begin_use(SlotKind::Count, |slot| {
            slot.set(offset::WINDOW_AND_SERIES, pack_halves(window, 1));
            slot.set(offset::UNITS_EACH, 3);
            slot.set(offset::ADMISSION_WINDOW, u64::from(of));
        });
    }
    slots[2].add_admission(100);
    slots[2].add_bytes(offset::RESPONSE_BYTES, 10);
    slots
}

fn end() -> CommandEnd {
    CommandEnd {
        finished: Finished::Ok,
        charged: true,
        opened_ns: 100,
        request_bytes: 0,
        response_bytes: 10,
        duration_ns: 50,
    }
}

/// Returns the rows after a recovery from these slots. Commands in flight become `interrupted`.
fn recovered(slots: &[&Slot]) -> Vec<(Window, &'static str, u64, u64, u64)> {
    let image: Vec<SlotCopy> = slots.iter().map(|slot| slot.copy().expect("a slot at rest")).collect();
    let names = |at: u32| image.get(at as usize).and_then(fold::SeriesNames::from_copy);
    let mut fold = TallyFold::new(Vec::new(), Window(THEN + 1));
    for (position, words) in image.iter().enumerate() {
        fold.absorb(position, words, names);
    }
    for (position, words) in crate::ledger::tally::file::journaled_slots(&image) {
        fold.absorb(position, &words, names);
    }
    fold.interrupt(Window(NOW), 150, names);
    let rows = fold.usage(ALWAYS);
    rows.iter()
        .map(|row| (row.window, row.outcome.name(), row.totals.commands, row.totals.units, row.totals.response_bytes))
        .collect()
}

#[test]
fn late_end_is_counted_once_wherever_its_process_dies() {
    let stores = {
        let slots = slots();
        let place = |position: usize| SlotRef { position: position as u32, slot: slots[position] };
        EndTransfer::new(&end(), place(2), place(3), place(0)).write_journal(slots[0]);
        journaled_stores(&slots[0].copy().expect("a slot")).count()
    };
    assert!(stores > 0);
    assert_eq!(recovered(&slots()), [(Window(NOW), "interrupted", 1, 3, 10)], "before the journal is written");
    for made in 0..=stores {
        let slots = slots();
        let place = |position: usize| SlotRef { position: position as u32, slot: slots[position] };
        let end = EndTransfer::new(&end(), place(2), place(3), place(0));
        end.write_journal(slots[0]);
        end.apply_some(made);
        assert_eq!(recovered(&slots), [(Window(NOW), "ok", 1, 3, 10)], "after {made} of {stores} stores");
    }
    let slots = slots();
    let place = |position: usize| SlotRef { position: position as u32, slot: slots[position] };
    let end = EndTransfer::new(&end(), place(2), place(3), place(0));
    end.write_journal(slots[0]);
    end.apply(slots[0]);
    assert_eq!(journaled_stores(&slots[0].copy().expect("a slot")).count(), 0, "the journal is empty");
    assert_eq!(recovered(&slots), [(Window(NOW), "ok", 1, 3, 10)]);
}

#[test]
fn page_newer_than_the_recorded_move_is_used() {
    let slots = slots();
    let place = |position: usize| SlotRef { position: position as u32, slot: slots[position] };
    let end = EndTransfer::new(&end(), place(2), place(3), place(0));
    end.write_journal(slots[0]);
    end.apply_some(usize::MAX);
    slots[2].add_admission(120); // the machine kept this page, and an older page of the own slot
    slots[2].add_end(&self::end());
    slots[2].add_bytes(offset::RESPONSE_BYTES, 10);
    let rows = recovered(&slots);
    assert_eq!(
        rows,
        [(Window(NOW), "ok", 1, 3, 10)],
        "sealed counts are in the book, and the late end is counted once"
    );
}
