//! The meter: counts the commands of one worker by opening tickets, settling tickets and counting refusals.
//!
//! Guarantees:
//! - When [`Meter::open`] returns, the command is on the tally.
//! - When a [`Ticket`] is gone, its command has ended on the tally, whichever code dropped the ticket.
//! - Counting neither waits nor calls the kernel. Only the first command of a series in a window allocates.
//! - A worker's windows never go backwards.
//! - After the worker has acknowledged the seal of a window, it counts nothing into that window.
//!
//! Leaves to `keeper`: the disk.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::ledger::keeper::requests::{KeeperRequest, RequestSender, SharedFlags, WorkerFlags};
use crate::ledger::tally::file::SlotSegment;
use crate::ledger::tally::slot::{Slot, offset};
use crate::ledger::tally::stores::{self, CommandEnd, EndTransfer, SlotRef};
use crate::model::{CommandKey, Department, Finished, Refused, Window};

use super::slot_allocator::{AdmissionSlot, SeriesRef, SlotAllocator, SlotKey};
use super::sync_waiters::{self, SyncWaiters};

/// Whether anything is counted. False only in the build against which the cost of counting is measured
/// (`docs/decisions/uncounted.md`).
const COUNTING_ENABLED: bool = !cfg!(uncounted);

/// The parts of a [`Meter`], sent to a worker thread.
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

/// Counts the commands of one worker. Cheap to clone within its thread; never leaves the thread.
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
    /// Commands that ended after their window was left, and for whose ends no slot is free yet.
    late_ends: RefCell<Vec<CommandRecord>>,
    /// The window of the last command. The next window is not earlier.
    window: Cell<Window>,
    /// The first window that accepts counts; earlier windows are being sealed.
    sealing: Cell<Window>,
    /// The number of open tickets. It is counted apart from the slots, so that each checks the other.
    open_tickets: Cell<u64>,
}

/// Proof that a command is on the tally. Consumed exactly once: by [`Ticket::settle`] or by a drop.
#[derive(Debug)]
pub struct Ticket {
    meter: Rc<MeterState>,
    record: CommandRecord,
}

/// Counts the bytes of a request body as they pass, while the ticket is held elsewhere. Counts nothing after
/// [`Ticket::close_body_meter`].
#[derive(Debug)]
pub struct RequestBodyMeter {
    slot: &'static Slot,
    bytes: Cell<u64>,
    is_open: Cell<bool>,
}

/// The data of a command at its end.
#[derive(Clone, Copy, Debug)]
struct CommandRecord {
    /// The slot that counted the admission.
    slot_ref: SlotRef,
    series: u64,
    window: Window,
    end: CommandEnd,
}

impl MeterSeed {
    /// Creates the meter of the calling thread.
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
    /// Counts a command as received, before any decision about the command. The decision must follow without an
    /// `.await` in between: [`Meter::tick`] reports a command that is neither refused nor admitted as a defect.
    pub fn received(&self) {
        if COUNTING_ENABLED {
            self.0.worker_slot.slot.count_received();
        }
    }

    /// Counts a command as admitted. Returns [`Refused::LedgerUnavailable`] if no slot is free.
    ///
    /// Inline, like every function on the path of a command: a ticket that is built at its final address is not copied
    /// on the way. The copies were half of the cost of counting (perf on `loadtests year`, 2026-11-25).
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

    /// Counts a command as refused. Always counts; if the series has no slot, under the name `unknown`.
    pub fn refuse(&self, department: &Department, command: &CommandKey, refused: Refused, window: Window) {
        if !COUNTING_ENABLED {
            return;
        }
        let inner = &self.0;
        let wanted = SeriesRef { department, command, window: inner.enter_window(window) };
        let slot = inner.allocator.borrow_mut().slot_for_refusal(&wanted, inner.sealing.get());
        inner.publish_slot_usage();
        // Without a slot the command stays received and not refused. This case cannot happen; if it did, the imbalance
        // would show it.
        let Some(slot) = slot else { return };
        stores::count_refusal(inner.worker_slot.slot, slot, refused);
    }

    /// Completes the waits of [`Ticket::wait_until_durable`]. Must run on the worker's own thread as long as commands
    /// run. Ends with the keeper.
    pub fn run_sync_notifier(&self) -> impl Future<Output = ()> + use<> {
        sync_waiters::run_notifier(Rc::clone(&self.0.waiters), self.0.synced.clone())
    }

    /// Checks the worker's counters and acknowledges seals. Must be called about every 100 ms on the worker's own
    /// thread.
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

/// The state of a worker, for a test that predicts where a command is counted.
#[cfg(test)]
impl Meter {
    /// Returns the first window that accepts counts.
    pub(crate) fn acknowledged_window(&self) -> Window {
        self.0.sealing.get()
    }

    /// Returns the moments of admission of commands that have ended and wait for a slot.
    pub(crate) fn pending_windows(&self) -> Vec<u64> {
        self.0.late_ends.borrow().iter().map(|ended| ended.end.opened_ns).collect()
    }

    /// Returns whether a command may find no slot.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.0.allocator.borrow().is_nearly_full()
    }

    /// Returns the window that counts refusals without a slot of their own.
    pub(crate) fn unnamed_window(&self) -> Option<Window> {
        self.0.allocator.borrow().unnamed_window()
    }
}

impl MeterState {
    /// Returns the window to count in: never earlier than the last.
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

    /// Acknowledges the seal of windows, once a refusal is sure to find a slot of a later window.
    fn acknowledge_seal(&self) {
        let sealing = self.shared.sealing();
        if sealing > self.sealing.get() && self.allocator.borrow().can_refuse_from(sealing) {
            self.sealing.set(sealing);
            self.window.set(sealing.max(self.window.get()));
            self.flags().acknowledge(sealing);
        }
    }

    /// Settles the late ends for which no slot was free.
    fn settle_late_ends(&self) {
        let waiting = std::mem::take(&mut *self.late_ends.borrow_mut());
        for ended in waiting {
            self.record_end(&ended);
        }
    }

    /// Counts an end in the slot of its admission, or in the present window if the window of admission is being sealed.
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

    /// Counts the end of a command whose window is being sealed. The end waits until the present window has a slot for
    /// it.
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
            let _ = self.request_sender.send(KeeperRequest::Wake); // if the keeper has ended, no slots will come
        }
    }

    fn publish_imbalance(&self) {
        let count = |at| self.worker_slot.slot.get(at).cast_signed();
        let accounted = count(offset::WORKER_REFUSED)
            .wrapping_add(count(offset::WORKER_FINISHED))
            .wrapping_add(self.open_tickets.get().cast_signed());
        let imbalance = count(offset::WORKER_RECEIVED).wrapping_sub(accounted);
        self.flags().imbalance.store(imbalance, Ordering::Relaxed);
    }

    fn flags(&self) -> &WorkerFlags {
        &self.shared.workers[self.number]
    }
}

impl Drop for MeterState {
    /// The last ticket and the meter are gone: this worker counts nothing more.
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
    /// Returns a counter for the reader of the request body. [`Ticket::close_body_meter`] closes the counter.
    pub fn body_meter(&self) -> RequestBodyMeter {
        RequestBodyMeter { slot: self.record.slot_ref.slot, bytes: Cell::new(0), is_open: Cell::new(true) }
    }

    /// Closes the counter of the request body; later bytes are not counted.
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

    /// The bytes of the request body and of the response body so far. Those of the request body are known once
    /// [`Ticket::close_body_meter`] was called.
    pub fn bytes(&self) -> (u64, u64) {
        (self.record.end.request_bytes, self.record.end.response_bytes)
    }

    /// Waives the units of the command, because nothing of it reached a subsystem. Has no effect on a command that ends
    /// with a response of the subsystem (`ok`, `client_error`, `server_error`).
    pub fn waive(&mut self) {
        self.record.end.charged = false;
    }

    /// Completes when an fdatasync that began after the admission has ended. Never completes if the disk has failed.
    pub async fn wait_until_durable(&self) {
        let (sync, must_wake) = self.meter.shared.request_sync();
        if must_wake {
            let _ = self.meter.request_sender.send(KeeperRequest::Wake); // if the keeper has ended, no sync will end
        }
        self.meter.waiters.wait_for(sync).await;
    }

    /// Ends the command. Returns its duration: the time since `open` on the meter's clock.
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
    /// Ends the command with its settled outcome, or as `aborted` if it was not settled.
    #[inline]
    fn drop(&mut self) {
        if self.record.end.duration_ns == 0 {
            self.record.end.duration_ns = self.age_ns();
        }
        self.meter.record_end(&self.record);
    }
}
