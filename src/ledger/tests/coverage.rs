//! The identity of a ledger, and how far it reaches: live, closed, dead and copied.

use crate::ledger::audit::{LedgerCoverage, PeriodState, backup, ledger_coverage, ledger_info};
use crate::ledger::book::book_writer::BookWriter;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// The coverage of the day of [`START`], UTC, at the bench's time.
fn coverage(bench: &LedgerBench) -> LedgerCoverage {
    let from = Window::of_unix_seconds("2026-11-24T00:00:00Z".parse::<Timestamp>().expect("a time").as_second());
    ledger_coverage(&bench.path(), &(from..Window(from.0 + 24)), bench.clock.wall()).expect("coverage")
}

fn gaps(coverage: &LedgerCoverage) -> Vec<String> {
    coverage.gaps.iter().map(|gap| format!("{} {} {}", &gap.from[11..], &gap.to[11..], gap.why)).collect()
}

#[test]
fn ledger_reaches_to_its_first_open_hour_and_its_pauses_are_gaps() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.pass(Duration::ZERO, &ledger, &meter);
    let begun = coverage(&bench);
    assert_eq!(begun.begins.as_deref(), Some(START));
    assert_eq!(begun.complete_to, None, "no hour is complete yet");
    assert_eq!(gaps(&begun), ["00:00:00Z 03:10:00Z before its first start"]);
    bench.pass(HOUR, &ledger, &meter);
    let sealed = coverage(&bench);
    assert_eq!(sealed.complete_to.as_deref(), Some("2026-11-24T04:00:00Z"), "04:10, and 03 is sealed");
    assert_eq!((sealed.ended_at, sealed.completeness.state), (None, PeriodState::Open));
    let stream = admit(&meter, &bench.clock);
    bench.pass(HOUR, &ledger, &meter);
    bench.pass(HOUR, &ledger, &meter);
    assert_eq!(coverage(&bench).complete_to.as_deref(), Some("2026-11-24T04:00:00Z"), "a stream of 04 is in flight");
    stream.settle(Finished::Ok);
    bench.pass(HOUR, &ledger, &meter);
    assert_eq!(coverage(&bench).complete_to.as_deref(), Some("2026-11-24T07:00:00Z"));
    ledger.close().expect("closed");
    bench.clock.advance(3 * HOUR);
    let closed = coverage(&bench);
    assert_eq!(closed.ended_at.as_deref(), Some("2026-11-24T07:10:00Z"));
    assert_eq!(closed.complete_to.as_deref(), Some("2026-11-24T07:00:00Z"));
    assert_eq!(gaps(&closed)[1..], ["07:10:00Z 10:10:00Z closed"]);
    let (ledger, _) = bench.open_one();
    assert_eq!(gaps(&coverage(&bench))[1..], ["07:10:00Z 10:10:00Z no gateway ran"]);
    drop(ledger); // like a crash
    bench.clock.advance(2 * HOUR);
    let dead = coverage(&bench);
    assert_eq!(gaps(&dead)[2..], ["10:10:00Z 12:10:00Z not closed"]);
    assert_eq!((dead.ended_at, dead.complete_to.as_deref()), (None, Some("2026-11-24T10:00:00Z")));
    assert_eq!(dead.id, begun.id, "the same for the life of the ledger");
}

#[test]
fn copies_have_the_identity_of_their_ledger_and_other_ledgers_have_not() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    let identity = |path: &Path| LedgerFiles::open(path).expect("files").identity().expect("an identity");
    let id = identity(&bench.path());
    assert_eq!(id.as_ref().map(String::len), Some(32), "{id:?}");
    let copy = bench.folder.path().join("copy.db");
    backup(&bench.path(), &copy, &mut |_, _, _| ()).expect("a copy");
    assert_eq!(identity(&copy), id);
    assert_eq!(ledger_info(&copy).expect("info").id, id);
    ledger.close().expect("closed");
    let (ledger, _) = bench.open_one();
    assert_eq!(identity(&bench.path()), id, "after another start");
    drop(ledger);
    let other = LedgerBench::new(); // of the same gateway, process and machine
    other.clock.advance(Duration::from_nanos(1));
    other.open_one().0.close().expect("closed");
    assert_ne!(identity(&other.path()), id);
}

#[test]
fn ledger_without_an_epoch_has_no_identity_and_reaches_nowhere() {
    let bench = LedgerBench::new();
    let gateway = Name::parse("gateway-1").expect("a name");
    drop(BookWriter::open(&bench.path(), &gateway, CalendarOffset::default()).expect("a book"));
    let coverage = coverage(&bench);
    assert_eq!((&coverage.id, &coverage.begins, &coverage.complete_to), (&None, &None, &None));
    assert_eq!(gaps(&coverage), ["00:00:00Z 03:10:00Z before its first start"]);
}

#[test]
fn coverage_through_a_link_is_that_of_the_running_gateway() {
    let bench = LedgerBench::new();
    let (_ledger, _meter) = bench.open_one();
    bench.clock.advance(3 * HOUR);
    let link = bench.folder.path().join("link.db");
    std::os::unix::fs::symlink("ledger.db", &link).expect("a link");
    let range = Window(0)..bench.clock.window();
    let found = ledger_coverage(&link, &range, bench.clock.wall()).expect("coverage");
    assert_eq!(gaps(&found).len(), 1, "only the time before its first start: {found:?}");
}
