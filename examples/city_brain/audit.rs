//! Audits the demo's ledger: with Tallygate, and with the independent program in `docs/`, which needs only Python.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use tallygate::clock::Clock;
use tallygate::ledger::audit::{ExportPart, export, ledger_info, verify};
use tallygate::ledger::{Ledger, LedgerSettings, Meter};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, Name};

use crate::options::Options;

/// The largest number of folds until a past hour is sealed.
const FOLDS: usize = 100;

/// Asserts that the ledger is sound; returns the output of the independent program.
fn audited(book: &Path, what: &str) -> String {
    let verdict = verify(book, None, &mut |_, _, _| ()).expect("an audit");
    assert!(verdict.ok, "{what}: {:#?}", verdict.findings);
    let mut text = String::new();
    let mut write = |part: ExportPart| {
        for line in std::iter::once(part.heading.join("\t")).chain(part.lines) {
            text += &(line + "\n");
        }
        Ok(())
    };
    export(book, &mut write).expect("an export");
    let file = book.with_extension("export");
    std::fs::write(&file, text).expect("written");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/check_ledger.py");
    let ended = Command::new("python3").arg(program).arg(file).output();
    let ended = ended.expect("python3; `make test` installs it (apt-get install python3)");
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{what}: {said}");
    said
}

/// Opens the ledger two hours later, when the hours of the demo are over.
fn keep_later(book: &Path) -> (Ledger, Meter) {
    let settings = LedgerSettings {
        path: book.to_owned(),
        gateway: Name::parse("city-brain").expect("a name"),
        sync_every: Duration::from_millis(50),
        workers: 1,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    };
    let clock = Clock::manual(Timestamp::now() + Duration::from_secs(2 * 3600));
    let (ledger, mut seeds) = Ledger::open(settings, clock, Box::new(|error| panic!("{error}"))).expect("a ledger");
    (ledger, seeds.remove(0).into_meter())
}

fn until_sealed(ledger: &Ledger, meter: &Meter, book: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for _ in 0..FOLDS {
        runtime.block_on(ledger.reader().fold_now()).expect("a fold");
        meter.tick();
        let windows = ledger_info(book).expect("info").windows;
        if windows.sealed > 0 && windows.unsealed == 0 {
            return;
        }
    }
    panic!("the hours of the demo are over and were not sealed");
}

fn sums(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.contains(", head ")).collect()
}

#[test]
fn independent_audit_script_confirms_the_demo_ledger() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("home");
    let options = Options { seconds: Some(2), dir: Some(home.clone()), port: 0, admin_port: 0 };
    assert!(crate::run(&options).expect("the city opens"), "its books balance");
    let book = home.join("ledger.db");
    let left = audited(&book, "as the demo left it");
    assert!(left.contains("logistics-company\tok\t"), "{left}");
    let (ledger, meter) = keep_later(&book);
    until_sealed(&ledger, &meter, &book);
    let live = audited(&book, "live, sealed");
    assert_eq!(sums(&live), sums(&left), "a seal changes no sum");
    drop((meter, ledger)); // like a kill: no graceful close
    assert_eq!(audited(&book, "killed"), live);
    let copy = folder.path().join("ledger.db");
    for extension in ["db", "db-wal", "tally"] {
        std::fs::copy(book.with_extension(extension), copy.with_extension(extension)).expect("a copy");
    }
    assert_eq!(audited(&copy, "a copy"), live);
}
