//! One worker's pools and lines: which outlive configurations, and what of a configuration each server has.
//!
//! Guarantees: a server that a reload keeps keeps its connections, its place in the count of requests in flight, and those
//! who wait for it; one that a reload removes is forgotten.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::identity::SubsystemTls;
use crate::model::Name;
use crate::policy::{Snapshot, Subsystem, Upstream};

use crate::proxy::load::Load;

use super::balance::{self, Balancer, Key};
use super::connect::Way;
use super::health::UpstreamHealth;
use super::names::Names;
use super::pool::Pool;
use super::queue::{Here, Line};
use super::retry::Budget;
use super::{ServerKey, Upstreams};

/// All pools of one worker; they outlive configurations.
pub(in crate::proxy) struct Pools {
    by_server: RefCell<HashMap<ServerKey, Rc<Pool>>>,
    lines: RefCell<HashMap<Name, Rc<Line>>>,
    settings: PoolSettings,
    names: Rc<Names>,
}

/// What all pools of a gateway share.
#[derive(Clone)]
pub(in crate::proxy) struct PoolSettings {
    /// Idle connections kept per server.
    pub(in crate::proxy) idle_max: usize,
    /// How long an idle connection is kept.
    pub(in crate::proxy) idle_time: Duration,
    /// Who is well.
    pub(in crate::proxy) health: Arc<UpstreamHealth>,
    /// How subsystems are met over TLS.
    pub(in crate::proxy) tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    /// This worker's part of what is divided among all.
    pub(in crate::proxy) share: Share,
    /// How much the worker carries.
    pub(in crate::proxy) load: Rc<Load>,
}

/// One worker's part of what is divided among all.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Share {
    /// Its position.
    pub(in crate::proxy) index: usize,
    /// How many there are.
    pub(in crate::proxy) of: usize,
}

impl Share {
    /// Its part; all parts together are the whole, if that is at least 1 for each.
    fn exact(self, whole: usize) -> usize {
        let of = self.of.max(1);
        (whole / of + usize::from(self.index < whole % of)).max(1)
    }

    /// Its part, rounded up; nothing of nothing.
    fn rounded_up(self, whole: usize) -> usize {
        whole.div_ceil(self.of.max(1))
    }
}

/// One server, as the balancer sees it.
pub(super) struct Server {
    pub(super) pool: Rc<Pool>,
    /// How many of this worker's requests it carries at once.
    max: usize,
    slow_start: Option<Duration>,
    seed: u64,
}

impl balance::Server for Server {
    fn is_healthy(&self) -> bool {
        self.pool.health.is_healthy()
    }

    fn has_room(&self) -> bool {
        self.pool.here.in_flight() < self.max
    }

    fn in_flight(&self) -> u64 {
        self.pool.health.stats.requests.get()
    }

    fn warmth(&self) -> u64 {
        self.slow_start.map_or(balance::WARM, |time| self.pool.health.warmth(time))
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

impl Pools {
    pub(in crate::proxy) fn new(settings: PoolSettings) -> Self {
        Self { by_server: RefCell::default(), lines: RefCell::default(), settings, names: Rc::default() }
    }

    /// The servers of a subsystem; pools that would be the same are used again.
    pub(in crate::proxy) fn upstreams_of(&self, subsystem: &Subsystem) -> Upstreams {
        let line = self.line(&subsystem.id);
        let servers = subsystem.upstreams.iter();
        let weights = servers.clone().map(|server| u64::from(server.weight));
        Upstreams {
            servers: servers.map(|server| self.server(subsystem, server, &line)).collect(),
            balancer: Balancer::new(subsystem.balance.clone(), weights.collect()),
            connect: subsystem.timeouts.connect,
            budget: subsystem.retries.as_ref().map(Budget::new),
            queue: (self.settings.share.rounded_up(subsystem.queue.length), subsystem.queue.timeout),
            line,
        }
    }

    fn line(&self, subsystem: &Name) -> Rc<Line> {
        let mut lines = self.lines.borrow_mut();
        let line = lines.entry(subsystem.clone());
        Rc::clone(line.or_insert_with(|| Rc::new(Line::new(self.settings.health.queue(subsystem)))))
    }

    fn server(&self, subsystem: &Subsystem, server: &Upstream, line: &Rc<Line>) -> Server {
        Server {
            pool: self.pool(subsystem, server, line),
            max: server.max_requests.map_or(usize::MAX, |max| self.settings.share.exact(max)),
            slow_start: subsystem.slow_start,
            seed: Key::of(server.authority.as_bytes()).seed(),
        }
    }

    fn pool(&self, subsystem: &Subsystem, server: &Upstream, line: &Rc<Line>) -> Rc<Pool> {
        let tls = self.settings.tls.load().get(&subsystem.id).cloned();
        let way = Way::new(subsystem, server, tls, (&self.names, &self.settings.load));
        let key = (subsystem.id.clone(), server.authority.clone());
        let mut by_server = self.by_server.borrow_mut();
        match by_server.get(&key) {
            Some(pool) if pool.goes(&way) => Rc::clone(pool),
            other => {
                let here = other.map_or_else(|| Rc::new(Here::new(Rc::clone(line))), |pool| Rc::clone(&pool.here));
                let health = self.settings.health.of(&subsystem.id, server);
                let pool = Rc::new(Pool::new(way, health, here, &self.settings));
                by_server.insert(key, Rc::clone(&pool));
                pool
            }
        }
    }

    /// Closes the idle connections to servers that a snapshot no longer names.
    pub(in crate::proxy) fn forget_all_but(&self, snapshot: &Snapshot) {
        let named = |(subsystem, authority): &ServerKey| {
            let mut same = snapshot.subsystems.iter().filter(|known| known.id == *subsystem);
            same.any(|known| known.upstreams.iter().any(|server| server.authority == *authority))
        };
        self.by_server.borrow_mut().retain(|server, _| named(server));
        self.lines.borrow_mut().retain(|subsystem, _| snapshot.subsystems.iter().any(|known| known.id == *subsystem));
        self.settings.health.forget_unused();
    }

    /// Closes connections that have been idle for too long; called from the worker's tick.
    pub(in crate::proxy) fn sweep(&self) {
        for pool in self.by_server.borrow().values() {
            pool.sweep();
        }
        for line in self.lines.borrow().values() {
            line.wake_first(); // a server may be well again, or have another cap
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (whole, of) in [(1, 1), (7, 2), (8, 3), (3, 3), (100, 7)] {
            let parts = (0..of).map(|index| Share { index, of }.exact(whole));
            assert_eq!(parts.sum::<usize>(), whole, "{whole} among {of}");
        }
        let share = Share { index: 1, of: 2 };
        assert_eq!((share.rounded_up(0), share.rounded_up(3)), (0, 2));
    }
}
