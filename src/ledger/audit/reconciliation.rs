//! Reconciliation: admitted = ended + in flight, for every epoch, hour of admission and series.
//!
//! The equation (conservation) holds for commands and for units, including waived units. Late ends are attributed to
//! the hour of their admission.
//!
//! Guarantees:
//! - Memory holds only balances that are still open: hours whose streams continue in a later hour.
//! - A difference that an epoch with lost counts (`machine died`, `tally missing`) can explain is a note about that
//!   epoch. The note excuses no difference of other epochs, and none of days before that epoch began.

use std::collections::{BTreeMap, HashSet};

use rusqlite::Connection;

use crate::ledger::values::measures::WAIVED_CODE;
use crate::model::Window;

use super::calendar_days::CalendarDays;
use super::epoch_check::EpochTable;
use super::findings::{AuditCheck, AuditReport};
use super::hour_reader::HourRows;
use super::name_table::NameTable;
use super::open_epoch::OpenEpoch;

/// The most open balances at once; more than the streams that any gateway can have beyond the end of their hour.
const OPEN_BALANCES_MAX: usize = 1_000_000;
/// The first outcome code of refusals. Refused commands were never admitted.
const REFUSAL_CODE_MIN: i64 = 101;

/// The key of a balance. Days do not contain their epochs, and format 1 did not contain how late an end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BalanceKey {
    /// All admissions before the horizon.
    Days { series: i64 },
    /// All admissions of an epoch of format 1.
    Epoch { epoch: u32, series: i64 },
    /// The admissions of one hour.
    Hour { window: Window, series: i64, epoch: u32 },
}

/// Computes admitted - ended, hour by hour.
#[derive(Debug)]
pub(crate) struct Reconciliation<'a> {
    days: &'a CalendarDays,
    epochs: &'a EpochTable,
    /// The open epoch, whose unsealed rows come from the tally, and its first unsealed hour.
    open_epoch: Option<(u32, Window)>,
    /// Commands and units.
    open_balances: BTreeMap<BalanceKey, [i128; 2]>,
    /// Epochs that have hours before the horizon, each with the first of these hours.
    compacted: BTreeMap<u32, Window>,
    /// For each series, the first day by whose end more commands had ended than were ever admitted.
    shortened: BTreeMap<i64, Window>,
    is_given_up: bool,
}

impl<'a> Reconciliation<'a> {
    /// Starts with the commands that were admitted before the horizon and had not ended by then.
    pub(crate) fn new(
        book: &Connection,
        (days, epochs): (&'a CalendarDays, &'a EpochTable),
        open: Option<&OpenEpoch>,
    ) -> rusqlite::Result<Self> {
        let open = open.map(|open| (open.epoch, open.first_unsealed));
        let rolled = compacted_epochs(book, days.compacted_before)?;
        let (rest, short) = (BTreeMap::new(), BTreeMap::new());
        let mut balance = Self {
            days,
            epochs,
            open_epoch: open,
            open_balances: rest,
            compacted: rolled,
            shortened: short,
            is_given_up: false,
        };
        balance.add_days(book)?;
        Ok(balance)
    }

    /// Adds the days in order; within a day, admissions come before ends.
    fn add_days(&mut self, book: &Connection) -> rusqlite::Result<()> {
        let query = "SELECT series, outcome, commands, units, day FROM day_sum WHERE day < ?1 AND outcome < ?2
                     ORDER BY day, series, outcome";
        let mut query = book.prepare(query)?;
        let mut rows = query.query((self.days.compacted_before.0, REFUSAL_CODE_MIN))?;
        while let Some(row) = rows.next()? {
            let series: i64 = row.get(0)?;
            let sign = if row.get::<_, i64>(1)? == 0 { 1 } else { -1 };
            // The waived commands are among those that ended.
            let is_waived = row.get::<_, i64>(1)? == i64::from(WAIVED_CODE);
            let commands = if is_waived { 0 } else { row.get(2)? };
            let [commands, units] = self.add_signed(BalanceKey::Days { series }, sign, [commands, row.get(3)?]);
            if commands < 0 || units < 0 {
                self.shortened.entry(series).or_insert(Window(row.get(4)?));
            }
        }
        Ok(())
    }

    /// Adds an hour of the book, without the rows that are replaced by the tally's.
    pub(crate) fn add_hour(&mut self, hour: &HourRows, report: &mut AuditReport) {
        let is_replaced =
            |epoch: u32| self.open_epoch.is_some_and(|(open, floor)| open == epoch && hour.window >= floor);
        let replaced_epochs: HashSet<u32> = hour.epochs().into_iter().filter(|epoch| is_replaced(*epoch)).collect();
        for row in hour.admissions.iter().filter(|row| !replaced_epochs.contains(&row.epoch)) {
            self.add_admission((hour.window, row.series, row.epoch), row.numbers);
        }
        let admitted_in = |late: i64| Window(u32::try_from(i64::from(hour.window.0).saturating_sub(late)).unwrap_or(0));
        let ends =
            hour.ends.iter().filter(|row| row.outcome < REFUSAL_CODE_MIN && !replaced_epochs.contains(&row.epoch));
        for row in ends {
            self.add_end((admitted_in(row.late), row.series, row.epoch), [row.numbers.commands, row.numbers.units]);
        }
        for row in hour.waived.iter().filter(|row| !replaced_epochs.contains(&row.epoch)) {
            self.add_end((admitted_in(row.late), row.series, row.epoch), [0, row.numbers[1]]);
        }
        report.checked.balances += (hour.admissions.len()) as u64;
        self.check_bound(report);
    }

    /// Adds the rows in flight of epochs whose tally is not here. They are as old as the rows of these epochs, so a
    /// book without its tally balances as of its last fold.
    pub(crate) fn add_stored(&mut self, book: &Connection) -> rusqlite::Result<()> {
        let mut query = book.prepare("SELECT \"window\", series, epoch, commands, units FROM in_flight")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let whose = (Window(row.get(0)?), row.get(1)?, row.get(2)?);
            if self.open_epoch.is_none_or(|(open, _)| open != whose.2) {
                self.add_end(whose, [row.get(3)?, row.get(4)?]);
            }
        }
        Ok(())
    }

    /// Adds the tally's counts of the open epoch, and its commands in flight.
    pub(crate) fn add_open_epoch(&mut self, open: &OpenEpoch) {
        for (window, series, numbers) in &open.admitted {
            self.add_admission((*window, *series, open.epoch), *numbers);
        }
        for (window, series, numbers) in open.ended.iter().chain(&open.in_flight) {
            self.add_end((*window, *series, open.epoch), *numbers);
        }
    }

    fn add_admission(&mut self, whose: (Window, i64, u32), numbers: [i64; 2]) {
        let _ = self.add_signed(self.balance_key(whose), 1, numbers);
    }

    fn add_end(&mut self, whose: (Window, i64, u32), numbers: [i64; 2]) {
        let _ = self.add_signed(self.balance_key(whose), -1, numbers);
    }

    fn balance_key(&self, (window, series, epoch): (Window, i64, u32)) -> BalanceKey {
        match self.epochs.is_of_format_1(epoch) {
            _ if window < self.days.compacted_before => BalanceKey::Days { series },
            true if self.compacted.contains_key(&epoch) => BalanceKey::Days { series },
            true => BalanceKey::Epoch { epoch, series },
            false => BalanceKey::Hour { window, series, epoch },
        }
    }

    /// Adds to a balance and returns the new balance.
    fn add_signed(&mut self, key: BalanceKey, sign: i128, [commands, units]: [i64; 2]) -> [i128; 2] {
        if self.is_given_up {
            return [0, 0];
        }
        let rest = self.open_balances.entry(key).or_default();
        rest[0] += sign * i128::from(commands);
        rest[1] += sign * i128::from(units);
        *rest
    }

    /// Removes settled balances, and gives up at the limit of open balances.
    fn check_bound(&mut self, report: &mut AuditReport) {
        self.open_balances.retain(|_, rest| *rest != [0, 0]);
        if self.open_balances.len() > OPEN_BALANCES_MAX {
            let what = format!("more than {OPEN_BALANCES_MAX} balances are open; the rest was not compared");
            report.add_finding(AuditCheck::Balance, "the whole book", what);
            self.is_given_up = true;
            self.open_balances.clear();
        }
    }

    /// Reports all differences. If the open epoch counted while it was read, only ends without an admission are
    /// reported for it.
    pub(crate) fn finish(mut self, open: Option<&OpenEpoch>, (names, report): (&NameTable, &mut AuditReport)) {
        self.open_balances.retain(|_, rest| *rest != [0, 0]);
        for series in self.shortened.keys() {
            // Later admissions exceed the recorded ends.
            self.open_balances.entry(BalanceKey::Days { series: *series }).or_default();
        }
        let moving = open.filter(|open| !open.is_unchanged).map(|open| open.epoch);
        let mut missing: BTreeMap<u32, [i128; 2]> = BTreeMap::new();
        for (key, rest) in &self.open_balances {
            let is_moving =
                moving.is_some_and(|epoch| self.may_be_of(key, epoch)) && rest.iter().all(|rest| *rest >= 0);
            match self.gap_epoch(key) {
                _ if is_moving && !self.is_short(key) => {}
                Some(epoch) => add_pair(missing.entry(epoch).or_default(), *rest),
                None => report.add_finding(AuditCheck::Balance, self.describe_key(key, names), balance_text(*rest)),
            }
        }
        for (epoch, [commands, units]) in missing {
            report.add_note(format!(
                "epoch {epoch} ended `{}`: the end of {commands} admitted commands with {units} units is unknown",
                self.epochs.ending(epoch)
            ));
        }
    }

    fn may_be_of(&self, key: &BalanceKey, epoch: u32) -> bool {
        match key {
            BalanceKey::Days { .. } => self.compacted.contains_key(&epoch),
            BalanceKey::Epoch { epoch: of, .. } | BalanceKey::Hour { epoch: of, .. } => *of == epoch,
        }
    }

    fn is_short(&self, key: &BalanceKey) -> bool {
        matches!(key, BalanceKey::Days { series } if self.shortened.contains_key(series))
    }

    /// Returns the epoch that may have lost the missing counts.
    fn gap_epoch(&self, key: &BalanceKey) -> Option<u32> {
        let lost = |epoch: &u32| self.epochs.has_lost_counts(*epoch);
        match key {
            BalanceKey::Epoch { epoch, .. } | BalanceKey::Hour { epoch, .. } => Some(*epoch).filter(lost),
            BalanceKey::Days { series } => {
                let end = self
                    .shortened
                    .get(series)
                    .map_or(self.days.compacted_before, |day| self.days.compacted_day(*day).end);
                self.compacted.iter().find(|(epoch, first)| lost(epoch) && **first < end).map(|(epoch, _)| *epoch)
            }
        }
    }

    fn describe_key(&self, key: &BalanceKey, names: &NameTable) -> String {
        match key {
            BalanceKey::Days { series } => match self.shortened.get(series) {
                Some(day) => format!("day {}, {}", self.days.calendar.date_of(*day), names.series_text(*series)),
                None => format!("days before {}, {}", self.days.compacted_before, names.series_text(*series)),
            },
            BalanceKey::Epoch { epoch, series } => format!("epoch {epoch}, {}", names.series_text(*series)),
            BalanceKey::Hour { window, series, epoch } => {
                format!("epoch {epoch}, hour {window}, {}", names.series_text(*series))
            }
        }
    }
}

/// Returns the epochs that sealed hours before the horizon, each with the first of these hours.
fn compacted_epochs(book: &Connection, compacted_before: Window) -> rusqlite::Result<BTreeMap<u32, Window>> {
    let query = "SELECT epoch, min(\"window\") FROM seal WHERE kind = 'hour' AND \"window\" < ?1 GROUP BY epoch";
    let mut query = book.prepare(query)?;
    query.query_map([compacted_before.0], |row| Ok((row.get(0)?, Window(row.get(1)?))))?.collect()
}

fn add_pair(sum: &mut [i128; 2], more: [i128; 2]) {
    sum[0] += more[0];
    sum[1] += more[1];
}

fn balance_text([commands, units]: [i128; 2]) -> String {
    match (commands, units) {
        (0, 0) => "more had ended by its end than had been admitted".to_owned(),
        (0, units) => format!("units admitted less units ended or in flight are {units}, not 0"),
        (commands, units) if commands > 0 => {
            format!("{commands} commands ({units} units) were admitted, and neither ended nor are in flight")
        }
        (commands, units) => {
            format!("{} commands ({} units) ended or are in flight and were never admitted", -commands, -units)
        }
    }
}
