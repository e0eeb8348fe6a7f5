//! `tallygate report forecast`: what departments will have used at the end of the month, and when they will meet their
//! quotas.
//!
//! Guarantees:
//! - The ledger is read day by day, so memory holds the rows of one day, and two numbers for each department and hour
//!   of four weeks.
//! - `--at` shows what the same command would have shown at that time, as far as the ledger knows it today.
//!
//! Leaves to `report`: the forecast and its text.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::config;
use crate::ledger::LedgerFiles;
use crate::ledger::audit::ledger_coverage;
use crate::model::{Name, NameInterner, PeriodLength, Quota, Window};
use crate::report::render::TableTarget;
use crate::report::{
    DepartmentForecast, DepartmentHours, ForecastBasis, ForecastMoment, ForecastReport, PeriodUse, render_forecast_csv,
    render_forecast_json, render_forecast_table,
};

use crate::cli::ledger_paths::LedgerPaths;
use crate::cli::{BadUsage, TableFormat, print_message};

/// Arguments of `tallygate report forecast`.
#[derive(Debug, Args)]
pub(super) struct ForecastArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long = "ledger", value_name = "DB")]
    ledger: PathBuf,
    /// The configuration of the gateway, for its quotas: without it there are no columns of quotas
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only of this department; may be given several times
    #[arg(long = "department", value_name = "ID", value_parser = Name::parse)]
    departments: Vec<Name>,
    /// As of this whole hour, such as 2026-10-15T08:00:00+08:00: usage from it on is left out [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TableFormat,
}

/// Prints a forecast.
pub(super) fn report_forecast(args: &ForecastArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let quotas = args.config.as_ref().map(|path| read_quotas(path, clock)).transpose()?.unwrap_or_default();
    let report = ForecastReader::open(args, clock)?.read(&quotas)?;
    let text = match args.format {
        TableFormat::Table => render_forecast_table(&report, TableTarget::from_stdout()),
        TableFormat::Csv => render_forecast_csv(&report)?,
        TableFormat::Json => render_forecast_json(&report)?,
    };
    out.write_all(text.as_bytes())?;
    if report.basis.hours() == 0 {
        print_message("note: no hour of the last four weeks is complete yet, so there is nothing to forecast from");
    }
    Ok(ExitCode::SUCCESS)
}

/// The quotas of every department of a configuration.
fn read_quotas(path: &std::path::Path, clock: &Clock) -> anyhow::Result<BTreeMap<Name, Vec<Quota>>> {
    let loaded = config::load_configuration(path, &NameInterner::default(), clock);
    let configuration = loaded.map_err(|problems| BadUsage(format!("--config: {problems}")))?;
    let departments = configuration.snapshot.departments.iter();
    Ok(departments.map(|policy| (policy.department.id.clone(), policy.quotas.clone())).collect())
}

/// A ledger, and the moment of a forecast from it.
struct ForecastReader<'a> {
    args: &'a ForecastArgs,
    book: PathBuf,
    files: LedgerFiles,
    moment: ForecastMoment,
    /// The end of what is read: behind the present hour, or `--at`.
    end: Window,
}

/// What departments have used.
struct DepartmentUses<'a> {
    /// The departments that are reported; all of them if it is empty.
    wanted: &'a [Name],
    basis: &'a ForecastBasis,
    uses: BTreeMap<Name, (DepartmentHours, PeriodUse)>,
}

impl DepartmentUses<'_> {
    /// The use of a department, if it is reported. Refused commands of callers without a department are nobody's use.
    fn of(&mut self, department: &Name) -> Option<&mut (DepartmentHours, PeriodUse)> {
        let is_wanted = self.wanted.is_empty() || self.wanted.contains(department);
        if !is_wanted || *department == Name::unknown() {
            return None;
        }
        let none = || (DepartmentHours::new(self.basis), PeriodUse::default());
        Some(self.uses.entry(department.clone()).or_insert_with(none))
    }
}

impl<'a> ForecastReader<'a> {
    fn open(args: &'a ForecastArgs, clock: &Clock) -> anyhow::Result<Self> {
        let LedgerPaths { books, .. } = LedgerPaths::find(std::slice::from_ref(&args.ledger))?;
        let [book] = books.as_slice() else {
            let message = format!("--ledger: {} ledgers match; a forecast is made of one", books.len());
            return Err(BadUsage(message).into());
        };
        let files = LedgerFiles::open(book)?;
        let at = args.at.as_deref().map(whole_hour).transpose()?;
        if at.is_some_and(|at| at > clock.window()) {
            return Err(BadUsage("--at: this hour has not begun; leave the option out for now".to_owned()).into());
        }
        let now = at.map_or_else(|| Ok(clock.wall()), |at| Timestamp::from_second(at.start_unix_seconds()))?;
        let moment = ForecastMoment { now, calendar: files.calendar() };
        let end = at.unwrap_or_else(|| clock.window().next());
        Ok(Self { args, book: book.clone(), files, moment, end })
    }

    fn read(&self, quotas: &BTreeMap<Name, Vec<Quota>>) -> anyhow::Result<ForecastReport> {
        let now = self.moment.window();
        let coverage = ledger_coverage(&self.book, &ForecastBasis::weeks_before(now), self.moment.now)?;
        let basis = ForecastBasis::of_ledger(&coverage, now);
        let mut all = DepartmentUses { wanted: &self.args.departments, basis: &basis, uses: BTreeMap::new() };
        for department in quotas.keys() {
            let _ = all.of(department); // also without usage
        }
        self.read_hours(&mut all)?;
        self.read_periods(&mut all)?;
        let forecasts = all.uses.into_iter().map(|(department, (hours, used))| {
            let quotas = quotas.get(&department).map_or(&[][..], Vec::as_slice);
            DepartmentForecast::new(department, (&hours, &basis), (&used, quotas), self.moment)
        });
        let departments = forecasts.collect();
        let complete_to = Some(basis.windows().end).filter(|_| basis.hours() > 0);
        Ok(ForecastReport { moment: self.moment, basis, complete_to, departments })
    }

    /// Reads the hours of the basis and the present one, day by day: a range must not cut a day that is compacted.
    fn read_hours(&self, all: &mut DepartmentUses<'_>) -> anyhow::Result<()> {
        let (now, horizon) = (self.moment.window(), self.files.compacted_before()?);
        let mut day = self.moment.calendar.day_of(all.basis.windows().start.min(now));
        while day < self.end {
            let next = Window(day.0.saturating_add(24));
            for row in self.files.usage_by_hour(day..next.min(self.end))? {
                if let Some((hours, _)) = all.of(&row.department) {
                    hours.add(&row, (now, horizon));
                }
            }
            day = next;
        }
        Ok(())
    }

    fn read_periods(&self, all: &mut DepartmentUses<'_>) -> anyhow::Result<()> {
        for length in [PeriodLength::Month, PeriodLength::Day] {
            let windows = length.containing(self.moment.window(), self.moment.calendar).windows(self.moment.calendar);
            let so_far = windows.start..windows.end.min(self.end);
            if so_far.is_empty() {
                continue; // --at is the begin of the period
            }
            for row in self.files.usage_total(so_far)? {
                if let Some((_, used)) = all.of(&row.department) {
                    used.add(length, &row);
                }
            }
        }
        Ok(())
    }
}

/// Parses the value of `--at`.
fn whole_hour(text: &str) -> Result<Window, BadUsage> {
    let time: Timestamp = text.parse().map_err(|_| {
        BadUsage(format!("--at: {text:?} is not a time; write a whole hour such as 2026-10-15T08:00:00+08:00"))
    })?;
    let window = Window::of_unix_seconds(time.as_second());
    let is_whole = window.start_unix_seconds() == time.as_second() && time.subsec_nanosecond() == 0;
    is_whole.then_some(window).ok_or_else(|| {
        BadUsage(format!("--at: {text:?} is not a whole hour; usage is counted by the hour, so write one with :00:00"))
    })
}
