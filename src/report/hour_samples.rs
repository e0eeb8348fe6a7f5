//! The usage of sealed hours as samples for Prometheus, one sample of each series for each hour: the page
//! `/metrics/hours`, and `ledger export --format openmetrics`.
//!
//! A sealed hour never changes, so its samples may be scraped twice, by several servers, late, or loaded from a file.
//! The timestamp is within the hour: a range of time from hour to hour has the same samples whether its server counts
//! the edges of a range or not. So `sum_over_time` is exact.
//!
//! Guarantees:
//! - Page and export are written by one function, [`write_hour_samples`].
//! - [`HOUR_SERIES`] is the number of samples of [`HOUR_COMMANDS`] of the hour, so a server can prove that it has all.
//! - Families are not interleaved. Within a family hours are in their order, and within an hour samples are in the
//!   order of their labels.
//! - Memory does not grow with the number of series: the usage of each hour is read when it is written, once for each
//!   family. Of each hour the head of the chain and the number of samples are kept.
//!
//! Leaves to `cli` and `admin`: which hours are written, and where.

use std::io::{self, Write};
use std::ops::Range;

use crate::ledger::{HourGrouping, HourHead, HourUsage, LedgerError, SealedHours};
use crate::model::Window;

use super::sample_text::{CommonLabels, GaugeFamily, SampleFormat, SampleWriter};

/// The time from the timestamp of an hour's samples to its end.
const SECONDS_BEFORE_END: i64 = 60;

/// The commands of an hour.
pub(crate) const HOUR_COMMANDS: GaugeFamily = GaugeFamily {
    name: "tallygate_usage_hour_commands",
    help: "Commands of one sealed hour, as in report usage by hour. Add hours with sum_over_time.",
};
/// The units of an hour.
pub(crate) const HOUR_UNITS: GaugeFamily = GaugeFamily {
    name: "tallygate_usage_hour_units",
    help: "Units of the commands of one sealed hour. Add hours with sum_over_time.",
};
/// The number of samples of an hour.
pub(crate) const HOUR_SERIES: GaugeFamily = GaugeFamily {
    name: "tallygate_usage_hour_series",
    help: "Number of samples of tallygate_usage_hour_commands of this hour.",
};
/// The corrections as of an hour.
const ADJUSTMENT_UNITS: GaugeFamily = GaugeFamily {
    name: "tallygate_adjustment_units",
    help: "Units of all corrections of this period that had been made by the end of the hour. Not part of usage.",
};
/// The number of the head of the hash chain.
pub(crate) const HEAD_NUMBER: GaugeFamily = GaugeFamily {
    name: "tallygate_ledger_head_number",
    help: "Number of the seal that was the head of the hash chain when the hour was sealed.",
};
/// The hash of the head of the hash chain.
pub(crate) const HEAD_PART: GaugeFamily = GaugeFamily {
    name: "tallygate_ledger_head_part",
    help: "Hash of that seal as five numbers: parts 0 to 3 are 13 hexadecimal digits each, part 4 the last 12.",
};

/// The families of a page, in their order.
#[cfg(test)]
const FAMILIES: [&GaugeFamily; 6] =
    [&ADJUSTMENT_UNITS, &HEAD_NUMBER, &HEAD_PART, &HOUR_COMMANDS, &HOUR_SERIES, &HOUR_UNITS];

/// The hexadecimal digits of a hash in one part: 52 bits, which a float of 64 bits holds exactly.
pub(crate) const HEAD_PART_DIGITS: usize = 13;
/// The values of the label `part`.
pub(crate) const HEAD_PARTS: [&str; 5] = ["0", "1", "2", "3", "4"];

/// The reason why a page is not complete.
#[derive(Debug, thiserror::Error)]
pub enum HourSamplesError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The page could not be written.
    #[error("the samples could not be written: {0}")]
    Write(#[from] io::Error),
}

/// The text is not a grouping of hour samples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot group hours by {0:?}; write department,subsystem or department,subsystem,command")]
pub struct BadHourGrouping(String);

/// Parses the labels by which the usage of hours is summed.
pub fn parse_hour_grouping(text: &str) -> Result<HourGrouping, BadHourGrouping> {
    match text {
        "department,subsystem" => Ok(HourGrouping::Subsystem),
        "department,subsystem,command" => Ok(HourGrouping::Command),
        _ => Err(BadHourGrouping(text.to_owned())),
    }
}

/// Writes the samples of the sealed hours of some ranges, which are in their order and do not overlap.
pub fn write_hour_samples(
    hours: &mut SealedHours,
    ranges: &[Range<Window>],
    (format, common, out): (SampleFormat, CommonLabels, &mut impl Write),
) -> Result<(), HourSamplesError> {
    let windows: Vec<Window> = ranges.iter().flat_map(|range| (range.start.0..range.end.0).map(Window)).collect();
    let mut page = HourPage(SampleWriter::new(format, out, common));
    page.0.begin_family(&ADJUSTMENT_UNITS, None)?;
    for window in &windows {
        for one in hours.corrections(*window) {
            let labels = [("department", one.department), ("period", one.period)];
            page.0.write_sample(&ADJUSTMENT_UNITS, &labels, (one.units, sample_time(*window)))?;
        }
    }
    let heads = windows.iter().map(|window| Ok((*window, hours.head(*window)?)));
    let heads = heads.collect::<Result<Vec<_>, LedgerError>>()?;
    page.0.begin_family(&HEAD_NUMBER, None)?;
    for (window, head) in &heads {
        page.0.write_sample(&HEAD_NUMBER, &[], (head.number, sample_time(*window)))?;
    }
    page.0.begin_family(&HEAD_PART, None)?;
    for (window, head) in &heads {
        page.write_head_parts(head, *window)?;
    }
    page.write_usage(hours, &windows)?;
    hours.confirm_unchanged()?;
    Ok(page.0.finish()?)
}

/// Writes a page without samples. `why` is added to the help of its first family.
pub fn write_empty_hours(why: &str, (format, out): (SampleFormat, &mut impl Write)) -> io::Result<()> {
    let mut page = SampleWriter::new(format, out, CommonLabels::default());
    page.begin_family(&HOUR_COMMANDS, Some(why))?;
    page.finish()
}

/// Returns the time of the samples of an hour, in Unix seconds.
pub(crate) fn sample_time(window: Window) -> i64 {
    window.next().start_unix_seconds() - SECONDS_BEFORE_END
}

/// A page while it is written.
struct HourPage<'a, W>(SampleWriter<'a, W>);

impl<W: Write> HourPage<'_, W> {
    fn write_head_parts(&mut self, head: &HourHead, window: Window) -> io::Result<()> {
        for (part, digits) in HEAD_PARTS.into_iter().zip(head.hash.as_bytes().chunks(HEAD_PART_DIGITS)) {
            self.0.write_sample(&HEAD_PART, &[("part", part)], (hexadecimal(digits), sample_time(window)))?;
        }
        Ok(())
    }

    fn write_usage(&mut self, hours: &mut SealedHours, windows: &[Window]) -> Result<(), HourSamplesError> {
        self.0.begin_family(&HOUR_COMMANDS, None)?;
        let mut counts = Vec::with_capacity(windows.len());
        for window in windows {
            let mut count = 0_u64;
            for usage in hours.usage(*window)? {
                count += 1;
                self.write_hour(&HOUR_COMMANDS, &usage, (usage.sums.commands, *window))?;
            }
            counts.push(count);
        }
        self.0.begin_family(&HOUR_SERIES, None)?;
        for (window, count) in windows.iter().zip(counts) {
            self.0.write_sample(&HOUR_SERIES, &[], (count, sample_time(*window)))?;
        }
        self.0.begin_family(&HOUR_UNITS, None)?;
        for window in windows {
            for usage in hours.usage(*window)? {
                self.write_hour(&HOUR_UNITS, &usage, (usage.sums.units, *window))?;
            }
        }
        Ok(())
    }

    fn write_hour(
        &mut self,
        family: &GaugeFamily,
        usage: &HourUsage<'_>,
        (value, window): (u64, Window),
    ) -> io::Result<()> {
        let department = ("department", usage.department.as_str());
        let sample = (value, sample_time(window));
        match (usage.subsystem, usage.command) {
            (None, _) => self.0.write_sample(family, &[department], sample),
            (Some(subsystem), None) => {
                let labels = [department, ("subsystem", subsystem.as_str())];
                self.0.write_sample(family, &labels, sample)
            }
            (Some(subsystem), Some(command)) => {
                let labels = [department, ("subsystem", subsystem.as_str()), ("command", command.as_str())];
                self.0.write_sample(family, &labels, sample)
            }
        }
    }
}

/// Returns the number that hexadecimal digits spell; 0 for a text of other characters, which no gateway writes.
fn hexadecimal(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::ledger::{Adjustment, Ledger, LedgerFiles, LedgerSettings, Meter, add_adjustment};
    use crate::lifecycle::Readiness;
    use crate::model::{CalendarOffset, CommandKey, Department, Finished, Name, Refused};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A ledger with one worker, on a clock that the test moves.
    struct TestLedger {
        folder: tempfile::TempDir,
        clock: Clock,
        ledger: Ledger,
        meter: Meter,
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    impl TestLedger {
        fn open(start: &str, departments: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let clock = Clock::manual(start.parse().expect("a time"));
            let settings = LedgerSettings {
                path: folder.path().join("ledger.db"),
                gateway: name("gateway-1"),
                sync_every: Duration::from_millis(50),
                workers: 1,
                calendar: CalendarOffset::default(),
                compact_after: None,
                ready: Readiness::default(),
            };
            let opened = Ledger::open(settings, clock.clone(), Box::new(|error| panic!("{error}")));
            let (ledger, mut seeds) = opened.expect("a ledger");
            let named = departments.iter().map(|id| (name(id), (*id).to_owned()));
            ledger.reader().update_department_names(named.collect());
            wait(ledger.reader().fold_now()).expect("a fold");
            Self { folder, clock, ledger, meter: seeds.remove(0).into_meter() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("ledger.db")
        }

        fn count(&self, [department, subsystem, command]: [&str; 3], units: u32, finished: Option<Finished>) {
            let number = |text: &str| text.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31) + u32::from(byte));
            let who = Department { number: number(department), id: name(department), name: String::new() };
            let what = CommandKey {
                number: number(&format!("{subsystem}/{command}")),
                subsystem: name(subsystem),
                command: name(command),
            };
            self.meter.received();
            match finished {
                Some(finished) => {
                    let ticket = self.meter.open(&who, &what, units.into(), self.clock.window());
                    ticket.expect("a slot").settle(finished);
                }
                None => self.meter.refuse(&who, &what, Refused::Forbidden, self.clock.window()),
            }
        }

        fn pass(&self, by: Duration) {
            self.clock.advance(by);
            for _ in 0..4 {
                wait(self.ledger.reader().fold_now()).expect("a fold");
                self.meter.tick();
            }
        }

        fn correct(&self, department: &str, units: i64) {
            let adjustment = Adjustment {
                department: name(department),
                subsystem: None,
                command: None,
                period: "2026-10".to_owned(),
                units,
                reason: "a test".to_owned(),
                who: "finance".to_owned(),
            };
            add_adjustment(&self.path(), &adjustment, &self.clock).expect("a correction");
        }

        fn hours(&self, grouping: HourGrouping) -> SealedHours {
            SealedHours::open(&self.path(), grouping).expect("a book")
        }

        fn page(&self, grouping: HourGrouping, format: SampleFormat) -> String {
            let mut hours = self.hours(grouping);
            let (windows, mut page) = (hours.sealed(), Vec::new());
            write_hour_samples(&mut hours, &[windows], (format, CommonLabels::default(), &mut page)).expect("a page");
            String::from_utf8(page).expect("text")
        }
    }

    /// Two hours: one with usage of two departments, and one in which nothing happened but a correction.
    fn two_hours() -> TestLedger {
        let ledger = TestLedger::open("2026-10-31T14:10:00Z", &["parking", "archive"]);
        ledger.count(["parking", "cameras", "snapshot.submit"], 3, Some(Finished::Ok));
        ledger.count(["parking", "cameras", "snapshot.read"], 1, Some(Finished::Ok));
        ledger.count(["parking", "gates", "open"], 1, None);
        ledger.count(["unknown", "gates", "open"], 1, None);
        ledger.pass(HOUR);
        ledger.correct("parking", -2);
        ledger.pass(HOUR);
        ledger
    }

    #[test]
    fn page_is_the_written_text() {
        let page = two_hours().page(HourGrouping::Subsystem, SampleFormat::Text);
        // The numbers of a hash have a test of their own.
        let lines = page.lines().filter(|line| !line.starts_with("tallygate_ledger_head_part{"));
        assert_eq!(
            lines.map(|line| format!("{line}\n")).collect::<String>(),
            r#"# HELP tallygate_adjustment_units Units of all corrections of this period that had been made by the end of the hour. Not part of usage.
# TYPE tallygate_adjustment_units gauge
tallygate_adjustment_units{department="parking",period="2026-10"} -2 1793462340000
# HELP tallygate_ledger_head_number Number of the seal that was the head of the hash chain when the hour was sealed.
# TYPE tallygate_ledger_head_number gauge
tallygate_ledger_head_number 1 1793458740000
tallygate_ledger_head_number 1 1793462340000
# HELP tallygate_ledger_head_part Hash of that seal as five numbers: parts 0 to 3 are 13 hexadecimal digits each, part 4 the last 12.
# TYPE tallygate_ledger_head_part gauge
# HELP tallygate_usage_hour_commands Commands of one sealed hour, as in report usage by hour. Add hours with sum_over_time.
# TYPE tallygate_usage_hour_commands gauge
tallygate_usage_hour_commands{department="archive"} 0 1793458740000
tallygate_usage_hour_commands{department="parking"} 0 1793458740000
tallygate_usage_hour_commands{department="parking",subsystem="cameras"} 2 1793458740000
tallygate_usage_hour_commands{department="parking",subsystem="gates"} 1 1793458740000
tallygate_usage_hour_commands{department="unknown",subsystem="gates"} 1 1793458740000
tallygate_usage_hour_commands{department="archive"} 0 1793462340000
tallygate_usage_hour_commands{department="parking"} 0 1793462340000
# HELP tallygate_usage_hour_series Number of samples of tallygate_usage_hour_commands of this hour.
# TYPE tallygate_usage_hour_series gauge
tallygate_usage_hour_series 5 1793458740000
tallygate_usage_hour_series 2 1793462340000
# HELP tallygate_usage_hour_units Units of the commands of one sealed hour. Add hours with sum_over_time.
# TYPE tallygate_usage_hour_units gauge
tallygate_usage_hour_units{department="archive"} 0 1793458740000
tallygate_usage_hour_units{department="parking"} 0 1793458740000
tallygate_usage_hour_units{department="parking",subsystem="cameras"} 4 1793458740000
tallygate_usage_hour_units{department="parking",subsystem="gates"} 0 1793458740000
tallygate_usage_hour_units{department="unknown",subsystem="gates"} 0 1793458740000
tallygate_usage_hour_units{department="archive"} 0 1793462340000
tallygate_usage_hour_units{department="parking"} 0 1793462340000
"#
        );
    }

    #[test]
    fn openmetrics_has_the_same_samples_in_seconds_and_an_end() {
        let ledger = two_hours();
        let text = ledger.page(HourGrouping::Command, SampleFormat::Text);
        let open = ledger.page(HourGrouping::Command, SampleFormat::OpenMetrics);
        let in_seconds = |line: &str| match line.strip_suffix("000") {
            Some(line) if !line.starts_with('#') => format!("{line}\n"),
            _ => format!("{line}\n"),
        };
        assert_eq!(open, text.lines().map(in_seconds).collect::<String>() + "# EOF\n");
        let lines: Vec<_> = open.lines().filter(|line| line.starts_with("tallygate_usage_hour_commands{")).collect();
        assert_eq!(
            lines[..3],
            [
                r#"tallygate_usage_hour_commands{department="archive"} 0 1793458740"#,
                r#"tallygate_usage_hour_commands{department="parking"} 0 1793458740"#,
                r#"tallygate_usage_hour_commands{department="parking",subsystem="cameras",command="snapshot.read"} 1 1793458740"#,
            ]
        );
    }

    #[test]
    fn empty_page_says_why_it_is_empty() {
        for (format, end) in [(SampleFormat::Text, ""), (SampleFormat::OpenMetrics, "# EOF\n")] {
            let mut page = Vec::new();
            write_empty_hours("No hour is sealed.", (format, &mut page)).expect("a page");
            let expected = "# HELP tallygate_usage_hour_commands Commands of one sealed hour, as in report usage by hour. \
                            Add hours with sum_over_time. No hour is sealed.\n# TYPE tallygate_usage_hour_commands gauge\n";
            assert_eq!(String::from_utf8(page).expect("text"), format!("{expected}{end}"));
        }
    }

    #[test]
    fn hash_is_five_whole_numbers_that_a_float_holds() {
        let hash = "fffffffffffff0000000000001123456789abcdeffedcba98765430123456789";
        let head = HourHead { number: 7, hash: hash.to_owned() };
        let mut page = Vec::new();
        let mut writer = HourPage(SampleWriter::new(SampleFormat::Text, &mut page, CommonLabels::default()));
        writer.write_head_parts(&head, Window(0)).expect("it is written");
        assert_eq!(
            String::from_utf8(page).expect("text"),
            r#"tallygate_ledger_head_part{part="0"} 4503599627370495 3540000
tallygate_ledger_head_part{part="1"} 1 3540000
tallygate_ledger_head_part{part="2"} 320255973501901 3540000
tallygate_ledger_head_part{part="3"} 4222046463166309 3540000
tallygate_ledger_head_part{part="4"} 73672165779337 3540000
"#
        );
    }

    #[test]
    fn timestamp_is_a_minute_before_the_end_of_the_hour() {
        for (hour, timestamp) in [
            ("2026-10-31T15:00:00Z", "2026-10-31T15:59:00Z"), // the last hour of October in +08:00
            ("2026-10-31T23:00:00+08:00", "2026-10-31T23:59:00+08:00"),
            ("2026-10-31T23:30:00+05:30", "2026-11-01T00:29:00+05:30"), // hours are UTC hours
        ] {
            let seconds = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_second();
            assert_eq!(sample_time(Window::of_unix_seconds(seconds(hour))), seconds(timestamp), "{hour}");
        }
    }

    #[test]
    fn groupings_are_two() {
        assert_eq!(parse_hour_grouping("department,subsystem"), Ok(HourGrouping::Subsystem));
        assert_eq!(parse_hour_grouping("department,subsystem,command"), Ok(HourGrouping::Command));
        for text in ["", "department", "subsystem,department", "department, subsystem", "department,subsystem,outcome"]
        {
            let refusal = parse_hour_grouping(text).expect_err(text).to_string();
            let expected = "; write department,subsystem or department,subsystem,command";
            assert_eq!(refusal, format!("cannot group hours by {text:?}{expected}"));
        }
    }

    /// The sum of each series of a family, over all its samples, and the number of samples.
    fn sum_over_time(page: &str, family: &str) -> (BTreeMap<String, u64>, u64) {
        let (mut sums, mut count) = (BTreeMap::new(), 0);
        for line in page.lines().filter_map(|line| line.strip_prefix(family)) {
            let mut fields = line.split(' ');
            let (labels, value) = (fields.next().expect("labels"), fields.next().expect("a value"));
            *sums.entry(labels.to_owned()).or_default() += value.parse::<u64>().expect("a number");
            count += 1;
        }
        (sums, count)
    }

    #[test]
    fn sums_over_hours_equal_the_report_of_the_range() {
        for seed in 0..6 {
            let mut random = fastrand::Rng::with_seed(seed);
            let ledger = TestLedger::open("2026-10-30T15:40:00Z", &["a", "b", "idle"]);
            for _ in 0..50 {
                for _ in 0..random.u32(0..8) {
                    let names = [["a", "b", "c"], ["x", "y", "z"], ["read", "write", "list"]];
                    let names = names.map(|all| all[random.usize(0..3)]);
                    let outcome = [Some(Finished::Ok), Some(Finished::ClientError), None][random.usize(0..3)];
                    ledger.count(names, random.u32(0..5), outcome);
                }
                ledger.pass(Duration::from_secs(random.u64(1..7000)));
            }
            let mut hours = ledger.hours(HourGrouping::Subsystem);
            let sealed = hours.sealed();
            let cut = Window(random.u32(sealed.start.0..sealed.end.0));
            for windows in [sealed.clone(), sealed.start..cut, cut..sealed.end] {
                let mut page = Vec::new();
                write_hour_samples(
                    &mut hours,
                    std::slice::from_ref(&windows),
                    (SampleFormat::Text, CommonLabels::default(), &mut page),
                )
                .expect("a page");
                let page = String::from_utf8(page).expect("text");
                let files = LedgerFiles::open(&ledger.path()).expect("files");
                let (mut commands, mut units) = (BTreeMap::new(), BTreeMap::new());
                for row in files.usage_total(windows.clone()).expect("rows") {
                    let labels = format!("{{department=\"{}\",subsystem=\"{}\"}}", row.department, row.subsystem);
                    *commands.entry(labels.clone()).or_default() += row.totals.commands;
                    *units.entry(labels).or_default() += row.totals.units;
                }
                if windows.start < windows.end {
                    for department in ["a", "b", "idle"] {
                        commands.insert(format!("{{department=\"{department}\"}}"), 0);
                        units.insert(format!("{{department=\"{department}\"}}"), 0);
                    }
                }
                let (found, samples) = sum_over_time(&page, HOUR_COMMANDS.name);
                assert_eq!(found, commands, "seed {seed}");
                assert_eq!(sum_over_time(&page, HOUR_UNITS.name), (units, samples), "seed {seed}");
                let (series, _) = sum_over_time(&page, HOUR_SERIES.name);
                assert_eq!(series.get("").copied().unwrap_or_default(), samples, "the proof of completeness");
            }
        }
    }

    #[test]
    fn manual_explains_every_family_of_hours() {
        let manual = include_str!("../../docs/metrics.md");
        for family in FAMILIES {
            assert!(manual.contains(&format!("| `{}` |", family.name)), "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }
}
