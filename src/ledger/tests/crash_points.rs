//! A crash at every disk operation. strace counts the operations of a scenario once. The scenario is then run again and
//! killed before each of them. The state after one operation is the state before the next, so the points cover every
//! state.
//!
//! Two scenarios, each in its own process:
//! - The start of a gateway on a ledger whose gateway died: lock, recovery, new tally.
//! - The keeper's work: growth, sync, fold, seal, late end, close.
//!
//! strace counts by thread and by system call, so a point is the n-th call of one kind in the thread that does the
//! work. Needs strace from Debian.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

/// The variable with the path of the child's ledger. Without it the child does nothing.
const PATH: &str = "TALLYGATE_TEST_POINTS";
/// The system calls that change the ledger's files on the disk, or release them.
const CALLS: [&str; 8] = ["openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "unlink"];
/// The extensions of the files whose calls are counted.
const FILES: [&str; 7] = ["db", "db-wal", "db-shm", "db-journal", "tally", "tally-new", "lock"];
/// The number of concurrent scenarios.
const AT_ONCE: usize = 2;
/// The commands of the scenario. With their names they need so much space that the tally must grow.
const COMMANDS: u32 = 300;
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A crash before the n-th call of its kind.
#[derive(Clone, Debug)]
struct CrashPoint {
    call: &'static str,
    nth: usize,
}

/// The output of a scenario before its end.
#[derive(Debug, Default)]
struct CrashOutput {
    /// The number of commands announced, and the number of commands acknowledged.
    made: u64,
    done: u64,
    lines: Vec<String>,
}

impl CrashPoint {
    fn argument(&self) -> String {
        format!("inject={}:error=EIO:signal=SIGKILL:when={}", self.call, self.nth)
    }
}

/// Returns strace, restricted to the ledger's files and folder.
fn strace(bench: &LedgerBench, point: Option<&CrashPoint>) -> Command {
    let program = Path::new("/usr/bin/strace");
    assert!(program.exists(), "strace is not installed; `make test` installs it (apt-get install strace)");
    let mut strace = Command::new(program);
    strace.arg("-o").arg(log(bench)).args(["-e", &format!("trace={}", CALLS.join(","))]);
    strace.arg("-P").arg(bench.folder.path());
    for extension in FILES {
        strace.arg("-P").arg(bench.path().with_extension(extension));
    }
    if let Some(point) = point {
        strace.args(["-e", &point.argument()]);
    }
    strace.stderr(Stdio::null());
    strace
}

fn log(bench: &LedgerBench) -> PathBuf {
    bench.folder.path().join("strace.log")
}

/// Returns the points of a trace: each call by the thread that made the first call (`-f`), or by the only thread.
fn points(bench: &LedgerBench) -> Vec<CrashPoint> {
    let text = std::fs::read_to_string(log(bench)).expect("what strace wrote");
    let thread = |line: &str| line.split_once(' ').and_then(|(first, _)| first.parse::<u32>().ok());
    let first = text.lines().next().and_then(thread);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| thread(line) == first) {
        let call = line.trim_start_matches(|one: char| one.is_ascii_digit() || one == ' ').split('(').next();
        *counts.entry(call.unwrap_or_default()).or_default() += 1;
    }
    let of = |call| (1..=counts.get(call).copied().unwrap_or(0)).map(move |nth| CrashPoint { call, nth });
    CALLS.into_iter().flat_map(of).collect()
}

/// Runs `work` for every point, several points at a time.
fn for_all(points: &[CrashPoint], work: impl Fn(&CrashPoint) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(point);
                }
            });
        }
    });
}

fn child(test: &str, bench: &LedgerBench) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", &format!("ledger::tests::crash_points::{test}"), "--ignored", "--nocapture"]);
    command.env(PATH, bench.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl CrashOutput {
    fn take(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("made", count)) => self.made = count.parse().expect("a number"),
            Some(("done", count)) => self.done = count.parse().expect("a number"),
            _ => self.lines.push(line.to_owned()),
        }
    }

    fn has(&self, word: &str) -> bool {
        self.lines.iter().any(|line| line.ends_with(word))
    }
}

/// Requires that, in every epoch, admitted commands have ended or are counted nowhere.
fn assert_in_balance(bench: &LedgerBench, point: &CrashPoint) {
    let admitted = bench.number("SELECT coalesce(sum(admitted), 0) FROM admission");
    let ended = bench.number("SELECT coalesce(sum(commands), 0) FROM usage WHERE outcome < 100");
    assert_eq!(admitted, ended, "{point:?}: admitted and ended");
    let open = bench.number("SELECT count(*) FROM epoch WHERE ending IS NULL OR ending = 'tally missing'");
    assert_eq!(open, 0, "{point:?}: every epoch has a known end");
}

// ----- the start of a gateway after a crash -----

/// Returns a ledger whose gateway died with a sealed hour, an open hour, and a command in flight in each.
fn dead_ledger() -> LedgerBench {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    let long = admit(&meter, &bench.clock);
    admit(&meter, &bench.clock).settle(Finished::Ok);
    bench.pass(Duration::from_secs(2 * 3600), &ledger, &meter);
    let short = admit(&meter, &bench.clock);
    for number in 1..=20 {
        meter.received();
        let opened = meter.open(&department(2), &self::command(number), 1, bench.clock.window());
        opened.expect("a slot").settle(Finished::ServerError);
    }
    drop(ledger);
    std::mem::forget((long, short)); // a dead process ends no command
    bench
}

/// Returns the rows of the files, sorted.
fn sorted(bench: &LedgerBench) -> Vec<UsageRow> {
    let mut rows = bench.files();
    rows.sort_by_key(|row| (row.window, row.department.to_string(), row.command.to_string(), row.outcome.code()));
    rows
}

fn copy(dead: &LedgerBench) -> LedgerBench {
    let bench = LedgerBench { folder: tempfile::tempdir().expect("a folder"), clock: dead.clock.clone() };
    for entry in std::fs::read_dir(dead.folder.path()).expect("a folder") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), bench.folder.path().join(entry.file_name())).expect("a copy");
    }
    bench
}

#[test]
fn start_killed_at_any_disk_operation_changes_no_count() {
    let dead = dead_ledger();
    let expected = sorted(&dead);
    let run = |point: Option<&CrashPoint>| {
        let bench = copy(&dead);
        let starting = child("child_process_that_starts_a_ledger", &bench);
        let mut command = strace(&bench, point);
        command.arg("-f").arg(starting.get_program()).args(starting.get_args()).env(PATH, bench.path());
        let output = command.stdout(Stdio::piped()).output().expect("strace runs");
        let scenario_output = String::from_utf8_lossy(&output.stdout).contains("started");
        (bench, scenario_output)
    };
    let (whole, started) = run(None);
    assert!(started, "an undisturbed start succeeds");
    let points = points(&whole);
    assert!(points.len() > 40, "{points:?}");
    for_all(&points, |point| {
        let (bench, started) = run(Some(point));
        assert!(!started, "{point:?} was not reached");
        assert_eq!(sorted(&bench), expected, "{point:?}: read before recovery");
        let (ledger, _) = bench.open_one();
        ledger.close().expect("closed");
        assert_eq!(sorted(&bench), expected, "{point:?}: after the next start");
        assert_in_balance(&bench, point);
    });
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn child_process_that_starts_a_ledger() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let settings = LedgerSettings { path: path.into(), ..LedgerBench::new().settings(1) };
    let clock = Clock::manual("2026-11-24T05:20:00Z".parse().expect("a time"));
    let _opened = Ledger::open(settings, clock, Box::new(|error| panic!("{error}"))).expect("a ledger");
    println!("started");
    std::process::exit(0); // an abrupt exit: the keeper has not run yet
}

// ----- the keeper's work -----

/// Runs a scenario whose keeper is traced by strace from after its start.
fn run_keeper(point: Option<&CrashPoint>) -> (LedgerBench, CrashOutput) {
    let bench = LedgerBench::new();
    let mut scenario = child("child_process_that_runs_a_keeper", &bench).spawn().expect("a child");
    let mut lines = BufReader::new(scenario.stdout.take().expect("its output")).lines().map_while(Result::ok);
    let keeper = lines.find_map(|line| Some(line.split_once("keeper ")?.1.to_owned())).expect("its keeper's thread");
    let mut strace = strace(&bench, point).args(["-p", &keeper]).spawn().expect("strace");
    until_traced(&mut strace, &keeper);
    writeln!(scenario.stdin.take().expect("its input"), "go").expect("it listens");
    let mut scenario_output = CrashOutput::default();
    lines.for_each(|line| scenario_output.take(&line));
    scenario.wait().expect("the end");
    strace.wait().expect("the end of strace");
    (bench, scenario_output)
}

fn until_traced(strace: &mut Child, thread: &str) {
    let begin = Instant::now();
    let status = || std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    while !status().lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")) {
        assert!(begin.elapsed() < WAIT_MAX && strace.try_wait().expect("strace").is_none(), "strace does not attach");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn keeper_killed_at_any_disk_operation_loses_no_answered_command() {
    let (whole, scenario_output) = run_keeper(None);
    assert!(scenario_output.has("closed"), "a run without faults completes: {scenario_output:?}");
    let points = points(&whole);
    let of = |call: &str| points.iter().filter(|point| point.call == call).count();
    assert!(of("fdatasync") > 5 && of("fsync") > 5 && of("pwrite64") > 40 && of("unlink") > 0, "{points:?}");
    let reached = AtomicUsize::new(0);
    for_all(&points, |point| {
        let (bench, scenario_output) = run_keeper(Some(point));
        reached.fetch_add(usize::from(!scenario_output.has("closed")), Ordering::Relaxed);
        let dead = sorted(&bench);
        let ok: u64 = dead.iter().filter(|row| row.outcome.name() == "ok").map(|row| row.totals.commands).sum();
        assert!(
            (scenario_output.done..=scenario_output.made).contains(&ok),
            "{point:?}: {ok} in the ledger, {scenario_output:?}"
        );
        let (ledger, _) = bench.open_one();
        ledger.close().expect("closed");
        assert_eq!(sorted(&bench), dead, "{point:?}: after the next start");
        assert_in_balance(&bench, point);
    });
    // The number of the keeper's writes depends slightly on its wake-ups, so nearly every point is reached in each run.
    let reached = reached.into_inner();
    assert!(reached * 10 >= points.len() * 9, "only {reached} of {} points were reached", points.len());
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn child_process_that_runs_a_keeper() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let bench = LedgerBench::new();
    // No sync and no fold is triggered by the clock, so the points are the same in each run.
    let settings = LedgerSettings { path: path.into(), sync_every: Duration::from_secs(3600), ..bench.settings(1) };
    let opened = Ledger::open(settings, bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let (ledger, mut seeds) = opened.expect("a ledger");
    let meter = seeds.remove(0).into_meter();
    println!("\nkeeper {}", keepers_thread());
    std::io::stdin().read_line(&mut String::new()).expect("the signal to continue");
    live(&bench, ledger, &meter);
    println!("closed");
}

/// Waits for the keeper, because a thread sets its name itself after its start. Returns its thread id.
fn keepers_thread() -> String {
    let begin = Instant::now();
    loop {
        let tasks = std::fs::read_dir("/proc/self/task").expect("the threads");
        for task in tasks.map(|task| task.expect("a thread").path()) {
            if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "keeper") {
                return task.file_name().expect("its number").to_string_lossy().into_owned();
            }
        }
        assert!(begin.elapsed() < WAIT_MAX, "no keeper thread within the time limit");
    }
}

/// Makes the keeper do all of its work, and prints each step.
fn live(bench: &LedgerBench, ledger: Ledger, meter: &Meter) {
    let mut done = 0;
    let mut answer = |ticket: Ticket| {
        println!("made {}", done + 1);
        ticket.settle(Finished::Ok);
        done += 1;
        println!("done {done}");
    };
    let stream = admit(meter, &bench.clock);
    answer(admit(meter, &bench.clock));
    wait(ledger.reader().fold_now()).expect("a fold");
    for number in 1..=COMMANDS {
        meter.received();
        let ticket = meter.open(&department(1), &self::command(number), 1, bench.clock.window());
        answer(ticket.expect("a slot"));
    }
    meter.tick(); // sends the slots in use to the keeper; the tally grows
    bench.pass(Duration::ZERO, &ledger, meter);
    bench.pass(Duration::from_secs(2 * 3600), &ledger, meter); // the hour is sealed
    answer(stream);
    bench.pass(Duration::ZERO, &ledger, meter);
    answer(admit(meter, &bench.clock));
    ledger.close().expect("closed");
}
