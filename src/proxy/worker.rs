//! A traffic thread: one single-threaded runtime, one meter, its own pools. Nothing on the hot path is shared but the
//! snapshot and the limiters.
//!
//! Guarantees: whatever is in flight when the worker must end settles as `interrupted`; the worker's books are checked and
//! the keeper is answered every [`TICK`].

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::config::Capacity;
use crate::ledger::{Meter, MeterSeed};
use crate::lifecycle::DrainWatcher;
use crate::limit::Limiters;
use crate::policy::Snapshot;
use crate::telemetry::{Recorder, Telemetry};

use super::connection::{Accepted, serve};
use super::live::Live;
use super::request_id::{RequestId, RequestIds};
use super::upstream::{PoolSettings, Pools, UpstreamHealth};

/// How often a worker looks after its books and pools.
const TICK: Duration = Duration::from_millis(100);
/// Connections that wait for a worker to take them up; beyond it the listener turns them away.
const HANDED_OVER_MAX: usize = 1024;

/// What the workers of a gateway share, or are made from.
#[derive(Clone)]
pub struct WorkerParts {
    /// The snapshot that is live.
    pub published: Arc<ArcSwap<Snapshot>>,
    /// All limits.
    pub limiters: Arc<Limiters>,
    /// Which servers are well.
    pub health: Arc<UpstreamHealth>,
    /// Where measurements go.
    pub telemetry: Arc<Telemetry>,
    /// Time.
    pub clock: Clock,
    /// What the gateway carries at most.
    pub capacity: Capacity,
    /// How many workers there are.
    pub workers: usize,
    /// Begins when connections must end; held until they have.
    pub drain: DrainWatcher,
    /// Begins when whatever is still in flight must end now.
    pub end: DrainWatcher,
}

/// One traffic thread's own things.
pub struct Worker {
    pub(super) meter: Meter,
    pub(super) limiters: Arc<Limiters>,
    pub(super) recorder: Recorder,
    pub(super) clock: Clock,
    pub(super) capacity: Capacity,
    published: Arc<ArcSwap<Snapshot>>,
    live: RefCell<Rc<Live>>,
    pools: Pools,
    ids: RequestIds,
    in_flight: Cell<usize>,
    in_flight_max: usize,
    ending: Cell<bool>,
}

/// The listener's end of a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    handed_over: mpsc::Sender<Accepted>,
    connections: Arc<AtomicUsize>,
}

/// Counts one connection of a worker as long as it lives.
pub(super) struct Carried(Arc<AtomicUsize>);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkerHandle {
    /// Connections it carries, or is about to.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether its thread still takes connections up.
    pub(super) fn is_alive(&self) -> bool {
        !self.handed_over.is_closed()
    }

    /// Gives a connection to the worker; `false` if it cannot take any more at this moment.
    pub(super) fn hand_over(&self, make: impl FnOnce(Carried) -> Accepted) -> bool {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.handed_over.try_send(make(Carried(Arc::clone(&self.connections)))).is_ok()
    }
}

impl Worker {
    /// Starts the thread of worker `index`.
    pub fn start(index: usize, parts: WorkerParts, seed: MeterSeed) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
        let (handed_over, taken_up) = mpsc::channel(HANDED_OVER_MAX);
        let handle = WorkerHandle { handed_over, connections: Arc::default() };
        let thread = std::thread::Builder::new().name(format!("worker-{index}"));
        let thread = thread.spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let drain = (parts.drain.clone(), parts.end.clone());
                    let worker = Rc::new(Self::new(parts, seed.into_meter()));
                    runtime.block_on(Rc::clone(&worker).run(taken_up, drain));
                    worker.ending.set(true); // dropping the runtime drops what is in flight
                }
                Err(error) => tracing::error!(%error, index, "a worker could not start its runtime"),
            }
        })?;
        Ok((handle, thread))
    }

    fn new(parts: WorkerParts, meter: Meter) -> Self {
        let pools = Pools::new(PoolSettings {
            idle_max: parts.capacity.upstream_idle,
            idle_time: parts.capacity.upstream_idle_time,
            health: parts.health,
        });
        let live = Live::new(parts.published.load_full(), &pools);
        Self {
            meter,
            limiters: parts.limiters,
            recorder: parts.telemetry.recorder(),
            clock: parts.clock,
            in_flight_max: parts.capacity.in_flight.div_ceil(parts.workers.max(1)),
            capacity: parts.capacity,
            published: parts.published,
            live: RefCell::new(Rc::new(live)),
            pools,
            ids: RequestIds::default(),
            in_flight: Cell::new(0),
            ending: Cell::new(false),
        }
    }

    /// Takes up connections until the drain is over, or its time is.
    async fn run(
        self: Rc<Self>,
        mut taken_up: mpsc::Receiver<Accepted>,
        (drain, mut end): (DrainWatcher, DrainWatcher),
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (open, mut closed) = mpsc::channel::<()>(1);
        let mut open = Some(open);
        loop {
            tokio::select! {
                accepted = taken_up.recv(), if open.is_some() => match (accepted, &open) {
                    (Some(accepted), Some(open)) => self.take_up(accepted, drain.clone(), open.clone()),
                    _ => open = None, // the listeners are gone: only what is here remains
                },
                _ = tick.tick() => self.tick(),
                _ = closed.recv(), if open.is_none() => break,
                () = end.begun() => break,
            }
        }
        self.meter.tick();
    }

    fn take_up(self: &Rc<Self>, accepted: Accepted, drain: DrainWatcher, open: mpsc::Sender<()>) {
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            serve(worker, accepted, drain).await;
            drop(open);
        });
    }

    fn tick(&self) {
        self.meter.tick();
        self.live(); // a worker without commands must let go of what a reload has removed, too
        self.pools.sweep();
    }

    /// The configuration that is live now, as this worker sees it.
    pub(super) fn live(&self) -> Rc<Live> {
        let published = self.published.load();
        let live = self.live.borrow();
        if Arc::ptr_eq(&published, &live.snapshot) {
            return Rc::clone(&live);
        }
        drop(live);
        let renewed = Rc::new(Live::new(Arc::clone(&published), &self.pools));
        self.live.replace(Rc::clone(&renewed));
        renewed
    }

    pub(super) fn next_request_id(&self) -> RequestId {
        self.ids.next()
    }

    /// Whether the worker carries as many commands as it may.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight.get() >= self.in_flight_max
    }

    pub(super) fn enter(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(super) fn leave(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// Whether the gateway is ending, so that what is cut off now is our doing.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.get()
    }
}
