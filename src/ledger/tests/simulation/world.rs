//! The real ledger, driven step by step on one thread: meters, keeper without its thread, files, a disk that fails.
//!
//! What happens to the ledger happens to the model; whoever reads the one must find the other.

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::books;
use super::disk::{SimulatedDisk, State};
use super::model::{Model, Open, Series, UNKNOWN};
use super::schedule::{BEGINNINGS, Start, Step};
use crate::clock::Clock;
use crate::ledger::audit::verify;
use crate::ledger::fold::OpenRows;
use crate::ledger::keeper::{Keeper, Pace, keep};
use crate::ledger::pages::open_for_reading;
use crate::ledger::recover::instead;
use crate::ledger::shared::{Request, Requests};
use crate::ledger::tally::{TallyImage, nanoseconds};
use crate::ledger::tests::{ALWAYS, command, department, wait};
use crate::ledger::{
    Adjustment, Founded, LedgerError, LedgerReader, LedgerSettings, Meter, TALLY, Ticket, UsageRow, adjust, found,
};
use crate::lifecycle::Ready;
use crate::model::{Finished, Name, Refused, Window};

/// Slots in a segment: so few that they run out and are used again within a schedule. A page holds eight.
const SEGMENT_SLOTS: u32 = 16;
const PAGE: usize = 4096;

/// A gateway that lives.
struct Life {
    tickets: Vec<(u64, Ticket)>,
    meters: Vec<Meter>,
    /// Where each worker stands: it counts into no window before.
    windows: Vec<Window>,
    keeper: Keeper,
    inbox: mpsc::Receiver<Request>,
    requests: Requests,
    _lock: File,
}

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
        let Founded { mut keeper, inbox, requests, lock, seeds } = founded;
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

    fn receive(&self, worker: usize) {
        let Some(life) = &self.life else { return };
        life.meters[worker % life.meters.len()].received();
    }

    fn admit(&mut self, worker: usize, series: Series, units: u64) {
        let Some(life) = &mut self.life else { return };
        self.clock.advance(Duration::from_nanos(1)); // so that the moment is a name
        let worker = worker % life.meters.len();
        let window = self.clock.window().max(life.windows[worker]);
        life.windows[worker] = window;
        let (meter, was_tight) = (&life.meters[worker], life.meters[worker].is_tight());
        meter.received();
        match meter.open(&department(series.0), &command(series.1), units, self.clock.window()) {
            Ok(ticket) => {
                let moment = nanoseconds(&self.clock);
                life.tickets.push((moment, ticket));
                let (request_bytes, response_bytes, over) = (0, 0, None);
                self.model.admit(moment, Open { worker, window, series, units, request_bytes, response_bytes, over });
            }
            Err(refused) => {
                assert!(refused == Refused::LedgerUnavailable && was_tight, "refused with room: {refused:?}");
                self.refuse(worker, series, refused);
            }
        }
    }

    fn refuse(&mut self, worker: usize, series: Series, refused: Refused) {
        let Some(life) = &mut self.life else { return };
        let worker = worker % life.meters.len();
        let window = self.clock.window().max(life.windows[worker]);
        life.windows[worker] = window;
        let is_tight = life.meters[worker].is_tight();
        let before = is_tight.then(|| life.open_rows());
        life.meters[worker].refuse(&department(series.0), &command(series.1), refused, self.clock.window());
        let named = before.is_none_or(|before| life.grew(&before, window, series, refused));
        match named {
            true => self.model.refuse(window, series, refused),
            false => self.model.refuse(life.unnamed_window(worker), UNKNOWN, refused),
        }
    }

    fn pass_bytes(&mut self, nth: usize, request: u64, response: u64) {
        let Some(life) = &mut self.life else { return };
        let count = life.tickets.len();
        let Some((moment, ticket)) = life.tickets.get_mut(nth % count.max(1)) else { return };
        ticket.add_request_bytes(request);
        ticket.add_response_bytes(response);
        let open = self.model.open.get_mut(moment).expect("a command in flight");
        open.request_bytes += request;
        open.response_bytes += response;
    }

    fn end(&mut self, nth: usize, finished: Option<Finished>) {
        let Some(life) = &mut self.life else { return };
        let count = life.tickets.len();
        if count == 0 {
            return;
        }
        let (moment, ticket) = life.tickets.remove(nth % count);
        let end = (finished.unwrap_or(Finished::Aborted), nanoseconds(&self.clock) - moment);
        match finished {
            Some(finished) => assert_eq!(u128::from(end.1), ticket.settle(finished).as_nanos()),
            None => drop(ticket),
        }
        let open = self.model.open.get_mut(&moment).expect("a command in flight");
        let meter = &life.meters[open.worker];
        if open.window >= meter.left() {
            let window = open.window;
            self.model.end(moment, window, end);
        } else if meter.waiting().contains(&moment) {
            assert!(meter.is_tight(), "an end waits with room");
            open.over = Some(end);
        } else {
            let window = life.windows[open.worker];
            self.model.end(moment, window, end);
        }
    }

    fn tick(&mut self, worker: usize) {
        let Some(life) = &mut self.life else { return };
        let worker = worker % life.meters.len();
        let meter = &life.meters[worker];
        let waited = meter.waiting();
        meter.tick();
        let waiting = meter.waiting();
        for moment in waited.iter().filter(|moment| !waiting.contains(moment)) {
            let end = self.model.open[moment].over.expect("it is over");
            self.model.end(*moment, life.windows[worker], end);
        }
        life.windows[worker] = life.windows[worker].max(meter.left());
        let over = Window::of_unix_seconds(self.latest - 60);
        assert!(meter.left() <= over, "{} was left before it was over by a minute", meter.left());
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
        books::check_book(self.book(), &self.model, nanoseconds(&self.clock));
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
            let book = open_for_reading(&self.path).expect("a book");
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

    fn close(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        self.auditor.take();
        life.drain();
        let floor = life.open_rows().floor;
        let last = instead(self.clock.wall(), life.keeper.shared.sealing());
        life.requests.send(Request::Close).expect("a keeper");
        keep(life.keeper, &life.inbox, Box::new(|error| panic!("{error}"))).expect("closed");
        self.model.interrupt(nanoseconds(&self.clock), floor, last);
        assert!(!self.path.with_extension(TALLY).exists(), "a clean end leaves no tally");
    }

    fn kill(&mut self) {
        if self.life.is_some() {
            let image = self.tally();
            self.bury(&image);
        }
    }

    fn lose_power(&mut self, some_newer: bool) {
        if self.life.is_none() {
            return;
        }
        let (mut image, most) = (self.disk.synced(), self.model.clone());
        self.model = self.synced.clone();
        if some_newer {
            self.between = Some((self.model.clone(), most));
            self.mix(&mut image);
        }
        image[16 * 8 + 1] ^= 1; // another boot: the first character of its id
        self.bury(&image);
    }

    /// Some pages that were not synced have got to the disk all the same.
    fn mix(&mut self, image: &mut Vec<u8>) {
        let present = self.tally();
        image.resize(present.len(), 0);
        for (old, new) in image.chunks_mut(PAGE).zip(present.chunks(PAGE)) {
            if self.rng.bool() {
                old.copy_from_slice(new);
            }
        }
    }

    fn lose_sync(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        self.disk.loses_syncs.store(true, Ordering::Relaxed);
        let Some(life) = self.life.take() else { return };
        let (reply, _answer) = oneshot::channel();
        life.requests.send(Request::Fold(reply)).expect("a keeper");
        let (failed, failures) = mpsc::channel();
        let kept = keep(life.keeper, &life.inbox, Box::new(move |error| failed.send(error).expect("a listener")));
        assert!(matches!(kept, Err(LedgerError::Stopped)), "{kept:?}");
        assert!(matches!(failures.recv(), Ok(LedgerError::Sync { .. })), "it says why");
        assert!(failures.recv().is_err(), "it says so once");
        let image = self.tally();
        drop((life.tickets, life.meters, life._lock));
        self.bury(&image);
    }

    fn tally(&self) -> Vec<u8> {
        std::fs::read(self.path.with_extension(TALLY)).expect("a tally")
    }

    /// The process is gone; its files are as the moment of its death left them.
    fn bury(&mut self, image: &[u8]) {
        self.auditor.take();
        let book = ["db", "db-wal"].map(|extension| self.path.with_extension(extension));
        let kept = book.clone().map(|path| std::fs::read(path).ok());
        self.life = None; // writes what a dead process would not: closes the book, ends the tickets
        for (path, bytes) in book.iter().zip(kept) {
            match bytes {
                Some(bytes) => std::fs::write(path, bytes).expect("the book as it was"),
                None => assert!(!path.exists(), "a log from nowhere"),
            }
        }
        let _ = std::fs::remove_file(self.path.with_extension("db-shm"));
        let tally = File::options().write(true).open(self.path.with_extension(TALLY)).expect("the tally");
        tally.set_len(0).and_then(|()| tally.write_all_at(image, 0)).expect("the tally as it was");
        let header = TallyImage::parse(image).expect("a tally").header;
        let floor = books::floor(self.book(), header.epoch);
        self.model.interrupt(header.synced_ns, floor, instead(header.synced_at, floor));
    }
}

impl Life {
    /// The keeper answers whoever has asked.
    fn drain(&mut self) {
        while let Ok(request) = self.inbox.try_recv() {
            self.keeper.answer(request).expect("an answer");
        }
    }

    /// Lets the keeper answer a question that a reader puts.
    fn ask<T>(&mut self, question: impl Future<Output = T>) -> T {
        let mut question = pin!(question);
        let mut context = Context::from_waker(Waker::noop());
        assert!(question.as_mut().poll(&mut context).is_pending(), "nobody has answered yet");
        self.drain();
        wait(question)
    }

    fn open_rows(&mut self) -> OpenRows {
        let (reply, mut answer) = oneshot::channel();
        self.keeper.answer(Request::OpenRows(reply)).expect("an answer");
        answer.try_recv().expect("rows")
    }

    /// Whether a refusal that had no slot of its own was counted under its own name all the same.
    fn grew(&mut self, before: &OpenRows, window: Window, series: Series, refused: Refused) -> bool {
        let count = |rows: &[UsageRow]| {
            let is_it = |row: &&UsageRow| books::key(row) == (window, series, crate::model::Outcome::Refused(refused));
            rows.iter().find(is_it).map_or(0, |row| row.totals.commands)
        };
        count(&self.open_rows().rows) == count(&before.rows) + 1
    }

    /// The hour in which a worker counts what has no slot of its own: perhaps one before its present, never one it has left.
    fn unnamed_window(&self, worker: usize) -> Window {
        let window = self.meters[worker].unnamed().expect("a slot for what has no name");
        assert!(self.meters[worker].left() <= window && window <= self.windows[worker], "{window}");
        window
    }
}
