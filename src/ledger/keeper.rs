//! The keeper: the one thread that owns the disk. It carries the tally to it, folds it into the book, seals hours and makes
//! room before room is needed.
//!
//! Guarantees: a sync that fails is never tried again; the ledger is given up at once. A full disk is tried again every
//! second and loses nothing. An hour is sealed only when every worker has said that it has left it. The ledger is given up
//! within a second of one of its files being removed, renamed or replaced.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::balance::{Said, imbalance};
use super::book::{Book, Save};
use super::displaced::FileWatch;
use super::ending::Ending;
use super::error::LedgerError;
use super::fold::{Fold, SeriesNames};
use super::names::Names;
use super::recover::instead;
use super::shared::{Request, Shared};
use super::slot::{Glance, word};
use super::tally::{Segment, Tally};
use super::totals::{SyncTimes, Totals};
use crate::clock::{Clock, Moment};
use crate::lifecycle::{NotReady, Ready};
use crate::model::Window;

/// How often the tally is folded into the book.
const FOLD_EVERY: Duration = Duration::from_secs(1);
/// How long a tally in which no command begins or ends may wait for its sync; streams go on moving bytes.
const IDLE_SYNC_EVERY: Duration = Duration::from_secs(1);
/// How long answers that wait for a sync are gathered behind the one before.
const GATHER: Duration = Duration::from_millis(1);
/// How long an hour must be over before it is sealed, in seconds: for clocks that are put right a little.
const SEAL_AFTER_SECONDS: i64 = 60;
/// The upper bounds of the histogram of sync durations, in microseconds.
const SYNC_BOUNDS_US: [u64; 8] = [100, 250, 500, 1_000, 5_000, 20_000, 100_000, 1_000_000];

/// What the keeper keeps.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) epoch: u32,
    /// Decides what is counted where.
    pub(super) clock: Clock,
    pub(super) sync_every: Duration,
    /// How old a day is when its hours are forgotten.
    pub(super) compact_after: Option<Duration>,
    pub(super) ready: Ready,
    /// Names of departments that wait to be written.
    pub(super) names: Option<Names>,
    /// While the book takes nothing.
    pub(super) cannot_fold: Option<NotReady>,
    /// While there is no room for more slots.
    pub(super) cannot_grow: Option<NotReady>,
    pub(super) shared: Arc<Shared>,
    pub(super) tally: Tally,
    pub(super) book: Book,
    pub(super) fold: Fold,
    /// Looked at once a second: what lies in removed files is lost with the process.
    pub(super) watch: FileWatch,
    /// What was last seen of each slot, by position.
    pub(super) glances: Vec<Glance>,
    /// By how much slots and workers contradicted each other when they were last compared.
    pub(super) imbalance: i64,
    /// Hours and tables of names that were written anew, since the book did not hold what the tally says.
    pub(super) mended: u64,
    pub(super) desks: Vec<Desk>,
    pub(super) synced: watch::Sender<u64>,
    pub(super) pace: Pace,
    pub(super) times: SyncTimes,
}

/// The keeper's side of one worker.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) segments: mpsc::Sender<Segment>,
    /// Slots made for this worker, so far and in each segment.
    pub(super) given: u32,
    pub(super) segment_slots: u32,
}

/// When things were last done, on the machine's clock whatever the ledger's: it decides when, never what.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    /// Last look at whether there is something to sync.
    looked: Moment,
    synced: Moment,
    folded: Moment,
    /// Since when there has been no room for more slots.
    lacks_room: Option<Moment>,
    /// Commands begun and ended at the last sync.
    activity: u64,
}

/// How the keeper's work came to an end.
enum End {
    Close,
    Abandon,
}

impl Pace {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.monotonic();
        Self { clock, looked: now, synced: now, folded: now, lacks_room: None, activity: 0 }
    }
}

/// Keeps the ledger until it is closed, or the disk fails.
pub(super) fn keep(
    mut keeper: Keeper,
    requests: &mpsc::Receiver<Request>,
    failed: Box<dyn FnOnce(LedgerError) + Send>,
) -> Result<(), LedgerError> {
    let work = std::panic::AssertUnwindSafe(|| keeper.work(requests));
    match std::panic::catch_unwind(work).unwrap_or_else(|panic| Err(LedgerError::Panicked(said(&*panic)))) {
        Ok(End::Close) => keeper.close(),
        Ok(End::Abandon) => Ok(()),
        Err(error) => {
            let ready = keeper.ready.clone();
            let _not_ready = ready.block("a ledger that can be kept");
            drop(keeper); // nobody waits for a sync any more
            failed(error);
            Err(LedgerError::Stopped)
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl Keeper {
    fn work(&mut self, requests: &mpsc::Receiver<Request>) -> Result<End, LedgerError> {
        loop {
            match requests.recv_timeout(self.rest()) {
                Ok(Request::Close) => return Ok(End::Close),
                Ok(Request::Abandon) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(End::Abandon),
                Ok(request) => self.answer(request)?,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            self.turn()?;
        }
    }

    /// How long there is nothing to do.
    fn rest(&self) -> Duration {
        let until = |since: Moment, every: Duration| every.saturating_sub(self.pace.clock.monotonic().since(since));
        let every = if self.shared.is_sync_wanted() { GATHER } else { self.sync_every };
        until(self.pace.looked, every).min(until(self.pace.folded, FOLD_EVERY))
    }

    /// Does what is due.
    pub(super) fn turn(&mut self) -> Result<(), LedgerError> {
        let now = self.pace.clock.monotonic();
        let every = if self.shared.is_sync_wanted() { GATHER } else { self.sync_every };
        if now.since(self.pace.looked) >= every {
            self.pace.looked = now;
            self.sync_if_needed(now.since(self.pace.synced))?;
        }
        if now.since(self.pace.folded) >= FOLD_EVERY {
            self.pace.folded = now;
            self.look_at_files()?;
            let folded = self.fold();
            block(&mut self.cannot_fold, folded.is_err(), (&self.ready, "a book that takes what is counted"));
            or_later(folded)?;
        }
        self.grow_if_there_may_be_room(now)
    }

    /// Gives the ledger up if one of its files was taken away. What is counted until now is written into the files that are
    /// still open, so that who has moved them elsewhere, or took the tally alone, loses nothing.
    fn look_at_files(&mut self) -> Result<(), LedgerError> {
        let Some((path, how)) = self.watch.displaced(self.tally.disk()) else { return Ok(()) };
        let displaced = LedgerError::Displaced { path: path.to_owned(), how };
        if let Err(error) = self.fold().and_then(|()| self.book.empty_log()) {
            tracing::warn!(%error, "the last fold into a book whose files were taken away failed");
        }
        Err(displaced)
    }

    fn grow_if_there_may_be_room(&mut self, now: Moment) -> Result<(), LedgerError> {
        if self.pace.lacks_room.is_some_and(|since| now.since(since) < FOLD_EVERY) {
            return Ok(());
        }
        let grown = self.grow();
        self.pace.lacks_room = grown.is_err().then_some(now);
        block(&mut self.cannot_grow, grown.is_err(), (&self.ready, "space on the ledger's disk for new series"));
        or_later(grown)
    }

    /// Nobody who leaves the way a question was put is missed: an answer that nobody takes is dropped.
    pub(super) fn answer(&mut self, request: Request) -> Result<(), LedgerError> {
        match request {
            Request::Wake | Request::Close | Request::Abandon => {}
            Request::Names(names) => self.names = Some(names),
            Request::Totals(reply) => {
                self.absorb();
                let _ = reply.send(self.totals());
            }
            Request::TotalsAndUse(reply) => {
                self.absorb();
                let _ = reply.send((self.totals(), self.fold.open_use(self.epoch)));
            }
            Request::OpenRows(reply) => {
                self.absorb();
                let _ = reply.send(self.fold.open_rows(self.epoch));
            }
            Request::Fold(reply) => {
                self.sync()?;
                self.pace.lacks_room = None;
                let folded = self.fold();
                let may_pass = folded.as_ref().err().is_none_or(LedgerError::may_pass);
                if !may_pass {
                    return folded;
                }
                let _ = reply.send(folded);
            }
        }
        Ok(())
    }

    fn sync_if_needed(&mut self, since_sync: Duration) -> Result<(), LedgerError> {
        let activity = self.activity();
        let is_idle = activity == self.pace.activity && !self.shared.is_sync_wanted();
        if is_idle && since_sync < IDLE_SYNC_EVERY {
            return Ok(());
        }
        self.pace.activity = activity;
        self.sync()
    }

    fn sync(&mut self) -> Result<(), LedgerError> {
        let number = self.shared.begin_sync();
        let before = self.pace.clock.monotonic();
        self.tally.sync(&self.clock)?;
        self.pace.synced = self.pace.clock.monotonic();
        self.pace.looked = self.pace.synced;
        note_sync(&mut self.times, self.pace.synced.since(before));
        self.times.synced_at = self.clock.wall();
        self.synced.send_replace(number);
        Ok(())
    }

    /// Commands begun and ended so far.
    fn activity(&self) -> u64 {
        let own = self.tally.own_slots();
        own.map(|slot| slot.get(word::WORKER_RECEIVED).wrapping_add(slot.get(word::WORKER_FINISHED)))
            .fold(0, u64::wrapping_add)
    }

    /// Brings what the tally holds into memory, and holds it against what the workers say. A slot that has not changed
    /// costs a look at its first cache line.
    fn absorb(&mut self) {
        let before = Said::by(self.tally.own_slots());
        for (position, slot) in self.tally.slots() {
            let glance = slot.glance(); // before the copy, which may be younger but not older
            if self.glances.get(position) == Some(&glance) {
                continue;
            }
            let Some(words) = slot.words() else { continue };
            if self.fold.absorb(position, &words, |at| names_at(&self.tally, at)) {
                note(&mut self.glances, position, glance);
            }
        }
        let after = Said::by(self.tally.own_slots());
        self.imbalance = imbalance(&before, self.fold.counted(), &after);
    }

    /// Brings what the tally holds into the book, and seals what is over.
    fn fold(&mut self) -> Result<(), LedgerError> {
        let now = self.clock.wall();
        let over = over_at(now).max(self.shared.sealing());
        self.shared.begin_fold();
        let left = self.shared.ask_to_leave(over);
        let seal_before = Some(left).filter(|left| *left > self.shared.sealed());
        self.absorb();
        // What the book says is on the disk; if the tally there lagged behind it, a loss of power would take counts back,
        // or interrupt what a sealed hour holds as ended.
        self.sync()?;
        self.mended += self.book.save(&Save {
            fold: &self.fold,
            in_flight: self.fold.in_flight(self.clock.monotonic().nanoseconds()),
            epoch: self.epoch,
            synced_at: self.times.synced_at,
            now,
            seal_before,
            ending: None,
        })?;
        self.fold.saved(seal_before.unwrap_or_default());
        self.shared.set_sealed(seal_before.unwrap_or_else(|| self.shared.sealed()));
        self.shared.end_fold();
        self.times.folded_at = now;
        self.write_names(now)?;
        self.roll_up(now)
    }

    /// Names that could not be written are written by a later fold.
    fn write_names(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(names) = self.names.take() else { return Ok(()) };
        let written = self.book.note_names(&names, now);
        self.names = written.is_err().then_some(names);
        written
    }

    /// One step towards days instead of hours, for what is older than the settings say.
    fn roll_up(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(age) = self.compact_after else { return Ok(()) };
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let old = Window::of_unix_seconds(now.as_second().saturating_sub(age));
        let before = old.min(self.shared.sealed()); // nobody counts there any more
        self.book.roll_up(before, now).map(drop)
    }

    /// Keeps every worker as many free slots ahead as its hour needs, and half a segment more.
    fn grow(&mut self) -> Result<(), LedgerError> {
        for (number, (desk, worker)) in self.desks.iter_mut().zip(&self.shared.workers).enumerate() {
            let needed = worker.in_window.load(Ordering::Relaxed).saturating_add(desk.segment_slots / 2);
            while desk.given.saturating_sub(worker.occupied.load(Ordering::Relaxed)) < needed {
                let segment = self.tally.grow(number as u32)?;
                desk.given += desk.segment_slots;
                if desk.segments.send(segment).is_err() {
                    break; // the meter is gone
                }
            }
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        let imbalance = self.shared.workers.iter().map(|worker| worker.imbalance.load(Ordering::Relaxed));
        let imbalance = imbalance.fold(self.imbalance, i64::wrapping_add);
        Totals { series: self.fold.totals(), imbalance, mended: self.mended, times: self.times }
    }

    fn close(mut self) -> Result<(), LedgerError> {
        self.look_at_files()?; // or another's tally might be removed below
        self.sync()?;
        self.absorb();
        let (now, now_ns) = (self.clock.wall(), self.clock.monotonic().nanoseconds());
        let window = instead(now, self.shared.sealing());
        self.fold.interrupt(window, now_ns, |at| names_at(&self.tally, at));
        self.book.save(&Save {
            fold: &self.fold,
            in_flight: BTreeMap::new(),
            epoch: self.epoch,
            synced_at: self.times.synced_at,
            now,
            seal_before: None,
            ending: Some(Ending::Clean),
        })?;
        self.write_names(now)?;
        self.tally.remove()
    }
}

/// The first hour that is not over by [`SEAL_AFTER_SECONDS`] at a moment.
pub(super) fn over_at(now: Timestamp) -> Window {
    Window::of_unix_seconds(now.as_second() - SEAL_AFTER_SECONDS)
}

fn note(glances: &mut Vec<Glance>, position: usize, glance: Glance) {
    if glances.len() <= position {
        glances.resize(position + 1, Glance::default());
    }
    glances[position] = glance;
}

fn names_at(tally: &Tally, position: u32) -> Option<SeriesNames> {
    tally.slot(position).and_then(super::slot::Slot::words).and_then(|words| SeriesNames::of(&words))
}

/// Keeps the gateway from being ready as long as something fails.
fn block(guard: &mut Option<NotReady>, fails: bool, (ready, what): (&Ready, &str)) {
    match (fails, guard.is_some()) {
        (true, false) => *guard = Some(ready.block(what)),
        (false, true) => *guard = None,
        _ => {}
    }
}

/// Leaves for the next turn what a full disk or a reader in the way holds up.
fn or_later(done: Result<(), LedgerError>) -> Result<(), LedgerError> {
    match done {
        Err(error) if error.may_pass() => {
            tracing::warn!(%error, "the ledger will try again in a moment; nothing is lost meanwhile");
            Ok(())
        }
        done => done,
    }
}

fn note_sync(times: &mut SyncTimes, took: Duration) {
    times.syncs += 1;
    times.sync_time += took;
    for (bucket, bound) in times.sync_buckets.iter_mut().zip(SYNC_BOUNDS_US) {
        bucket.0 = Duration::from_micros(bound);
        bucket.1 += u64::from(took <= bucket.0);
    }
}
