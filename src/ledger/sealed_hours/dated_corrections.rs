//! Corrections as of the end of an hour, summed by department and period.
//!
//! Guarantees: a correction belongs to the hour in which it was made and to all later ones, so the sums of an hour
//! that is over do not change.

use jiff::Timestamp;
use rusqlite::Connection;

use crate::model::Window;

/// The corrected units of a department and a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrectedUnits<'a> {
    /// The department.
    pub department: &'a str,
    /// The period that is corrected: a month, `2026-10`, or a day, `2026-10-05`.
    pub period: &'a str,
    /// The units of all its corrections; negative if finance has subtracted more than it has added. The sum saturates.
    pub units: i64,
}

/// All corrections, sorted by department and period.
#[derive(Debug)]
pub(super) struct DatedCorrections(Vec<DatedCorrection>);

#[derive(Debug)]
struct DatedCorrection {
    department: String,
    period: String,
    units: i64,
    /// The hour in which it was made.
    made_in: Window,
}

impl DatedCorrection {
    fn corrects_same(&self, other: &Self) -> bool {
        (&self.department, &self.period) == (&other.department, &other.period)
    }
}

impl DatedCorrections {
    /// Reads all corrections.
    pub(super) fn read(book: &Connection) -> rusqlite::Result<Self> {
        let mut query =
            book.prepare("SELECT department, period, units, made_at FROM adjustment ORDER BY 1, 2, number")?;
        let corrections = query.query_map([], |row| {
            let made_at: Timestamp = row.get_ref(3)?.as_str()?.parse().map_err(|error: jiff::Error| {
                rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, error.into())
            })?;
            let made_in = Window::of_unix_seconds(made_at.as_second());
            Ok(DatedCorrection { department: row.get(0)?, period: row.get(1)?, units: row.get(2)?, made_in })
        })?;
        corrections.collect::<rusqlite::Result<_>>().map(Self)
    }

    /// Returns the sums of the corrections that had been made by the end of the hour.
    pub(super) fn made_by(&self, window: Window) -> impl Iterator<Item = CorrectedUnits<'_>> {
        self.0.chunk_by(DatedCorrection::corrects_same).filter_map(move |corrections| {
            let mut made = corrections.iter().filter(|one| one.made_in <= window).peekable();
            let DatedCorrection { department, period, .. } = made.peek()?;
            let units = made.map(|one| one.units).fold(0, i64::saturating_add);
            Some(CorrectedUnits { department, period, units })
        })
    }
}
