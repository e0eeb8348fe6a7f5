//! The real ledger, driven step by step on one thread: meters, keeper without its thread, files, a disk that fails.
//!
//! What happens to the ledger happens to the model; whoever reads the one must find the other.

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

use self::life::Life;
use super::books;
use super::disk::{SimulatedDisk, State};
use super::model::Model;
use super::schedule::{BEGINNINGS, Start, Step};
use crate::clock::Clock;
use crate::ledger::audit::verify;
use crate::ledger::keeper::Pace;
use crate::ledger::shared::Request;
use crate::ledger::tests::{ALWAYS, department};
use crate::ledger::{Adjustment, Founded, LedgerError, LedgerReader, LedgerSettings, Meter, TALLY, adjust, found};
use crate::lifecycle::Ready;
use crate::model::{Name, Window};

/// Slots in a segment: so few that they run out and are used again within a schedule. A page holds eight.
const SEGMENT_SLOTS: u32 = 16;
const PAGE: usize = 4096;

pub(super) struct World {
    life: Option<Life>,
    path: PathBuf,
    clock: Clock,
    disk: Arc<State>,
    rng: Rng,
    model: Model,
    /// The model as it was at the last sync.
    synced: Model,
    syncs: u64,
    /// The latest second that the wall clock has shown.
    latest: i64,
    /// An auditor who keeps the book open as long as a gateway lives.
    auditor: OnceCell<Connection>,
    /// After a loss of power that left some newer pages: what the ledger must have, and what it may have.
    between: Option<(Model, Model)>,
}

impl World {
    /// A machine with nothing on its disk, but for a spare tally in `folder`.
    pub(super) fn new(folder: &Path, mut rng: Rng) -> Self {
        let path = folder.join("ledger.db");
        for extension in ["db", "db-wal", "db-shm"] {
            let _ = std::fs::remove_file(path.with_extension(extension));
        }
        for extension in [TALLY, "tally-new"] {
            let _ = std::fs::rename(path.with_extension(extension), path.with_extension("spare"));
        }
        let begins: Timestamp = BEGINNINGS[rng.usize(0..BEGINNINGS.len())].parse().expect("a time");
        Self {
            life: None,
            path,
            clock: Clock::manual(begins),
            disk: Arc::default(),
            rng,
            model: Model::default(),
            synced: Model::default(),
            syncs: 0,
            latest: i64::MIN,
            auditor: OnceCell::new(),
            between: None,
        }
    }

    pub(super) fn take(&mut self, step: Step) {
        self.latest = self.latest.max(self.clock.unix_seconds());
        match step {
            Step::Admit { worker, department, command, units } => self.admit(worker, (department, command), units),
            Step::Bytes { nth, request, response } => self.pass_bytes(nth, request, response),
            Step::End { nth, finished } => self.end(nth, Some(finished)),
            Step::Leave { nth } => self.end(nth, None),
            Step::Refuse { worker, department, command, refused } => {
                self.receive(worker);
                self.refuse(worker, (department, command), refused);
            }
            Step::Tick { worker } => self.tick(worker),
            Step::Turn => self.turn(),
            Step::Fold => self.fold(),
            Step::Pass(time) => self.clock.advance(time),
            Step::SetClock { seconds } => self.step_clock(seconds),
            Step::Fill => self.disk.is_full.store(true, Ordering::Relaxed),
            Step::Free => self.disk.is_full.store(false, Ordering::Relaxed),
            Step::Look => self.look(),
            Step::Adjust { department, units } => self.adjust(department, units),
            Step::Close => self.close(),
            Step::Kill => self.kill(),
            Step::LosePower { some_newer } => self.lose_power(some_newer),
            Step::LoseSync => self.lose_sync(),
            Step::Start(start) => self.start(&start),
        }
        self.note_syncs();
    }

    /// With room on the disk and a little time, a gateway that lives lets everybody in and seals what is over.
    pub(super) fn finish(&mut self) {
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
            assert!(self.life.is_none() || self.model.open.len() == before + 1, "there is room, and nobody is let in");
        }
        if let Some(life) = &self.life {
            let over = Window::of_unix_seconds(self.clock.unix_seconds() - 60);
            books::check_all_sealed(self.book(), over);
            assert!(life.windows.iter().all(|window| *window >= over), "a worker stayed behind");
        }
        self.kill();
        self.look();
        self.audit();
    }

    /// What a stranger's audit says: nothing is wrong, whatever has happened.
    fn audit(&self) {
        let verdict = verify(&self.path, None, &mut |_, _, _| ()).expect("an audit");
        assert!(self.between.is_some() || verdict.ok, "{:#?}", verdict.findings);
    }

    fn start(&mut self, start: &Start) {
        if self.life.is_some() {
            return;
        }
        self.auditor.take();
        let settings = self.settings(start);
        self.disk.loses_syncs.store(false, Ordering::Relaxed);
        self.disk.left.store(start.dies_at.map_or(0, |at| at + 1), Ordering::Relaxed);
        let found = found(Box::new(SimulatedDisk(Arc::clone(&self.disk))), SEGMENT_SLOTS, &settings, &self.clock);
        self.disk.left.store(0, Ordering::Relaxed);
        match found {
            Ok(founded) => self.live(founded),
            Err(_) if start.dies_at.is_some() => {}
            Err(error) => {
                assert!(self.disk.is_full.swap(false, Ordering::Relaxed) && error.may_pass(), "{error}");
                self.start(start); // somebody has made room
            }
        }
    }

    fn settings(&self, start: &Start) -> LedgerSettings {
        LedgerSettings {
            path: self.path.clone(),
            gateway: Name::parse("gateway-1").expect("a name"),
            sync_every: Duration::from_millis(50),
            workers: start.workers,
            calendar: start.calendar,
            compact_after: start.compact_after,
            ready: Ready::default(),
        }
    }

    fn live(&mut self, founded: Founded) {
        let Founded { mut keeper, inbox, requests, lock, seeds, .. } = founded;
        keeper.pace = Pace::new(self.clock.clone());
        let meters: Vec<Meter> = seeds.into_iter().map(crate::ledger::MeterSeed::into_meter).collect();
        let windows = meters.iter().map(Meter::left).collect();
        self.life = Some(Life { tickets: Vec::new(), meters, windows, keeper, inbox, requests, _lock: lock });
        if let Some((least, most)) = self.between.take() {
            self.model = books::recovered_between(self.book(), &least, &most);
        }
        self.synced = self.model.clone();
        let readings = books::Readings::expected(self.book(), &self.model);
        self.look_inside(&readings);
    }

    fn turn(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        life.keeper.turn().expect("a disk that works, or is full");
    }

    fn fold(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        let (reply, mut answer) = oneshot::channel();
        life.keeper.answer(Request::Fold(reply)).expect("a disk that works");
        answer.try_recv().expect("an answer").expect("a fold");
        self.note_syncs();
        books::check_book(self.book(), &self.model, self.clock.monotonic().nanoseconds());
    }

    fn step_clock(&self, seconds: i64) {
        let to = self.clock.wall().saturating_add(jiff::SignedDuration::from_secs(seconds)).expect("a time");
        self.clock.step_wall(to);
    }

    /// The model at this sync is what a loss of power leaves.
    fn note_syncs(&mut self) {
        let syncs = self.disk.syncs.load(Ordering::Relaxed);
        if syncs != self.syncs {
            self.syncs = syncs;
            self.synced = self.model.clone();
        }
    }

    /// The book, as another process has it open.
    fn book(&self) -> &Connection {
        self.auditor.get_or_init(|| {
            let book = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a book");
            book.set_prepared_statement_cache_capacity(32);
            book
        })
    }

    fn look(&mut self) {
        if self.between.is_some() || !self.path.exists() {
            return; // nobody has recovered it yet
        }
        let readings = books::Readings::expected(self.book(), &self.model);
        readings.check_files(&self.path, &self.model, self.rng.bool());
        self.look_inside(&readings);
    }

    /// As the gateway itself reads.
    fn look_inside(&mut self, readings: &books::Readings) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        let reader = LedgerReader { path: self.path.clone(), requests: life.requests.clone() };
        let totals = life.ask(reader.totals()).expect("totals");
        books::check_totals(&totals, &self.model);
        let rows = life.ask(reader.usage(ALWAYS)).expect("rows");
        readings.check(&rows);
    }

    /// A correction of a department's units: refused only if nobody knows the department.
    fn adjust(&self, number: u32, units: i64) {
        let department = department(number).id;
        let (period, reason, who) = ("2026-11".to_owned(), "a simulation".to_owned(), "a test".to_owned());
        let correction = Adjustment { department, subsystem: None, command: None, period, units, reason, who };
        match adjust(&self.path, &correction, &self.clock) {
            Ok(_) | Err(LedgerError::Adjustment(_)) => {}
            Err(error) => assert!(!self.path.exists(), "{error}"),
        }
    }
}
