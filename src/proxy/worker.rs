//! What one traffic thread has for itself: its meter, its pools, its ids, its view of the configuration. Nothing of it is
//! shared, so nothing of it is locked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::Capacity;
use crate::identity::SubsystemTls;
use crate::ledger::Meter;
use crate::limit::Limiters;
use crate::model::Name;
use crate::policy::Snapshot;
use crate::telemetry::{Recorder, Telemetry};

use super::alarms::Alarms;
use super::caps::Caps;
use super::compress::COMPRESSING_MAX;
use super::handshakes::Handshakes;
use super::live::Live;
use super::load::Load;
use super::mirror::COPIES_MAX;
use super::peers::Peers;
use super::request_id::{RequestId, RequestIds};
use super::seats::Seats;
use super::upstream::{PoolSettings, Pools, Share, UpstreamHealth};

/// What the workers of a gateway share, or are made from.
#[derive(Clone)]
pub struct WorkerParts {
    /// The snapshot that is live.
    pub published: Arc<ArcSwap<Snapshot>>,
    /// How subsystems are met over TLS.
    pub subsystem_tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    /// All limits.
    pub limiters: Arc<Limiters>,
    /// Which servers are well.
    pub health: Arc<UpstreamHealth>,
    /// Where measurements go.
    pub telemetry: Arc<Telemetry>,
    /// How many connections each holder has.
    pub caps: Arc<Caps>,
    /// Time.
    pub clock: Clock,
    /// What the gateway carries at most.
    pub capacity: Capacity,
    /// How long commands of a caller that is sent away may go on (`shutdown.grace`).
    pub grace: Duration,
    /// How many workers there are.
    pub workers: usize,
    /// Which of them this is, from 0.
    pub index: usize,
}

/// One traffic thread's own things.
pub(super) struct Worker {
    pub(super) meter: Meter,
    pub(super) limiters: Arc<Limiters>,
    pub(super) recorder: Recorder,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) caps: Arc<Caps>,
    pub(super) handshakes: Handshakes,
    pub(super) load: Rc<Load>,
    pub(super) clock: Clock,
    pub(super) capacity: Capacity,
    pub(super) grace: Duration,
    pub(super) alarms: Alarms,
    pub(super) peers: Peers,
    pub(super) copies: Seats,
    pub(super) compressing: Seats,
    published: Arc<ArcSwap<Snapshot>>,
    live: RefCell<Rc<Live>>,
    pools: Pools,
    ids: RequestIds,
    ending: Cell<bool>,
}

impl Worker {
    pub(super) fn new(parts: WorkerParts, meter: Meter) -> Self {
        let load = Rc::new(Load::new(parts.capacity.in_flight.div_ceil(parts.workers.max(1))));
        let pools = Pools::new(PoolSettings {
            idle_max: parts.capacity.upstream_idle,
            idle_time: parts.capacity.upstream_idle_time,
            health: parts.health,
            tls: parts.subsystem_tls,
            load: Rc::clone(&load),
            share: Share { index: parts.index, of: parts.workers },
        });
        let live = Live::new(parts.published.load_full(), &pools);
        Self {
            meter,
            limiters: parts.limiters,
            recorder: parts.telemetry.recorder(),
            telemetry: parts.telemetry,
            caps: parts.caps,
            handshakes: Handshakes::new(parts.capacity.handshakes.div_ceil(parts.workers.max(1))),
            clock: parts.clock,
            load,
            capacity: parts.capacity,
            grace: parts.grace,
            alarms: Alarms::new(),
            peers: Peers::default(),
            copies: Seats::new(COPIES_MAX),
            compressing: Seats::new(COMPRESSING_MAX),
            published: parts.published,
            live: RefCell::new(Rc::new(live)),
            pools,
            ids: RequestIds::default(),
            ending: Cell::new(false),
        }
    }

    /// Looks after the books, the waits and the pools; called every [`super::alarms::TICK`].
    pub(super) fn tick(&self) {
        self.alarms.tick();
        self.meter.tick();
        let live = self.live(); // a worker without commands must let go of what a reload has removed, too
        self.peers.tick(&live.snapshot, self.clock.wall());
        self.pools.sweep();
    }

    /// The configuration that is live now, as this worker sees it.
    pub(super) fn live(&self) -> Rc<Live> {
        let published = self.published.load();
        let live = self.live.borrow();
        if Arc::ptr_eq(&published, &live.snapshot) {
            return Rc::clone(&live);
        }
        drop(live);
        let renewed = Rc::new(Live::new(Arc::clone(&published), &self.pools));
        self.live.replace(Rc::clone(&renewed));
        renewed
    }

    pub(super) fn next_request_id(&self) -> RequestId {
        self.ids.next()
    }

    /// Whether this one is among so many of a hundred, by chance.
    pub(super) fn is_one_of(&self, percent: u8) -> bool {
        percent >= 100 || self.ids.between(1, 100) <= u32::from(percent)
    }

    /// A time give or take a tenth, so that what began together does not end together.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        time * self.ids.between(900, 1100) / 1000
    }

    /// From now on, what is cut off is our doing.
    pub(super) fn end(&self) {
        self.ending.set(true);
    }

    /// Whether the gateway is ending, so that what is cut off now is our doing.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.get()
    }
}
