//! A traffic thread: one single-threaded runtime that takes up connections until it is told to stop.
//!
//! Guarantees: whatever is in flight when the thread must end settles as `interrupted`; the worker's books are checked and
//! the keeper is answered every [`TICK`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::MeterSeed;
use crate::lifecycle::DrainWatcher;

use super::alarms::TICK;
use super::connection::{Accepted, Carried, serve};
use super::worker::{Worker, WorkerParts};

/// Connections that wait for a worker to take them up; beyond it the listener turns them away.
const HANDED_OVER_MAX: usize = 1024;

/// The listener's end of a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    handed_over: mpsc::Sender<Accepted>,
    connections: Arc<AtomicUsize>,
}

/// When a worker stops.
#[derive(Clone)]
pub struct Stop {
    /// Begins when connections must end; held until they have.
    pub drain: DrainWatcher,
    /// Begins when whatever is still in flight must end now.
    pub end: DrainWatcher,
}

/// Starts the thread of one worker; `name` shows in `top`.
pub fn start_worker(
    name: String,
    parts: WorkerParts,
    seed: MeterSeed,
    stop: Stop,
) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    let (handed_over, taken_up) = mpsc::channel(HANDED_OVER_MAX);
    let handle = WorkerHandle { handed_over, connections: Arc::default() };
    let thread = thread::Builder::new().name(name).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let worker = Rc::new(Worker::new(parts, seed.into_meter()));
                runtime.block_on(work(Rc::clone(&worker), taken_up, stop));
                worker.end(); // dropping the runtime drops what is in flight
            }
            Err(error) => tracing::error!(%error, "a worker could not start its runtime"),
        }
    })?;
    Ok((handle, thread))
}

/// Takes up connections until the drain is over, or its time is.
async fn work(worker: Rc<Worker>, mut taken_up: mpsc::Receiver<Accepted>, stop: Stop) {
    let Stop { drain, mut end } = stop;
    tokio::task::spawn_local(worker.meter.deliver());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (open, mut closed) = mpsc::channel::<()>(1);
    let mut open = Some(open);
    loop {
        tokio::select! {
            accepted = taken_up.recv(), if open.is_some() => match (accepted, &open) {
                (Some(accepted), Some(open)) => take_up(&worker, accepted, drain.clone(), open.clone()),
                _ => open = None, // the listeners are gone: only what is here remains
            },
            _ = tick.tick() => worker.tick(),
            _ = closed.recv(), if open.is_none() => break,
            () = end.begun() => break,
        }
    }
    worker.tick();
}

fn take_up(worker: &Rc<Worker>, accepted: Accepted, drain: DrainWatcher, open: mpsc::Sender<()>) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        serve(worker, accepted, drain).await;
        drop(open);
    });
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
        self.handed_over.try_send(make(Carried::new(&self.connections))).is_ok()
    }
}
