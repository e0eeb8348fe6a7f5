//! Bulk insertion of rows: every series in every hour, with one outcome, and in every fourth hour a second one.
//!
//! The numbers are computed from hour and series. The sums of a day can therefore be computed without rows for its
//! hours.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use rusqlite::{Connection, params};
use tallygate::clock::Clock;
use tallygate::report::ReportRange;

use super::{NEW_YEAR, open};

const DAYS: u32 = 365;
const HOURS: u32 = 24;

/// The year to insert.
#[derive(Clone, Copy, Debug)]
pub struct Year {
    departments: u32,
    each: u32,
    kept_days: u32,
    /// The first window.
    first: u32,
}

/// Numbers of inserted rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows {
    pub admission: u64,
    pub usage: u64,
    pub days: u64,
}

/// The rows of a series in one hour: 2 to 2000 commands, of which 0 or 1 is a client error, and 1 to 5 units each.
/// Bytes and time are those of a small request and a camera's response.
const MADE_UP: &str = "
CREATE TEMP VIEW made_up AS
SELECT hour.hour AS hour, series.series AS series,
       2 + (hour.hour * 40503 + series.series * 26544357) % 1999 AS admitted,
       (hour.hour + series.series) % 4 = 0 AS wrong, 1 + series.series % 5 AS each
FROM temp.hour CROSS JOIN series;
CREATE TEMP VIEW made_up_ends AS
SELECT hour, series, 1 AS outcome, admitted - wrong AS commands, each FROM made_up
UNION ALL SELECT hour, series, 2, wrong, each FROM made_up WHERE wrong;";

const NUMBERS: &str = "commands, commands * each, commands * 812, commands * 20480, commands * 3456789";
const SUMS: &str =
    "sum(commands), sum(commands * each), sum(commands * 812), sum(commands * 20480), sum(commands * 3456789)";

impl Year {
    pub fn new(departments: u32, each: u32, kept_days: u32) -> Result<Self> {
        let first = Clock::manual(NEW_YEAR.parse().context("the first hour")?).window();
        Ok(Self { departments, each, kept_days: kept_days.min(DAYS), first: first.0 })
    }

    /// Inserts the year, day by day. Days outside the kept hours are inserted as sums only.
    pub fn fill(&self, path: &Path) -> Result<Rows> {
        let book = open(path)?;
        book.execute_batch(
            "PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY; CREATE TEMP TABLE hour (hour INTEGER PRIMARY KEY)",
        )?;
        book.execute_batch(MADE_UP)?;
        self.name_series(&book)?;
        let bar = ProgressBar::new(u64::from(DAYS));
        for day in 0..DAYS {
            self.fill_day(&book, day).with_context(|| format!("writing day {day}"))?;
            bar.set_position(u64::from(day) + 1);
        }
        bar.finish_and_clear();
        book.execute_batch(
            "INSERT INTO ever_sum SELECT series, outcome, sum(commands), sum(units), sum(request_bytes), sum(response_bytes),
                                         sum(duration_ns) FROM day_sum GROUP BY series, outcome;
             PRAGMA wal_checkpoint(TRUNCATE);",
        )?;
        let horizon = self.first + (DAYS - self.kept_days) * HOURS;
        if self.kept_days < DAYS {
            book.execute("UPDATE meta SET rolled_before = ?", [horizon])?;
        }
        rows(&book)
    }

    fn name_series(&self, book: &Connection) -> Result<()> {
        book.execute(
            "WITH RECURSIVE number(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM number WHERE n + 1 < ?1 * ?2)
             INSERT INTO series SELECT n, printf('department-%03d', n / ?2), printf('subsystem-%d', n % ?2 / 10),
                                       printf('command-%02d', n % ?2) FROM number",
            params![self.departments, self.each],
        )?;
        Ok(())
    }

    fn fill_day(&self, book: &Connection, day: u32) -> Result<()> {
        let first = self.first + day * HOURS;
        book.execute_batch("BEGIN; DELETE FROM temp.hour")?;
        for hour in first..first + HOURS {
            book.execute("INSERT INTO temp.hour VALUES (?)", [hour])?;
        }
        if day >= DAYS - self.kept_days {
            book.execute_batch("INSERT INTO admission SELECT hour, series, 1, admitted, admitted * each FROM made_up")?;
            book.execute_batch(&format!(
                "INSERT INTO usage SELECT hour, series, outcome, 1, 0, {NUMBERS} FROM made_up_ends"
            ))?;
        }
        book.execute_batch(&format!(
            "INSERT INTO day_sum SELECT {first}, series, 0, sum(admitted), sum(admitted * each), 0, 0, 0 FROM made_up GROUP BY series;
             INSERT INTO day_sum SELECT {first}, series, outcome, {SUMS} FROM made_up_ends GROUP BY series, outcome;
             COMMIT"
        ))?;
        Ok(())
    }

    /// The commands of a month, from the rows of its hours.
    pub fn commands_of_month(&self, path: &Path, [from, to]: [&str; 2]) -> Result<u64> {
        let calendar = tallygate::model::CalendarOffset::default();
        let windows = ReportRange::parse(Some(from), Some(to), calendar, Clock::system().window())?.windows();
        ensure!(windows.end.0 == self.first + DAYS * HOURS, "the month is not the last one");
        let query = "SELECT sum(commands) FROM usage WHERE \"window\" >= ? AND \"window\" < ?";
        let sum: i64 = open(path)?.query_row(query, [windows.start.0, windows.end.0], |row| row.get(0))?;
        Ok(u64::try_from(sum)?)
    }
}

fn rows(book: &Connection) -> Result<Rows> {
    book.busy_timeout(Duration::from_secs(1))?;
    let count = |table: &str| -> Result<u64> {
        let count: i64 = book.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        Ok(u64::try_from(count)?)
    };
    Ok(Rows { admission: count("admission")?, usage: count("usage")?, days: count("day_sum")? })
}
