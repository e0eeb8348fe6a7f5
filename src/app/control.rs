//! The control thread: listeners, the operator's door, health checks; and beside it the thread that reloads, which may be busy
//! for seconds while connections are accepted and operators answered. Neither is on the path of a command.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{self, AdminState};
use crate::config::Problems;
use crate::lifecycle::{DrainTrigger, DrainWatcher, drain};
use crate::model::Name;
use crate::policy::{Snapshot, Subsystem};
use crate::proxy::Checks;
use crate::telemetry::{ConfigStatus, DepartmentLimits, QuotaUse, View};

use super::endings::Endings;
use super::reload::{Reload, Reloader, Reply, believing, expiries};
use super::threads::Joined;
use super::{Accepting, AppError, Organs};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Requests for a reload that may wait.
const RELOADS_MAX: usize = 4;

/// The control thread and the one that reloads, from outside.
pub(super) struct Control {
    reload: Reload,
    drain: DrainTrigger,
    threads: [Joined; 2],
}

impl Control {
    pub(super) fn start(
        organs: Organs,
        accepting: Accepting,
        admin: Option<std::net::TcpListener>,
        reloader: Reloader,
    ) -> Result<Self, AppError> {
        let (requests, requested) = mpsc::channel(RELOADS_MAX);
        let (trigger, watcher) = drain();
        let (status, mut ended, of_reload) = (reloader.status(), watcher.clone(), organs.clone());
        let control = spawn("control", async move || {
            let series = accepting.settings.capacity.series;
            let hosts = accepting.settings.admin_hosts.clone().into();
            accepting.run(&organs);
            if let Some(admin) = admin {
                let view = view_maker(organs.clone(), status, series);
                serve_admin(&organs, admin, (view, hosts), ended.clone());
            }
            tokio::task::spawn_local(checks(&organs).run(ended.clone()));
            ended.begun().await;
        })?;
        let reload = spawn("reload", async move || {
            look_after((reloader, Endings::new(of_reload)), requested, watcher).await;
        })?;
        Ok(Self { reload: Reload(requests), drain: trigger, threads: [control, reload] })
    }

    pub(super) fn reload(&self) -> Result<(), Problems> {
        self.reload.request()
    }

    pub(super) fn reload_handle(&self) -> Reload {
        self.reload.clone()
    }

    pub(super) fn stop(self) {
        self.drain.begin();
        self.threads.into_iter().for_each(Joined::join);
    }
}

/// Runs a future on a thread of its own, which ends with it.
fn spawn<F: AsyncFnOnce() + Send + 'static>(name: &'static str, work: F) -> std::io::Result<Joined> {
    let thread =
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(work()),
                Err(error) => tracing::error!(%error, name, "a thread could not start its runtime"),
            }
        })?;
    Ok(Joined::new(thread))
}

/// Reloads when asked, and when a file changes, and looks at what ends, until the drain begins.
async fn look_after(
    (mut reloader, mut endings): (Reloader, Endings),
    mut requested: mpsc::Receiver<Reply>,
    mut drain: DrainWatcher,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            Some(reply) = requested.recv() => {
                let reloaded = reloader.reload();
                endings.look_at_new_files();
                let _ = reply.try_send(reloaded); // whoever asked may have stopped waiting
            }
            _ = look.tick() => {
                if reloader.has_changed() {
                    let _ = reloader.reload(); // shown by /config and the log
                    endings.look_at_new_files();
                }
                endings.look();
            }
        }
    }
}

fn checks(organs: &Organs) -> Checks {
    let tls = Arc::clone(&organs.subsystem_tls);
    Checks::new(Arc::clone(&organs.published), tls, Arc::clone(&organs.health))
}

type ViewMaker = Arc<dyn Fn() -> View + Send + Sync>;

fn serve_admin(
    organs: &Organs,
    socket: std::net::TcpListener,
    (view, hosts): (ViewMaker, Arc<[String]>),
    drain: DrainWatcher,
) {
    let state = AdminState {
        ledger: organs.reader.clone(),
        telemetry: Arc::clone(&organs.telemetry),
        ready: organs.ready.clone(),
        hosts,
        unserved: unserved_finder(organs.clone()),
        scrapes: Arc::default(),
        view,
    };
    match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => drop(tokio::spawn(admin::serve(listener, state, drain))),
        Err(error) => tracing::error!(%error, "admin cannot listen"),
    }
}

/// What a scrape shows beside the ledger: made fresh for each.
fn view_maker(organs: Organs, status: Arc<ArcSwap<ConfigStatus>>, series: usize) -> ViewMaker {
    Arc::new(move || {
        let snapshot = organs.published.load();
        let window = organs.clock.window();
        let quotas = organs.limiters.quotas(window).into_iter().map(|quota| QuotaUse {
            department: quota.department,
            used: quota.used,
            granted: quota.units,
            warned_percent: quota.warned_percent,
        });
        View {
            now: organs.clock.wall(),
            window,
            calendar: organs.calendar,
            series,
            quotas: QuotaUse::nearest(quotas.collect(), series),
            limits: limits(&snapshot, series),
            expiries: expiries(&organs),
            believing: believing(&organs),
            config: ConfigStatus::clone(&status.load()),
        }
    })
}

/// The limits of the first departments that have any.
fn limits(snapshot: &Snapshot, most: usize) -> Vec<DepartmentLimits> {
    let limits = snapshot.departments.iter().map(|policy| DepartmentLimits {
        department: policy.department.id.clone(),
        limits: policy.limits,
        quota: policy.quota.as_ref().map(|quota| quota.units.get()),
    });
    let any =
        |one: &DepartmentLimits| one.limits.rate.is_some() || one.limits.concurrent.is_some() || one.quota.is_some();
    limits.filter(any).take(most).collect()
}

/// Finds the subsystems all of whose servers are out of rotation; a server with the weight 0 gets nothing anyway.
fn unserved_finder(organs: Organs) -> Arc<dyn Fn() -> Vec<Name> + Send + Sync> {
    Arc::new(move || {
        let is_out = |subsystem: &Subsystem| {
            let mut servers = subsystem.upstreams.iter().filter(|server| server.weight > 0);
            servers.all(|server| organs.telemetry.is_ejected(&subsystem.id, &server.authority))
        };
        let snapshot = organs.published.load();
        snapshot.subsystems.iter().filter(|subsystem| is_out(subsystem)).map(|subsystem| subsystem.id.clone()).collect()
    })
}
