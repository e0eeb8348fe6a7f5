//! The final comparison: ledger counts beside the requests that subsystems received and the responses that departments
//! got.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use tallygate::ledger::{LedgerFiles, UsageRow};
use tallygate::model::{CalendarOffset, Outcome, Window};
use tallygate::report::render::fitted_table::{ColumnHeading, FittedTable};
use tallygate::report::render::{TableTarget, render_table};
use tallygate::report::{GroupKeys, ReportRange, UsageReport};

use crate::city::Line;
use crate::departments::Answers;
use crate::pki::YOU;

/// The contents of a run's ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) rows: Vec<UsageRow>,
    calendar: CalendarOffset,
}

/// Reads the ledger of a run from its files, as a finance system would.
pub(crate) fn read(path: &Path) -> anyhow::Result<Ledger> {
    let files = LedgerFiles::open(path)?;
    Ok(Ledger { rows: files.usage_by_hour(Window(0)..Window(u32::MAX))?, calendar: files.calendar() })
}

impl Ledger {
    /// The same report as that of `tallygate report usage`.
    pub(crate) fn usage(&self) -> anyhow::Result<String> {
        let Range { start: from, end: to } = self.hours();
        let usage = UsageReport::group(&self.rows, ReportRange { from, to }, self.calendar, GroupKeys::default())?;
        Ok(render_table(&usage, TableTarget::from_stdout()))
    }

    /// The hours of the run.
    pub(crate) fn hours(&self) -> Range<Window> {
        let windows = || self.rows.iter().map(|row| row.window);
        let first = windows().min().unwrap_or(Window(0));
        first..windows().max().unwrap_or(first).next()
    }
}

/// Three independent counts of the same commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    ledger: u64,
    received: u64,
    answered: u64,
}

/// All lines of admitted commands, and the refusals of all departments.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    admitted: BTreeMap<Line, Counted>,
    refused_ledger: u64,
    refused_answered: u64,
    unanswered: u64,
}

impl Comparison {
    pub(crate) fn new(rows: &[UsageRow], received: &BTreeMap<Line, u64>, answers: &Answers) -> Self {
        let mut comparison = Self { unanswered: answers.unanswered.all().values().sum(), ..Self::default() };
        rows.iter().for_each(|row| comparison.add_row(row));
        for (line, count) in received {
            comparison.line(line).received += count;
        }
        for (line, count) in answers.answered.all() {
            comparison.line(&line).answered += count;
        }
        comparison.refused_answered = answers.refused.all().values().sum();
        comparison
    }

    fn add_row(&mut self, row: &UsageRow) {
        let line = Line::new(row.department.as_str(), row.subsystem.as_str(), row.command.as_str());
        match row.outcome {
            Outcome::Finished(_) => self.line(&line).ledger += row.totals.commands,
            Outcome::Refused(_) if line.department == YOU => {} // the user's calls: no department saw the response
            Outcome::Refused(_) => self.refused_ledger += row.totals.commands,
        }
    }

    fn line(&mut self, line: &Line) -> &mut Counted {
        self.admitted.entry(line.clone()).or_default()
    }

    /// Whether all three counts are equal in every line.
    pub(crate) fn is_balanced(&self) -> bool {
        let lines = self.admitted.iter().all(|(line, counted)| is_equal(line, counted));
        lines && self.refused_ledger == self.refused_answered && self.unanswered == 0
    }

    /// The comparison as a table, with differences marked.
    pub(crate) fn table(&self) -> String {
        let mut table = FittedTable::new([
            ColumnHeading::text("department"),
            ColumnHeading::text("command"),
            ColumnHeading::number("ledger"),
            ColumnHeading::number("received"),
            ColumnHeading::number("answered"),
            ColumnHeading::text(""),
        ]);
        for (line, counted) in &self.admitted {
            let command = format!("{} {}", line.subsystem, line.command);
            let mark = if is_equal(line, counted) { "" } else { "DIFFERENT" };
            table.add_row([line.department.clone(), command].into_iter().chain(numbers(line, counted, mark)));
        }
        let all = Line::new("all", "", "");
        let sum = self.sum();
        table.add_row(["all admitted".into(), String::new()].into_iter().chain(numbers(&all, &sum, "")));
        let (ledger, answered) = (self.refused_ledger.to_string(), self.refused_answered.to_string());
        let mark = if ledger == answered { "" } else { "DIFFERENT" };
        table.add_row(["all refused", "", &ledger, "-", &answered, mark].map(str::to_owned));
        table.render(TableTarget::from_stdout())
    }

    /// Sums over the city's own departments.
    fn sum(&self) -> Counted {
        let own = self.admitted.iter().filter(|(line, _)| line.department != YOU);
        own.fold(Counted::default(), |sum, (_, counted)| Counted {
            ledger: sum.ledger + counted.ledger,
            received: sum.received + counted.received,
            answered: sum.answered + counted.answered,
        })
    }
}

/// The user's curl does not count, so only two counts of the user's calls can be compared.
fn is_equal(line: &Line, counted: &Counted) -> bool {
    counted.ledger == counted.received && (line.department == YOU || counted.ledger == counted.answered)
}

fn numbers(line: &Line, counted: &Counted, mark: &str) -> [String; 4] {
    let answered = if line.department == YOU { "-".to_owned() } else { counted.answered.to_string() };
    [counted.ledger.to_string(), counted.received.to_string(), answered, mark.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(department: &str, counted: Counted) -> Comparison {
        let admitted = BTreeMap::from([(Line::new(department, "parking", "lot.read"), counted)]);
        Comparison { admitted, ..Comparison::default() }
    }

    #[test]
    fn books_balance_only_if_all_three_counts_agree() {
        for (department, ledger, received, answered, balanced) in [
            ("tourism-office", 3, 3, 3, true),
            ("tourism-office", 4, 3, 3, false),
            ("tourism-office", 3, 3, 2, false),
            (YOU, 3, 3, 0, true),
            (YOU, 3, 2, 0, false),
        ] {
            let counted = Counted { ledger, received, answered };
            assert_eq!(comparison(department, counted).is_balanced(), balanced, "{department} {counted:?}");
        }
    }

    #[test]
    fn unreported_refusal_is_a_difference() {
        assert!(!Comparison { refused_ledger: 1, ..Comparison::default() }.is_balanced());
        assert!(!Comparison { unanswered: 1, ..Comparison::default() }.is_balanced());
    }
}
