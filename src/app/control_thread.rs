//! The control thread: listeners, the admin server, and health checks. A second thread performs reloads, which may take
//! seconds while the control thread accepts connections and serves operators.
//!
//! Guarantees: neither thread is on the path of a command.
//!
//! Leaves to others: a single reload (`reload`), and connections after their accept (`proxy`).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::AdminState;
use crate::config::ConfigProblems;
use crate::lifecycle::{DrainTrigger, DrainWatcher, drain};
use crate::model::Name;
use crate::policy::{Backend, PolicySnapshot};
use crate::proxy::HealthChecker;
use crate::telemetry::{ConfigStatus, DepartmentLimits, QuotaUse, RuntimeView};

use super::app_error::AppError;
use super::components::SharedComponents;
use super::expiry_watch::ExpiryWatch;
use super::listener_control::{AcceptingParts, Activation, ListenerRequests};
use super::listener_set::ListenerSet;
use super::reload::{ConfigReloader, ReloadHandle, ReloadReply, accepts_expired_crl, all_expiries};
use super::threads::ThreadHandle;

/// The interval at which the files are checked for changes.
const FILE_POLL: Duration = Duration::from_secs(1);
/// The maximum of queued reload requests.
const QUEUED_RELOADS_MAX: usize = 4;

/// The handle of the control thread and of the reload thread.
pub(crate) struct ControlThread {
    reload_handle: ReloadHandle,
    drain: DrainTrigger,
    threads: [ThreadHandle; 2],
}

impl ControlThread {
    /// Starts both threads. `start` are the listeners that accept connections from now on.
    pub(crate) fn start(
        components: SharedComponents,
        listeners: ListenerSet,
        (start, changes): (Activation, ListenerRequests),
        (reloader, series): (ConfigReloader, usize),
    ) -> Result<Self, AppError> {
        let (requests, requested) = mpsc::channel(QUEUED_RELOADS_MAX);
        let (trigger, watcher) = drain();
        let (status, ended, of_reload) = (reloader.status(), watcher.clone(), components.clone());
        let control = spawn_thread("control", async move || {
            let parts = AcceptingParts::new(listeners, admin_state(&components, status, series));
            tokio::task::spawn_local(health_checker(&components).run(ended.clone()));
            parts.run(start, changes, ended).await;
        })?;
        let reload = spawn_thread("reload", async move || {
            run_reloads((reloader, ExpiryWatch::new(of_reload)), requested, watcher).await;
        })?;
        Ok(Self { reload_handle: ReloadHandle(requests), drain: trigger, threads: [control, reload] })
    }

    pub(crate) fn reload(&self) -> Result<(), ConfigProblems> {
        self.reload_handle.request()
    }

    pub(crate) fn reload_handle(&self) -> ReloadHandle {
        self.reload_handle.clone()
    }

    pub(crate) fn stop(self) {
        self.drain.begin();
        self.threads.into_iter().for_each(ThreadHandle::join);
    }
}

/// Runs a future on its own thread, which ends with the future.
fn spawn_thread<F: AsyncFnOnce() + Send + 'static>(name: &'static str, work: F) -> std::io::Result<ThreadHandle> {
    let thread =
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(work()),
                Err(error) => tracing::error!(%error, name, "cannot start the async runtime of a thread"),
            }
        })?;
    Ok(ThreadHandle::new(thread))
}

/// Reloads on request and when a file changes, and checks expiry dates, until the drain begins.
async fn run_reloads(
    (mut reloader, mut endings): (ConfigReloader, ExpiryWatch),
    mut requested: mpsc::Receiver<ReloadReply>,
    mut drain: DrainWatcher,
) {
    let mut look = interval(FILE_POLL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            Some(reply) = requested.recv() => {
                let reloaded = reloader.reload().await;
                endings.restart_schedule();
                // The requester may have stopped waiting.
                let _ = reply.try_send(reloaded);
            }
            _ = look.tick() => {
                if reloader.has_changed() {
                    let _ = reloader.reload().await; // the result is shown by /config and the log
                    endings.restart_schedule();
                }
                endings.check_expiries();
            }
        }
    }
}

fn health_checker(components: &SharedComponents) -> HealthChecker {
    let tls = Arc::clone(&components.traffic.subsystem_tls);
    HealthChecker::new(Arc::clone(&components.traffic.published), tls, Arc::clone(&components.traffic.health))
}

type ViewSource = Arc<dyn Fn() -> RuntimeView + Send + Sync>;

fn admin_state(components: &SharedComponents, status: Arc<ArcSwap<ConfigStatus>>, series: usize) -> AdminState {
    AdminState {
        ledger: components.reader.clone(),
        telemetry: Arc::clone(&components.traffic.telemetry),
        ready: components.ready.clone(),
        hosts: Arc::clone(&components.admin_hosts),
        unserved: unserved_finder(components.clone()),
        scrapes: Arc::default(),
        hour_pages: Arc::default(),
        view: view_source(components.clone(), status, series),
    }
}

/// The runtime view for a scrape, beside the ledger; built for each scrape.
fn view_source(components: SharedComponents, status: Arc<ArcSwap<ConfigStatus>>, series: usize) -> ViewSource {
    Arc::new(move || {
        let snapshot = components.traffic.published.load();
        let window = components.traffic.clock.window();
        let quotas = components.traffic.limiters.quotas(window).into_iter().map(|quota| QuotaUse {
            department: quota.department,
            kind: quota.kind,
            used: quota.used,
            granted: quota.amount,
            warned_percent: quota.warned_percent,
        });
        RuntimeView {
            now: components.traffic.clock.wall(),
            window,
            calendar: components.calendar,
            series_max: series,
            quotas: QuotaUse::closest_to_limit(quotas.collect(), series),
            limits: department_limits(&snapshot, series),
            expiries: all_expiries(&components),
            accepts_expired_crl: accepts_expired_crl(&components),
            config: config_status(&components, &status),
            cluster: components.cluster.as_ref().map(|cluster| cluster.view()),
        }
    })
}

/// The status of the configuration, with what the controller knows about it.
fn config_status(components: &SharedComponents, status: &ArcSwap<ConfigStatus>) -> ConfigStatus {
    let last_good = components.cluster.as_ref().and_then(|cluster| cluster.served_last_good());
    ConfigStatus { last_good, ..ConfigStatus::clone(&status.load()) }
}

/// The limits of the first `most` departments that have any.
fn department_limits(snapshot: &PolicySnapshot, most: usize) -> Vec<DepartmentLimits> {
    let limits = snapshot
        .departments
        .iter()
        .map(|policy| DepartmentLimits { department: policy.department.id.clone(), limits: policy.limits });
    let any = |one: &DepartmentLimits| one.limits.rate.is_some() || one.limits.concurrent.is_some();
    limits.filter(any).take(most).collect()
}

/// Finds the subsystems and backends whose servers are all out of rotation. Servers with weight 0 do not count, because
/// they get no commands. A backend without servers is configured so, and not out of rotation.
fn unserved_finder(components: SharedComponents) -> Arc<dyn Fn() -> Vec<Name> + Send + Sync> {
    Arc::new(move || {
        let is_out = |backend: &Backend| {
            let mut servers = backend.upstreams.iter().filter(|server| server.weight > 0).peekable();
            servers.peek().is_some()
                && servers.all(|server| components.traffic.telemetry.is_ejected(&backend.id, &server.authority))
        };
        let snapshot = components.traffic.published.load();
        snapshot.backends.iter().filter(|backend| is_out(backend)).map(|backend| backend.id.clone()).collect()
    })
}
