//! The composition root: from a configuration to a running gateway. The order of start and stop is the document.
//!
//! Start: configuration, listeners bound, ledger opened (and recovered), limits told what was used, workers, control.
//! Stop: not ready, a moment for load balancers to notice, no new connections, commands in flight finish, last fold, end.
//! Guarantees: a start that fails has served nobody; a stop that succeeds has lost nothing.

mod app_error;
mod binding;
mod components;
mod control_thread;
mod expiry_watch;
mod file_descriptors;
mod listener_set;
mod reload;
mod removed_ids;
mod threads;
mod tls_changes;

use self::components::SharedComponents;
use self::listener_set::ListenerSet;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::{ConfigLoader, ConfigProblems, Configuration, GatewaySettings};
use crate::ledger::{Ledger, LedgerError, LedgerReader, LedgerSettings, MeterSeed, SeriesTotals};
use crate::lifecycle::{DrainTrigger, Readiness, drain};
use crate::limit::LimiterRegistry;
use crate::model::{Name, NameInterner, Outcome, Refused};
use crate::policy::PolicySnapshot;
use crate::proxy::{ConnectionLimits, UpstreamHealth, WorkerHandle, WorkerParts, WorkerShutdown, start_worker};
use crate::telemetry::{Telemetry, logging};

use binding::bind_sockets;
use control_thread::ControlThread;
use reload::{ConfigReloader, ConfigSource, ReloadHandle};
use threads::wait_timeout;

pub use self::app_error::AppError;
pub(crate) use self::reload::department_names;
pub use binding::{BindProblem, BindProblems};

/// What a gateway is started with.
pub struct StartOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Where time comes from.
    pub clock: Clock,
}

/// A gateway at work. Dropping it without [`RunningGateway::shutdown`] cuts everything off at once; nothing counted is lost.
pub struct RunningGateway {
    listeners: Vec<(Name, SocketAddr)>,
    admin: Option<SocketAddr>,
    ready: Readiness,
    settings: GatewaySettings,
    workers: Vec<threads::ThreadHandle>,
    control: ControlThread,
    traffic_drain: DrainTrigger,
    abort: DrainTrigger,
    ledger: Ledger,
}

/// Starts a gateway on threads of its own and returns when it is ready.
pub fn start(start: StartOptions) -> Result<RunningGateway, AppError> {
    let StartOptions { config, clock } = start;
    let numbers = NameInterner::default();
    let mut loader = ConfigLoader::new(&config);
    let (watch, loaded) = reload::load_config(&mut loader, &numbers, &clock);
    let mut loaded = loaded?;
    let Configuration { settings, snapshot, .. } = loaded.configuration.clone();
    let tls = std::mem::take(&mut loaded.tls).into_iter();
    let tls = tls.map(|(name, tls)| (name, Arc::new(ArcSwap::from_pointee(tls)))).collect();
    let connections_max = file_descriptors::connections_max(&settings.capacity)?;
    let bound = bind_sockets(&settings)?;
    let ready = Readiness::default();
    let ledger_settings = ledger_settings(&settings, &ready);
    let (ledger, seeds) = Ledger::open(ledger_settings, clock.clone(), Box::new(exit_on_storage_failure))?;

    let starting = ready.block("the start");
    let telemetry = Telemetry::new();
    let components = SharedComponents {
        limiters: Arc::new(LimiterRegistry::new(clock.clone(), settings.calendar)),
        published: Arc::new(ArcSwap::new(Arc::clone(&snapshot))),
        connection_limits: Arc::new(ConnectionLimits::new(Arc::clone(&telemetry))),
        health: Arc::new(UpstreamHealth::new(Arc::clone(&telemetry), clock.clone())),
        telemetry,
        reader: ledger.reader(),
        listener_tls: Arc::new(tls),
        subsystem_tls: Arc::new(ArcSwap::from_pointee(std::mem::take(&mut loaded.subsystem_tls))),
        ready: ready.clone(),
        calendar: settings.calendar,
        clock,
    };
    components.limiters.enforce(&snapshot);
    restore_quotas(&components, &snapshot)?;
    components.reader.update_department_names(department_names(&snapshot));

    let (traffic, traffic_watcher) = drain();
    let (end, end_watcher) = drain();
    let (handles, workers) = start_workers(
        &settings,
        &components,
        seeds,
        &WorkerShutdown { drain: traffic_watcher.clone(), abort: end_watcher },
    )?;
    let listeners = bound.listeners.iter().map(|(name, listener)| (name.clone(), listener.address())).collect();
    let admin = bound.admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let reloader = ConfigReloader::new(ConfigSource { loader, interner: numbers, watch }, loaded, components.clone());
    let accept = ListenerSet {
        bound: bound.listeners,
        settings: settings.clone(),
        connections_max,
        handles,
        drain: traffic_watcher,
    };
    let control = ControlThread::start(components, accept, bound.admin, reloader)?;
    drop(starting);
    Ok(RunningGateway {
        listeners,
        admin,
        ready,
        settings,
        workers,
        control,
        traffic_drain: traffic,
        abort: end,
        ledger,
    })
}

impl RunningGateway {
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
    pub fn reload(&self) -> Result<(), ConfigProblems> {
        self.control.reload()
    }

    /// Something that can ask for a reload from another thread.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.control.reload_handle()
    }

    /// Drains and closes: not ready, still accepting for `shutdown.delay`, then GOAWAY and `Connection: close`, then waits
    /// up to `shutdown.grace` for commands in flight, then the last fold. Blocks.
    pub fn shutdown(self) -> Result<(), AppError> {
        let _stopping = self.ready.block("the shutdown");
        std::thread::sleep(self.settings.shutdown.delay);
        self.traffic_drain.begin();
        if !wait_timeout(self.traffic_drain.done(), self.settings.shutdown.grace)? {
            log_aborted_commands(&self.ledger.reader());
        }
        self.abort.begin();
        for worker in self.workers {
            worker.join();
        }
        self.control.stop();
        Ok(self.ledger.close()?)
    }
}

/// Logs how many commands end with the grace period, if there are any: connections without one are closed without a word.
fn log_aborted_commands(ledger: &LedgerReader) {
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

/// Quotas remember over restarts: what the ledger holds of this month is already used, and was warned of.
fn restore_quotas(components: &SharedComponents, snapshot: &PolicySnapshot) -> Result<(), AppError> {
    let month = components.calendar.month_of(components.clock.window());
    let rows = threads::block_on(components.reader.usage_total(components.calendar.windows_of(month)))??;
    let mut used: HashMap<&Name, (u64, bool)> = HashMap::new();
    for row in &rows {
        let (units, has_refused) = used.entry(&row.department).or_default();
        *units += row.totals.units;
        *has_refused |= row.outcome == Outcome::Refused(Refused::QuotaExceeded);
    }
    // Departments without a quota too: a reload may give them one within the month.
    for policy in &snapshot.departments {
        let used = used.get(&policy.department.id).copied().unwrap_or_default();
        components.limiters.restore_quota(policy.department.number, month, used);
    }
    removed_ids::warn_of_missing_ids(snapshot, &rows, month);
    Ok(())
}

fn start_workers(
    settings: &GatewaySettings,
    components: &SharedComponents,
    seeds: Vec<MeterSeed>,
    stop: &WorkerShutdown,
) -> Result<(Vec<WorkerHandle>, Vec<threads::ThreadHandle>), AppError> {
    let parts = WorkerParts {
        published: Arc::clone(&components.published),
        subsystem_tls: Arc::clone(&components.subsystem_tls),
        limiters: Arc::clone(&components.limiters),
        health: Arc::clone(&components.health),
        telemetry: Arc::clone(&components.telemetry),
        connection_limits: Arc::clone(&components.connection_limits),
        clock: components.clock.clone(),
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
        threads.push(threads::ThreadHandle::new(thread));
    }
    Ok((handles, threads))
}

/// The disk under the ledger has failed: nothing more can be counted, so nothing more may be answered. Ends the process at
/// once with exit code 74; the next start recovers what the kernel still holds. A failed sync is never tried again, because
/// the kernel may have dropped the pages it could not write.
fn exit_on_storage_failure(error: LedgerError) {
    tracing::error!(%error, "the ledger's disk has failed; the gateway ends");
    logging::flush_log();
    std::process::exit(EXIT_STORAGE);
}

/// EX_IOERR of sysexits.
const EXIT_STORAGE: i32 = 74;
