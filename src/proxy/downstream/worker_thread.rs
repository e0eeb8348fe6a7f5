//! A traffic thread: one single-threaded runtime that takes up connections until it is told to stop.
//!
//! Guarantees: whatever is in flight when the thread must end settles as `interrupted`; the worker's books are checked and
//! the keeper is answered every [`TICK_INTERVAL`].

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

use super::connection::{AcceptedConnection, WorkerConnection, serve_connection};
use crate::proxy::io::tick_timer::TICK_INTERVAL;
use crate::proxy::worker::{TrafficWorker, WorkerParts};

/// Connections that wait for a worker to take them up; beyond it the listener turns them away.
const QUEUED_CONNECTIONS_MAX: usize = 1024;

/// The listener's end of a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    sender: mpsc::Sender<AcceptedConnection>,
    connections: Arc<AtomicUsize>,
}

/// When a worker stops.
#[derive(Clone)]
pub struct WorkerShutdown {
    /// Begins when connections must end; held until they have.
    pub drain: DrainWatcher,
    /// Begins when whatever is still in flight must end now.
    pub abort: DrainWatcher,
}

/// Starts the thread of one worker; `name` shows in `top`.
pub fn start_worker(
    name: String,
    parts: WorkerParts,
    seed: MeterSeed,
    stop: WorkerShutdown,
) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(QUEUED_CONNECTIONS_MAX);
    let handle = WorkerHandle { sender, connections: Arc::default() };
    let thread = thread::Builder::new().name(name).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let worker = Rc::new(TrafficWorker::new(parts, seed.into_meter()));
                runtime.block_on(run_worker(Rc::clone(&worker), receiver, stop));
                worker.begin_abort(); // dropping the runtime drops what is in flight
            }
            Err(error) => tracing::error!(%error, "a worker could not start its runtime"),
        }
    })?;
    Ok((handle, thread))
}

/// Takes up connections until the drain is over, or its time is.
async fn run_worker(worker: Rc<TrafficWorker>, mut receiver: mpsc::Receiver<AcceptedConnection>, stop: WorkerShutdown) {
    let WorkerShutdown { drain, abort: mut end } = stop;
    tokio::task::spawn_local(worker.meter.run_sync_notifier());
    let mut tick = interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (open, mut closed) = mpsc::channel::<()>(1);
    let mut open = Some(open);
    loop {
        tokio::select! {
            accepted = receiver.recv(), if open.is_some() => match (accepted, &open) {
                (Some(accepted), Some(open)) => accept_connection(&worker, accepted, drain.clone(), open.clone()),
                _ => open = None, // the listeners are gone: only what is here remains
            },
            _ = tick.tick() => worker.tick(),
            _ = closed.recv(), if open.is_none() => break,
            () = end.begun() => break,
        }
    }
    worker.tick();
}

fn accept_connection(
    worker: &Rc<TrafficWorker>,
    accepted: AcceptedConnection,
    drain: DrainWatcher,
    open: mpsc::Sender<()>,
) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        serve_connection(worker, accepted, drain).await;
        drop(open);
    });
}

impl WorkerHandle {
    /// Connections it carries, or is about to.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether its thread still takes connections up.
    pub(crate) fn is_alive(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Gives a connection to the worker; `false` if it cannot take any more at this moment.
    pub(crate) fn send_connection(&self, make: impl FnOnce(WorkerConnection) -> AcceptedConnection) -> bool {
        self.sender.try_send(make(WorkerConnection::new(&self.connections))).is_ok()
    }
}
