//! The hours of one or several ledgers, added up: sealed ones from the book, open ones with the tally.
//!
//! Guarantees:
//! - The sealed hours of each ledger are those of one moment.
//! - Memory holds the names of each ledger, the sums of one hour, and the sums of open hours.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::ledger::{AdjustmentRow, HourGrouping, LedgerError, LedgerFiles, SealedHours, UsageSums};
use crate::model::{CalendarOffset, Name, Window};
use crate::report::UsageTable;

use crate::cli::{BadUsage, distinct_ledgers, print_message};

/// The most ledgers of one reconciliation: all of them are open at once.
const LEDGERS_MAX: usize = 64;

/// Commands and units by department and subsystem.
pub(super) type HourTable = BTreeMap<(Name, Name), UsageSums>;

/// The hours of the ledgers.
pub(super) struct LedgerHours {
    ledgers: Vec<OpenLedger>,
}

/// A ledger while it is read.
struct OpenLedger {
    hours: SealedHours,
    /// The hours of the range that are not sealed.
    open: BTreeMap<Window, HourTable>,
    adjustments: Vec<AdjustmentRow>,
}

impl LedgerHours {
    /// Opens the ledgers for the hours of a range.
    pub(super) fn open(books: &[PathBuf], windows: &Range<Window>) -> anyhow::Result<Self> {
        if books.len() > LEDGERS_MAX {
            let found = books.len();
            let message =
                format!("--ledger: {found} ledgers are named; the limit of a reconciliation is {LEDGERS_MAX}");
            return Err(BadUsage(message).into());
        }
        let open = |book: &PathBuf| {
            OpenLedger::open(book, windows).map_err(|error| distinct_ledgers::in_sum(error, book, books))
        };
        Ok(Self { ledgers: books.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// The number of ledgers that have begun by an hour, so that their gateways have samples of it.
    pub(super) fn begun_by(&self, window: Window) -> usize {
        self.ledgers.iter().filter(|ledger| ledger.hours.sealed().start <= window).count()
    }

    /// Whether all ledgers that have begun have sealed the hour.
    pub(super) fn have_sealed(&self, window: Window) -> bool {
        let sealed = self.ledgers.iter().map(|ledger| ledger.hours.sealed());
        sealed.filter(|sealed| sealed.start <= window).all(|sealed| window < sealed.end)
    }

    /// The first hour that all ledgers keep as an hour.
    pub(super) fn compacted_before(&self) -> Window {
        self.ledgers.iter().map(|ledger| ledger.hours.compacted_before()).max().unwrap_or_default()
    }

    /// Refuses a range that begins or ends within a day of which only sums are left.
    pub(super) fn refuse_cut_days(&self, windows: &Range<Window>) -> anyhow::Result<()> {
        Ok(self.ledgers.iter().try_for_each(|ledger| ledger.hours.refuse_cut_days(windows))?)
    }

    /// The usage of some hours. A compacted day is in its first hour.
    pub(super) fn usage(&mut self, windows: Range<Window>) -> anyhow::Result<HourTable> {
        let mut table = HourTable::new();
        for ledger in &mut self.ledgers {
            for window in (windows.start.0..windows.end.0).map(Window) {
                ledger.add_hour(window, &mut table)?;
            }
        }
        Ok(table)
    }

    /// All corrections whose whole period lies in the range. Prints how many lie in it only partly.
    pub(super) fn corrections(&self, windows: &Range<Window>, calendar: CalendarOffset) -> Vec<AdjustmentRow> {
        let (mut inside, mut cut) = (Vec::new(), 0);
        for row in self.ledgers.iter().flat_map(|ledger| &ledger.adjustments) {
            match row.adjustment.windows(calendar) {
                Some(period) if windows.start <= period.start && period.end <= windows.end => inside.push(row.clone()),
                Some(period) if period.start < windows.end && windows.start < period.end => cut += 1,
                _ => {}
            }
        }
        if cut > 0 {
            print_message(&format!("note: corrections whose period is only partly in this range: {cut}; not shown"));
        }
        inside
    }

    /// Fails if a ledger has changed although it was opened as an immutable file. Call it when all is read.
    pub(super) fn confirm_unchanged(&self) -> anyhow::Result<()> {
        Ok(self.ledgers.iter().try_for_each(|ledger| ledger.hours.confirm_unchanged())?)
    }
}

impl OpenLedger {
    fn open(book: &Path, windows: &Range<Window>) -> Result<Self, LedgerError> {
        let hours = SealedHours::open(book, HourGrouping::Subsystem)?;
        let files = LedgerFiles::open(book)?;
        let first_open = hours.sealed().end.max(windows.start);
        let mut open: BTreeMap<Window, HourTable> = BTreeMap::new();
        if first_open < windows.end {
            for row in files.usage_by_hour(first_open..windows.end)? {
                let table = open.entry(row.window).or_default();
                let sums = UsageSums { commands: row.totals.commands, units: row.totals.units };
                table.entry((row.department, row.subsystem)).or_default().add(sums);
            }
        }
        Ok(Self { hours, open, adjustments: files.adjustments()? })
    }

    fn add_hour(&mut self, window: Window, to: &mut HourTable) -> Result<(), LedgerError> {
        if self.hours.sealed().contains(&window) {
            for usage in self.hours.usage(window)? {
                let Some(subsystem) = usage.subsystem else { continue };
                to.entry((usage.department.clone(), subsystem.clone())).or_default().add(usage.sums);
            }
            return Ok(());
        }
        for (labels, sums) in self.open.get(&window).into_iter().flatten() {
            to.entry(labels.clone()).or_default().add(*sums);
        }
        Ok(())
    }
}

/// The table in the form that a comparison takes.
pub(super) fn usage_table(table: &HourTable) -> UsageTable<'_> {
    table.iter().map(|((department, subsystem), sums)| ((department.as_str(), subsystem.as_str()), *sums)).collect()
}
