//! Compaction: sums by day, and days in place of hours.

use crate::ledger::book::usage_query::{OF_DEPARTMENT, UsageQueries, UsageResolution};
use crate::ledger::fold::OpenRows;
use crate::ledger::reader::read_usage;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// Opens a ledger that removes hours after two days.
fn open_compacting(bench: &LedgerBench) -> (Ledger, Meter) {
    let settings = LedgerSettings { compact_after: Some(2 * DAY), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    (ledger, seeds.remove(0).into_meter())
}

/// Counts one command in each of `hours` hours. The length of the response is the number of hours that have passed.
fn count_hours(bench: &LedgerBench, (ledger, meter): (&Ledger, &Meter), hours: u64) {
    for hour in 0..hours {
        let mut ticket = admit(meter, &bench.clock);
        ticket.add_response_bytes(hour);
        ticket.settle(Finished::Ok);
        refuse(meter, &bench.clock);
        bench.pass(HOUR, ledger, meter);
    }
}

fn sum(rows: &[UsageRow], of: impl Fn(&Measures) -> u64) -> u64 {
    rows.iter().map(|row| of(&row.totals)).sum()
}

fn by_day(bench: &LedgerBench, windows: std::ops::Range<Window>) -> Vec<UsageRow> {
    LedgerFiles::open(&bench.path()).expect("files").usage_by_day(windows).expect("rows")
}

#[test]
fn day_sums_equal_the_sums_of_their_hours() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    count_hours(&bench, (&ledger, &meter), 60);
    let stream = admit(&meter, &bench.clock);
    refuse(&meter, &bench.clock); // in an open hour
    let (hours, days) = (bench.files(), by_day(&bench, ALWAYS));
    assert_eq!((hours.len(), days.len()), (2 * 60 + 1, 2 * 3 + 1), "three days, and an hour that is open");
    for of in [commands, units, response_bytes] {
        assert_eq!(sum(&hours, of), sum(&days, of));
    }
    let window = hours[40].window;
    for range in [Window(0)..window, window..Window(u32::MAX), hours[2].window..hours[4].window] {
        let hours: Vec<_> = hours.iter().filter(|row| range.contains(&row.window)).cloned().collect();
        let days = by_day(&bench, range.clone());
        assert_eq!(sum(&days, |one| one.commands), sum(&hours, |one| one.commands), "{range:?}");
        assert_eq!(wait(ledger.reader().usage_by_day(range.clone())).expect("rows"), days);
        let whole = LedgerFiles::open(&bench.path()).expect("files").usage_total(range.clone()).expect("rows");
        assert_eq!(whole.iter().map(|row| row.window).collect::<Vec<_>>(), [range.start; 2], "ok, forbidden");
        for of in [commands, units, response_bytes] {
            assert_eq!(sum(&whole, of), sum(&hours, of), "{range:?}");
        }
        assert_eq!(wait(ledger.reader().usage_total(range.clone())).expect("rows"), whole);
        let view = wait(ledger.reader().view(vec![range.clone(), Window(0)..Window(0)])).expect("a view");
        let used = UsageSums { commands: sum(&whole, commands), units: sum(&whole, units) };
        assert_eq!(
            view.department_usage,
            [DepartmentUsage::from([(department(1).id, used)]), DepartmentUsage::default()]
        );
        assert_eq!(view.totals.series[0].in_flight(), 1);
    }
    stream.settle(Finished::Ok);
}

#[test]
fn hour_sealed_between_two_reads_is_not_counted_twice() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    count_hours(&bench, (&ledger, &meter), 1);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let look = || {
        let open = wait(ledger.reader().request(KeeperRequest::OpenRows)).expect("open rows");
        (open.rows.len(), open)
    };
    let (found, open) = look();
    assert_eq!(found, 1);
    bench.pass(HOUR, &ledger, &meter);
    let read = |open: &OpenRows, grain| read_usage(&bench.path(), (&ALWAYS, open), (grain, None)).expect("rows");
    for grain in [UsageResolution::Whole, UsageResolution::Day, UsageResolution::Hour] {
        assert_eq!(read(&open, grain), None, "the first reading is out of date");
        let (found, open) = look();
        assert_eq!((found, sum(&read(&open, grain).expect("rows"), commands)), (0, 3));
    }
}

#[test]
fn start_reads_day_sums_and_continues_from_them() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    count_hours(&bench, (&ledger, &meter), 5);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let before = wait(ledger.reader().totals()).expect("totals").series;
    drop(meter);
    ledger.close().expect("closed");
    let (ledger, _meter) = bench.open_one();
    let after = wait(ledger.reader().totals()).expect("totals").series;
    let known = |series: &[SeriesTotals]| series.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>();
    assert_eq!(known(&before), known(&after));
    assert_eq!(after.iter().map(|one| one.admitted).sum::<u64>(), 6);
}

/// Independent of SQLite's query planner: the second table of such a join is looked up by the rows of the first table,
/// never scanned.
#[test]
fn starts_and_reports_by_day_scan_unsealed_hours_only() {
    let bench = LedgerBench::new();
    drop(bench.open_one());
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    for query in
        [crate::ledger::book::book_reader::SELECT_SERIES_SUMS, crate::ledger::book::usage_query::SELECT_OPEN_HOURS]
    {
        let mut plan = book.prepare(&format!("EXPLAIN QUERY PLAN {query}")).expect("a plan");
        let none = vec![0; plan.parameter_count()];
        let steps = plan.query_map(rusqlite::params_from_iter(none), |row| row.get("detail")).expect("steps");
        let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
        let walks = |table: &str| {
            let by_key = format!("SEARCH {table} USING PRIMARY KEY (window=?");
            steps.iter().any(|step| step.contains(table) && !step.starts_with(&by_key))
        };
        assert!(!walks("usage") && !walks("admission"), "{steps:?}");
    }
}

/// The rows of a department are sought by their keys: the time does not depend on the usage of others.
#[test]
fn queries_of_one_department_seek_its_rows() {
    let bench = LedgerBench::new();
    drop(bench.open_one());
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    let UsageQueries { days, open_hours, hours } = OF_DEPARTMENT;
    for (query, seek) in [
        (days, "SEARCH day_sum USING PRIMARY KEY (day=? AND series=?"),
        (open_hours, "SEARCH usage USING PRIMARY KEY (window=? AND series=?"),
        (hours, "SEARCH usage USING PRIMARY KEY (window=? AND series=?"),
    ] {
        let mut plan = book.prepare(&format!("EXPLAIN QUERY PLAN {query}")).expect("a plan");
        let none = vec![0; plan.parameter_count()];
        let steps = plan.query_map(rusqlite::params_from_iter(none), |row| row.get("detail")).expect("steps");
        let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
        assert!(steps.iter().any(|step| step.starts_with(seek)), "{steps:?}");
        assert!(!steps.iter().any(|step| step.contains("SCAN usage") || step.contains("SCAN day_sum")), "{steps:?}");
    }
}

#[test]
fn usage_of_one_department_is_its_part_of_all_usage() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    let count = |number, of| {
        let ticket = meter.open(&department(number), &command(of), 2, bench.clock.window()).expect("a slot");
        ticket.settle(Finished::Ok);
    };
    for hour in 0..80 {
        count(1, 1);
        count(2, 1 + hour % 3);
        refuse(&meter, &bench.clock);
        bench.pass(HOUR, &ledger, &meter);
    }
    count(2, 9); // in an open hour
    let now = bench.clock.window();
    let reader = ledger.reader();
    let compacted = wait(reader.compacted_before()).expect("the horizon");
    assert!(compacted > Window(0) && compacted < now, "hours and compacted days");
    let windows = CalendarOffset::default().day_of(Window(now.0 - 100))..now.next();
    for number in [1, 2, 3] {
        let id = department(number).id;
        let own = |rows: Vec<UsageRow>| rows.into_iter().filter(|row| row.department == id).collect::<Vec<_>>();
        let by_hour = own(wait(reader.usage_by_hour(windows.clone())).expect("rows"));
        assert_eq!(by_hour.is_empty(), number == 3);
        assert_eq!(wait(reader.department_usage_by_hour(&id, windows.clone())).expect("rows"), by_hour, "{id}");
        let whole = own(wait(reader.usage_total(windows.clone())).expect("rows"));
        assert_eq!(wait(reader.department_usage_total(&id, windows.clone())).expect("rows"), whole, "{id}");
    }
}

#[test]
fn old_hours_are_compacted_into_days_without_loss() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    count_hours(&bench, (&ledger, &meter), 30);
    let before = bench.files();
    bench.pass(10 * DAY, &ledger, &meter);
    for _ in 0..8 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    assert_eq!(bench.number("SELECT count(*) FROM usage"), 0, "no hour is left");
    assert_eq!(bench.number("SELECT count(*) FROM admission"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM seal WHERE kind = 'day'"), 2);
    let after = bench.files();
    assert_eq!(after.len(), 2 * 2, "two days, two outcomes");
    for of in [commands, units, response_bytes] {
        assert_eq!(sum(&before, of), sum(&after, of));
    }
    assert_eq!(after, by_day(&bench, ALWAYS));
    assert_eq!(bench.number("SELECT sum(commands) FROM usage_hourly"), 60);
    assert_eq!(bench.number("SELECT count(*) FROM seal WHERE kind = 'hour'"), 30, "the chain keeps every seal");
}

#[test]
fn range_that_cuts_a_compacted_day_is_refused_and_others_are_not() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    count_hours(&bench, (&ledger, &meter), 30);
    bench.pass(10 * DAY, &ledger, &meter);
    let days = bench.files();
    let files = LedgerFiles::open(&bench.path()).expect("files");
    let (first, second) = (days[0].window, days[2].window);
    let error = files.usage_by_hour(Window(first.0 + 3)..Window(u32::MAX)).expect_err("the range cuts the first day");
    assert!(matches!(error, LedgerError::RangeCutsDay { day, .. } if day == first), "{error}");
    assert_eq!(files.usage_by_hour(second..Window(u32::MAX)).expect("the second day"), days[2..]);
    assert_eq!(files.usage_by_hour(Window(0)..second).expect("the first day"), days[..2]);
}

#[test]
fn counts_after_a_clock_was_years_ahead_are_visible() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    bench.clock.advance(1000 * DAY);
    count_hours(&bench, (&ledger, &meter), 30);
    bench.pass(10 * DAY, &ledger, &meter);
    let before = sum(&bench.files(), commands);
    drop(meter);
    ledger.close().expect("closed");
    bench.clock.step_wall(START.parse().expect("the correct time"));
    let (ledger, meter) = open_compacting(&bench);
    count_hours(&bench, (&ledger, &meter), 2);
    for _ in 0..4 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    assert_eq!(sum(&bench.files(), commands), before + 4);
    assert_eq!(sum(&by_day(&bench, ALWAYS), commands), before + 4);
}

#[test]
fn sum_saturates_at_the_maximum_integer_and_sealing_continues() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    count_hours(&bench, (&ledger, &meter), 1);
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    for table in ["ever_sum", "day_sum"] {
        let near = format!("UPDATE {table} SET duration_ns = 9223372036854775000, request_bytes = 5 WHERE outcome = 1");
        book.execute(&near, []).expect("streams of three centuries in total");
    }
    let stream = admit(&meter, &bench.clock);
    bench.clock.advance(HOUR / 2);
    stream.settle(Finished::Ok);
    bench.pass(HOUR, &ledger, &meter);
    for table in ["ever_sum", "day_sum"] {
        let kept = format!("SELECT duration_ns = 9223372036854775807 AND commands = 2 FROM {table} WHERE outcome = 1");
        assert_eq!(bench.number(&kept), 1, "{table}");
    }
}

#[test]
fn day_with_an_open_hour_is_not_compacted() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    count_hours(&bench, (&ledger, &meter), 3);
    bench.clock.advance(10 * DAY); // the worker has not acknowledged the end of the earlier hours
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let days = || bench.number("SELECT count(*) FROM seal WHERE kind = 'day'");
    for _ in 0..4 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    assert_eq!(days(), 0, "if its clock is set back, the worker counts into that hour");
    for _ in 0..4 {
        meter.tick();
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    assert_eq!(days(), 1, "all its hours are sealed, and every worker has left them");
    assert!(bench.number("SELECT count(*) FROM usage") > 0, "the present hour is open");
}

#[test]
fn another_calendar_has_other_days_and_equal_sums() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    count_hours(&bench, (&ledger, &meter), 30);
    drop(meter);
    ledger.close().expect("closed");
    let before = by_day(&bench, ALWAYS);
    let calendar = CalendarOffset::parse("-05:00").expect("an offset");
    let settings = LedgerSettings { calendar, ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    drop(opened.expect("a ledger"));
    let after = by_day(&bench, ALWAYS);
    assert_ne!(before[0].window, after[0].window);
    assert!(after.iter().all(|row| calendar.first_window(calendar.date_of(row.window)) == row.window));
    assert_eq!(sum(&before, |one| one.response_bytes), sum(&after, |one| one.response_bytes));
}

fn commands(totals: &Measures) -> u64 {
    totals.commands
}

fn units(totals: &Measures) -> u64 {
    totals.units
}

fn response_bytes(totals: &Measures) -> u64 {
    totals.response_bytes
}

#[test]
fn clock_set_back_before_compacted_hours_counts_into_the_first_kept_hour() {
    let bench = LedgerBench::new();
    let (ledger, meter) = open_compacting(&bench);
    count_hours(&bench, (&ledger, &meter), 30);
    let before = bench.clock.wall();
    bench.pass(5 * DAY, &ledger, &meter);
    for _ in 0..4 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    let horizon = bench.number("SELECT rolled_before FROM meta");
    assert!(horizon > 0, "hours are compacted");
    drop(meter);
    ledger.close().expect("closed");
    let counted = sum(&by_day(&bench, ALWAYS), commands);
    bench.clock.step_wall(before - jiff::SignedDuration::from_hours(24));
    let (ledger, meter) = open_compacting(&bench);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    refuse(&meter, &bench.clock);
    bench.pass(HOUR, &ledger, &meter);
    assert_eq!(sum(&by_day(&bench, ALWAYS), commands), counted + 2, "no command is counted in a compacted hour");
    let first = format!("SELECT sum(commands) FROM usage WHERE \"window\" = {horizon}");
    assert_eq!(bench.number(&first), 2);
    bench.pass(30 * DAY, &ledger, &meter);
    for _ in 0..4 {
        wait(ledger.reader().fold_now()).expect("a fold");
    }
    assert_eq!(sum(&by_day(&bench, ALWAYS), commands), counted + 2, "no command is lost when the hour is compacted");
}
