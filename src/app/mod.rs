//! The composition root: builds a running gateway from a configuration, in a fixed order.
//!
//! The order of start:
//! 1. load the configuration
//! 2. bind the listeners
//! 3. open the access log, start the export of traces
//! 4. open the ledger, with recovery
//! 5. restore the used quotas
//! 6. start the thread of usage pages
//! 7. start the workers
//! 8. start the control thread
//!
//! Guarantees: a start that fails has served no request.
//!
//! Leaves to others: the order of stop (`shutdown`), and the reload (`reload`).

mod access_log;
mod app_error;
mod binding;
mod cluster_data_plane;
mod components;
mod control_thread;
mod controller_thread;
mod expiry_watch;
mod file_descriptors;
mod listener_control;
mod listener_plan;
mod listener_set;
mod live_listeners;
mod reload;
mod removed_ids;
mod shutdown;
mod snapshot_publisher;
mod threads;
mod tls_changes;
mod trace_export;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::{ConfigLoader, ConfigProblems, Configuration, GatewaySettings};
use crate::identity::{DiskFiles, MemoryOrDisk, PemSource};
use crate::ledger::{Ledger, LedgerError, LedgerReader, LedgerSettings, MeterSeed, UsageRow};
use crate::lifecycle::{Departure, Readiness, drain};
use crate::limit::{LimiterRegistry, RestoredUse};
use crate::model::{CalendarPeriod, Name, NameInterner, Outcome, PeriodLength, Refused};
use crate::policy::PolicySnapshot;
use crate::proxy::{
    ConnectionLimits, TrafficComponents, UpstreamHealth, UsagePageQueue, UsagePages, UsageSources, WorkerHandle,
    WorkerSettings, WorkerShutdown, start_worker,
};
use crate::telemetry::{AccessLog, ConfigStatus, Telemetry, TraceExport, logging};

use self::components::SharedComponents;
use self::listener_control::{Activation, listener_control};
use self::listener_set::{AcceptEnvironment, ListenerSet};
use binding::bind_sockets;
use control_thread::ControlThread;
use reload::{ConfigReloader, ConfigSource, ReloadHandle};
use shutdown::RunningParts;
use snapshot_publisher::SnapshotPublisher;

pub use self::app_error::AppError;
pub use self::cluster_data_plane::{ClusterDataPlane, ClusterDocuments};
pub use self::controller_thread::ControllerThread;
pub(crate) use self::reload::department_names;
pub use binding::{BindProblem, BindProblems};
pub use live_listeners::{BoundAddress, LiveAddresses, LiveListener, LiveListeners};

/// The options of a start.
pub struct StartOptions {
    /// The path of the configuration file.
    pub config: PathBuf,
    /// The clock.
    pub clock: Clock,
    /// Documents that a Kubernetes controller makes; `None` without one.
    pub cluster: Option<ClusterDocuments>,
}

impl StartOptions {
    /// A start from a configuration file alone.
    pub fn new(config: PathBuf, clock: Clock) -> Self {
        Self { config, clock, cluster: None }
    }
}

/// A running gateway. Dropping it without [`RunningGateway::shutdown`] aborts all connections at once; no count is
/// lost.
pub struct RunningGateway {
    live: LiveListeners,
    publisher: Arc<SnapshotPublisher>,
    status: Arc<ArcSwap<ConfigStatus>>,
    ledger_path: PathBuf,
    parts: RunningParts,
}

/// Starts a gateway on its own threads and returns when it is ready.
pub fn start(start: StartOptions) -> Result<RunningGateway, AppError> {
    match start.cluster.as_ref().map(|cluster| cluster.texts.clone()) {
        Some(texts) => start_with_pem_source(start, Box::new(MemoryOrDisk(texts))),
        None => start_with_pem_source(start, Box::new(DiskFiles)),
    }
}

/// Like [`start`]. Certificates, keys, authorities and revocation lists come from `pem_source`. A text that has changed
/// there is live after the next reload.
pub fn start_with_pem_source(start: StartOptions, pem_source: Box<dyn PemSource>) -> Result<RunningGateway, AppError> {
    let StartOptions { config, clock, cluster } = start;
    let numbers = NameInterner::default();
    let mut loader = ConfigLoader::with_pem_source(&config, clock.clone(), pem_source);
    let gauge = cluster.as_ref().map(|cluster| Arc::clone(&cluster.gauge));
    if let Some(ClusterDocuments { documents, .. }) = cluster {
        loader = loader.with_documents(documents);
    }
    let (watch, loaded) = reload::load_config(&mut loader, &numbers);
    let configuration = loaded?;
    let Configuration { settings, snapshot, excluded, .. } = &configuration;
    let connections_max = file_descriptors::connections_max(&settings.capacity)?;
    let bound = bind_sockets(settings, &LiveAddresses::default())?;
    let telemetry = Telemetry::new();
    let access_log = access_log::start_access_log(&configuration, &telemetry, &clock)?;
    let traces = trace_export::start_trace_export(&configuration, &telemetry, &clock)?;
    let ready = Readiness::default();
    let (ledger, seeds) = open_ledger(settings, &ready, (clock.clone(), &access_log))?;

    let starting = ready.block("the start", START_REMEDY);
    let shared = (&ready, clock, (telemetry, Arc::clone(&access_log), traces.clone()));
    let (components, page_queue) = shared_components(&configuration, ledger.reader(), shared);
    let components = SharedComponents { cluster: gauge, ..components };
    components.traffic.limiters.enforce(snapshot);
    restore_quotas(&components, snapshot, &numbers)?;
    page_queue.start(usage_sources(&components))?;
    components.reader.update_department_names(department_names(snapshot));

    let (traffic, traffic_watcher) = drain();
    let (end, end_watcher) = drain();
    let (handles, workers) = start_workers(
        settings,
        &components,
        seeds,
        &WorkerShutdown { drain: traffic_watcher.clone(), abort: end_watcher },
    )?;
    let environment = AcceptEnvironment {
        traffic: components.traffic.clone(),
        workers: handles,
        connections_max,
        address_connections: settings.capacity.address_connections,
    };
    let listeners = ListenerSet::new(environment, traffic_watcher);
    let (control, requests) = listener_control();
    let addresses = bound.addresses(settings, &LiveAddresses::default());
    let activation = Activation::new(bound, settings, &components.listener_tls.load(), &numbers);
    let source = ConfigSource { loader, interner: numbers, watch };
    let reloader = ConfigReloader::new((source, control), (settings.clone(), excluded.clone()), components.clone());
    reload::log_excluded_changes(&[], excluded);
    let (status, departure) = (reloader.status(), components.traffic.departure.clone());
    let telemetry = Arc::clone(&components.traffic.telemetry);
    let reloading = (reloader, settings.capacity.series);
    let (live, publisher) = (components.live.clone(), Arc::clone(&components.publisher));
    live.publish(addresses); // before the first reload
    let control = ControlThread::start(components, listeners, (activation, requests), reloading)?;
    drop(starting);
    let limits = settings.shutdown;
    let parts = RunningParts {
        ready,
        departure,
        limits,
        telemetry,
        workers,
        control,
        traffic_drain: traffic,
        abort: end,
        access_log,
        traces,
        ledger,
    };
    let ledger_path = settings.ledger_path.clone();
    Ok(RunningGateway { live, publisher, status, ledger_path, parts })
}

/// What receives the facts of commands: metrics, the access log, traces.
type CommandReceivers = (Arc<Telemetry>, Arc<AccessLog>, Option<Arc<TraceExport>>);

/// What all parts of the gateway share.
fn shared_components(
    configuration: &Configuration,
    reader: LedgerReader,
    (ready, clock, (telemetry, access_log, trace_export)): (&Readiness, Clock, CommandReceivers),
) -> (SharedComponents, UsagePageQueue) {
    let (usage_pages, page_queue) = UsagePages::queue();
    let Configuration { settings, snapshot, tls, .. } = configuration;
    let listener_tls = tls.listeners.iter().cloned().map(|(name, tls)| (name, Arc::new(ArcSwap::new(tls)))).collect();
    let subsystem_tls = tls.subsystems.iter().cloned().collect();
    let traffic = TrafficComponents {
        limiters: Arc::new(LimiterRegistry::new(clock.clone(), settings.calendar)),
        published: Arc::new(ArcSwap::new(Arc::clone(snapshot))),
        connection_limits: Arc::new(ConnectionLimits::new(Arc::clone(&telemetry))),
        health: Arc::new(UpstreamHealth::new(Arc::clone(&telemetry), clock.clone())),
        telemetry,
        access_log,
        trace_export,
        subsystem_tls: Arc::new(ArcSwap::from_pointee(subsystem_tls)),
        usage_pages,
        departure: Departure::default(),
        clock,
    };
    let components = SharedComponents {
        publisher: Arc::new(SnapshotPublisher::new(Arc::clone(&traffic.published))),
        traffic,
        reader,
        listener_tls: Arc::new(ArcSwap::from_pointee(listener_tls)),
        admin_hosts: Arc::new(ArcSwap::from_pointee(settings.admin_hosts.clone())),
        live: LiveListeners::default(),
        ready: ready.clone(),
        calendar: settings.calendar,
        cluster: None,
    };
    (components, page_queue)
}

/// What usage pages are made from.
fn usage_sources(components: &SharedComponents) -> UsageSources {
    UsageSources {
        ledger: components.reader.clone(),
        limiters: Arc::clone(&components.traffic.limiters),
        published: Arc::clone(&components.traffic.published),
        calendar: components.calendar,
        clock: components.traffic.clock.clone(),
    }
}

impl RunningGateway {
    /// The bound address of a live listener, by name.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.live.current().listener(name).map(|listener| listener.address.bound)
    }

    /// All live listeners, in the order of the configuration.
    pub fn listeners(&self) -> Vec<LiveListener> {
        self.live.current().listeners.clone()
    }

    /// The live addresses, which a reload changes. Also notifies of changes.
    pub fn live_listeners(&self) -> LiveListeners {
        self.live.clone()
    }

    /// The data plane for a Kubernetes controller, which fills `cluster`: that of [`StartOptions::cluster`]. The
    /// gateway is not ready until the controller has applied a configuration.
    pub fn cluster_data_plane(&self, cluster: ClusterDocuments) -> ClusterDataPlane {
        let (reload, live) = (self.reload_handle(), self.live.clone());
        let parts = (reload, live, Arc::clone(&self.publisher));
        ClusterDataPlane::new(cluster, parts, Arc::clone(&self.status), &self.parts.ready)
    }

    /// The path of the ledger.
    pub fn ledger_path(&self) -> &std::path::Path {
        &self.ledger_path
    }

    /// The bound address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.live.current().admin.map(|admin| admin.bound)
    }

    /// Reloads the configuration, as SIGHUP does. If it has problems, the old one stays live.
    pub fn reload(&self) -> Result<(), ConfigProblems> {
        self.parts.control.reload()
    }

    /// A handle that requests a reload from another thread.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.parts.control.reload_handle()
    }

    /// Opens the file of the access log again, after it was renamed. Returns `false` if there is no such file.
    pub fn reopen_access_log(&self) -> bool {
        self.parts.access_log.reopen()
    }

    /// Shuts down gracefully and blocks until the end:
    /// - The gateway turns unready and still accepts connections, until none has come for `shutdown.quiet`, at most for
    ///   `shutdown.delay`. Responses over HTTP/1.1 have `Connection: close`; an HTTP/2 connection gets GOAWAY with its
    ///   next command.
    /// - All other connections get GOAWAY or `Connection: close`.
    /// - Commands in flight have up to `shutdown.grace` to finish.
    /// - The last lines of the access log are written, and the last spans are sent.
    /// - The last fold is written.
    pub fn shutdown(self) -> Result<(), AppError> {
        self.parts.shut_down()
    }
}

fn open_ledger(
    settings: &GatewaySettings,
    ready: &Readiness,
    (clock, access_log): (Clock, &Arc<AccessLog>),
) -> Result<(Ledger, Vec<MeterSeed>), LedgerError> {
    let last_lines = Arc::clone(access_log);
    let on_failure = move |error| exit_on_storage_failure(&error, &last_lines);
    Ledger::open(ledger_settings(settings, ready), clock, Box::new(on_failure))
}

fn ledger_settings(settings: &GatewaySettings, ready: &Readiness) -> LedgerSettings {
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

/// Restores the quotas after a restart: what the ledger has of this month and of today counts as used, and quotas that
/// were exceeded count as warned of. Every department of the ledger is restored: the configuration may bring it later,
/// and in a cluster the first one has no departments.
fn restore_quotas(
    components: &SharedComponents,
    snapshot: &PolicySnapshot,
    numbers: &NameInterner,
) -> Result<(), AppError> {
    let (window, calendar) = (components.traffic.clock.window(), components.calendar);
    for length in [PeriodLength::Month, PeriodLength::Day] {
        let period = length.containing(window, calendar);
        let rows = threads::block_on(components.reader.usage_total(period.windows(calendar)))??;
        for (department, used) in used_by_department(&rows) {
            components.traffic.limiters.restore_use(numbers.department(department), period, used);
        }
        if let CalendarPeriod::Month(month) = period
            && components.cluster.is_none()
        {
            removed_ids::warn_of_missing_ids(snapshot, &rows, month);
        }
    }
    Ok(())
}

/// What each department has used of its quotas.
fn used_by_department(rows: &[UsageRow]) -> HashMap<&Name, RestoredUse> {
    let mut used: HashMap<&Name, RestoredUse> = HashMap::new();
    for row in rows.iter().filter(|row| !row.subsystem.is_gateway()) {
        let of = used.entry(&row.department).or_default();
        of.units += row.totals.units;
        match row.outcome {
            Outcome::Finished(_) => of.commands += row.totals.commands,
            Outcome::Refused(refused) => of.has_refused |= refused == Refused::QuotaExceeded,
        }
    }
    used
}

fn start_workers(
    settings: &GatewaySettings,
    components: &SharedComponents,
    seeds: Vec<MeterSeed>,
    stop: &WorkerShutdown,
) -> Result<(Vec<WorkerHandle>, Vec<threads::ThreadHandle>), AppError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if settings.workers < cores {
        tracing::info!(
            workers = settings.workers,
            cores,
            "fewer workers than cores, because of workers or maxRequests"
        );
    }
    let (mut handles, mut threads) = (Vec::new(), Vec::new());
    for (index, seed) in seeds.into_iter().enumerate() {
        let GatewaySettings { capacity, workers, .. } = *settings;
        let of_worker = WorkerSettings { capacity, grace: settings.shutdown.grace, workers, index };
        let (handle, thread) = start_worker(components.traffic.clone(), of_worker, seed, stop.clone())?;
        handles.push(handle);
        threads.push(threads::ThreadHandle::new(thread));
    }
    Ok((handles, threads))
}

/// Ends the process with exit code 74, because the disk of the ledger has failed. Commands that cannot be counted must
/// not be served. The next start recovers the data that the kernel still holds. A failed sync is never retried, because
/// the kernel may have dropped the pages that it could not write.
fn exit_on_storage_failure(error: &LedgerError, access_log: &AccessLog) {
    tracing::error!(%error, "the ledger's disk has failed; the gateway stops");
    access_log.close();
    logging::flush_log();
    std::process::exit(EXIT_STORAGE);
}

/// What to do about a gateway that starts.
const START_REMEDY: &str = "wait: a large ledger is recovered for some seconds; the log says what it does";

/// EX_IOERR of sysexits.
const EXIT_STORAGE: i32 = 74;
