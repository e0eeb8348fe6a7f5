//! The names of departments, as configured: for people who read reports.
//!
//! Guarantees:
//! - A name is written when it is new or has changed, and never removed. So usage of a removed department keeps its
//!   name.
//! - No seal covers names: counts and bills use the department's id.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use crate::model::Name;

/// Departments with their names.
pub(crate) type DepartmentNames = Vec<(Name, String)>;

/// A department's name, and since when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatedName {
    /// The name.
    pub name: String,
    /// The time at which the name was written.
    pub since: Timestamp,
}

/// Returns the latest name of every department, with its time.
pub(crate) fn dated_department_names(book: &Connection) -> rusqlite::Result<BTreeMap<String, DatedName>> {
    let mut query = book.prepare("SELECT department, name, since FROM department_name ORDER BY number")?;
    let names = query.query_map([], |row| {
        let since: String = row.get(2)?;
        // No seal covers names: a time that cannot be read is that of the oldest name.
        Ok((row.get(0)?, DatedName { name: row.get(1)?, since: since.parse().unwrap_or(Timestamp::MIN) }))
    })?;
    names.collect() // of several rows of a department, the last one stays
}

/// Returns the latest name of every department.
pub(crate) fn all_department_names(book: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut query = book.prepare("SELECT department, name FROM department_name ORDER BY number")?;
    // Of several rows of a department, the last one stays.
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Writes the names that are new or have changed.
pub(crate) fn write_department_names(
    transaction: &Transaction<'_>,
    live: &DepartmentNames,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let known = all_department_names(transaction)?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO department_name (department, name, since) VALUES (?, ?, ?)")?;
    for (department, name) in live.iter().filter(|(department, name)| known.get(department.as_str()) != Some(name)) {
        insert.execute(params![department.as_str(), name, now.to_string()])?;
    }
    Ok(())
}
