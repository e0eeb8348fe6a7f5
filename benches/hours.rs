//! The page of a sealed hour (`/metrics/hours`), from the ledger's files to its last byte: 300 and 30,000 departments,
//! each with 10 subsystems. Beside the times it prints how much the memory of the process grew at most meanwhile.

#![expect(clippy::print_stdout, reason = "criterion has no place for memory")]

use std::io;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tallygate::clock::Clock;
use tallygate::ledger::{HourGrouping, Ledger, LedgerReader, LedgerSettings, Meter, SealedHours};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, CommandKey, Department, Finished, Name, Window};
use tallygate::report::{CommonLabels, SampleFormat, write_hour_samples};

const SUBSYSTEMS: u32 = 10;
const HOUR: Duration = Duration::from_secs(3600);
/// The largest number of folds until the hour is sealed.
const FOLDS_MAX: usize = 100;

struct Bench {
    clock: Clock,
    ledger: Ledger,
    meter: Meter,
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

impl Bench {
    /// A ledger with one sealed hour.
    fn new(departments: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual("2026-11-24T03:10:00Z".parse().expect("a time"));
        let settings = LedgerSettings {
            path: folder.path().join("ledger.db"),
            gateway: name("bench"),
            sync_every: Duration::from_millis(50),
            workers: 1,
            calendar: CalendarOffset::default(),
            compact_after: None,
            ready: Readiness::default(),
        };
        let opened = Ledger::open(settings, clock.clone(), Box::new(|error| panic!("{error}")));
        let (ledger, mut seeds) = opened.expect("a ledger");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bench = Self { clock, ledger, meter: seeds.remove(0).into_meter(), runtime, folder };
        for department in 0..departments {
            (0..SUBSYSTEMS).for_each(|subsystem| bench.count(department, subsystem));
        }
        bench.seal();
        bench
    }

    /// Counts one command. The keeper provides slots as long as none are free.
    fn count(&self, number: u32, subsystem: u32) {
        let id = name(&format!("department-{number}"));
        let department = Department { number: 1 + number, id, name: String::new() };
        let subsystem_name = name(&format!("subsystem-{subsystem}"));
        let command = CommandKey { number: 1 + subsystem, subsystem: subsystem_name, command: name("record") };
        self.meter.received();
        loop {
            match self.meter.open(&department, &command, 1, self.clock.window()) {
                Ok(ticket) => {
                    ticket.settle(Finished::Ok);
                    return;
                }
                Err(_) => self.question(LedgerReader::totals),
            }
        }
    }

    fn question<T, E: std::fmt::Debug>(&self, ask: impl AsyncFnOnce(&LedgerReader) -> Result<T, E>) {
        self.runtime.block_on(ask(&self.ledger.reader())).expect("an answer");
        self.meter.tick();
    }

    fn seal(&self) {
        self.clock.advance(2 * HOUR);
        for _ in 0..FOLDS_MAX {
            self.question(LedgerReader::fold_now);
            if !self.sealed().is_empty() {
                return;
            }
        }
        panic!("the hour was not sealed");
    }

    fn hours(&self) -> SealedHours {
        SealedHours::open(&self.folder.path().join("ledger.db"), HourGrouping::default()).expect("a ledger")
    }

    fn sealed(&self) -> std::ops::Range<Window> {
        self.hours().sealed()
    }

    /// Writes the page of the hour. Returns its bytes.
    fn page(&self) -> u64 {
        let mut hours = self.hours();
        let mut out = CountingSink(0);
        let range = hours.sealed();
        let to = (SampleFormat::Text, CommonLabels::default(), &mut out);
        write_hour_samples(&mut hours, &[range], to).expect("a page");
        out.0
    }
}

struct CountingSink(u64);

impl io::Write for CountingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A field of /proc/self/status, in KiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a number")
}

fn benches(criterion: &mut Criterion) {
    for departments in [300, 30_000] {
        let bench = Bench::new(departments);
        // The peak begins again at what is resident now.
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
        let before = memory("VmRSS");
        let bytes = bench.page();
        let grown = memory("VmHWM").saturating_sub(before);
        println!("{departments} departments: {bytes} bytes, memory grew by at most {grown} KiB");
        criterion.bench_function(&format!("page of an hour, {departments} departments x 10"), |bencher| {
            bencher.iter(|| bench.page());
        });
    }
}

criterion_group! { name = pages; config = Criterion::default().sample_size(10); targets = benches }
criterion_main!(pages);
