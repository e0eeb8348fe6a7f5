//! A disk that fails on request, for the tests of the ledger.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::{CommandKey, Department, Finished, Refused};

use super::super::*;
use super::wait;

/// The present faults of a disk.
#[derive(Debug, Default)]
struct DiskFaults {
    is_full: AtomicBool,
    loses_syncs: AtomicBool,
}

/// The machine's disk, except for the faults.
#[derive(Debug)]
struct FaultyDisk(Arc<DiskFaults>);

impl TallyDisk for FaultyDisk {
    fn create(&self, path: &std::path::Path) -> std::io::Result<File> {
        SystemDisk.create(path)
    }
    fn extend(&self, file: &File, from: u64, bytes: u64) -> std::io::Result<()> {
        if self.0.is_full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        SystemDisk.extend(file, from, bytes)
    }
    fn sync(&self, file: &File) -> std::io::Result<()> {
        if self.0.loses_syncs.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the disk is broken"));
        }
        SystemDisk.sync(file)
    }
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        SystemDisk.remove(path)
    }
}

type DiskFailures = mpsc::Receiver<LedgerError>;

fn open(folder: &std::path::Path) -> (Ledger, Meter, Arc<DiskFaults>, DiskFailures) {
    let faults = Arc::new(DiskFaults::default());
    let settings = LedgerSettings {
        path: folder.join("ledger.db"),
        gateway: Name::unknown(),
        sync_every: Duration::from_millis(10),
        workers: 1,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    };
    let clock = Clock::manual("2026-11-24T03:10:00Z".parse().expect("a time"));
    let (failed, failures) = mpsc::channel();
    let failed = Box::new(move |error| failed.send(error).expect("the receiver is open"));
    let opened = Ledger::open_on(Box::new(FaultyDisk(Arc::clone(&faults))), settings, clock, failed);
    let (ledger, mut seeds) = opened.expect("a ledger");
    (ledger, seeds.remove(0).into_meter(), faults, failures)
}

fn command(number: u32) -> CommandKey {
    CommandKey { number, subsystem: Name::other(), command: Name::parse(&format!("c{number}")).expect("a name") }
}

#[test]
fn full_disk_refuses_commands_without_a_slot_counts_them_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ledger, meter, faults, _failures) = open(folder.path());
    faults.is_full.store(true, Ordering::SeqCst);
    let who = Department::unknown();
    let try_one = |number| {
        meter.received();
        let opened = meter.open(&who, &command(number), 1, Window(1));
        let refused = opened.map(|ticket| ticket.settle(Finished::Ok)).err();
        refused.inspect(|refused| meter.refuse(&who, &command(number), *refused, Window(1))).is_none()
    };
    let admitted = (1..=3000).filter(|number| try_one(*number)).count() as u64;
    assert!(admitted < 3000, "more commands than slots");
    assert!(try_one(1), "commands with a slot continue");
    assert!(!try_one(3000));

    faults.is_full.store(false, Ordering::SeqCst);
    wait(ledger.reader().fold_now()).expect("a turn of the keeper");
    wait(ledger.reader().totals()).expect("the end of that turn");
    meter.tick();
    assert!(try_one(3000), "recovered without a restart");
    meter.tick();
    let totals = wait(ledger.reader().totals()).expect("totals");
    let sum = |of: fn(&SeriesTotals) -> u64| totals.series.iter().map(of).sum::<u64>();
    assert_eq!(totals.imbalance, 0);
    assert_eq!(sum(|one| one.admitted), admitted + 2);
    assert_eq!(sum(|one| one.refused[Refused::LedgerUnavailable.index()]), 3000 - admitted + 1);
}

#[test]
fn failed_sync_ends_the_keeper_and_is_reported_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ledger, meter, faults, failures) = open(folder.path());
    let ticket = meter.open(&Department::unknown(), &command(1), 1, Window(1)).expect("a slot");
    faults.loses_syncs.store(true, Ordering::SeqCst);
    assert!(wait(ledger.reader().fold_now()).is_err());
    let message = failures.recv().expect("the failure").to_string();
    assert!(message.contains("the disk is broken") && message.contains("ledger.tally"), "{message}");
    assert!(failures.recv().is_err(), "the failure is not reported again");
    assert!(matches!(wait(ledger.reader().totals()), Err(LedgerError::Stopped)));
    let both = futures_util::future::join(ticket.wait_until_durable(), meter.run_sync_notifier());
    let waiting = async { tokio::time::timeout(Duration::ZERO, both).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    assert!(runtime.block_on(waiting).is_err(), "no count is durable after the failure");
    assert!(matches!(ledger.close(), Err(LedgerError::Stopped)));
}
