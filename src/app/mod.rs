//! The composition root: from a configuration to a running gateway. The order of start and stop is the document.
//!
//! Start: configuration, listeners bound, ledger opened (and recovered), limits told what was used, workers, control.
//! Stop: not ready, a moment for load balancers to notice, no new connections, commands in flight finish, last fold, end.
//! Guarantees: a start that fails has served nobody; a stop that succeeds has lost nothing.

mod control;
mod descriptors;
mod endings;
mod reload;
mod threads;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::{Configuration, Problem, Problems, Settings};
use crate::identity::{ServerTls, SubsystemTls};
use crate::ledger::{Ledger, LedgerError, LedgerReader, LedgerSettings, MeterSeed};
use crate::lifecycle::{DrainTrigger, DrainWatcher, Ready, drain};
use crate::limit::Limiters;
use crate::model::{Name, Numbers};
use crate::policy::Snapshot;
use crate::proxy::{
    AcceptSettings, Caps, ConnectionsMax, Listener, Stop, UpstreamHealth, WorkerHandle, WorkerParts, start_worker,
};
use crate::telemetry::Telemetry;

use control::Control;
use reload::{Reload, Reloader};
use threads::wait;

/// What a gateway is started with.
pub struct Start {
    /// The configuration file.
    pub config: PathBuf,
    /// Where time comes from.
    pub clock: Clock,
}

/// A gateway at work. Dropping it without [`Running::shutdown`] cuts everything off at once; nothing counted is lost.
pub struct Running {
    listeners: Vec<(Name, SocketAddr)>,
    admin: Option<SocketAddr>,
    ready: Ready,
    settings: Settings,
    workers: Vec<threads::Joined>,
    control: Control,
    traffic: DrainTrigger,
    end: DrainTrigger,
    ledger: Ledger,
}

/// Why a gateway did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The ledger could not be opened or has failed.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// An address could not be bound.
    #[error("{what} cannot listen on {address}: {error}; is another process using it? `ss -ltnp` tells which")]
    Bind {
        /// Which part of the configuration names it.
        what: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The system gave no thread or runtime.
    #[error("the system gave no thread: {0}")]
    Thread(#[from] io::Error),
}

/// What all parts of a running gateway share.
#[derive(Clone)]
struct Organs {
    clock: Clock,
    telemetry: Arc<Telemetry>,
    limiters: Arc<Limiters>,
    published: Arc<ArcSwap<Snapshot>>,
    tls: Arc<HashMap<Name, Arc<ArcSwap<ServerTls>>>>,
    subsystem_tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    reader: LedgerReader,
    ready: Ready,
    caps: Arc<Caps>,
    health: Arc<UpstreamHealth>,
}

/// Starts a gateway on threads of its own and returns when it is ready.
pub fn start(start: Start) -> Result<Running, AppError> {
    let Start { config, clock } = start;
    let numbers = Numbers::default();
    let mut read = reload::read(&config, &numbers, &clock)?;
    let Configuration { settings, snapshot, .. } = read.configuration.clone();
    let tls = std::mem::take(&mut read.tls).into_iter();
    let tls = tls.map(|(name, tls)| (name, Arc::new(ArcSwap::from_pointee(tls)))).collect();
    let connections_max = descriptors::connections(&settings.capacity)?;
    let bound = bind(&settings)?;
    let ready = Ready::default();
    let ledger_settings = ledger_settings(&settings, &ready);
    let (ledger, seeds) = Ledger::open(ledger_settings, clock.clone(), Box::new(end_the_process))?;

    let starting = ready.block("the start");
    let telemetry = Telemetry::new();
    let organs = Organs {
        limiters: Arc::new(Limiters::new(clock.clone())),
        published: Arc::new(ArcSwap::new(Arc::clone(&snapshot))),
        caps: Arc::new(Caps::new(Arc::clone(&telemetry))),
        health: Arc::new(UpstreamHealth::new(Arc::clone(&telemetry), clock.clone())),
        telemetry,
        reader: ledger.reader(),
        tls: Arc::new(tls),
        subsystem_tls: Arc::new(ArcSwap::from_pointee(std::mem::take(&mut read.subsystem_tls))),
        ready: ready.clone(),
        clock,
    };
    organs.limiters.enforce(&snapshot);
    remember_quotas(&organs, &snapshot)?;

    let (traffic, traffic_watcher) = drain();
    let (end, end_watcher) = drain();
    let (handles, workers) =
        start_workers(&settings, &organs, seeds, &Stop { drain: traffic_watcher.clone(), end: end_watcher })?;
    let listeners = bound.listeners.iter().map(|(name, listener)| (name.clone(), listener.address())).collect();
    let admin = bound.admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let reloader = Reloader::new(config, numbers, read, organs.clone());
    let accept = Accepting {
        bound: bound.listeners,
        settings: settings.clone(),
        connections_max,
        handles,
        drain: traffic_watcher,
    };
    let control = Control::start(organs, accept, bound.admin, reloader)?;
    drop(starting);
    Ok(Running { listeners, admin, ready, settings, workers, control, traffic, end, ledger })
}

impl Running {
    /// The bound address of a listener, by name.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|(listener, _)| listener.as_str() == name).map(|(_, address)| *address)
    }

    /// All listeners: name and bound address.
    pub fn listeners(&self) -> &[(Name, SocketAddr)] {
        &self.listeners
    }

    /// The bound address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Reads the configuration again, as SIGHUP does. On problems the old one stays live.
    pub fn reload(&self) -> Result<(), Problems> {
        self.control.reload()
    }

    /// Something that can ask for a reload from another thread.
    pub fn reload_handle(&self) -> Reload {
        self.control.reload_handle()
    }

    /// Drains and closes: not ready, still accepting for `shutdown.delay`, then GOAWAY and `Connection: close`, then waits
    /// up to `shutdown.grace` for commands in flight, then the last fold. Blocks.
    pub fn shutdown(self) -> Result<(), AppError> {
        let _stopping = self.ready.block("the shutdown");
        std::thread::sleep(self.settings.shutdown.delay);
        self.traffic.begin();
        if !wait(self.traffic.done(), self.settings.shutdown.grace)? {
            tracing::warn!("commands were still in flight after the grace period; they count as interrupted");
        }
        self.end.begin();
        for worker in self.workers {
            worker.join();
        }
        self.control.stop();
        Ok(self.ledger.close()?)
    }
}

/// What the listeners accept with and for.
struct Accepting {
    bound: Vec<(Name, Listener)>,
    settings: Settings,
    connections_max: usize,
    handles: Vec<WorkerHandle>,
    drain: DrainWatcher,
}

impl Accepting {
    /// Runs every listener on the control runtime.
    fn run(self, organs: &Organs) {
        for (position, (name, listener)) in self.bound.into_iter().enumerate() {
            let Some(tls) = organs.tls.get(&name) else { continue };
            let settings = &self.settings.listeners[position]; // bound in their order
            let max = ConnectionsMax {
                all: self.connections_max,
                listener: settings.connections.unwrap_or(self.connections_max),
                address: self.settings.capacity.address_connections,
            };
            let accept = AcceptSettings {
                tls: Arc::clone(tls),
                position,
                max,
                proxies: Arc::new(settings.proxies.clone()),
                caps: Arc::clone(&organs.caps),
                telemetry: Arc::clone(&organs.telemetry),
            };
            tokio::spawn(listener.run(accept, self.handles.clone(), self.drain.clone()));
        }
    }
}

struct Bound {
    listeners: Vec<(Name, Listener)>,
    admin: Option<std::net::TcpListener>,
}

fn bind(settings: &Settings) -> Result<Bound, AppError> {
    let mut listeners = Vec::new();
    for listener in &settings.listeners {
        let failed =
            |error| AppError::Bind { what: format!("listener {}", listener.name), address: listener.address, error };
        listeners.push((listener.name.clone(), Listener::bind(listener.address).map_err(failed)?));
    }
    let admin = settings.admin.map(|address| {
        let failed = |error| AppError::Bind { what: "admin".to_owned(), address, error };
        let socket = std::net::TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true)?;
        Ok::<_, AppError>(socket)
    });
    Ok(Bound { listeners, admin: admin.transpose()? })
}

fn ledger_settings(settings: &Settings, ready: &Ready) -> LedgerSettings {
    LedgerSettings {
        path: settings.ledger_path.clone(),
        gateway: settings.gateway.clone(),
        sync_every: settings.sync_every,
        workers: settings.workers,
        calendar: settings.calendar,
        compact_after: settings.compact_after,
        ready: ready.clone(),
    }
}

/// Quotas remember over restarts: what the ledger holds of this month is already used.
fn remember_quotas(organs: &Organs, snapshot: &Snapshot) -> Result<(), AppError> {
    let month = snapshot.calendar.month_of(organs.clock.window());
    let rows = threads::block_on(organs.reader.usage_in_whole(snapshot.calendar.windows_of(month)))??;
    let mut used: HashMap<&Name, u64> = HashMap::new();
    for row in &rows {
        *used.entry(&row.department).or_default() += row.totals.units;
    }
    // Departments without a quota too: a reload may give them one within the month.
    for policy in &snapshot.departments {
        let units = used.get(&policy.department.id).copied().unwrap_or(0);
        organs.limiters.set_quota_used(policy.department.number, month, units);
    }
    Ok(())
}

fn start_workers(
    settings: &Settings,
    organs: &Organs,
    seeds: Vec<MeterSeed>,
    stop: &Stop,
) -> Result<(Vec<WorkerHandle>, Vec<threads::Joined>), AppError> {
    let parts = WorkerParts {
        published: Arc::clone(&organs.published),
        subsystem_tls: Arc::clone(&organs.subsystem_tls),
        limiters: Arc::clone(&organs.limiters),
        health: Arc::clone(&organs.health),
        telemetry: Arc::clone(&organs.telemetry),
        caps: Arc::clone(&organs.caps),
        clock: organs.clock.clone(),
        capacity: settings.capacity,
        workers: settings.workers,
        index: 0,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if settings.workers < cores {
        tracing::info!(workers = settings.workers, cores, "fewer workers than cores: so say workers, or a maxRequests");
    }
    let (mut handles, mut threads) = (Vec::new(), Vec::new());
    for (index, seed) in seeds.into_iter().enumerate() {
        let parts = WorkerParts { index, ..parts.clone() };
        let (handle, thread) = start_worker(format!("worker-{index}"), parts, seed, stop.clone())?;
        handles.push(handle);
        threads.push(threads::Joined::new(thread));
    }
    Ok((handles, threads))
}

/// The disk under the ledger has failed: nothing more can be counted, so nothing more may be answered. Ends the process at
/// once with exit code 74; the next start recovers what the kernel still holds. A failed sync is never tried again, because
/// the kernel may have dropped the pages it could not write.
fn end_the_process(error: LedgerError) {
    tracing::error!(%error, "the ledger's disk has failed; the gateway ends");
    std::process::exit(EXIT_STORAGE);
}

/// EX_IOERR of sysexits.
const EXIT_STORAGE: i32 = 74;

/// A problem of the file as a whole.
fn problem(message: String) -> Problems {
    Problems(vec![Problem { path: String::new(), message, hint: None }])
}

/// How long [`Running::reload`] waits for the control thread.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);
