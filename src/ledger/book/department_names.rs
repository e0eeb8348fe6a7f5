//! The names of departments, as the configuration has them: for people who read reports.
//!
//! Guarantees: a name is written when it is new or has changed, and never removed, so that usage of a department that is gone
//! keeps its name. No seal covers names: what is counted and billed goes by the department's id.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use crate::model::Name;

/// Departments and their names.
pub(crate) type DepartmentNames = Vec<(Name, String)>;

/// The latest name of every department.
pub(crate) fn all_department_names(book: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut query = book.prepare("SELECT department, name FROM department_name ORDER BY number")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect() // the last of a department stays
}

/// Writes the names that are not known yet.
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
