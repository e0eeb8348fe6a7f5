//! The names behind the numbers in the book's rows.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::ledger::fold::SeriesNames;
use crate::ledger::hash_chain::canonical::{ADMITTED_NAME, WAIVED_NAME};

/// Series and outcomes by number. Series that are only in the tally get the numbers that the book would give them next.
#[derive(Debug)]
pub(crate) struct NameTable {
    series: HashMap<i64, [String; 3]>,
    numbers: HashMap<[String; 3], i64>,
    outcomes: HashMap<i64, String>,
    next: i64,
}

impl NameTable {
    pub(crate) fn from_book(book: &Connection) -> rusqlite::Result<Self> {
        let mut query = book.prepare("SELECT series, department, subsystem, command FROM series")?;
        let series: HashMap<i64, [String; 3]> = query
            .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])))?
            .collect::<rusqlite::Result<_>>()?;
        let mut query = book.prepare("SELECT code, name FROM outcome")?;
        let outcomes = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let numbers = series.iter().map(|(number, names)| (names.clone(), *number)).collect();
        let next = series.keys().max().map_or(0, |last| last + 1);
        Ok(Self { series, numbers, outcomes, next })
    }

    /// Returns the number of a series.
    pub(crate) fn series_number(&mut self, names: &SeriesNames) -> i64 {
        let names = [&names.department, &names.subsystem, &names.command].map(ToString::to_string);
        if let Some(number) = self.numbers.get(&names) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.series.insert(number, names.clone());
        self.numbers.insert(names, number);
        number
    }

    /// Returns department, subsystem and command, or a text for a number without a series.
    pub(crate) fn series_text(&self, number: i64) -> String {
        self.series
            .get(&number)
            .map_or_else(|| format!("series {number}, which is not in the book"), |names| names.join("/"))
    }

    /// Returns an outcome's name.
    pub(crate) fn outcome_text(&self, code: i64) -> String {
        match self.outcomes.get(&code) {
            Some(name) => name.clone(),
            None if code == 0 => ADMITTED_NAME.to_owned(),
            None if code == i64::from(crate::ledger::values::measures::WAIVED_CODE) => WAIVED_NAME.to_owned(),
            None => format!("outcome {code}, which is not in the book"),
        }
    }
}
