//! The real ledger, driven step by step on one thread: meters, the keeper without its thread, files, and a disk that
//! fails.
//!
//! Every step is applied to the ledger and to the model. The readers of the ledger must agree with the model.

mod deaths;
mod life;
mod traffic;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::ledger::audit::verify;
use crate::ledger::files::book_path::TALLY_EXTENSION;
use crate::ledger::keeper::KeeperSchedule;
use crate::ledger::keeper::requests::KeeperRequest;
use crate::ledger::tests::{ALWAYS, department};
use crate::ledger::{
    Adjustment, LedgerError, LedgerParts, LedgerReader, LedgerSettings, Meter, add_adjustment, build_parts,
};
use crate::lifecycle::Readiness;
use crate::model::{Name, Window};

use self::life::GatewayLife;
use super::books;
use super::disk::{DiskState, SimulatedDisk};
use super::model::LedgerModel;
use super::schedule::{BEGINNINGS, ScheduleStep, StartKind};

/// The number of slots in a segment: so small that slots run out and are reused within a schedule. A page holds eight.
const SEGMENT_SLOTS: u32 = 16;
const PAGE: usize = 4096;

pub(crate) struct SimulatedWorld {
    life: Option<GatewayLife>,
    path: PathBuf,
    clock: Clock,
    disk: Arc<DiskState>,
    rng: Rng,
    model: LedgerModel,
    /// The model at the last sync.
    synced: LedgerModel,
    syncs: u64,
    /// The latest second that the wall clock has shown.
    latest: i64,
    /// An auditor's connection, which keeps the book open as long as a gateway lives.
    auditor: OnceCell<Connection>,
    /// After a power loss that left some newer pages: the minimum and the maximum of the ledger's content.
    between: Option<(LedgerModel, LedgerModel)>,
}

impl SimulatedWorld {
    /// Returns a machine with an empty disk, except for a spare tally in `folder`.
    pub(crate) fn new(folder: &Path, mut rng: Rng) -> Self {
        let path = folder.join("ledger.db");
        for extension in ["db", "db-wal", "db-shm"] {
            let _ = std::fs::remove_file(path.with_extension(extension));
        }
        for extension in [TALLY_EXTENSION, "tally-new"] {
            let _ = std::fs::rename(path.with_extension(extension), path.with_extension("spare"));
        }
        let begins: Timestamp = BEGINNINGS[rng.usize(0..BEGINNINGS.len())].parse().expect("a time");
        Self {
            life: None,
            path,
            clock: Clock::manual(begins),
            disk: Arc::default(),
            rng,
            model: LedgerModel::default(),
            synced: LedgerModel::default(),
            syncs: 0,
            latest: i64::MIN,
            auditor: OnceCell::new(),
            between: None,
        }
    }

    pub(crate) fn take(&mut self, step: ScheduleStep) {
        self.latest = self.latest.max(self.clock.unix_seconds());
        match step {
            ScheduleStep::Admit { worker, department, command, units } => {
                self.admit(worker, (department, command), units)
            }
            ScheduleStep::Bytes { nth, request, response } => self.pass_bytes(nth, request, response),
            ScheduleStep::End { nth, finished } => self.end(nth, Some(finished)),
            ScheduleStep::Leave { nth } => self.end(nth, None),
            ScheduleStep::Refuse { worker, department, command, refused } => {
                self.receive(worker);
                self.refuse(worker, (department, command), refused);
            }
            ScheduleStep::Tick { worker } => self.tick(worker),
            ScheduleStep::Turn => self.turn(),
            ScheduleStep::Fold => self.fold(),
            ScheduleStep::Pass(time) => self.clock.advance(time),
            ScheduleStep::SetClock { seconds } => self.step_clock(seconds),
            ScheduleStep::Fill => self.disk.is_full.store(true, Ordering::Relaxed),
            ScheduleStep::Free => self.disk.is_full.store(false, Ordering::Relaxed),
            ScheduleStep::Look => self.look(),
            ScheduleStep::Adjust { department, units } => self.adjust(department, units),
            ScheduleStep::Close => self.close(),
            ScheduleStep::Kill => self.kill(),
            ScheduleStep::LosePower { some_newer } => self.lose_power(some_newer),
            ScheduleStep::LoseSync => self.lose_sync(),
            ScheduleStep::Start(start) => self.start(&start),
        }
        self.note_syncs();
    }

    /// Ends the schedule. With space on the disk and a little time, a live gateway admits every command and seals every
    /// past hour.
    pub(crate) fn finish(&mut self) {
        self.disk.is_full.store(false, Ordering::Relaxed);
        for _ in 0..6 {
            self.clock.advance(Duration::from_secs(2));
            self.latest = self.latest.max(self.clock.unix_seconds());
            self.turn();
            (0..2).for_each(|worker| self.tick(worker));
        }
        self.fold();
        for worker in 0..2 {
            let before = self.model.open.len();
            self.admit(worker, (9, 9), 1);
            assert!(
                self.life.is_none() || self.model.open.len() == before + 1,
                "a slot is free, and the command is refused"
            );
        }
        if let Some(life) = &self.life {
            let over = Window::of_unix_seconds(self.clock.unix_seconds() - 60);
            books::check_all_sealed(self.book(), over);
            assert!(life.windows.iter().all(|window| *window >= over), "a worker stayed in an earlier hour");
        }
        self.kill();
        self.look();
        self.audit();
    }

    /// Runs the audit. It must have no findings, except after a power loss that left some newer pages.
    fn audit(&self) {
        let verdict = verify(&self.path, None, &mut |_, _, _| ()).expect("an audit");
        assert!(self.between.is_some() || verdict.ok, "{:#?}", verdict.findings);
    }

    fn start(&mut self, start: &StartKind) {
        if self.life.is_some() {
            return;
        }
        self.auditor.take();
        let settings = self.settings(start);
        self.disk.loses_syncs.store(false, Ordering::Relaxed);
        self.disk.left.store(start.dies_at.map_or(0, |at| at + 1), Ordering::Relaxed);
        let found = build_parts(Box::new(SimulatedDisk(Arc::clone(&self.disk))), SEGMENT_SLOTS, &settings, &self.clock);
        self.disk.left.store(0, Ordering::Relaxed);
        match found {
            Ok(founded) => self.live(founded),
            Err(_) if start.dies_at.is_some() => {}
            Err(error) => {
                assert!(self.disk.is_full.swap(false, Ordering::Relaxed) && error.is_transient(), "{error}");
                self.start(start); // the disk has space again
            }
        }
    }

    fn settings(&self, start: &StartKind) -> LedgerSettings {
        LedgerSettings {
            path: self.path.clone(),
            gateway: Name::parse("gateway-1").expect("a name"),
            sync_every: Duration::from_millis(50),
            workers: start.workers,
            calendar: start.calendar,
            compact_after: start.compact_after,
            ready: Readiness::default(),
        }
    }

    fn live(&mut self, founded: LedgerParts) {
        let LedgerParts { mut keeper, request_receiver: inbox, request_sender: requests, lock, seeds, .. } = founded;
        keeper.schedule = KeeperSchedule::new(self.clock.clone());
        let meters: Vec<Meter> = seeds.into_iter().map(crate::ledger::MeterSeed::into_meter).collect();
        let windows = meters.iter().map(Meter::acknowledged_window).collect();
        self.life = Some(GatewayLife { tickets: Vec::new(), meters, windows, keeper, inbox, requests, _lock: lock });
        if let Some((least, most)) = self.between.take() {
            self.model = books::recovered_between(self.book(), &least, &most);
        }
        self.synced = self.model.clone();
        let readings = books::BookReadings::expected(self.book(), &self.model);
        self.look_inside(&readings);
    }

    fn turn(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        life.keeper.run_due_work().expect("a disk that works, or is full");
    }

    fn fold(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        let (reply, mut answer) = oneshot::channel();
        life.keeper.handle_request(KeeperRequest::Fold(reply)).expect("a disk that works");
        answer.try_recv().expect("an answer").expect("a fold");
        self.note_syncs();
        books::check_book(self.book(), &self.model, self.clock.monotonic().nanoseconds());
    }

    fn step_clock(&self, seconds: i64) {
        let to = self.clock.wall().saturating_add(jiff::SignedDuration::from_secs(seconds)).expect("a time");
        self.clock.step_wall(to);
    }

    /// Records the model at each sync: a power loss goes back to it.
    fn note_syncs(&mut self) {
        let syncs = self.disk.syncs.load(Ordering::Relaxed);
        if syncs != self.syncs {
            self.syncs = syncs;
            self.synced = self.model.clone();
        }
    }

    /// Returns the book, as another process opens it.
    fn book(&self) -> &Connection {
        self.auditor.get_or_init(|| {
            let book = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a book");
            book.set_prepared_statement_cache_capacity(32);
            book
        })
    }

    fn look(&mut self) {
        if self.between.is_some() || !self.path.exists() {
            return; // not recovered yet
        }
        let readings = books::BookReadings::expected(self.book(), &self.model);
        readings.check_files(&self.path, &self.model, self.rng.bool());
        self.look_inside(&readings);
    }

    /// Checks the gateway's own readers.
    fn look_inside(&mut self, readings: &books::BookReadings) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        let reader = LedgerReader { path: self.path.clone(), request_sender: life.requests.clone() };
        let totals = life.ask(reader.totals()).expect("totals");
        books::check_totals(&totals, &self.model);
        let rows = life.ask(reader.usage_by_hour(ALWAYS)).expect("rows");
        readings.check(&rows);
    }

    /// Adjusts a department's units. Refused only if the department is unknown.
    fn adjust(&self, number: u32, units: i64) {
        let department = department(number).id;
        let (period, reason, who) = ("2026-11".to_owned(), "a simulation".to_owned(), "a test".to_owned());
        let correction = Adjustment { department, subsystem: None, command: None, period, units, reason, who };
        match add_adjustment(&self.path, &correction, &self.clock) {
            Ok(_) | Err(LedgerError::Adjustment(_)) => {}
            Err(error) => assert!(!self.path.exists(), "{error}"),
        }
    }
}
