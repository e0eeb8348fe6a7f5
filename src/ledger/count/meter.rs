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

use super::slot_allocator::{AdmissionSlot, SeriesRef, SlotAllocator, SlotKey};
use super::sync_waiters::{self, SyncWaiters};
use crate::clock::Clock;
use crate::ledger::keeper::requests::{KeeperRequest, RequestSender, SharedFlags, WorkerFlags};
use crate::ledger::tally::file::SlotSegment;
use crate::ledger::tally::slot::{Slot, offset};
use crate::ledger::tally::stores::{self, CommandEnd, EndTransfer, SlotRef};
use crate::model::{CommandKey, Department, Finished, Refused, Window};

/// Whether anything is counted: always, but in the build that the cost of counting is measured against
/// (`docs/decisions/uncounted.md`).
const COUNTING_ENABLED: bool = !cfg!(uncounted);

/// What a worker thread turns into its [`Meter`].
#[derive(Debug)]
pub struct MeterSeed {
    pub(crate) number: usize,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<SharedFlags>,
    pub(crate) request_sender: RequestSender,
    pub(crate) synced: watch::Receiver<u64>,
    pub(crate) first_segment: SlotSegment,
    pub(crate) segment_receiver: mpsc::Receiver<SlotSegment>,
}

/// Counts the commands of one worker. Cheap to clone within its thread; never leaves it.
#[derive(Clone, Debug)]
pub struct Meter(Rc<MeterState>);

#[derive(Debug)]
struct MeterState {
    number: usize,
    clock: Clock,
    shared: Arc<SharedFlags>,
    request_sender: RequestSender,
    synced: watch::Receiver<u64>,
    waiters: Rc<SyncWaiters>,
    /// The worker's own slot.
    worker_slot: SlotRef,
    allocator: RefCell<SlotAllocator>,
    /// Ended after their window was left, while there was no slot to say so.
    late_ends: RefCell<Vec<CommandRecord>>,
    /// The window of the last command; the next one is not earlier.
    window: Cell<Window>,
    /// Windows before this one are left alone.
    sealing: Cell<Window>,
    /// Tickets alive, counted apart from the slots, so that one checks the other.
    open_tickets: Cell<u64>,
}

/// Evidence that a command is on the tally; consumed exactly once, by [`Ticket::settle`] or by being dropped.
#[derive(Debug)]
pub struct Ticket {
    meter: Rc<MeterState>,
    record: CommandRecord,
}

/// Counts the bytes of a request body as they pass, while the ticket is elsewhere. Counts nothing after its ticket has
/// taken it back.
#[derive(Debug)]
pub struct RequestBodyMeter {
    slot: &'static Slot,
    bytes: Cell<u64>,
    is_open: Cell<bool>,
}

/// What is known of a command at its end.
#[derive(Clone, Copy, Debug)]
struct CommandRecord {
    /// Where its beginning is counted.
    slot_ref: SlotRef,
    series: u64,
    window: Window,
    end: CommandEnd,
}

impl MeterSeed {
    /// Becomes the meter of the thread it is called on.
    pub fn into_meter(self) -> Meter {
        let sealing = self.shared.workers[self.number].register(&self.shared);
        let own = SlotRef { position: self.first_segment.first_position, slot: &self.first_segment.slots[0] };
        let allocator = SlotAllocator::new(self.first_segment, self.segment_receiver);
        Meter(Rc::new(MeterState {
            number: self.number,
            clock: self.clock,
            shared: self.shared,
            request_sender: self.request_sender,
            synced: self.synced,
            waiters: Rc::default(),
            worker_slot: own,
            allocator: RefCell::new(allocator),
            late_ends: RefCell::default(),
            window: Cell::new(sealing),
            sealing: Cell::new(sealing),
            open_tickets: Cell::new(0),
        }))
    }
}

impl Meter {
    /// Counts a command as received, before anything is decided about it. What decides must follow without an `.await`
    /// in between: [`Meter::tick`] takes a command that is neither refused nor admitted for a defect.
    pub fn received(&self) {
        if COUNTING_ENABLED {
            self.0.worker_slot.slot.count_received();
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
        let window = inner.enter_window(window);
        let wanted = SeriesRef { department, command, window };
        let slot_ref = if COUNTING_ENABLED { inner.slot_for(&wanted, units) } else { Some(inner.worker_slot) };
        let slot_ref = slot_ref.ok_or(Refused::LedgerUnavailable)?;
        let opened_ns = inner.clock.monotonic().nanoseconds();
        if COUNTING_ENABLED {
            stores::count_admission(inner.worker_slot.slot, slot_ref.slot, opened_ns);
            inner.open_tickets.set(inner.open_tickets.get() + 1);
        }
        let (request_bytes, response_bytes, duration_ns) = (0, 0, 0);
        let (finished, charged) = (Finished::Aborted, true);
        let end = CommandEnd { finished, charged, opened_ns, request_bytes, response_bytes, duration_ns };
        Ok(Ticket {
            meter: Rc::clone(inner),
            record: CommandRecord { slot_ref, series: wanted.series_number(), window, end },
        })
    }

    /// Counts a command as refused: always, if need be under the name `unknown`.
    pub fn refuse(&self, department: &Department, command: &CommandKey, refused: Refused, window: Window) {
        if !COUNTING_ENABLED {
            return;
        }
        let inner = &self.0;
        let wanted = SeriesRef { department, command, window: inner.enter_window(window) };
        let slot = inner.allocator.borrow_mut().slot_for_refusal(&wanted, inner.sealing.get());
        inner.publish_slot_usage();
        // Without a slot the command stays received and not refused: the imbalance shows what cannot happen.
        let Some(slot) = slot else { return };
        stores::count_refusal(inner.worker_slot.slot, slot, refused);
    }

    /// To run on the worker's own thread as long as commands do: without it nobody's [`Ticket::wait_until_durable`] completes. Ends when
    /// the keeper does.
    pub fn run_sync_notifier(&self) -> impl Future<Output = ()> + use<> {
        sync_waiters::run_notifier(Rc::clone(&self.0.waiters), self.0.synced.clone())
    }

    /// To be called about every 100 ms on the worker's own thread: checks the worker's books, lets the keeper seal.
    pub fn tick(&self) {
        let inner = &self.0;
        inner.allocator.borrow_mut().receive_segments();
        inner.settle_late_ends();
        inner.acknowledge_seal();
        inner.allocator.borrow_mut().reclaim(inner.shared.sealed(), inner.shared.folds());
        inner.publish_slot_usage();
        inner.publish_imbalance();
    }
}

/// Where a worker stands, for a test that foretells what is counted where.
#[cfg(test)]
impl Meter {
    /// Nothing is counted into windows before this one.
    pub(crate) fn acknowledged_window(&self) -> Window {
        self.0.sealing.get()
    }

    /// The moments of admission of commands that have ended and wait for a slot.
    pub(crate) fn pending_windows(&self) -> Vec<u64> {
        self.0.late_ends.borrow().iter().map(|ended| ended.end.opened_ns).collect()
    }

    /// Whether a command may find no slot.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.0.allocator.borrow().is_nearly_full()
    }

    /// The window in which refusals are counted that find no slot of their own.
    pub(crate) fn unnamed_window(&self) -> Option<Window> {
        self.0.allocator.borrow().unnamed_window()
    }
}

impl MeterState {
    /// The window to count in: never earlier than the last.
    fn enter_window(&self, window: Window) -> Window {
        let window = window.max(self.window.get());
        self.window.set(window);
        window
    }

    #[inline]
    fn slot_for(&self, wanted: &SeriesRef<'_>, units: u64) -> Option<SlotRef> {
        let present = self.allocator.borrow().find_current(wanted, units);
        present.or_else(|| self.allocate_slot_for(wanted, units))
    }

    #[cold]
    fn allocate_slot_for(&self, wanted: &SeriesRef<'_>, units: u64) -> Option<SlotRef> {
        let slot_ref = self.allocator.borrow_mut().allocate(wanted, units);
        self.publish_slot_usage();
        slot_ref
    }

    /// Acknowledges that windows are being sealed, once a refusal is sure to find a slot beyond them.
    fn acknowledge_seal(&self) {
        let sealing = self.shared.sealing();
        if sealing > self.sealing.get() && self.allocator.borrow().can_refuse_from(sealing) {
            self.sealing.set(sealing);
            self.window.set(sealing.max(self.window.get()));
            self.flags().acknowledge(sealing);
        }
    }

    /// Settles what ended while there was no slot for it.
    fn settle_late_ends(&self) {
        let waiting = std::mem::take(&mut *self.late_ends.borrow_mut());
        for ended in waiting {
            self.record_end(&ended);
        }
    }

    /// Counts an end where its beginning was counted, or in the present window if that one is being sealed.
    #[inline]
    fn record_end(&self, ended: &CommandRecord) {
        if !COUNTING_ENABLED {
            return;
        }
        if ended.window < self.sealing.get() {
            return self.record_late_end(ended);
        }
        stores::count_end(self.worker_slot.slot, ended.slot_ref.slot, &ended.end);
        self.open_tickets.set(self.open_tickets.get() - 1);
    }

    /// The end of a command of a window that is being sealed: it waits until there is a slot of the present one for it.
    #[cold]
    fn record_late_end(&self, ended: &CommandRecord) {
        let units_each = ended.slot_ref.slot.get(offset::UNITS_EACH);
        let slot_key = SlotKey {
            window: self.window.get(),
            units_each,
            admission: Some(AdmissionSlot::new(ended.slot_ref, ended.window)),
        };
        let slot_ref = self.allocator.borrow_mut().allocate_for_series(ended.series, slot_key);
        let Some(to) = slot_ref else { return self.late_ends.borrow_mut().push(*ended) };
        self.worker_slot.slot.add(offset::WORKER_ENDING, 1);
        let moved = EndTransfer::new(&ended.end, ended.slot_ref, to, self.worker_slot);
        moved.write_journal(self.worker_slot.slot);
        moved.apply(self.worker_slot.slot);
        self.open_tickets.set(self.open_tickets.get() - 1);
    }

    fn publish_slot_usage(&self) {
        let allocator = self.allocator.borrow();
        self.flags().occupied_slots.store(allocator.occupied_slots(), Ordering::Relaxed);
        self.flags().slots_per_window.store(allocator.slots_per_window(), Ordering::Relaxed);
        if allocator.needs_segment() && !allocator.segment_requested.replace(true) {
            let _ = self.request_sender.send(KeeperRequest::Wake); // a keeper that is gone makes no slots
        }
    }

    fn publish_imbalance(&self) {
        let count = |at| self.worker_slot.slot.get(at).cast_signed();
        let gone = count(offset::WORKER_REFUSED)
            .wrapping_add(count(offset::WORKER_FINISHED))
            .wrapping_add(self.open_tickets.get().cast_signed());
        let imbalance = count(offset::WORKER_RECEIVED).wrapping_sub(gone);
        self.flags().imbalance.store(imbalance, Ordering::Relaxed);
    }

    fn flags(&self) -> &WorkerFlags {
        &self.shared.workers[self.number]
    }
}

impl Drop for MeterState {
    /// The last ticket is gone, and the meter with it: nothing more will be counted here.
    fn drop(&mut self) {
        self.publish_imbalance();
        self.flags().deregister();
    }
}

impl RequestBodyMeter {
    /// Adds bytes of the request body. They are on the tally at once.
    pub fn add_bytes(&self, bytes: u64) {
        if COUNTING_ENABLED && self.is_open.get() {
            self.bytes.set(self.bytes.get().wrapping_add(bytes));
            self.slot.add_bytes(offset::REQUEST_BYTES, bytes);
        }
    }
}

impl Ticket {
    /// What counts the request body, for whoever reads it; to be given back by [`Ticket::close_body_meter`].
    pub fn body_meter(&self) -> RequestBodyMeter {
        RequestBodyMeter { slot: self.record.slot_ref.slot, bytes: Cell::new(0), is_open: Cell::new(true) }
    }

    /// No more of the request body is counted.
    pub fn close_body_meter(&mut self, upload: &RequestBodyMeter) {
        upload.is_open.set(false);
        self.record.end.request_bytes = self.record.end.request_bytes.wrapping_add(upload.bytes.take());
    }

    /// Adds bytes of the request body. They are on the tally at once.
    pub fn add_request_bytes(&mut self, bytes: u64) {
        if COUNTING_ENABLED {
            self.record.end.request_bytes = self.record.end.request_bytes.wrapping_add(bytes);
            self.record.slot_ref.slot.add_bytes(offset::REQUEST_BYTES, bytes);
        }
    }

    /// Adds bytes of the response body. They are on the tally at once.
    pub fn add_response_bytes(&mut self, bytes: u64) {
        if COUNTING_ENABLED {
            self.record.end.response_bytes = self.record.end.response_bytes.wrapping_add(bytes);
            self.record.slot_ref.slot.add_bytes(offset::RESPONSE_BYTES, bytes);
        }
    }

    /// The command costs no units, because nothing of it reached a subsystem. Has no effect on what ends as answered (`ok`,
    /// `client_error`, `server_error`).
    pub fn waive(&mut self) {
        self.record.end.charged = false;
    }

    /// Completes when an fdatasync that began after the admission has ended; never, if the disk has failed.
    pub async fn wait_until_durable(&self) {
        let (sync, must_wake) = self.meter.shared.request_sync();
        if must_wake {
            let _ = self.meter.request_sender.send(KeeperRequest::Wake); // a keeper that is gone ends no sync
        }
        self.meter.waiters.wait_for(sync).await;
    }

    /// Ends the command; returns how long it took: the time since `open` on the meter's clock.
    #[inline]
    pub fn settle(mut self, finished: Finished) -> Duration {
        self.record.end.finished = finished;
        self.record.end.duration_ns = self.age_ns();
        Duration::from_nanos(self.record.end.duration_ns)
    }

    fn age_ns(&self) -> u64 {
        self.meter.clock.monotonic().nanoseconds().saturating_sub(self.record.end.opened_ns)
    }
}

impl Drop for Ticket {
    /// Ends the command as it was settled, or as aborted where nobody did.
    #[inline]
    fn drop(&mut self) {
        if self.record.end.duration_ns == 0 {
            self.record.end.duration_ns = self.age_ns();
        }
        self.meter.record_end(&self.record);
    }
}
