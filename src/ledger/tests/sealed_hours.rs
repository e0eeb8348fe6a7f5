//! Sealed hours, as the pages and exports of finance read them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn sealed(bench: &LedgerBench) -> SealedHours {
    SealedHours::open(&bench.path(), HourGrouping::Command).expect("a book")
}

fn range_text(range: Range<Window>) -> String {
    format!("{} {}", range.start, range.end)
}

/// Everything that is shown of an hour, one line each.
fn shown(hours: &mut SealedHours, window: Window) -> Vec<String> {
    let name = |name: Option<&Name>| name.map_or("-".to_owned(), ToString::to_string);
    let usage = hours.usage(window).expect("usage").map(|one| {
        let (commands, units) = (one.sums.commands, one.sums.units);
        format!("{} {} {} {commands} {units}", one.department, name(one.subsystem), name(one.command))
    });
    let mut lines: Vec<_> = usage.collect();
    lines.extend(hours.corrections(window).map(|one| format!("{} {} {}", one.department, one.period, one.units)));
    let HourHead { number, hash } = hours.head(window).expect("a head");
    lines.push(format!("head {number} {hash}"));
    lines
}

/// Writes the names of departments into the book.
fn configure(ledger: &Ledger, departments: &[u32]) {
    let named = departments.iter().map(|number| (department(*number).id, "A department".to_owned()));
    ledger.reader().update_department_names(named.collect());
    wait(ledger.reader().fold_now()).expect("a fold");
}

fn correct(bench: &LedgerBench, units: i64) {
    let adjustment = Adjustment {
        department: department(1).id,
        subsystem: None,
        command: None,
        period: "2026-11".to_owned(),
        units,
        reason: "a test".to_owned(),
        who: "finance".to_owned(),
    };
    add_adjustment(&bench.path(), &adjustment, &bench.clock).expect("a correction");
}

#[test]
fn hour_without_usage_is_sealed_like_others() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let none = "2026-11-24T03:00:00Z 2026-11-24T03:00:00Z";
    for (seconds, expected) in [
        (0, none),
        (50 * 60 + 64, none), // 04:01:04
        (1, "2026-11-24T03:00:00Z 2026-11-24T04:00:00Z"),
        (3599, "2026-11-24T03:00:00Z 2026-11-24T04:00:00Z"),
        (1, "2026-11-24T03:00:00Z 2026-11-24T05:00:00Z"),
    ] {
        bench.pass(Duration::from_secs(seconds), &ledger, &meter);
        assert_eq!(range_text(sealed(&bench).sealed()), expected, "{seconds} s later");
    }
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.clock.advance(2 * HOUR); // 07:01:05: the worker has not left the hour
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(range_text(sealed(&bench).sealed()), "2026-11-24T03:00:00Z 2026-11-24T05:00:00Z");
    bench.pass(Duration::ZERO, &ledger, &meter);
    assert_eq!(range_text(sealed(&bench).sealed()), "2026-11-24T03:00:00Z 2026-11-24T07:00:00Z");
    assert_eq!(
        range_text(wait(ledger.reader().sealed_hours(HourGrouping::Subsystem)).expect("a book").sealed()),
        "2026-11-24T03:00:00Z 2026-11-24T07:00:00Z"
    );
}

#[test]
fn hours_of_a_closed_ledger_are_sealed_by_the_next_start() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    drop(meter);
    ledger.close().expect("it closes");
    bench.clock.advance(5 * HOUR); // 08:10
    assert_eq!(range_text(sealed(&bench).sealed()), "2026-11-24T03:00:00Z 2026-11-24T03:00:00Z");
    let (ledger, meter) = bench.open_one();
    bench.pass(Duration::ZERO, &ledger, &meter);
    let mut hours = sealed(&bench);
    assert_eq!(range_text(hours.sealed()), "2026-11-24T03:00:00Z 2026-11-24T08:00:00Z");
    let first = hours.sealed().start;
    assert_eq!(shown(&mut hours, first)[0], "department-1 cameras command-1 1 3");
    assert_eq!(shown(&mut hours, Window(first.0 + 1)).len(), 1, "only the head: no gateway ran");
}

#[test]
fn every_configured_department_has_a_sample_of_its_own() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    configure(&ledger, &[1, 3]);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.pass(HOUR, &ledger, &meter); // 04:10
    configure(&ledger, &[1, 2]); // department 2 is new, department 3 is gone
    bench.pass(HOUR, &ledger, &meter);
    let mut hours = sealed(&bench);
    let first = hours.sealed().start;
    let of = |hours: &mut SealedHours, window| {
        let mut lines = shown(hours, window);
        lines.pop();
        lines
    };
    assert_eq!(
        of(&mut hours, first),
        ["department-1 - - 0 0", "department-1 cameras command-1 1 3", "department-3 - - 0 0"]
    );
    assert_eq!(
        of(&mut hours, first.next()),
        ["department-1 - - 0 0", "department-2 - - 0 0", "department-3 - - 0 0"],
        "the book does not record that a department is gone"
    );
    let mut coarse = SealedHours::open(&bench.path(), HourGrouping::Subsystem).expect("a book");
    assert_eq!(of(&mut coarse, first)[1], "department-1 cameras - 1 3");
}

#[test]
fn head_is_that_of_the_seal_of_the_hour_whatever_follows() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let seal_of = |number: u32| {
        let book = rusqlite::Connection::open(bench.path()).expect("a book");
        book.query_row("SELECT hash FROM seal WHERE number = ?", [number], |row| row.get::<_, String>(0))
            .expect("a seal")
    };
    let mut first = None;
    for _ in 0..2 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(HOUR, &ledger, &meter); // seals 1 and 3
        correct(&bench, 1); // seals 2 and 4
        first.get_or_insert_with(|| sealed(&bench).sealed().start);
    }
    bench.pass(HOUR, &ledger, &meter); // an hour without usage
    let (hours, first) = (sealed(&bench), first.expect("an hour"));
    let head = |window| hours.head(window).map(|head| (head.number, head.hash)).expect("a head");
    assert_eq!(head(Window(first.0 - 1)), (0, "0".repeat(64)), "before the first seal");
    assert_eq!(head(first), (1, seal_of(1)));
    assert_eq!(head(first.next()), (3, seal_of(3)));
    assert_eq!(head(first.next().next()), (3, seal_of(3)), "an hour without usage has the head of the hour before");
}

#[test]
fn corrections_count_from_the_hour_in_which_they_were_made() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.pass(HOUR, &ledger, &meter); // 04:10
    correct(&bench, -5);
    bench.pass(HOUR, &ledger, &meter); // 05:10
    correct(&bench, 2);
    bench.pass(HOUR, &ledger, &meter);
    let hours = sealed(&bench);
    let sums: Vec<Vec<_>> = (hours.sealed().start.0..hours.sealed().end.0)
        .map(|window| hours.corrections(Window(window)).map(|one| (one.department, one.period, one.units)).collect())
        .collect();
    assert_eq!(sums, [vec![], vec![("department-1", "2026-11", -5)], vec![("department-1", "2026-11", -3)]]);
}

/// Random histories: several workers' hours, late ends, refusals, new departments, corrections, restarts and crashes.
/// What is shown of an hour when it is first seen sealed is shown ever after, and is the usage of the reports.
#[test]
fn what_a_sealed_hour_shows_never_changes_and_equals_the_reports() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bench = LedgerBench::new();
        let (mut ledger, mut meter) = bench.open_one();
        let (mut seen, mut streams) = (BTreeMap::<Window, Vec<String>>::new(), Vec::new());
        for _ in 0..40 {
            for _ in 0..random.u32(0..6) {
                meter.received();
                let (who, what) = (department(random.u32(1..4)), command(random.u32(1..4)));
                let window = bench.clock.window();
                match random.u32(0..4) {
                    0 => meter.refuse(&who, &what, Refused::Forbidden, window),
                    1 => streams.push(meter.open(&who, &what, 3, window).expect("a slot")),
                    _ => _ = meter.open(&who, &what, 2, window).expect("a slot").settle(Finished::Ok),
                }
            }
            match random.u32(0..12) {
                0 => configure(&ledger, &[random.u32(1..9)]),
                1 if bench.number("SELECT count(*) FROM series WHERE department = 'department-1'") > 0 => {
                    correct(&bench, i64::from(random.u32(1..9)) - 10);
                }
                2 => streams.clear(),
                3 => {
                    streams.clear();
                    drop(meter);
                    if random.bool() {
                        ledger.close().expect("it closes")
                    } else {
                        drop(ledger)
                    }
                    bench.clock.advance(HOUR * random.u32(0..5));
                    (ledger, meter) = bench.open_one();
                }
                _ => {}
            }
            bench.pass(Duration::from_secs(random.u64(1..4000)), &ledger, &meter);
            let mut hours = sealed(&bench);
            for window in (hours.sealed().start.0..hours.sealed().end.0).map(Window) {
                let lines = shown(&mut hours, window);
                let first = seen.entry(window).or_insert_with(|| lines.clone());
                assert_eq!(*first, lines, "seed {seed}, {window}");
            }
        }
        let mut hours = sealed(&bench);
        assert!(hours.sealed().end.0 - hours.sealed().start.0 > 10, "seed {seed}");
        let mut reported = BTreeMap::<(Window, String), UsageSums>::new();
        for row in bench.files().into_iter().filter(|row| hours.sealed().contains(&row.window)) {
            let names = format!("{} {} {}", row.department, row.subsystem, row.command);
            reported.entry((row.window, names)).or_default().add(row.totals.usage());
        }
        let mut found = BTreeMap::new();
        for window in (hours.sealed().start.0..hours.sealed().end.0).map(Window) {
            for one in hours.usage(window).expect("usage") {
                if let (Some(subsystem), Some(command)) = (one.subsystem, one.command) {
                    found.insert((window, format!("{} {subsystem} {command}", one.department)), one.sums);
                }
            }
        }
        assert_eq!(found, reported, "seed {seed}");
        drop((streams, ledger));
    }
}

#[test]
fn compacted_day_is_the_usage_of_its_first_hour() {
    let bench = LedgerBench::new();
    let settings = LedgerSettings { compact_after: Some(48 * HOUR), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    for _ in 0..96 {
        admit(&meter, &bench.clock).settle(Finished::Ok);
        bench.pass(HOUR, &ledger, &meter);
    }
    let mut hours = sealed(&bench);
    let before = hours.compacted_before();
    assert_eq!(before.to_string(), "2026-11-25T16:00:00Z");
    let day = Window(before.0 - 24);
    let sums = |hours: &mut SealedHours, window| -> Vec<_> {
        hours.usage(window).expect("usage").map(|one| (one.sums.commands, one.sums.units)).collect()
    };
    assert_eq!(sums(&mut hours, day), [(24, 72)]);
    assert!(sums(&mut hours, day.next()).is_empty());
    assert_eq!(
        hours.sealed().start.to_string(),
        "2026-11-23T16:00:00Z",
        "the first day, which began before the ledger"
    );
    let first = hours.sealed().start;
    assert_eq!(sums(&mut hours, first), [(13, 39)]);
    assert_eq!(sums(&mut hours, before), [(1, 3)]);
    hours.refuse_cut_days(&(day..before)).expect("whole days");
    let refused = hours.refuse_cut_days(&(day.next()..before)).expect_err("it cuts a day");
    assert!(matches!(refused, LedgerError::RangeCutsDay { day: cut, .. } if cut == day), "{refused}");
}
