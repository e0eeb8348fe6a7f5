//! Reads the rows of a book's hours, one hour after the other. The rows are read once for all checks.
//!
//! Guarantees: at most one hour is in memory. Hours before the horizon are not read; days replace them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, params};

use crate::ledger::values::measures::StoredMeasures;
use crate::model::Window;

/// A stored row of admitted commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionRow {
    pub(crate) series: i64,
    pub(crate) epoch: u32,
    /// Commands and units.
    pub(crate) numbers: [i64; 2],
}

/// A stored row of ended or refused commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndRow {
    pub(crate) series: i64,
    pub(crate) epoch: u32,
    pub(crate) outcome: i64,
    /// Hours since the admission.
    pub(crate) late: i64,
    pub(crate) numbers: StoredMeasures,
}

/// A stored row of commands that cost no units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaivedRow {
    pub(crate) series: i64,
    pub(crate) epoch: u32,
    /// Hours since the admission.
    pub(crate) late: i64,
    /// Commands, and the units that they would have cost.
    pub(crate) numbers: [i64; 2],
}

/// All rows of one hour in the book.
#[derive(Debug)]
pub(crate) struct HourRows {
    pub(crate) window: Window,
    pub(crate) admissions: Vec<AdmissionRow>,
    pub(crate) ends: Vec<EndRow>,
    pub(crate) waived: Vec<WaivedRow>,
    /// Epochs whose rows of this hour are sealed.
    pub(crate) sealed: BTreeSet<u32>,
    /// Epochs whose rows wait for a seal.
    pub(crate) unsealed: BTreeSet<u32>,
}

impl HourRows {
    /// Returns the epochs that have rows in this hour.
    pub(crate) fn epochs(&self) -> BTreeSet<u32> {
        let admitted = self.admissions.iter().map(|row| row.epoch);
        let ended = self.ends.iter().map(|row| row.epoch);
        admitted.chain(ended).chain(self.waived.iter().map(|row| row.epoch)).collect()
    }
}

/// Returns the first hour from `from` on that has rows or a seal, or waits for a seal.
pub(crate) fn next_hour(book: &Connection, from: Window) -> rusqlite::Result<Option<Window>> {
    let mut query = book.prepare_cached(
        "SELECT min(first) FROM (SELECT min(\"window\") AS first FROM admission WHERE \"window\" >= ?1
                     UNION ALL SELECT min(\"window\") FROM usage WHERE \"window\" >= ?1
                     UNION ALL SELECT min(\"window\") FROM waived WHERE \"window\" >= ?1
                     UNION ALL SELECT min(\"window\") FROM unsealed WHERE \"window\" >= ?1)",
    )?;
    query.query_row([from.0], |row| Ok(row.get::<_, Option<u32>>(0)?.map(Window)))
}

/// Reads one hour. `sealed` contains the epochs that sealed the hour.
pub(crate) fn read_hour(book: &Connection, window: Window, sealed: BTreeSet<u32>) -> rusqlite::Result<HourRows> {
    let mut query = book.prepare_cached("SELECT epoch FROM unsealed WHERE \"window\" = ?1")?;
    let unsealed = query.query_map([window.0], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let (admissions, ends, waived) =
        (read_admissions(book, window)?, read_ends(book, window)?, read_waived(book, window)?);
    Ok(HourRows { window, admissions, ends, waived, sealed, unsealed })
}

fn read_waived(book: &Connection, window: Window) -> rusqlite::Result<Vec<WaivedRow>> {
    let query = "SELECT series, epoch, late, commands, units FROM waived WHERE \"window\" = ?1";
    let mut query = book.prepare_cached(query)?;
    let rows = query.query_map(params![window.0], |row| {
        Ok(WaivedRow {
            series: row.get(0)?,
            epoch: row.get(1)?,
            late: row.get(2)?,
            numbers: [row.get(3)?, row.get(4)?],
        })
    })?;
    rows.collect()
}

fn read_admissions(book: &Connection, window: Window) -> rusqlite::Result<Vec<AdmissionRow>> {
    let query = "SELECT series, epoch, admitted, units FROM admission WHERE \"window\" = ?1";
    let mut query = book.prepare_cached(query)?;
    let rows = query.query_map(params![window.0], |row| {
        Ok(AdmissionRow { series: row.get(0)?, epoch: row.get(1)?, numbers: [row.get(2)?, row.get(3)?] })
    })?;
    rows.collect()
}

fn read_ends(book: &Connection, window: Window) -> rusqlite::Result<Vec<EndRow>> {
    let mut query = book.prepare_cached(
        "SELECT series, epoch, outcome, late, commands, units, request_bytes, response_bytes, duration_ns
         FROM usage WHERE \"window\" = ?1",
    )?;
    let rows = query.query_map(params![window.0], |row| {
        Ok(EndRow {
            series: row.get(0)?,
            epoch: row.get(1)?,
            outcome: row.get(2)?,
            late: row.get(3)?,
            numbers: StoredMeasures::from_row(row, 4)?,
        })
    })?;
    rows.collect()
}

/// Returns the epochs that sealed each hour from `compacted_before` on.
pub(crate) fn sealed_epochs(
    book: &Connection,
    compacted_before: Window,
) -> rusqlite::Result<HashMap<Window, BTreeSet<u32>>> {
    let mut sealed: HashMap<Window, BTreeSet<u32>> = HashMap::new();
    let mut query = book.prepare("SELECT \"window\", epoch FROM seal WHERE kind = 'hour' AND \"window\" >= ?1")?;
    let mut rows = query.query([compacted_before.0])?;
    while let Some(row) = rows.next()? {
        sealed.entry(Window(row.get(0)?)).or_default().insert(row.get(1)?);
    }
    Ok(sealed)
}
