//! The control thread: listeners, the operator's door, reloads, health checks. Never on the path of a command.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{self, AdminState};
use crate::config::Problems;
use crate::lifecycle::{DrainTrigger, DrainWatcher, drain};
use crate::proxy::Checks;
use crate::telemetry::{ConfigStatus, QuotaUse, View};

use super::reload::{Reload, Reloader, Reply, believing, expiries};
use super::threads::Joined;
use super::{Accepting, AppError, Organs};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Requests for a reload that may wait.
const RELOADS_MAX: usize = 4;

/// The control thread, from outside.
pub(super) struct Control {
    reload: Reload,
    drain: DrainTrigger,
    thread: Joined,
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
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "the control thread could not start its runtime"),
            };
            runtime.block_on(async {
                let series = accepting.settings.capacity.series;
                accepting.run(&organs);
                if let Some(admin) = admin {
                    let view = view_maker(organs.clone(), reloader.status(), series);
                    serve_admin(&organs, admin, view, watcher.clone());
                }
                tokio::task::spawn_local(checks(&organs).run(watcher.clone()));
                look_after(reloader, requested, watcher).await;
            });
        })?;
        Ok(Self { reload: Reload(requests), drain: trigger, thread: Joined::new(thread) })
    }

    pub(super) fn reload(&self) -> Result<(), Problems> {
        self.reload.request()
    }

    pub(super) fn reload_handle(&self) -> Reload {
        self.reload.clone()
    }

    pub(super) fn stop(self) {
        self.drain.begin();
        self.thread.join();
    }
}

/// Reloads when asked, and when a file changes, until the drain begins.
async fn look_after(mut reloader: Reloader, mut requested: mpsc::Receiver<Reply>, mut drain: DrainWatcher) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.begun() => return,
            Some(reply) = requested.recv() => {
                let _ = reply.try_send(reloader.reload()); // whoever asked may have stopped waiting
            }
            _ = look.tick() => {
                if reloader.has_changed() {
                    let _ = reloader.reload(); // shown by /config and the log
                }
            }
        }
    }
}

fn checks(organs: &Organs) -> Checks {
    let tls = Arc::clone(&organs.subsystem_tls);
    Checks::new(Arc::clone(&organs.published), tls, Arc::clone(&organs.health))
}

type ViewMaker = Arc<dyn Fn() -> View + Send + Sync>;

fn serve_admin(organs: &Organs, socket: std::net::TcpListener, view: ViewMaker, drain: DrainWatcher) {
    let state = AdminState {
        ledger: organs.reader.clone(),
        telemetry: Arc::clone(&organs.telemetry),
        ready: organs.ready.clone(),
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
        let quotas = organs.limiters.quotas(window).into_iter().filter_map(|(number, used, granted)| {
            let policy = snapshot.departments.iter().find(|policy| policy.department.number == number)?;
            Some(QuotaUse { department: policy.department.id.clone(), used, granted })
        });
        View {
            window,
            calendar: snapshot.calendar,
            series,
            quotas: quotas.collect(),
            expiries: expiries(&organs),
            believing: believing(&organs),
            config: ConfigStatus::clone(&status.load()),
        }
    })
}
