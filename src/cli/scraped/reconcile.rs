//! `tallygate report reconcile`: compares ledgers with a Prometheus, hour by hour, and names the causes of differences.
//!
//! Guarantees:
//! - Nothing is written except the file of `--missing`.
//! - One day is read after the other from the Prometheus, the next one while one is compared; a request and its answer
//!   are bounded.
//! - Exit code 1 if anything stays unexplained.
//!
//! Leaves to `report`: the comparison. Leaves to `missing_hours`: the file.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{ArgGroup, Args};

use crate::clock::Clock;
use crate::model::{CalendarOffset, Name, Window};
use crate::report::render::{self, TableTarget};
use crate::report::{
    ContradictoryHour, HourCause, ReportRange, ScrapedHour, ScrapedHours, ScrapedSeries, SpanFacts,
    UsageReconciliation, UsageTable,
};

use crate::cli::ledger_paths::LedgerPaths;
use crate::cli::prometheus::{PrometheusArgs, PrometheusHours, QueryAnswer};
use crate::cli::{BadUsage, NOT_SO, TableFormat, distinct_ledgers, print_message};

use super::ledger_hours::{LedgerHours, usage_table};
use super::missing_hours::{MissingHours, MissingHoursArgs, SeenSources};
use super::scrape_history::ScrapeHistory;
use super::scraped_usage::print_warnings;
use super::subsystem_file;

/// Arguments of `tallygate report reconcile`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").args(["prometheus"]).required(true))]
pub(in crate::cli) struct ReconcileArgs {
    /// The ledger's book (the tally is found beside it), or a quoted pattern; several ledgers, each of another gateway,
    /// are added up
    #[arg(long = "ledger", value_name = "DB", num_args = 1.., required = true)]
    ledgers: Vec<PathBuf>,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// The label that tells gateways apart, such as instance; needed with several ledgers
    #[arg(long, value_name = "LABEL")]
    sum_by: Option<String>,
    /// The job that scrapes /metrics/hours, whose `up` tells why an hour is missing
    #[arg(long, value_name = "JOB", default_value = "tallygate-hours")]
    job: String,
    /// One whole month, 2026-10, or day, 2026-10-05, instead of --from and --to
    #[arg(long, value_name = "PERIOD", conflicts_with_all = ["from", "to"])]
    period: Option<String>,
    /// The first day or month, in the ledger's calendar, or a whole hour such as 2026-10-01T08:00:00+08:00 [default:
    /// the beginning of this month]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The end of the range, exclusive: a day, a month or a whole hour [default: the end of this month]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// Only of this department; may be given several times
    #[arg(long = "department", value_name = "ID", value_parser = Name::parse)]
    departments: Vec<Name>,
    /// A subsystem's own counts, which are compared as well: CSV with department,day,commands, and on wish subsystem
    #[arg(long, value_name = "FILE")]
    subsystem_counts: Option<PathBuf>,
    #[command(flatten)]
    missing: MissingHoursArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TableFormat,
}

/// Prints the comparison.
pub(in crate::cli) fn reconcile(args: &ReconcileArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let LedgerPaths { books, skipped } = LedgerPaths::find(&args.ledgers)?;
    for path in &skipped {
        print_message(&format!("note: {} is not a ledger: left out", path.display()));
    }
    let Some(source) = PrometheusHours::prepare(&args.prometheus, clock)? else {
        return Err(BadUsage("--prometheus: give the URL of the Prometheus".to_owned()).into());
    };
    check_sources(args, &books)?;
    let calendar = distinct_ledgers::check(&books)?;
    let (range, now) = (parse_range(args, calendar, clock.window())?, clock.window());
    let counts = args.subsystem_counts.as_deref().map(subsystem_file::read_counts).transpose()?;
    let windows = range.windows();
    let mut reader = BothSides {
        ledgers: LedgerHours::open(&books, &windows)?,
        source: &source,
        history: ScrapeHistory::new(&source, &args.job, args.sum_by.as_deref()),
        sum_by: args.sum_by.as_deref(),
        both: UsageReconciliation::new(range, calendar, args.departments.clone(), now),
        seen: SeenSources::default(),
    };
    reader.compare_all(&day_parts(&(windows.start..windows.end.min(now.next())), calendar))?;
    reader.ledgers.confirm_unchanged()?;
    let BothSides { ledgers, mut both, seen, .. } = reader;
    let mut corrections = ledgers.corrections(&windows, calendar);
    corrections.retain(|row| both.selects(&row.adjustment.department));
    both.corrections = corrections;
    if let Some(counts) = &counts {
        let resent = subsystem_file::SentAgain { source: &source, counts };
        both.subsystems = Some(subsystem_file::compare(&books, &both, (counts, &resent), ledgers.compacted_before())?);
    }
    MissingHours::of(&both, ledgers.compacted_before(), now).write(&args.missing, &books, &seen)?;
    print_report(&both, args.format, out)?;
    Ok(if both.is_explained() { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn check_sources(args: &ReconcileArgs, books: &[PathBuf]) -> Result<(), BadUsage> {
    if books.len() > 1 && args.sum_by.is_none() {
        let message = "--ledger: several ledgers need --sum-by LABEL, the label by which the Prometheus tells their \
                       gateways apart, for example --sum-by instance";
        return Err(BadUsage(message.to_owned()));
    }
    if books.len() > 1 && args.missing.is_asked_for() {
        let message = "--missing writes the hours of one ledger: reconcile each ledger by itself, with --matcher for its \
                       gateway";
        return Err(BadUsage(message.to_owned()));
    }
    Ok(())
}

fn parse_range(args: &ReconcileArgs, calendar: CalendarOffset, now: Window) -> Result<ReportRange, BadUsage> {
    let range = match &args.period {
        Some(period) => ReportRange::from_period(period, calendar),
        None => ReportRange::parse(args.from.as_deref(), args.to.as_deref(), calendar, now),
    };
    range.map_err(|error| BadUsage(error.to_string()))
}

fn print_report(both: &UsageReconciliation, format: TableFormat, out: &mut impl Write) -> anyhow::Result<()> {
    let text = match format {
        TableFormat::Table => render::render_reconciliation_table(both, TableTarget::from_stdout()),
        TableFormat::Csv => render::render_reconciliation_csv(both)?,
        TableFormat::Json => render::render_reconciliation_json(both)?,
    };
    out.write_all(text.as_bytes())?;
    if format != TableFormat::Table {
        print_message(&render::explanation(both));
    }
    let outside = both.subsystems.as_ref().map_or(0, |subsystems| subsystems.outside);
    if outside > 0 {
        print_message(&format!(
            "note: --subsystem-counts has {outside} days of departments outside of the period: ignored"
        ));
    }
    Ok(())
}

/// Divides a range at the beginnings of its days.
fn day_parts(windows: &Range<Window>, calendar: CalendarOffset) -> Vec<Range<Window>> {
    let mut parts = Vec::new();
    let mut start = windows.start;
    while start < windows.end {
        let end = Window(calendar.day_of(start).0 + 24).min(windows.end);
        parts.push(start..end);
        start = end;
    }
    parts
}

/// Both sides while they are compared.
struct BothSides<'a> {
    ledgers: LedgerHours,
    source: &'a PrometheusHours,
    history: ScrapeHistory<'a>,
    sum_by: Option<&'a str>,
    both: UsageReconciliation,
    seen: SeenSources,
}

/// The hour of a Prometheus.
enum HourView<'a> {
    /// Nothing is expected, and nothing is there.
    Outside,
    /// What can be used, and why it is not all.
    Found(UsageTable<'a>, Option<HourCause>),
    /// Its series contradict each other.
    Contradictory(ContradictoryHour),
}

impl BothSides<'_> {
    /// Compares all parts. The Prometheus answers the next one while one is compared: each takes half of the time.
    fn compare_all(&mut self, parts: &[Range<Window>]) -> anyhow::Result<()> {
        let source = self.source;
        thread::scope(|scope| {
            let ask = |part: Option<&'_ Range<Window>>| {
                let part = part.cloned()?;
                Some(scope.spawn(move || source.series(&part)))
            };
            let mut asked = ask(parts.first());
            for (position, part) in parts.iter().enumerate() {
                let Some(asker) = asked.take() else { break };
                let answer = asker.join().unwrap_or_else(|panic| resume_unwind(panic))?;
                asked = ask(parts.get(position + 1));
                self.compare(part, &answer)?;
            }
            Ok(())
        })
    }

    /// Compares the hours of one day, or of a part of it.
    fn compare(&mut self, part: &Range<Window>, answer: &QueryAnswer) -> anyhow::Result<()> {
        let QueryAnswer { series, warnings } = answer;
        print_warnings(warnings);
        self.seen.add(series);
        let hours = ScrapedHours::read_with_contradictions(series, part, self.sum_by)?;
        if part.start < self.ledgers.compacted_before() {
            self.ledgers.refuse_cut_days(part)?;
            return self.compare_span(part, part, (&hours, series));
        }
        for window in (part.start.0..part.end.0).map(Window) {
            self.compare_span(&(window..window.next()), part, (&hours, series))?;
        }
        Ok(())
    }

    /// Compares one hour, or all hours of a day of which the ledger has only the sum.
    fn compare_span(
        &mut self,
        span: &Range<Window>,
        part: &Range<Window>,
        (hours, series): (&ScrapedHours, &[ScrapedSeries]),
    ) -> anyhow::Result<()> {
        let table = self.ledgers.usage(span.clone())?;
        let ledger = usage_table(&table);
        let views = (span.start.0..span.end.0).map(Window);
        let views: Vec<_> = views
            .map(|window| Ok((window, self.view(window, part, (hours, series))?)))
            .collect::<anyhow::Result<_>>()?;
        if views.iter().all(|(_, view)| matches!(view, HourView::Outside)) && ledger.is_empty() {
            return Ok(());
        }
        let mut facts = SpanFacts {
            windows: span.clone(),
            scraped: UsageTable::new(),
            causes: BTreeMap::new(),
            is_contradictory: false,
            ledger,
        };
        for (window, view) in &views {
            let (usage, cause) = match view {
                HourView::Outside => continue,
                HourView::Found(usage, cause) => (usage.clone(), *cause),
                HourView::Contradictory(hour) if hour.has_source_of(&facts.ledger) => {
                    (hour.usage(), Some(HourCause::SeveralSources))
                }
                HourView::Contradictory(hour) => {
                    facts.is_contradictory = true;
                    (hour.usage(), None)
                }
            };
            facts.causes.extend(cause.map(|cause| (*window, cause)));
            for (labels, sums) in usage {
                facts.scraped.entry(labels).or_default().add(sums);
            }
        }
        self.both.add(&facts);
        Ok(())
    }

    fn view<'h>(
        &mut self,
        window: Window,
        part: &Range<Window>,
        (hours, series): (&'h ScrapedHours, &[ScrapedSeries]),
    ) -> anyhow::Result<HourView<'h>> {
        let found: Vec<(&str, &ScrapedHour)> =
            hours.gateways().filter_map(|(gateway, hours)| Some((gateway, hours.get(&window)?))).collect();
        if found.iter().any(|(_, hour)| hour.contradiction().is_some()) {
            return Ok(HourView::Contradictory(ContradictoryHour::read(series, window)?));
        }
        let whole: Vec<_> = found.iter().filter(|(_, hour)| hour.is_whole()).collect();
        let expected = self.ledgers.begun_by(window);
        if whole.is_empty() && expected == 0 {
            return Ok(HourView::Outside);
        }
        let mut usage = UsageTable::new();
        for (labels, sums) in whole.iter().flat_map(|(_, hour)| hour.usage()) {
            let subsystem = labels.subsystem.as_deref().unwrap_or_default();
            usage.entry((labels.department.as_str(), subsystem)).or_default().add(sums);
        }
        if whole.len() >= expected {
            return Ok(HourView::Found(usage, None));
        }
        let cause = if !self.ledgers.have_sealed(window) {
            HourCause::NotFinal
        } else if found.len() > whole.len() {
            HourCause::SampleRefused // some of its samples are there
        } else {
            let gateways: Vec<_> = whole.iter().map(|(gateway, _)| *gateway).collect();
            self.history.cause(window, part, &gateways)?
        };
        Ok(HourView::Found(usage, Some(cause)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_days_of_the_calendar() {
        let parts = |start: u32, end: u32| {
            let parts = day_parts(&(Window(start)..Window(end)), CalendarOffset::default());
            parts.into_iter().map(|part| (part.start.0, part.end.0)).collect::<Vec<_>>()
        };
        assert_eq!(parts(16, 64), [(16, 40), (40, 64)], "days begin at 16:00 UTC");
        assert_eq!(parts(20, 42), [(20, 40), (40, 42)]);
        assert_eq!(parts(20, 21), [(20, 21)]);
        assert_eq!(parts(20, 20), []);
    }
}
