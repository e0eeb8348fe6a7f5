//! Active health: every server whose subsystem says so is asked, over and over, whether it is well.
//!
//! Guarantees: a server is asked once per gateway, not per worker; a reload keeps what is known of servers that stay, and
//! ends the checks of those that go; never more than [`CHECKS_MAX`] checks at once. Leaves to [`super::health`] what a check
//! means, and to [`super::probe`] how it is made.

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
use crate::policy::{Snapshot, Subsystem, Upstream};
use crate::proxy::load::Load;

use super::ServerKey;
use super::connect::Way;
use super::health::{Health, Turn, UpstreamHealth};
use super::names::Names;
use super::probe::Probe;

/// Checks under way at once; each takes a file descriptor of those that are kept for other things than commands.
const CHECKS_MAX: usize = 64;
/// How soon a reload is seen.
const LOOK: Duration = Duration::from_millis(250);

/// The checks of a gateway.
pub struct Checks {
    published: Arc<ArcSwap<Snapshot>>,
    tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    health: Arc<UpstreamHealth>,
    running: HashMap<ServerKey, Running>,
    seen: Option<Arc<Snapshot>>,
    names: Rc<Names>,
    /// What a check reads ahead is little, whatever the workers carry.
    load: Rc<Load>,
    room: Rc<Semaphore>,
}

/// The checks of one server.
struct Running {
    probe: Rc<Probe>,
    health: Arc<Health>,
    task: JoinHandle<()>,
}

impl Checks {
    /// Nobody is asked yet.
    pub fn new(
        published: Arc<ArcSwap<Snapshot>>,
        tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
        health: Arc<UpstreamHealth>,
    ) -> Self {
        let room = Rc::new(Semaphore::new(CHECKS_MAX));
        Self {
            published,
            tls,
            health,
            running: HashMap::new(),
            seen: None,
            names: Rc::default(),
            load: Rc::new(Load::new(CHECKS_MAX)),
            room,
        }
    }

    /// Asks until the drain begins. Must run where tasks may stay on their thread.
    pub async fn run(mut self, mut drain: DrainWatcher) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.begun() => return self.running.values().for_each(|running| running.task.abort()),
                _ = look.tick() => self.follow().await,
            }
        }
    }

    /// Does what the live configuration says, if it is another than before.
    async fn follow(&mut self) {
        let live = self.published.load_full();
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &live)) {
            return;
        }
        let mut wanted = self.wanted(&live);
        self.seen = Some(live);
        let old = std::mem::take(&mut self.running);
        for (server, running) in old {
            match wanted.entry(server) {
                Entry::Occupied(same) if same.get().0.is_same(&running.probe) => {
                    self.running.insert(same.remove_entry().0, running);
                }
                Entry::Occupied(_) => running.end().await, // what is known of the server stays
                Entry::Vacant(_) => {
                    running.health.forget_checks();
                    running.end().await;
                }
            }
        }
        for (server, (probe, upstream)) in wanted {
            let running = self.start(&server, probe, &upstream);
            self.running.insert(server, running);
        }
        self.health.forget_unused();
    }

    fn wanted(&self, live: &Snapshot) -> HashMap<ServerKey, (Probe, Upstream)> {
        live.subsystems.iter().flat_map(|subsystem| self.of_subsystem(subsystem)).collect()
    }

    fn of_subsystem(&self, subsystem: &Subsystem) -> Vec<(ServerKey, (Probe, Upstream))> {
        let Some(check) = &subsystem.health_check else { return Vec::new() };
        let tls = self.tls.load().get(&subsystem.id).cloned();
        let one = |server: &Upstream| {
            let way = Way::new(subsystem, server, tls.clone(), (&self.names, &self.load));
            let probe = Probe::new(way, check.clone(), server);
            ((subsystem.id.clone(), server.authority.clone()), (probe, server.clone()))
        };
        subsystem.upstreams.iter().map(one).collect()
    }

    fn start(&self, server: &ServerKey, probe: Probe, upstream: &Upstream) -> Running {
        let health = self.health.of(&server.0, upstream);
        let probe = Rc::new(probe);
        let asking = ask(server.clone(), Rc::clone(&probe), Arc::clone(&health), Rc::clone(&self.room));
        Running { probe, health, task: spawn_local(asking) }
    }
}

impl Running {
    /// Ends the checks; when this is over, nothing of them holds the server's health.
    async fn end(self) {
        self.task.abort();
        let _ = self.task.await; // it was told to end, and did
    }
}

/// Asks one server for ever; the first time after a part of the interval, so that not all are asked at once.
async fn ask((subsystem, upstream): ServerKey, probe: Rc<Probe>, health: Arc<Health>, room: Rc<Semaphore>) {
    let mut random = fastrand::Rng::new();
    sleep(probe.check.interval * random.u32(..100) / 1000).await;
    loop {
        let Ok(place) = room.acquire().await else { return };
        let asked = probe.ask(&health).await;
        drop(place);
        match health.note_check(asked.is_ok(), &probe.check) {
            Some(Turn::Out) => {
                let why = asked.err().unwrap_or_default();
                tracing::warn!(%subsystem, upstream, why, "a server is out of rotation: it failed its health checks");
            }
            Some(Turn::In) => tracing::info!(%subsystem, upstream, "a server is back: it passed its health checks"),
            None => {}
        }
        sleep(probe.check.interval * random.u32(900..=1100) / 1000).await;
    }
}
