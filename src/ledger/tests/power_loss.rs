//! Power loss. The disk then holds:
//! - the tally of the last sync, with any of the later pages on top, whole or torn;
//! - the book's log, up to any point after its last commit.
//!
//! A disk of the tests keeps the image of the last sync. Every disk state that a power loss could leave can therefore
//! be built from the image and opened.
//!
//! Guarantees:
//! - No synced count is missing.
//! - No count is larger than the number of commands made.
//! - The books balance.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::*;

/// The units that reach a disk as a whole: a page of the kernel, a sector of the disk.
const PAGE: usize = 4096;
const SECTOR: usize = 512;
/// The number of page combinations to try, if there are too many to try all.
const COMBINATIONS: u64 = 60;
const SEED: u64 = 4;

/// The machine's disk, with a copy of the content that is certainly on the disk.
#[derive(Debug)]
struct RememberingDisk(Arc<Mutex<Vec<u8>>>);

impl TallyDisk for RememberingDisk {
    fn create(&self, path: &Path) -> std::io::Result<File> {
        SystemDisk.create(path)
    }
    fn extend(&self, file: &File, from: u64, bytes: u64) -> std::io::Result<()> {
        SystemDisk.extend(file, from, bytes)
    }
    fn sync(&self, file: &File) -> std::io::Result<()> {
        let mut image = vec![0; usize::try_from(file.metadata()?.len()).expect("a small file")];
        file.read_exact_at(&mut image, 0)?;
        *self.0.lock().expect("no panic holds it") = image;
        SystemDisk.sync(file)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        SystemDisk.remove(path)
    }
}

/// Commands by series and outcome. Admitted commands are under `admitted`.
type TestCounts = BTreeMap<(String, String), i64>;

/// Opens a ledger on the remembering disk. Only a fold of the test causes a sync.
fn open(bench: &LedgerBench, workers: usize) -> (Ledger, Vec<Meter>, Arc<Mutex<Vec<u8>>>) {
    let synced = Arc::default();
    let disk = Box::new(RememberingDisk(Arc::clone(&synced)));
    let settings = LedgerSettings { sync_every: Duration::from_secs(3600), ..bench.settings(workers) };
    let opened = Ledger::open_on(disk, settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, seeds) = opened.expect("a ledger");
    (ledger, seeds.into_iter().map(MeterSeed::into_meter).collect(), synced)
}

/// The commands that a test made, for comparison with the recovered counts.
#[derive(Clone, Debug, Default)]
struct TestLedger(TestCounts);

impl TestLedger {
    fn note(&mut self, number: u32, what: &str) {
        *self.0.entry((format!("command-{number}"), what.to_owned())).or_default() += 1;
    }

    fn admit(&mut self, bench: &LedgerBench, meter: &Meter, number: u32) -> Ticket {
        self.note(number, "admitted");
        meter.received();
        meter.open(&department(1), &command(number), 1, bench.clock.window()).expect("a slot")
    }

    fn end(&mut self, ticket: Ticket, number: u32) {
        self.note(number, "ok");
        ticket.settle(Finished::Ok);
    }

    fn refuse(&mut self, bench: &LedgerBench, meter: &Meter, number: u32) {
        self.note(number, "forbidden");
        meter.received();
        meter.refuse(&department(1), &command(number), Refused::Forbidden, bench.clock.window());
    }
}

/// The files of a crashed ledger.
#[derive(Clone, Debug)]
struct DiskRemains {
    book: Vec<u8>,
    log: Vec<u8>,
    /// The tally of the last sync, and the tally in the memory of the machine at the power loss.
    synced: Vec<u8>,
    latest: Vec<u8>,
}

impl DiskRemains {
    fn of(bench: &LedgerBench, synced: &Mutex<Vec<u8>>) -> Self {
        let read = |extension| std::fs::read(bench.path().with_extension(extension)).expect("a file of the ledger");
        let mut synced = synced.lock().expect("no panic holds it").clone();
        let mut latest = read(TALLY_EXTENSION);
        for image in [&mut synced, &mut latest] {
            image[16 * 8 + 1] ^= 1; // the first character of the boot id: the machine has restarted
        }
        Self { book: read("db"), log: read("db-wal"), synced, latest }
    }

    /// Returns the pages that have changed since the last sync.
    fn dirty(&self) -> Vec<usize> {
        let page = |image: &[u8], number: usize| image.get(number * PAGE..).map(|rest| rest[..PAGE].to_vec());
        (0..self.latest.len() / PAGE).filter(|n| page(&self.synced, *n) != page(&self.latest, *n)).collect()
    }

    /// Returns the tally of the last sync with the later content of the sectors that `reached` the disk.
    fn tally(&self, mut reached: impl FnMut(usize) -> bool) -> Vec<u8> {
        let mut image = self.synced.clone();
        for page in self.dirty() {
            for sector in (page * PAGE / SECTOR..(page + 1) * PAGE / SECTOR).filter(|sector| reached(*sector)) {
                let bytes = sector * SECTOR..(sector + 1) * SECTOR;
                image[bytes.clone()].copy_from_slice(&self.latest[bytes]);
            }
        }
        image
    }

    /// Opens the files as a restarted machine does, twice, and closes the ledger cleanly.
    fn recover(&self, tally: &[u8], log: &[u8]) -> LedgerBench {
        let bench = LedgerBench::new();
        let write = |extension, bytes: &[u8]| {
            std::fs::write(bench.path().with_extension(extension), bytes).expect("written");
        };
        write("db", &self.book);
        write("db-wal", log);
        write(TALLY_EXTENSION, tally);
        for _ in 0..2 {
            let (ledger, _) = bench.open(1);
            ledger.close().expect("closed");
        }
        bench
    }
}

fn counts(bench: &LedgerBench) -> TestCounts {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    let select = "SELECT command, 'admitted', sum(admitted) FROM admission JOIN series USING (series) GROUP BY 1
                  UNION ALL
                  SELECT command, outcome.name, sum(commands) FROM usage JOIN series USING (series)
                  JOIN outcome ON outcome.code = usage.outcome WHERE commands > 0 GROUP BY 1, 2";
    let mut query = book.prepare(select).expect("a query");
    let rows = query.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?))).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

/// Requires that the counts lie between `synced` and `made`, and that the books balance.
fn audit(bench: &LedgerBench, synced: &TestCounts, made: &TestCounts, what: &str) {
    let found = counts(bench);
    let of = |counts: &TestCounts, key: &(String, String)| counts.get(key).copied().unwrap_or(0);
    for (key, least) in synced {
        assert!(of(&found, key) >= *least, "{what}: {key:?} is below its synced count {least}: {found:?}");
    }
    for (key, count) in &found {
        let most = if key.1 == "interrupted" { (key.0.clone(), "admitted".to_owned()) } else { key.clone() };
        assert!(*count <= of(made, &most), "{what}: {key:?} is more than was counted: {found:?}");
    }
    let ended = |command: &str| {
        let rows =
            found.iter().filter(|((of, outcome), _)| of == command && outcome != "admitted" && outcome != "forbidden");
        rows.map(|(_, count)| count).sum::<i64>()
    };
    for ((command, _), admitted) in found.iter().filter(|((_, what), _)| what == "admitted") {
        assert_eq!(ended(command), *admitted, "{what}: admitted and ended of {command}: {found:?}");
    }
    let deaths = "SELECT count(*) FROM epoch WHERE ending = 'machine died'";
    assert_eq!(bench.number(deaths), 1, "{what}: one epoch ended by a death of the machine");
}

/// Returns the files at the power loss, the counts before the last sync, and all counts.
fn lose_power(commands: u32) -> (DiskRemains, TestCounts, TestCounts) {
    let bench = LedgerBench::new();
    let (ledger, meters, synced) = open(&bench, 2);
    let mut made = TestLedger::default();
    let mut open_tickets = Vec::new();
    for number in 1..=commands {
        for meter in &meters {
            let ticket = made.admit(&bench, meter, number);
            made.end(ticket, number);
            open_tickets.push((made.admit(&bench, meter, number), number));
        }
        made.refuse(&bench, &meters[0], number);
    }
    wait(ledger.reader().fold_now()).expect("a sync and a fold");
    let before = made.0.clone();
    for (mut ticket, number) in open_tickets.drain(..) {
        ticket.add_response_bytes(100);
        made.end(ticket, number);
    }
    let mut in_flight = Vec::new();
    for number in commands / 2..=commands * 3 / 2 {
        in_flight.push(made.admit(&bench, &meters[1], number)); // half of them have new names
        made.refuse(&bench, &meters[0], number);
    }
    let remains = DiskRemains::of(&bench, &synced);
    drop((ledger, in_flight));
    (remains, before, made.0)
}

#[test]
fn power_loss_that_drops_any_pages_loses_nothing_synced() {
    let (remains, synced, made) = lose_power(4);
    audit_all_pages(&remains, (&synced, &made), 3..=8);
}

#[test]
fn power_loss_that_tears_any_sectors_loses_nothing_synced() {
    let (remains, synced, made) = lose_power(60);
    for seed in SEED..SEED + COMBINATIONS {
        let mut random = fastrand::Rng::with_seed(seed);
        let share = random.u8(1..=255);
        let bench = remains.recover(&remains.tally(|_| random.u8(..) < share), &remains.log);
        audit(&bench, &synced, &made, &format!("seed {seed}"));
    }
}

#[test]
fn book_log_truncated_or_torn_after_its_last_commit_loses_nothing() {
    let bench = LedgerBench::new();
    let (ledger, meters, synced) = open(&bench, 1);
    let mut made = TestLedger::default();
    let mut count = || {
        for number in 1..=20 {
            let ticket = made.admit(&bench, &meters[0], number);
            made.end(ticket, number);
        }
        wait(ledger.reader().fold_now()).expect("a sync and a fold");
        std::fs::metadata(bench.path().with_extension("db-wal")).expect("the book's log").len()
    };
    let (committed, written) = (count() as usize, count() as usize);
    assert!(written > committed + PAGE, "the log has grown");
    let remains = DiskRemains::of(&bench, &synced);
    drop(ledger);
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..COMBINATIONS {
        let mut log = remains.log.clone();
        for sector in committed.div_ceil(SECTOR)..written / SECTOR {
            if random.bool() {
                log[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
            }
        }
        log.truncate(random.usize(committed..=written));
        // The tally was synced before the fold began, so the recovery has all counts.
        let bench = remains.recover(&remains.synced, &log);
        audit(&bench, &made.0, &made.0, "a torn log");
    }
}

/// Admits two streams in an hour that is then sealed, and commands of other series. The test keeps these commands in
/// flight, or ends them before the seal. Everything is synced.
fn two_streams(
    bench: &LedgerBench,
    made: &mut TestLedger,
    (ledger, meter): (&Ledger, &Meter),
    others: impl FnOnce(&mut TestLedger, Vec<(Ticket, u32)>) -> Vec<(Ticket, u32)>,
) -> ([Ticket; 2], Vec<(Ticket, u32)>) {
    // Slots are taken in the file's order. With other slots on both sides, the streams' slot lies on a different page
    // than the worker's slot and the slots of the late ends.
    let mut tickets: Vec<_> = (2..=6).map(|number| (made.admit(bench, meter, number), number)).collect();
    let streams = [0, 1].map(|_| made.admit(bench, meter, 1));
    tickets.extend((7..=12).map(|number| (made.admit(bench, meter, number), number)));
    let others = others(made, tickets);
    bench.pass(2 * HOUR, ledger, meter);
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 1, "their hour is sealed");
    (streams, others)
}
const HOUR: Duration = Duration::from_secs(3600);

/// Recovers from every combination of the pages that have changed since the last sync, and audits each.
fn audit_all_pages(
    remains: &DiskRemains,
    (synced, made): (&TestCounts, &TestCounts),
    pages: std::ops::RangeInclusive<usize>,
) {
    let dirty = remains.dirty();
    assert!(pages.contains(&dirty.len()), "too many or too few dirty pages for all combinations: {dirty:?}");
    for combination in 0..1_usize << dirty.len() {
        let reached = |sector: usize| {
            let place = dirty.iter().position(|page| *page == sector * SECTOR / PAGE);
            place.is_some_and(|place| combination >> place & 1 == 1)
        };
        let bench = remains.recover(&remains.tally(reached), &remains.log);
        audit(&bench, synced, made, &format!("pages {combination:b} of {dirty:?}"));
    }
}

#[test]
fn late_end_is_counted_once_whatever_pages_a_power_loss_drops() {
    let bench = LedgerBench::new();
    let (ledger, meters, image) = open(&bench, 1);
    let mut made = TestLedger::default();
    // The other commands stay in flight, so their slots stay in use.
    let (streams, others) = two_streams(&bench, &mut made, (&ledger, &meters[0]), |_, tickets| tickets);
    for ticket in streams {
        let synced = made.0.clone();
        made.end(ticket, 1);
        audit_all_pages(&DiskRemains::of(&bench, &image), (&synced, &made.0), 3..=7);
        wait(ledger.reader().fold_now()).expect("a sync and a fold");
    }
    drop((ledger, others));
}

#[test]
fn slots_of_late_ends_live_as_long_as_those_of_their_admissions() {
    let bench = LedgerBench::new();
    let (ledger, meters, image) = open(&bench, 1);
    let meter = &meters[0];
    let mut made = TestLedger::default();
    let end = |made: &mut TestLedger, tickets: Vec<(Ticket, u32)>| {
        tickets.into_iter().for_each(|(ticket, number)| made.end(ticket, number));
        Vec::new()
    };
    let ([one, other], _) = two_streams(&bench, &mut made, (&ledger, meter), end);
    made.end(one, 1);
    for number in 20..23 {
        bench.pass(2 * HOUR, &ledger, meter); // the hour of the late end is sealed, and its slot is in quarantine
        let synced = made.0.clone();
        let new = made.admit(&bench, meter, number); // in a returned slot, if there is one
        audit_all_pages(&DiskRemains::of(&bench, &image), (&synced, &made.0), 1..=7);
        made.end(new, number);
    }
    made.end(other, 1);
    for number in 30..34 {
        bench.pass(2 * HOUR, &ledger, meter); // returns first the one slot, then the others
        let synced = made.0.clone();
        let new = made.admit(&bench, meter, number);
        made.end(new, number);
        audit_all_pages(&DiskRemains::of(&bench, &image), (&synced, &made.0), 1..=7);
    }
    drop(ledger);
}

#[test]
fn book_is_never_ahead_of_the_tally_on_disk() {
    let bench = LedgerBench::new();
    let (ledger, meters, synced) = open(&bench, 1);
    let mut made = TestLedger::default();
    for _ in 0..2 {
        let ticket = made.admit(&bench, &meters[0], 1);
        made.end(ticket, 1);
        if made.0.values().all(|count| *count == 1) {
            wait(ledger.reader().fold_now()).expect("a sync and a fold");
        }
    }
    let begin = std::time::Instant::now();
    while counts(&bench) != made.0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the keeper folds every second, and syncs every hour here");
        std::thread::sleep(Duration::from_millis(10));
    }
    let remains = DiskRemains::of(&bench, &synced);
    drop(ledger);
    let bench = remains.recover(&remains.synced, &remains.log);
    audit(&bench, &made.0, &made.0, "what the book had said, durably, before the power went");
}

#[test]
fn sealed_end_is_not_interrupted_as_well() {
    let bench = LedgerBench::new();
    let (ledger, meters, synced) = open(&bench, 1);
    let mut made = TestLedger::default();
    let ticket = made.admit(&bench, &meters[0], 1);
    wait(ledger.reader().fold_now()).expect("a sync and a fold");
    made.end(ticket, 1);
    bench.clock.advance(Duration::from_secs(2 * 3600));
    let begin = std::time::Instant::now();
    while bench.number("SELECT count(*) FROM seal") == 0 {
        meters[0].tick();
        assert!(begin.elapsed() < Duration::from_secs(20), "the keeper seals when it folds, and syncs every hour here");
        std::thread::sleep(Duration::from_millis(10));
    }
    let remains = DiskRemains::of(&bench, &synced);
    drop(ledger);
    let bench = remains.recover(&remains.synced, &remains.log);
    audit(&bench, &made.0, &made.0, "what was sealed before the power went");
}
