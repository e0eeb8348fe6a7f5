//! Counts the commands of one worker: opening a ticket, settling it, refusing.
//!
//! Guarantees: a command is on the tally when [`Meter::open`] has returned, and ended on it when its [`Ticket`] is gone,
//! whoever dropped it. Nothing here waits, allocates (but for the first command of a series in a window) or calls the
//! kernel. A worker's windows never go backwards, and nothing is counted into a window after the worker has acknowledged
//! that it is being sealed. Leaves to the keeper: the disk.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use super::counting::{self, End, Move, Place};
use super::durable::{self, Waiters};
use super::shared::{Request, Requests, Shared, Worker};
use super::shelf::{Origin, Part, Shelf, Sought};
use super::slot::{Slot, word};
use super::tally::Segment;
use crate::clock::Clock;
use crate::model::{CommandKey, Department, Finished, Refused, Window};

/// Whether anything is counted: always, but in the build that the cost of counting is measured against
/// (`docs/decisions/uncounted.md`).
const COUNTS: bool = !cfg!(uncounted);

/// What a worker thread turns into its [`Meter`].
#[derive(Debug)]
pub struct MeterSeed {
    pub(super) number: usize,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: Requests,
    pub(super) synced: watch::Receiver<u64>,
    pub(super) first: Segment,
    pub(super) arriving: mpsc::Receiver<Segment>,
}

/// Counts the commands of one worker. Cheap to clone within its thread; never leaves it.
#[derive(Clone, Debug)]
pub struct Meter(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    number: usize,
    clock: Clock,
    shared: Arc<Shared>,
    requests: Requests,
    synced: watch::Receiver<u64>,
    waiters: Rc<Waiters>,
    /// The worker's own slot.
    own: Place,
    shelf: RefCell<Shelf>,
    /// Ended after their window was left, while there was no slot to say so.
    late: RefCell<Vec<Ended>>,
    /// The window of the last command; the next one is not earlier.
    window: Cell<Window>,
    /// Windows before this one are left alone.
    sealing: Cell<Window>,
    /// Tickets alive, counted apart from the slots, so that one checks the other.
    live: Cell<u64>,
}

/// Evidence that a command is on the tally; consumed exactly once, by [`Ticket::settle`] or by being dropped.
#[derive(Debug)]
pub struct Ticket {
    meter: Rc<Inner>,
    facts: Ended,
}

/// Counts the bytes of a request body as they pass, while the ticket is elsewhere. Counts nothing after its ticket has
/// taken it back.
#[derive(Debug)]
pub struct Upload {
    slot: &'static Slot,
    bytes: Cell<u64>,
    is_open: Cell<bool>,
}

/// What is known of a command at its end.
#[derive(Clone, Copy, Debug)]
struct Ended {
    /// Where its beginning is counted.
    place: Place,
    series: u64,
    window: Window,
    end: End,
}

impl MeterSeed {
    /// Becomes the meter of the thread it is called on.
    pub fn into_meter(self) -> Meter {
        let sealing = self.shared.workers[self.number].arrive(&self.shared);
        let own = Place { position: self.first.first, slot: &self.first.slots[0] };
        let shelf = Shelf::new(self.first, self.arriving);
        Meter(Rc::new(Inner {
            number: self.number,
            clock: self.clock,
            shared: self.shared,
            requests: self.requests,
            synced: self.synced,
            waiters: Rc::default(),
            own,
            shelf: RefCell::new(shelf),
            late: RefCell::default(),
            window: Cell::new(sealing),
            sealing: Cell::new(sealing),
            live: Cell::new(0),
        }))
    }
}

impl Meter {
    /// Counts a command as received, before anything is decided about it. What decides must follow without an `.await`
    /// in between: [`Meter::tick`] takes a command that is neither refused nor admitted for a defect.
    pub fn received(&self) {
        if COUNTS {
            self.0.own.slot.receive();
        }
    }

    /// Counts a command as admitted. Refuses with [`Refused::LedgerUnavailable`] what it has no slot for.
    ///
    /// Inline, as all that a command passes through here: a ticket that is built where it is kept is not copied on the way,
    /// and the copies were half of what counting cost (perf on `loadtests year`, 2026-11-25).
    #[inline(always)]
    pub fn open(
        &self,
        department: &Department,
        command: &CommandKey,
        units: u64,
        window: Window,
    ) -> Result<Ticket, Refused> {
        let inner = &self.0;
        let window = inner.enter(window);
        let sought = Sought { department, command, window };
        let place = if COUNTS { inner.counting(&sought, units) } else { Some(inner.own) };
        let place = place.ok_or(Refused::LedgerUnavailable)?;
        let opened_ns = inner.clock.monotonic().nanoseconds();
        if COUNTS {
            counting::admit(inner.own.slot, place.slot, opened_ns);
            inner.live.set(inner.live.get() + 1);
        }
        let (request_bytes, response_bytes, duration_ns) = (0, 0, 0);
        let (finished, charged) = (Finished::Aborted, true);
        let end = End { finished, charged, opened_ns, request_bytes, response_bytes, duration_ns };
        Ok(Ticket { meter: Rc::clone(inner), facts: Ended { place, series: sought.series(), window, end } })
    }

    /// Counts a command as refused: always, if need be under the name `unknown`.
    pub fn refuse(&self, department: &Department, command: &CommandKey, refused: Refused, window: Window) {
        if !COUNTS {
            return;
        }
        let inner = &self.0;
        let sought = Sought { department, command, window: inner.enter(window) };
        let slot = inner.shelf.borrow_mut().refusing(&sought, inner.sealing.get());
        inner.report_shelf();
        // Without a slot the command stays received and not refused: the imbalance shows what cannot happen.
        let Some(slot) = slot else { return };
        counting::refuse(inner.own.slot, slot, refused);
    }

    /// To run on the worker's own thread as long as commands do: without it nobody's [`Ticket::durable`] completes. Ends when
    /// the keeper does.
    pub fn deliver(&self) -> impl Future<Output = ()> + use<> {
        durable::deliver(Rc::clone(&self.0.waiters), self.0.synced.clone())
    }

    /// To be called about every 100 ms on the worker's own thread: checks the worker's books, lets the keeper seal.
    pub fn tick(&self) {
        let inner = &self.0;
        inner.shelf.borrow_mut().take_arrivals();
        inner.settle_late();
        inner.leave_windows();
        inner.shelf.borrow_mut().tidy(inner.shared.sealed(), inner.shared.folds());
        inner.report_shelf();
        inner.report_balance();
    }
}

/// Where a worker stands, for a test that foretells what is counted where.
#[cfg(test)]
impl Meter {
    /// Nothing is counted into windows before this one.
    pub(super) fn left(&self) -> Window {
        self.0.sealing.get()
    }

    /// The moments of admission of commands that have ended and wait for a slot.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.0.late.borrow().iter().map(|ended| ended.end.opened_ns).collect()
    }

    /// Whether a command may find no slot.
    pub(super) fn is_tight(&self) -> bool {
        self.0.shelf.borrow().is_tight()
    }

    /// The window in which refusals are counted that find no slot of their own.
    pub(super) fn unnamed(&self) -> Option<Window> {
        self.0.shelf.borrow().unnamed()
    }
}

impl Inner {
    /// The window to count in: never earlier than the last.
    fn enter(&self, window: Window) -> Window {
        let window = window.max(self.window.get());
        self.window.set(window);
        window
    }

    #[inline]
    fn counting(&self, sought: &Sought<'_>, units: u64) -> Option<Place> {
        let present = self.shelf.borrow().find(sought, units);
        present.or_else(|| self.counting_anew(sought, units))
    }

    #[cold]
    fn counting_anew(&self, sought: &Sought<'_>, units: u64) -> Option<Place> {
        let place = self.shelf.borrow_mut().take(sought, units);
        self.report_shelf();
        place
    }

    /// Acknowledges that windows are being sealed, once a refusal is sure to find a slot beyond them.
    fn leave_windows(&self) {
        let sealing = self.shared.sealing();
        if sealing > self.sealing.get() && self.shelf.borrow().can_refuse_from(sealing) {
            self.sealing.set(sealing);
            self.window.set(sealing.max(self.window.get()));
            self.worker().acknowledge(sealing);
        }
    }

    /// Settles what ended while there was no slot for it.
    fn settle_late(&self) {
        let waiting = std::mem::take(&mut *self.late.borrow_mut());
        for ended in waiting {
            self.end(&ended);
        }
    }

    /// Counts an end where its beginning was counted, or in the present window if that one is being sealed.
    #[inline]
    fn end(&self, ended: &Ended) {
        if !COUNTS {
            return;
        }
        if ended.window < self.sealing.get() {
            return self.end_late(ended);
        }
        counting::finish(self.own.slot, ended.place.slot, &ended.end);
        self.live.set(self.live.get() - 1);
    }

    /// The end of a command of a window that is being sealed: it waits until there is a slot of the present one for it.
    #[cold]
    fn end_late(&self, ended: &Ended) {
        let units_each = ended.place.slot.get(word::UNITS_EACH);
        let part = Part { window: self.window.get(), units_each, of: Some(Origin::new(ended.place, ended.window)) };
        let place = self.shelf.borrow_mut().take_again(ended.series, part);
        let Some(to) = place else { return self.late.borrow_mut().push(*ended) };
        self.own.slot.add(word::WORKER_ENDING, 1);
        let moved = Move::new(&ended.end, ended.place, to, self.own);
        moved.announce(self.own.slot);
        moved.make(self.own.slot);
        self.live.set(self.live.get() - 1);
    }

    fn report_shelf(&self) {
        let shelf = self.shelf.borrow();
        self.worker().occupied.store(shelf.occupied(), Ordering::Relaxed);
        self.worker().in_window.store(shelf.in_window(), Ordering::Relaxed);
        if shelf.is_short() && !shelf.asked.replace(true) {
            let _ = self.requests.send(Request::Wake); // a keeper that is gone makes no slots
        }
    }

    fn report_balance(&self) {
        let count = |at| self.own.slot.get(at).cast_signed();
        let gone = count(word::WORKER_REFUSED)
            .wrapping_add(count(word::WORKER_FINISHED))
            .wrapping_add(self.live.get().cast_signed());
        let imbalance = count(word::WORKER_RECEIVED).wrapping_sub(gone);
        self.worker().imbalance.store(imbalance, Ordering::Relaxed);
    }

    fn worker(&self) -> &Worker {
        &self.shared.workers[self.number]
    }
}

impl Drop for Inner {
    /// The last ticket is gone, and the meter with it: nothing more will be counted here.
    fn drop(&mut self) {
        self.report_balance();
        self.worker().leave();
    }
}

impl Upload {
    /// Adds bytes of the request body. They are on the tally at once.
    pub fn pass(&self, bytes: u64) {
        if COUNTS && self.is_open.get() {
            self.bytes.set(self.bytes.get().wrapping_add(bytes));
            self.slot.pass(word::REQUEST_BYTES, bytes);
        }
    }
}

impl Ticket {
    /// What counts the request body, for whoever reads it; to be given back by [`Ticket::end_upload`].
    pub fn upload(&self) -> Upload {
        Upload { slot: self.facts.place.slot, bytes: Cell::new(0), is_open: Cell::new(true) }
    }

    /// No more of the request body is counted.
    pub fn end_upload(&mut self, upload: &Upload) {
        upload.is_open.set(false);
        self.facts.end.request_bytes = self.facts.end.request_bytes.wrapping_add(upload.bytes.take());
    }

    /// Adds bytes of the request body. They are on the tally at once.
    pub fn add_request_bytes(&mut self, bytes: u64) {
        if COUNTS {
            self.facts.end.request_bytes = self.facts.end.request_bytes.wrapping_add(bytes);
            self.facts.place.slot.pass(word::REQUEST_BYTES, bytes);
        }
    }

    /// Adds bytes of the response body. They are on the tally at once.
    pub fn add_response_bytes(&mut self, bytes: u64) {
        if COUNTS {
            self.facts.end.response_bytes = self.facts.end.response_bytes.wrapping_add(bytes);
            self.facts.place.slot.pass(word::RESPONSE_BYTES, bytes);
        }
    }

    /// The command costs no units, because nothing of it reached a subsystem. Has no effect on what ends as answered (`ok`,
    /// `client_error`, `server_error`).
    pub fn waive(&mut self) {
        self.facts.end.charged = false;
    }

    /// Completes when an fdatasync that began after the admission has ended; never, if the disk has failed.
    pub async fn durable(&self) {
        let (sync, must_wake) = self.meter.shared.want_sync();
        if must_wake {
            let _ = self.meter.requests.send(Request::Wake); // a keeper that is gone ends no sync
        }
        self.meter.waiters.wait_for(sync).await;
    }

    /// Ends the command; returns how long it took: the time since `open` on the meter's clock.
    #[inline]
    pub fn settle(mut self, finished: Finished) -> Duration {
        self.facts.end.finished = finished;
        self.facts.end.duration_ns = self.age_ns();
        Duration::from_nanos(self.facts.end.duration_ns)
    }

    fn age_ns(&self) -> u64 {
        self.meter.clock.monotonic().nanoseconds().saturating_sub(self.facts.end.opened_ns)
    }
}

impl Drop for Ticket {
    /// Ends the command as it was settled, or as aborted where nobody did.
    #[inline]
    fn drop(&mut self) {
        if self.facts.end.duration_ns == 0 {
            self.facts.end.duration_ns = self.age_ns();
        }
        self.meter.end(&self.facts);
    }
}
