//! Checks the epochs. An epoch is the lifetime of one gateway process on the ledger.

use std::collections::BTreeSet;

use rusqlite::Connection;
use serde::Serialize;

use super::findings::{AuditCheck, AuditReport};
use super::ledger_snapshot::{LedgerSnapshot, TallyState};

/// An epoch as stored in the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EpochRow {
    /// The number of the epoch, from 1.
    pub epoch: u32,
    /// The gateway's name.
    pub gateway: String,
    /// The machine's boot id.
    pub boot_id: String,
    /// The process id.
    pub process_id: u32,
    /// The time of its begin.
    pub started_at: String,
    /// The begin of its last sync.
    pub last_sync_at: String,
    /// The time at which its ending was recorded.
    pub ended_at: Option<String>,
    /// The kind of its ending; `None` if the epoch has not ended, or its ending is not recorded yet.
    pub ending: Option<String>,
}

/// All epochs of a book.
#[derive(Debug)]
pub(crate) struct EpochTable {
    pub(crate) rows: Vec<EpochRow>,
    /// The gateway that first counted in the book, from the book's `meta`.
    made_by: String,
    /// Epochs up to this one may have ends without the hours late.
    format_1: u32,
    /// Epochs whose ending has a seal.
    sealed: BTreeSet<u32>,
}

const ENDING_CLEAN: &str = "clean";
const ENDING_PROCESS_DIED: &str = "process died";

impl EpochTable {
    pub(crate) fn from_book(book: &Connection) -> rusqlite::Result<Self> {
        let mut query = book.prepare(
            "SELECT epoch, gateway, boot_id, process_id, started_at, last_sync_at, ended_at, ending FROM epoch ORDER BY 1",
        )?;
        let rows = query.query_map([], |row| {
            Ok(EpochRow {
                epoch: row.get(0)?,
                gateway: row.get(1)?,
                boot_id: row.get(2)?,
                process_id: row.get(3)?,
                started_at: row.get(4)?,
                last_sync_at: row.get(5)?,
                ended_at: row.get(6)?,
                ending: row.get(7)?,
            })
        })?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        // Format 1 had late ends only for hours that it had sealed itself, so an epoch without such a seal has none.
        let query = "SELECT coalesce(max(epoch), 0) FROM seal WHERE format = 1";
        let format_1 = book.query_row(query, [], |row| row.get(0))?;
        let mut query = book.prepare("SELECT epoch FROM seal WHERE kind = 'epoch'")?;
        let sealed = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let made_by = book.query_row("SELECT gateway FROM meta", [], |row| row.get(0))?;
        Ok(Self { rows, made_by, format_1, sealed })
    }

    pub(crate) fn is_of_format_1(&self, epoch: u32) -> bool {
        epoch <= self.format_1
    }

    pub(crate) fn get(&self, epoch: u32) -> Option<&EpochRow> {
        self.rows.iter().find(|row| row.epoch == epoch)
    }

    /// Returns the kind of an epoch's ending.
    pub(crate) fn ending(&self, epoch: u32) -> &str {
        self.get(epoch).and_then(|row| row.ending.as_deref()).unwrap_or("not ended")
    }

    /// Returns whether counts of an epoch may be missing, according to its ending.
    pub(crate) fn has_lost_counts(&self, epoch: u32) -> bool {
        let ending = self.get(epoch).and_then(|row| row.ending.as_deref());
        ending.is_some_and(|ending| ending != ENDING_CLEAN && ending != ENDING_PROCESS_DIED)
    }

    /// Checks that numbers have no gap, that endings are complete, and that at most one epoch has not ended.
    pub(crate) fn check_epochs(&self, snapshot: &LedgerSnapshot, report: &mut AuditReport) {
        report.checked.epochs = self.rows.len() as u64;
        for (row, expected) in self.rows.iter().zip(1..) {
            if row.epoch != expected {
                report.add_finding(
                    AuditCheck::Epochs,
                    format!("epoch {}", row.epoch),
                    format!("it is number {expected} in the book: one before it is missing"),
                );
                break;
            }
        }
        if let Some(first) = self.rows.first().filter(|first| first.gateway != self.made_by) {
            let what = format!(
                "it names gateway {:?} as the creator of the book, its first epoch names {:?}",
                self.made_by, first.gateway
            );
            report.add_finding(AuditCheck::Epochs, "meta", what);
        }
        for row in &self.rows {
            check_row(row, report);
            if row.ending.is_some() && !self.sealed.contains(&row.epoch) {
                report.add_finding(
                    AuditCheck::Epochs,
                    format!("epoch {}", row.epoch),
                    "it has an ending that no seal covers",
                );
            }
        }
        let open: Vec<_> = self.rows.iter().filter(|row| row.ending.is_none()).map(|row| row.epoch).collect();
        let counted = snapshot.readings().map(|readings| readings.newer.header.epoch);
        for epoch in open.into_iter().filter(|epoch| Some(*epoch) != counted) {
            self.check_uncounted(epoch, snapshot, report);
        }
    }

    /// Returns whether nothing shows that an epoch has ended: no seal of its ending, and no later epoch.
    fn may_be_running(&self, epoch: u32) -> bool {
        !self.sealed.contains(&epoch) && self.rows.last().is_some_and(|last| last.epoch == epoch)
    }

    /// Checks an epoch that has not ended and has no tally here. Without a tally and without a gateway this is a copy
    /// of a book, which is valid as of its last fold. A running gateway always has its tally.
    fn check_uncounted(&self, epoch: u32, snapshot: &LedgerSnapshot, report: &mut AuditReport) {
        let find = |report: &mut AuditReport, why| report.add_finding(AuditCheck::Tally, format!("epoch {epoch}"), why);
        match &snapshot.tally {
            TallyState::Foreign(why) => {
                find(report, format!("it has not ended, and the tally beside the book is not its own: {why}"));
            }
            TallyState::Missing if !snapshot.is_kept && self.may_be_running(epoch) => {
                let until = self.get(epoch).map_or("its last fold", |row| &row.last_sync_at);
                report.add_note(format!(
                    "epoch {epoch} has not ended and there is no tally beside the book: a copy of the book alone, or \
                     the tally is lost. It is checked as of {until}; later counts of the tally are missing and not \
                     proven"
                ));
            }
            _ => {
                let why = "it has not ended, and its tally is not beside the book: its last counts are missing";
                find(report, why.to_owned());
            }
        }
    }
}

fn check_row(row: &EpochRow, report: &mut AuditReport) {
    let place = format!("epoch {}", row.epoch);
    let times = [Some(&row.started_at), Some(&row.last_sync_at), row.ended_at.as_ref()];
    for time in times.into_iter().flatten().filter(|time| time.parse::<jiff::Timestamp>().is_err()) {
        report.add_finding(AuditCheck::Epochs, &place, format!("{time:?} is not a time; times are UTC, RFC 3339"));
    }
    if row.ending.is_some() != row.ended_at.is_some() {
        let what = format!(
            "it has an ending ({:?}) without a time, or a time ({:?}) without an ending",
            row.ending, row.ended_at
        );
        report.add_finding(AuditCheck::Epochs, &place, what);
    }
}
