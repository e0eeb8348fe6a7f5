//! Active health checks: the gateway probes every server whose backend configures them.
//!
//! Guarantees:
//! - A server is checked once per gateway, not once per worker.
//! - A reload keeps the health of servers that stay, and ends the checks of servers that are removed.
//! - At most [`CHECKS_MAX`] checks run at once.
//!
//! Leaves to others: the effect of a result ([`super::endpoint::outlier_ejection`]), and a single check
//! ([`self::probe`]).

mod probe;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::identity::SubsystemTls;
use crate::lifecycle::DrainWatcher;
use crate::model::Name;
use crate::policy::{Backend, PolicySnapshot, UpstreamServer};
use crate::proxy::capacity::load_shedding::InFlightLimiter;

use self::probe::HealthProbe;
use super::endpoint::dns::DnsResolver;
use super::endpoint::outlier_ejection::{HealthTransition, ServerHealth, ServerKey, UpstreamHealth};
use super::transport::connector::Connector;

/// The maximum of concurrent checks. Each uses a file descriptor of those reserved for other purposes than commands.
const CHECKS_MAX: usize = 64;
/// The interval at which the configuration is compared.
const RELOAD_POLL: Duration = Duration::from_millis(250);

/// The health checker of a gateway.
pub struct HealthChecker {
    published: Arc<ArcSwap<PolicySnapshot>>,
    tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    health: Arc<UpstreamHealth>,
    checks: HashMap<ServerKey, RunningCheck>,
    applied: Option<Arc<PolicySnapshot>>,
    resolver: Rc<DnsResolver>,
    /// A separate limiter: a check reads little ahead, independent of the load of the workers.
    in_flight: Rc<InFlightLimiter>,
    permits: Rc<Semaphore>,
}

/// The running checks of one server.
struct RunningCheck {
    probe: Rc<HealthProbe>,
    health: Arc<ServerHealth>,
    task: JoinHandle<()>,
}

impl HealthChecker {
    /// A health checker without checks.
    pub fn new(
        published: Arc<ArcSwap<PolicySnapshot>>,
        tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
        health: Arc<UpstreamHealth>,
    ) -> Self {
        let room = Rc::new(Semaphore::new(CHECKS_MAX));
        Self {
            published,
            tls,
            health,
            checks: HashMap::new(),
            applied: None,
            resolver: Rc::default(),
            in_flight: Rc::new(InFlightLimiter::new(CHECKS_MAX)),
            permits: room,
        }
    }

    /// Runs the checks until the drain begins. Must run where tasks may stay on their thread (`spawn_local`).
    pub async fn run(mut self, mut drain: DrainWatcher) {
        let mut look = interval(RELOAD_POLL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.begun() => return self.checks.values().for_each(|running| running.task.abort()),
                _ = look.tick() => self.apply_config().await,
            }
        }
    }

    /// Applies the live configuration if it has changed.
    async fn apply_config(&mut self) {
        let config = self.published.load_full();
        if self.applied.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &config)) {
            return;
        }
        let mut wanted = self.configured_checks(&config);
        self.applied = Some(config);
        let old = std::mem::take(&mut self.checks);
        for (server, running) in old {
            match wanted.entry(server) {
                Entry::Occupied(same) if same.get().0.is_same_check(&running.probe) => {
                    self.checks.insert(same.remove_entry().0, running);
                }
                Entry::Occupied(_) => running.stop_check().await, // the health of the server is kept
                Entry::Vacant(_) => {
                    running.health.forget_checks();
                    running.stop_check().await;
                }
            }
        }
        for (server, (probe, upstream)) in wanted {
            let running = self.start_check(&server, probe, &upstream);
            self.checks.insert(server, running);
        }
        self.health.forget_unused();
    }

    fn configured_checks(&self, config: &PolicySnapshot) -> HashMap<ServerKey, (HealthProbe, UpstreamServer)> {
        config.backends.iter().flat_map(|backend| self.backend_checks(backend)).collect()
    }

    fn backend_checks(&self, backend: &Backend) -> Vec<(ServerKey, (HealthProbe, UpstreamServer))> {
        let Some(check) = &backend.health_check else { return Vec::new() };
        let tls = self.tls.load().get(&backend.id).cloned();
        let one = |server: &UpstreamServer| {
            let connector = Connector::new(backend, server, tls.clone(), (&self.resolver, &self.in_flight));
            let probe = HealthProbe::new(connector, check.clone(), server);
            ((backend.id.clone(), server.authority.clone()), (probe, server.clone()))
        };
        backend.upstreams.iter().map(one).collect()
    }

    fn start_check(&self, server: &ServerKey, probe: HealthProbe, upstream: &UpstreamServer) -> RunningCheck {
        let health = self.health.server_health(&server.0, upstream);
        let probe = Rc::new(probe);
        let asking = check_repeatedly(server.clone(), Rc::clone(&probe), Arc::clone(&health), Rc::clone(&self.permits));
        RunningCheck { probe, health, task: spawn_local(asking) }
    }
}

impl RunningCheck {
    /// Ends the checks. After the await, the task holds no reference to the server's health.
    async fn stop_check(self) {
        self.task.abort();
        let _ = self.task.await; // the task was aborted
    }
}

/// Checks one server repeatedly. The first check starts after a random part of the interval, so that the servers are
/// not all checked at once.
async fn check_repeatedly(
    (subsystem, upstream): ServerKey,
    probe: Rc<HealthProbe>,
    health: Arc<ServerHealth>,
    room: Rc<Semaphore>,
) {
    let mut random = fastrand::Rng::new();
    sleep(probe.check.interval * random.u32(..100) / 1000).await;
    loop {
        let Ok(place) = room.acquire().await else { return };
        let result = probe.run_check(&health).await;
        drop(place);
        match health.note_check(result.is_ok(), &probe.check) {
            Some(HealthTransition::Ejected) => {
                let reason = result.err().unwrap_or_default();
                tracing::warn!(%subsystem, upstream, reason, "a server is out of rotation: it failed its health checks");
            }
            Some(HealthTransition::Readmitted) => {
                tracing::info!(%subsystem, upstream, "a server is back in rotation: it passed its health checks")
            }
            None => {}
        }
        sleep(probe.check.interval * random.u32(900..=1100) / 1000).await;
    }
}
