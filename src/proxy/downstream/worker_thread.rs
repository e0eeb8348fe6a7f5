//! A traffic thread: one single-threaded runtime that serves connections until its shutdown.
//!
//! Guarantees:
//! - A command that is in flight when the thread is aborted settles as `interrupted`.
//! - The worker checks its books and serves the keeper every [`TICK_INTERVAL`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::MeterSeed;
use crate::lifecycle::DrainWatcher;
use crate::proxy::io::tick_timer::TICK_INTERVAL;
use crate::proxy::worker::{TrafficComponents, TrafficWorker, WorkerSettings};

use super::connection::{AcceptedConnection, WorkerConnection, serve_connection};

/// The maximum number of connections in the queue of a worker. Beyond it the listener closes new connections.
const QUEUED_CONNECTIONS_MAX: usize = 1024;

/// The listener's handle of a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    sender: mpsc::Sender<AcceptedConnection>,
    connections: Arc<AtomicUsize>,
}

/// The two signals that stop a worker.
#[derive(Clone)]
pub struct WorkerShutdown {
    /// Held until all connections have ended. Their graceful shutdown begins with the drain of their listener.
    pub drain: DrainWatcher,
    /// Aborts everything that is still in flight.
    pub abort: DrainWatcher,
}

/// Starts the thread of one worker, and returns when the worker has its first view of the configuration. So the next
/// configuration is a reload to every worker: servers that it adds begin with slow start. Tools such as `top` show its
/// name, `worker-INDEX`.
///
/// # Errors
/// If the system gives no thread or no runtime.
pub fn start_worker(
    components: TrafficComponents,
    settings: WorkerSettings,
    seed: MeterSeed,
    stop: WorkerShutdown,
) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(QUEUED_CONNECTIONS_MAX);
    let handle = WorkerHandle { sender, connections: Arc::default() };
    let (started, is_started) = sync_channel(1);
    let thread = thread::Builder::new().name(format!("worker-{}", settings.index)).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = started.send(Err(error)); // `start_worker` waits for it
                return;
            }
        };
        let worker = Rc::new(TrafficWorker::new(components, settings, seed.into_meter()));
        let _ = started.send(Ok(()));
        runtime.block_on(run_worker(Rc::clone(&worker), receiver, stop));
        worker.begin_abort(); // Dropping the runtime drops the commands in flight.
    })?;
    is_started.recv().map_err(|_| io::Error::other("a worker ended before it had started"))??;
    Ok((handle, thread))
}

/// Serves connections until the drain is complete or the abort begins.
async fn run_worker(worker: Rc<TrafficWorker>, mut receiver: mpsc::Receiver<AcceptedConnection>, stop: WorkerShutdown) {
    let WorkerShutdown { drain: _held, abort: mut end } = stop;
    tokio::task::spawn_local(worker.meter.run_sync_notifier());
    let mut tick = interval(TICK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (open, mut closed) = mpsc::channel::<()>(1);
    let mut open = Some(open);
    loop {
        tokio::select! {
            accepted = receiver.recv(), if open.is_some() => match (accepted, &open) {
                (Some(accepted), Some(open)) => accept_connection(&worker, accepted, open.clone()),
                _ => open = None, // All listeners have ended; only the open connections remain.
            },
            _ = tick.tick() => worker.tick(),
            _ = closed.recv(), if open.is_none() => break,
            () = end.begun() => break,
        }
    }
    worker.tick();
}

fn accept_connection(worker: &Rc<TrafficWorker>, accepted: AcceptedConnection, open: mpsc::Sender<()>) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        serve_connection(worker, accepted).await;
        drop(open);
    });
}

impl WorkerHandle {
    /// The number of open and queued connections of this worker.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether the worker's thread still accepts connections.
    pub(crate) fn is_alive(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Passes a connection to the worker. Returns `false` if the queue is full or the worker has ended.
    pub(crate) fn send_connection(&self, make: impl FnOnce(WorkerConnection) -> AcceptedConnection) -> bool {
        self.sender.try_send(make(WorkerConnection::new(&self.connections))).is_ok()
    }
}
