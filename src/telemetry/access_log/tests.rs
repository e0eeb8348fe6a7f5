//! The access log as a whole: recorder, queue and writer with real files and pipes.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::counts::{AccessCounts, DropReason};
use super::live_log::AccessLog;
use super::record::AccessRecord;
use super::recorder::AccessRecorder;
use crate::clock::Clock;
use crate::config::{AccessLogFormat, AccessLogOutput, AccessLogSettings, AccessQueueLimits, SampleRates};
use crate::model::{Finished, Name, Outcome, Refused};

/// An access log with its counts and a folder for its files.
struct Bench {
    log: Arc<AccessLog>,
    counts: Arc<AccessCounts>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let counts = Arc::default();
        let log = AccessLog::new(&counts, Clock::system(), Name::parse("tallygate").expect("a name"));
        Self { log, counts, folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn switch(&self, settings: Option<&AccessLogSettings>) {
        self.log.switch(self.log.prepare(settings).expect("it opens")).expect("a thread");
    }

    /// Hands over records with these ids.
    fn record(&self, ids: std::ops::Range<u128>) {
        let recorder = AccessRecorder::new(Arc::clone(&self.log));
        let settings = self.log.settings().expect("it is on");
        ids.for_each(|id| recorder.record(&settings, record(id)));
    }
}

fn settings(output: &Path) -> AccessLogSettings {
    AccessLogSettings {
        output: AccessLogOutput::File(output.to_owned()),
        format: AccessLogFormat::Json,
        has_query: false,
        sampling: SampleRates::default(),
        queue: AccessQueueLimits::default(),
    }
}

fn record(id: u128) -> Box<AccessRecord> {
    let mut record = AccessRecord::new(Timestamp::UNIX_EPOCH, id, SocketAddr::from(([127, 0, 0, 1], 9)));
    record.outcome = Outcome::Finished(Finished::Ok);
    Box::new(record)
}

/// The request ids of the lines of a JSON log.
fn ids(text: &str) -> Vec<u128> {
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a whole line");
        u128::from_str_radix(line["request_id"].as_str().expect("an id"), 16).expect("a number")
    };
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines().map(id).collect()
}

fn ids_of(path: &Path) -> Vec<u128> {
    ids(&fs::read_to_string(path).expect("a file"))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn make_pipe(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

/// A reader of a pipe that waits for nothing.
fn open_reader(path: &Path) -> File {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).expect("a pipe").into()
}

#[test]
fn lines_that_wait_are_written_before_the_end() {
    let bench = Bench::new();
    bench.switch(Some(&settings(&bench.path("a"))));
    bench.record(0..5_000);
    bench.log.close();
    assert_eq!(ids_of(&bench.path("a")), (0..5_000).collect::<Vec<_>>());
    assert_eq!((bench.counts.written(), bench.counts.dropped_total()), (5_000, 0));
    assert!(bench.log.settings().is_none());
    bench.log.close(); // a second end does nothing
}

#[test]
fn sample_leaves_commands_out_by_outcome_and_counts_them() {
    let bench = Bench::new();
    let mut sampled = settings(&bench.path("a"));
    sampled.sampling.finished[Finished::Ok.index()] = 10;
    sampled.sampling.refused[Refused::Forbidden.index()] = 0;
    bench.switch(Some(&sampled));
    bench.record(0..100);
    let recorder = AccessRecorder::new(Arc::clone(&bench.log));
    for refused in [Refused::Forbidden, Refused::Malformed] {
        let mut record = record(7);
        record.outcome = Outcome::Refused(refused);
        recorder.record(&sampled, record);
    }
    drop(recorder);
    bench.log.close();
    assert_eq!(ids_of(&bench.path("a")), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 7]);
    let text = fs::read_to_string(bench.path("a")).expect("a file");
    assert_eq!(text.matches(r#""sample":10}"#).count(), 10);
    assert!(text.lines().last().is_some_and(|line| line.ends_with(r#""sample":1}"#)), "{text}");
    assert_eq!((bench.counts.written(), bench.counts.left_out()), (11, 91));
}

#[test]
fn renamed_file_keeps_the_lines_before_the_order_and_a_new_file_has_the_others() {
    let bench = Bench::new();
    bench.switch(Some(&settings(&bench.path("a"))));
    for round in 0..20 {
        bench.record(round * 500..round * 500 + 250);
        fs::rename(bench.path("a"), bench.path(&format!("a.{round}"))).expect("it is renamed");
        assert!(bench.log.reopen());
        bench.record(round * 500 + 250..round * 500 + 500);
        until("the file is there again", || bench.path("a").exists());
    }
    bench.log.close();
    let files = (0..20).map(|round| bench.path(&format!("a.{round}"))).chain([bench.path("a")]);
    let all: Vec<u128> = files.flat_map(|path| ids_of(&path)).collect();
    assert_eq!(all, (0..10_000).collect::<Vec<_>>());
}

#[test]
fn another_output_takes_the_lines_from_then_on_and_off_ends_them() {
    let bench = Bench::new();
    assert!(!bench.log.reopen(), "no file");
    bench.switch(Some(&settings(&bench.path("a"))));
    bench.record(0..10);
    bench.switch(Some(&AccessLogSettings { format: AccessLogFormat::Logfmt, ..settings(&bench.path("b")) }));
    bench.record(10..20);
    bench.switch(None);
    assert!(bench.log.settings().is_none());
    until("all is written", || bench.counts.written() == 20);
    assert_eq!(ids_of(&bench.path("a")), (0..10).collect::<Vec<_>>());
    let text = fs::read_to_string(bench.path("b")).expect("a file");
    assert_eq!(text.lines().filter(|line| line.starts_with("time=1970-01-01T00:00:00.000Z request_id=")).count(), 10);
    let open = |path: &Path| {
        fs::read_dir("/proc/self/fd").is_ok_and(|mut all| {
            all.any(|entry| entry.is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path)))
        })
    };
    until("the file is closed", || !open(&bench.path("b")));
    bench.switch(Some(&settings(&bench.path("a"))));
    bench.record(20..30);
    bench.log.close();
    assert_eq!(ids_of(&bench.path("a")), (0..10).chain(20..30).collect::<Vec<_>>());
}

#[test]
fn output_that_cannot_be_opened_changes_nothing() {
    let bench = Bench::new();
    bench.switch(Some(&settings(&bench.path("a"))));
    let error = bench.log.prepare(Some(&settings(&bench.path("no/a")))).expect_err("no such folder");
    assert!(error.to_string().contains("No such file or directory"), "{error}");
    bench.record(0..3);
    bench.log.close();
    assert_eq!(ids_of(&bench.path("a")), [0, 1, 2]);
}

#[test]
fn full_disk_drops_lines_beyond_the_queue_and_counts_each() {
    let bench = Bench::new();
    let queue = AccessQueueLimits { lines: 4, ..AccessQueueLimits::default() };
    bench.switch(Some(&AccessLogSettings { queue, ..settings(Path::new("/dev/full")) }));
    let mut pushed = 0;
    until("lines are dropped because of the disk", || {
        bench.record(pushed..pushed + 1);
        pushed += 1;
        bench.counts.dropped(DropReason::DiskFull) > 0
    });
    bench.log.close();
    let counts = &bench.counts;
    assert_eq!((counts.written(), counts.dropped_total()), (0, u64::try_from(pushed).expect("few")));
}

#[test]
fn reader_that_is_gone_loses_nothing_that_the_queue_holds() {
    let bench = Bench::new();
    let pipe = bench.path("pipe");
    make_pipe(&pipe);
    let error = bench.log.prepare(Some(&settings(&pipe))).expect_err("no reader");
    assert!(error.to_string().contains("a named pipe that no program reads"), "{error}");
    let mut reader = open_reader(&pipe);
    bench.switch(Some(&settings(&pipe)));
    bench.record(0..3);
    let mut text = String::new();
    until("the lines arrive", || {
        let _ = reader.read_to_string(&mut text); // an empty pipe is an error
        text.lines().count() == 3
    });
    drop(reader);
    bench.record(3..203);
    until("the failure is known", || bench.log.failure() == Some(DropReason::ReaderGone));
    assert_eq!(bench.counts.written(), 3);
    let mut reader = open_reader(&pipe);
    until("the lines arrive", || {
        let _ = reader.read_to_string(&mut text);
        text.lines().count() == 203
    });
    bench.log.close();
    assert_eq!(ids(&text), (0..203).collect::<Vec<_>>());
    assert_eq!((bench.counts.written(), bench.counts.dropped_total()), (203, 0));
}

#[test]
fn stalled_reader_delays_neither_workers_nor_the_end() {
    let bench = Bench::new();
    let pipe = bench.path("pipe");
    make_pipe(&pipe);
    let mut reader = open_reader(&pipe);
    let queue = AccessQueueLimits { lines: 100, ..AccessQueueLimits::default() };
    bench.switch(Some(&AccessLogSettings { queue, ..settings(&pipe) }));
    let begun = Instant::now();
    bench.record(0..2_000); // more than pipe, writer and queue hold
    until("lines are dropped", || bench.counts.dropped(DropReason::QueueFull) > 0);
    bench.log.close();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the rest of the pipe");
    assert_eq!(ids(&text).len() as u64, bench.counts.written(), "whole lines");
    assert_eq!(bench.counts.written() + bench.counts.dropped_total(), 2_000);
}
