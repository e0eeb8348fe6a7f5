//! The usage of one hour, summed by department, subsystem and, on request, command.
//!
//! Guarantees:
//! - The names are read once, and the numbers of an hour once, also if they are visited several times.
//! - Groups are in the byte order of their names; a department's own sample is before those of its subsystems.
//! - Every department that was configured by the end of the hour has a sample of its own, without a subsystem and with
//!   0. So the presence of an hour can be proved for each department, also for one without usage.

use std::collections::HashMap;
use std::iter::Peekable;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::ledger::book::book_reader::name_from;
use crate::ledger::values::measures::UsageSums;
use crate::model::{Name, Window};

/// The labels by which the usage of an hour is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HourGrouping {
    /// Department and subsystem.
    #[default]
    Subsystem,
    /// Department, subsystem and command.
    Command,
}

/// The usage of a group in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourUsage<'a> {
    /// The department.
    pub department: &'a Name,
    /// The subsystem; `None` for the department's own sample.
    pub subsystem: Option<&'a Name>,
    /// The command, if usage is summed by it.
    pub command: Option<&'a Name>,
    /// Commands that ended or were refused in the hour, and their units.
    pub sums: UsageSums,
}

/// The groups of all series, and the sums of one hour.
#[derive(Debug)]
pub(super) struct UsageGroups {
    groups: Vec<UsageGroup>,
    /// Positions in `groups`, by series.
    positions: HashMap<u32, u32, foldhash::fast::RandomState>,
    /// The hour whose sums are held.
    hour: Option<Window>,
    /// The sums of the hour, by position; `None` for a group without usage.
    sums: Vec<Option<UsageSums>>,
}

#[derive(Debug)]
struct UsageGroup {
    department: Name,
    subsystem: Option<Name>,
    command: Option<Name>,
    /// The hour in which the department was configured first, for the department's own sample.
    configured_in: Option<Window>,
}

impl UsageGroups {
    /// Reads the names of all series, and the departments that were ever configured.
    pub(super) fn read(book: &Connection, grouping: HourGrouping) -> rusqlite::Result<Self> {
        let configured = configured_departments(book)?;
        let mut table = GroupTable::new(configured.into_iter(), grouping);
        let query = "SELECT series, department, subsystem, command FROM series ORDER BY department, subsystem, command";
        let mut query = book.prepare(query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            table.add_series(row)?;
        }
        let (groups, positions) = table.finish();
        let sums = vec![None; groups.len()];
        Ok(Self { groups, positions, hour: None, sums })
    }

    /// Reads the numbers of an hour, unless they are held already. A compacted day has them in its first hour.
    pub(super) fn read_hour(
        &mut self,
        book: &Connection,
        (window, is_compacted): (Window, bool),
    ) -> rusqlite::Result<()> {
        if self.hour == Some(window) {
            return Ok(());
        }
        self.hour = None;
        self.sums.fill(None);
        let mut query = book.prepare_cached(if is_compacted { SELECT_DAY } else { SELECT_HOUR })?;
        let mut rows = query.query([window.0])?;
        while let Some(row) = rows.next()? {
            let position = self.positions.get(&row.get(0)?).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            // A negative number, which the audit reports, counts as 0.
            let number = |column| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0));
            let more = UsageSums { commands: number(1)?, units: number(2)? };
            self.sums[*position as usize].get_or_insert_default().add(more);
        }
        self.hour = Some(window);
        Ok(())
    }

    /// Returns the usage of the hour that was read last, which must be `window`.
    pub(super) fn usage_of(&self, window: Window) -> impl Iterator<Item = HourUsage<'_>> {
        self.groups.iter().zip(&self.sums).filter_map(move |(group, sums)| {
            let sums = match group.configured_in {
                Some(configured) => (configured <= window).then(UsageSums::default),
                None => *sums,
            };
            let UsageGroup { department, subsystem, command, .. } = group;
            Some(HourUsage { department, subsystem: subsystem.as_ref(), command: command.as_ref(), sums: sums? })
        })
    }
}

const SELECT_HOUR: &str = "SELECT series, commands, units FROM usage WHERE \"window\" = ?";
const SELECT_DAY: &str = "SELECT series, commands, units FROM day_sum WHERE day = ? AND outcome NOT IN (0, 100)";

/// Returns the departments that were ever configured, sorted, with the hour in which each was recorded first.
fn configured_departments(book: &Connection) -> rusqlite::Result<Vec<(Name, Window)>> {
    // The first row of a department: later rows are its later names.
    let query = "SELECT department, since FROM department_name
                 WHERE number IN (SELECT min(number) FROM department_name GROUP BY department) ORDER BY department";
    let mut query = book.prepare(query)?;
    let departments = query.query_map([], |row| {
        // No seal covers this table: a time that cannot be read is that of the oldest hour.
        let since: Option<Timestamp> = row.get_ref(1)?.as_str()?.parse().ok();
        Ok((name_from(row, 0)?, Window::of_unix_seconds(since.map_or(0, Timestamp::as_second))))
    })?;
    departments.collect()
}

/// The groups while they are read: series and configured departments, both sorted by name.
struct GroupTable<D: Iterator<Item = (Name, Window)>> {
    grouping: HourGrouping,
    configured: Peekable<D>,
    groups: Vec<UsageGroup>,
    positions: HashMap<u32, u32, foldhash::fast::RandomState>,
    /// Subsystems and commands: each name is held once.
    names: HashMap<String, Name, foldhash::fast::RandomState>,
}

impl<D: Iterator<Item = (Name, Window)>> GroupTable<D> {
    fn new(configured: D, grouping: HourGrouping) -> Self {
        Self {
            grouping,
            configured: configured.peekable(),
            groups: Vec::new(),
            positions: HashMap::default(),
            names: HashMap::default(),
        }
    }

    fn add_series(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
        let (department, subsystem) = (text(1)?, text(2)?);
        let command = match self.grouping {
            HourGrouping::Subsystem => None,
            HourGrouping::Command => Some(text(3)?),
        };
        if !self.groups.last().is_some_and(|last| last.is_named(department, subsystem, command)) {
            self.begin_group(row)?;
        }
        let position = u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX);
        self.positions.insert(row.get(0)?, position);
        Ok(())
    }

    fn begin_group(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        let department = match self.groups.last() {
            Some(last) if last.department.as_str() == row.get_ref(1)?.as_str()? => last.department.clone(),
            _ => name_from(row, 1)?,
        };
        while let Some(configured) = self.configured.next_if(|(name, _)| *name <= department) {
            self.groups.push(UsageGroup::of_department(configured));
        }
        let subsystem = Some(self.shared_name(row, 2)?);
        let command = match self.grouping {
            HourGrouping::Subsystem => None,
            HourGrouping::Command => Some(self.shared_name(row, 3)?),
        };
        self.groups.push(UsageGroup { department, subsystem, command, configured_in: None });
        Ok(())
    }

    fn shared_name(&mut self, row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Name> {
        let text = row.get_ref(column)?.as_str()?;
        if let Some(name) = self.names.get(text) {
            return Ok(name.clone());
        }
        let name = name_from(row, column)?;
        self.names.insert(text.to_owned(), name.clone());
        Ok(name)
    }

    fn finish(mut self) -> (Vec<UsageGroup>, HashMap<u32, u32, foldhash::fast::RandomState>) {
        self.groups.extend(self.configured.map(UsageGroup::of_department));
        self.groups.shrink_to_fit();
        (self.groups, self.positions)
    }
}

impl UsageGroup {
    fn of_department((department, configured_in): (Name, Window)) -> Self {
        Self { department, subsystem: None, command: None, configured_in: Some(configured_in) }
    }

    fn is_named(&self, department: &str, subsystem: &str, command: Option<&str>) -> bool {
        self.department.as_str() == department
            && self.subsystem.as_ref().map(Name::as_str) == Some(subsystem)
            && self.command.as_ref().map(Name::as_str) == command
    }
}
