//! Active health: every server whose subsystem says so is asked, over and over, whether it is well.
//!
//! Guarantees: a server is asked once per gateway, not per worker; a reload keeps what is known of servers that stay, and
//! ends the checks of those that go; never more than [`CHECKS_MAX`] checks at once. Leaves to [`super::endpoint::health`] what a check
//! means, and to [`self::probe`] how it is made.

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
use crate::policy::{PolicySnapshot, Subsystem, UpstreamServer};
use crate::proxy::capacity::in_flight::InFlightLimiter;

use self::probe::HealthProbe;
use super::endpoint::dns::DnsResolver;
use super::endpoint::health::ServerKey;
use super::endpoint::health::{HealthTransition, ServerHealth, UpstreamHealth};
use super::transport::connector::Connector;

/// Checks under way at once; each takes a file descriptor of those that are kept for other things than commands.
const CHECKS_MAX: usize = 64;
/// How soon a reload is seen.
const RELOAD_POLL: Duration = Duration::from_millis(250);

/// The checks of a gateway.
pub struct HealthChecker {
    published: Arc<ArcSwap<PolicySnapshot>>,
    tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    health: Arc<UpstreamHealth>,
    checks: HashMap<ServerKey, RunningCheck>,
    applied: Option<Arc<PolicySnapshot>>,
    resolver: Rc<DnsResolver>,
    /// What a check reads ahead is little, whatever the workers carry.
    in_flight: Rc<InFlightLimiter>,
    permits: Rc<Semaphore>,
}

/// The checks of one server.
struct RunningCheck {
    probe: Rc<HealthProbe>,
    health: Arc<ServerHealth>,
    task: JoinHandle<()>,
}

impl HealthChecker {
    /// Nobody is asked yet.
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

    /// Asks until the drain begins. Must run where tasks may stay on their thread.
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

    /// Does what the live configuration says, if it is another than before.
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
                Entry::Occupied(_) => running.stop_check().await, // what is known of the server stays
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
        config.subsystems.iter().flat_map(|subsystem| self.subsystem_checks(subsystem)).collect()
    }

    fn subsystem_checks(&self, subsystem: &Subsystem) -> Vec<(ServerKey, (HealthProbe, UpstreamServer))> {
        let Some(check) = &subsystem.health_check else { return Vec::new() };
        let tls = self.tls.load().get(&subsystem.id).cloned();
        let one = |server: &UpstreamServer| {
            let connector = Connector::new(subsystem, server, tls.clone(), (&self.resolver, &self.in_flight));
            let probe = HealthProbe::new(connector, check.clone(), server);
            ((subsystem.id.clone(), server.authority.clone()), (probe, server.clone()))
        };
        subsystem.upstreams.iter().map(one).collect()
    }

    fn start_check(&self, server: &ServerKey, probe: HealthProbe, upstream: &UpstreamServer) -> RunningCheck {
        let health = self.health.server_health(&server.0, upstream);
        let probe = Rc::new(probe);
        let asking = check_repeatedly(server.clone(), Rc::clone(&probe), Arc::clone(&health), Rc::clone(&self.permits));
        RunningCheck { probe, health, task: spawn_local(asking) }
    }
}

impl RunningCheck {
    /// Ends the checks; when this is over, nothing of them holds the server's health.
    async fn stop_check(self) {
        self.task.abort();
        let _ = self.task.await; // it was told to end, and did
    }
}

/// Asks one server for ever; the first time after a part of the interval, so that not all are asked at once.
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
        let asked = probe.run_check(&health).await;
        drop(place);
        match health.note_check(asked.is_ok(), &probe.check) {
            Some(HealthTransition::Ejected) => {
                let reason = asked.err().unwrap_or_default();
                tracing::warn!(%subsystem, upstream, reason, "a server is out of rotation: it failed its health checks");
            }
            Some(HealthTransition::Readmitted) => {
                tracing::info!(%subsystem, upstream, "a server is back: it passed its health checks")
            }
            None => {}
        }
        sleep(probe.check.interval * random.u32(900..=1100) / 1000).await;
    }
}
