//! The composition root: from a configuration to a running gateway. The order of start and stop is the document.
//!
//! Start: configuration, listeners bound, ledger opened (and recovered), limits told what was used, workers, control.
//! Stop: not ready, a moment for load balancers to notice, no new connections, commands in flight finish, last fold, end.
//! Guarantees: a start that fails has served nobody; a stop that succeeds has lost nothing.

mod binding;
mod control;
mod descriptors;
mod endings;
mod reload;
mod threads;
mod tls_changes;
mod vanished;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::{Configuration, Loader, Problems, Settings};
use crate::identity::{ServerTls, SubsystemTls};
use crate::ledger::{Ledger, LedgerError, LedgerReader, LedgerSettings, MeterSeed, SeriesTotals};
use crate::lifecycle::{DrainTrigger, DrainWatcher, Ready, drain};
use crate::limit::Limiters;
use crate::model::{CalendarOffset, Name, Numbers, Outcome, Refused};
use crate::policy::Snapshot;
use crate::proxy::{
    AcceptSettings, Caps, ConnectionsMax, Listener, Stop, UpstreamHealth, WorkerHandle, WorkerParts, start_worker,
};
use crate::telemetry::{Telemetry, logging};

use binding::bind;
use control::Control;
use reload::{Reload, Reloader, Source};
use threads::wait;

pub use binding::{BindProblem, BindProblems};

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
    /// Addresses could not be bound.
    #[error("{0}")]
    Bind(#[from] BindProblems),
    /// The system gave no thread or runtime.
    #[error("the system gave no thread: {0}")]
    Thread(#[from] io::Error),
}

/// What all parts of a running gateway share.
#[derive(Clone)]
struct Organs {
    clock: Clock,
    /// In which months are read: that of the ledger, which is written at start.
    calendar: CalendarOffset,
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
    let mut loader = Loader::new(&config);
    let (watch, read) = reload::read(&mut loader, &numbers, &clock);
    let mut read = read?;
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
        limiters: Arc::new(Limiters::new(clock.clone(), settings.calendar)),
        published: Arc::new(ArcSwap::new(Arc::clone(&snapshot))),
        caps: Arc::new(Caps::new(Arc::clone(&telemetry))),
        health: Arc::new(UpstreamHealth::new(Arc::clone(&telemetry), clock.clone())),
        telemetry,
        reader: ledger.reader(),
        tls: Arc::new(tls),
        subsystem_tls: Arc::new(ArcSwap::from_pointee(std::mem::take(&mut read.subsystem_tls))),
        ready: ready.clone(),
        calendar: settings.calendar,
        clock,
    };
    organs.limiters.enforce(&snapshot);
    remember_quotas(&organs, &snapshot)?;
    organs.reader.note_department_names(names_of(&snapshot));

    let (traffic, traffic_watcher) = drain();
    let (end, end_watcher) = drain();
    let (handles, workers) =
        start_workers(&settings, &organs, seeds, &Stop { drain: traffic_watcher.clone(), end: end_watcher })?;
    let listeners = bound.listeners.iter().map(|(name, listener)| (name.clone(), listener.address())).collect();
    let admin = bound.admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let reloader = Reloader::new(Source { loader, numbers, watch }, read, organs.clone());
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
            tell_what_is_cut(&self.ledger.reader());
        }
        self.end.begin();
        for worker in self.workers {
            worker.join();
        }
        self.control.stop();
        Ok(self.ledger.close()?)
    }
}

/// Logs how many commands end with the grace period, if there are any: connections without one are closed without a word.
fn tell_what_is_cut(ledger: &LedgerReader) {
    let totals = threads::block_on(ledger.totals()).map_err(AppError::from);
    match totals.and_then(|totals| Ok(totals?)) {
        Ok(totals) => {
            let commands: u64 = totals.series.iter().map(SeriesTotals::in_flight).sum();
            if commands > 0 {
                tracing::warn!(
                    commands,
                    "commands were still in flight after the grace period; they count as interrupted"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "commands in flight after the grace period, if any, count as interrupted"),
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

/// Quotas remember over restarts: what the ledger holds of this month is already used, and was warned of.
fn remember_quotas(organs: &Organs, snapshot: &Snapshot) -> Result<(), AppError> {
    let month = organs.calendar.month_of(organs.clock.window());
    let rows = threads::block_on(organs.reader.usage_in_whole(organs.calendar.windows_of(month)))??;
    let mut used: HashMap<&Name, (u64, bool)> = HashMap::new();
    for row in &rows {
        let (units, has_refused) = used.entry(&row.department).or_default();
        *units += row.totals.units;
        *has_refused |= row.outcome == Outcome::Refused(Refused::QuotaExceeded);
    }
    // Departments without a quota too: a reload may give them one within the month.
    for policy in &snapshot.departments {
        let used = used.get(&policy.department.id).copied().unwrap_or_default();
        organs.limiters.recall_quota(policy.department.number, month, used);
    }
    vanished::warn_of_missing(snapshot, &rows, month);
    Ok(())
}

/// The names of departments, for the book.
fn names_of(snapshot: &Snapshot) -> Vec<(Name, String)> {
    let departments = snapshot.departments.iter().map(|policy| &policy.department);
    departments.map(|department| (department.id.clone(), department.name.clone())).collect()
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
        grace: settings.shutdown.grace,
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
    logging::flush();
    std::process::exit(EXIT_STORAGE);
}

/// EX_IOERR of sysexits.
const EXIT_STORAGE: i32 = 74;

/// A problem of the file as a whole.
fn problem(message: String) -> Problems {
    Problems::whole(message)
}

/// How long [`Running::reload`] waits for the control thread.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);
