//! The rows of a book's hours, hour after hour, read once for all who add them up.
//!
//! Guarantees: at most one hour is in memory. Hours before the horizon are not looked at; days stand for them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, params};

use crate::ledger::canon::Numbers;
use crate::model::Window;

/// A stored row of what was let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    pub(super) series: i64,
    pub(super) epoch: u32,
    /// Commands and units.
    pub(super) numbers: [i64; 2],
}

/// A stored row of what ended or was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) series: i64,
    pub(super) epoch: u32,
    pub(super) outcome: i64,
    /// Hours since the admission.
    pub(super) late: i64,
    pub(super) numbers: Numbers,
}

/// A stored row of commands that cost no units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waived {
    pub(super) series: i64,
    pub(super) epoch: u32,
    /// Hours since the admission.
    pub(super) late: i64,
    /// Commands, and the units they would have cost.
    pub(super) numbers: [i64; 2],
}

/// Everything the book holds of one hour.
#[derive(Debug)]
pub(super) struct Hour {
    pub(super) window: Window,
    pub(super) admissions: Vec<Admission>,
    pub(super) ends: Vec<End>,
    pub(super) waived: Vec<Waived>,
    /// Epochs whose rows of this hour are sealed.
    pub(super) sealed: BTreeSet<u32>,
    /// Epochs whose rows wait for their seal.
    pub(super) unsealed: BTreeSet<u32>,
}

impl Hour {
    /// The epochs that have rows in this hour.
    pub(super) fn epochs(&self) -> BTreeSet<u32> {
        let admitted = self.admissions.iter().map(|row| row.epoch);
        let ended = self.ends.iter().map(|row| row.epoch);
        admitted.chain(ended).chain(self.waived.iter().map(|row| row.epoch)).collect()
    }
}

/// The first hour from `from` on that has rows, a seal or waits for one.
pub(super) fn next(book: &Connection, from: Window) -> rusqlite::Result<Option<Window>> {
    let mut query = book.prepare_cached(
        "SELECT min(first) FROM (SELECT min(\"window\") AS first FROM admission WHERE \"window\" >= ?1
                     UNION ALL SELECT min(\"window\") FROM usage WHERE \"window\" >= ?1
                     UNION ALL SELECT min(\"window\") FROM waived WHERE \"window\" >= ?1
                     UNION ALL SELECT min(\"window\") FROM unsealed WHERE \"window\" >= ?1)",
    )?;
    query.query_row([from.0], |row| Ok(row.get::<_, Option<u32>>(0)?.map(Window)))
}

/// Reads one hour. `sealed` are the epochs of which a seal covers it.
pub(super) fn read(book: &Connection, window: Window, sealed: BTreeSet<u32>) -> rusqlite::Result<Hour> {
    let mut query = book.prepare_cached("SELECT epoch FROM unsealed WHERE \"window\" = ?1")?;
    let unsealed = query.query_map([window.0], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let (admissions, ends, waived) = (admissions(book, window)?, ends(book, window)?, waived(book, window)?);
    Ok(Hour { window, admissions, ends, waived, sealed, unsealed })
}

fn waived(book: &Connection, window: Window) -> rusqlite::Result<Vec<Waived>> {
    let query = "SELECT series, epoch, late, commands, units FROM waived WHERE \"window\" = ?1";
    let mut query = book.prepare_cached(query)?;
    let rows = query.query_map(params![window.0], |row| {
        Ok(Waived { series: row.get(0)?, epoch: row.get(1)?, late: row.get(2)?, numbers: [row.get(3)?, row.get(4)?] })
    })?;
    rows.collect()
}

fn admissions(book: &Connection, window: Window) -> rusqlite::Result<Vec<Admission>> {
    let query = "SELECT series, epoch, admitted, units FROM admission WHERE \"window\" = ?1";
    let mut query = book.prepare_cached(query)?;
    let rows = query.query_map(params![window.0], |row| {
        Ok(Admission { series: row.get(0)?, epoch: row.get(1)?, numbers: [row.get(2)?, row.get(3)?] })
    })?;
    rows.collect()
}

fn ends(book: &Connection, window: Window) -> rusqlite::Result<Vec<End>> {
    let mut query = book.prepare_cached(
        "SELECT series, epoch, outcome, late, commands, units, request_bytes, response_bytes, duration_ns
         FROM usage WHERE \"window\" = ?1",
    )?;
    let rows = query.query_map(params![window.0], |row| {
        Ok(End {
            series: row.get(0)?,
            epoch: row.get(1)?,
            outcome: row.get(2)?,
            late: row.get(3)?,
            numbers: [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?],
        })
    })?;
    rows.collect()
}

/// Of every hour from `horizon` on, the epochs that sealed it.
pub(super) fn sealed(book: &Connection, horizon: Window) -> rusqlite::Result<HashMap<Window, BTreeSet<u32>>> {
    let mut sealed: HashMap<Window, BTreeSet<u32>> = HashMap::new();
    let mut query = book.prepare("SELECT \"window\", epoch FROM seal WHERE kind = 'hour' AND \"window\" >= ?1")?;
    let mut rows = query.query([horizon.0])?;
    while let Some(row) = rows.next()? {
        sealed.entry(Window(row.get(0)?)).or_default().insert(row.get(1)?);
    }
    Ok(sealed)
}
