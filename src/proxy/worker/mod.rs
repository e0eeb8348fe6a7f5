//! What one traffic thread has for itself: its meter, its pools, its ids, its view of the configuration. Nothing of it is
//! shared, so nothing of it is locked.

pub(crate) mod config_view;
pub(crate) mod peer;
mod peer_revalidator;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::config::CapacitySettings;
use crate::identity::SubsystemTls;
use crate::ledger::Meter;
use crate::limit::LimiterRegistry;
use crate::model::Name;
use crate::policy::PolicySnapshot;
use crate::telemetry::{Telemetry, WorkerRecorder};

use self::config_view::WorkerConfig;
use self::peer_revalidator::PeerRevalidator;
use super::capacity::connections::ConnectionLimits;
use super::capacity::handshakes::HandshakeLimiter;
use super::capacity::in_flight::InFlightLimiter;
use super::capacity::local_semaphore::LocalSemaphore;

use super::io::tick_timer::TickTimers;
use super::message::request_id::{RequestId, RequestIdGenerator};
use super::upstream::{PoolSettings, UpstreamHealth, WorkerPools, WorkerShare};

/// What the workers of a gateway share, or are made from.
#[derive(Clone)]
pub struct WorkerParts {
    /// The snapshot that is live.
    pub published: Arc<ArcSwap<PolicySnapshot>>,
    /// How subsystems are met over TLS.
    pub subsystem_tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    /// All limits.
    pub limiters: Arc<LimiterRegistry>,
    /// Which servers are well.
    pub health: Arc<UpstreamHealth>,
    /// Where measurements go.
    pub telemetry: Arc<Telemetry>,
    /// How many connections each holder has.
    pub connection_limits: Arc<ConnectionLimits>,
    /// Time.
    pub clock: Clock,
    /// What the gateway carries at most.
    pub capacity: CapacitySettings,
    /// How long commands of a caller that is sent away may go on (`shutdown.grace`).
    pub grace: Duration,
    /// How many workers there are.
    pub workers: usize,
    /// Which of them this is, from 0.
    pub index: usize,
}

/// One traffic thread's own things.
pub(crate) struct TrafficWorker {
    pub(crate) meter: Meter,
    pub(crate) limiters: Arc<LimiterRegistry>,
    pub(crate) recorder: WorkerRecorder,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) connection_limits: Arc<ConnectionLimits>,
    pub(crate) handshakes: HandshakeLimiter,
    pub(crate) in_flight: Rc<InFlightLimiter>,
    pub(crate) clock: Clock,
    pub(crate) capacity: CapacitySettings,
    pub(crate) grace: Duration,
    pub(crate) tick_timers: TickTimers,
    pub(crate) revalidator: PeerRevalidator,
    pub(crate) shadow_permits: LocalSemaphore,
    pub(crate) gzip_permits: LocalSemaphore,
    published: Arc<ArcSwap<PolicySnapshot>>,
    current_config: RefCell<Rc<WorkerConfig>>,
    pools: WorkerPools,
    request_ids: RequestIdGenerator,
    aborting: Cell<bool>,
}

impl TrafficWorker {
    pub(crate) fn new(parts: WorkerParts, meter: Meter) -> Self {
        let in_flight = Rc::new(InFlightLimiter::new(parts.capacity.in_flight.div_ceil(parts.workers.max(1))));
        let pools = WorkerPools::new(PoolSettings {
            idle_max: parts.capacity.upstream_idle,
            idle_time: parts.capacity.upstream_idle_time,
            health: parts.health,
            tls: parts.subsystem_tls,
            in_flight: Rc::clone(&in_flight),
            worker_share: WorkerShare { index: parts.index, workers: parts.workers },
        });
        let config = WorkerConfig::new(parts.published.load_full(), &pools);
        Self {
            meter,
            limiters: parts.limiters,
            recorder: parts.telemetry.recorder(),
            telemetry: parts.telemetry,
            connection_limits: parts.connection_limits,
            handshakes: HandshakeLimiter::new(parts.capacity.handshakes.div_ceil(parts.workers.max(1))),
            clock: parts.clock,
            in_flight,
            capacity: parts.capacity,
            grace: parts.grace,
            tick_timers: TickTimers::new(),
            revalidator: PeerRevalidator::default(),
            shadow_permits: LocalSemaphore::new(SHADOW_REQUESTS_MAX),
            gzip_permits: LocalSemaphore::new(GZIP_STREAMS_MAX),
            published: parts.published,
            current_config: RefCell::new(Rc::new(config)),
            pools,
            request_ids: RequestIdGenerator::default(),
            aborting: Cell::new(false),
        }
    }

    /// Looks after the books, the waits and the pools; called every [`super::io::tick_timer::TICK_INTERVAL`].
    pub(crate) fn tick(&self) {
        self.tick_timers.tick();
        self.meter.tick();
        let config = self.config(); // a worker without commands must let go of what a reload has removed, too
        self.revalidator.tick(&config.snapshot, self.clock.wall());
        self.pools.sweep();
    }

    /// The configuration that is live now, as this worker sees it.
    pub(crate) fn config(&self) -> Rc<WorkerConfig> {
        let published = self.published.load();
        let config = self.current_config.borrow();
        if Arc::ptr_eq(&published, &config.snapshot) {
            return Rc::clone(&config);
        }
        drop(config);
        let renewed = Rc::new(WorkerConfig::new(Arc::clone(&published), &self.pools));
        self.current_config.replace(Rc::clone(&renewed));
        renewed
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        self.request_ids.next_id()
    }

    /// Whether this one is among so many of a hundred, by chance.
    pub(crate) fn sample_percent(&self, percent: u8) -> bool {
        percent >= 100 || self.request_ids.random_between(1, 100) <= u32::from(percent)
    }

    /// A time give or take a tenth, so that what began together does not end together.
    pub(crate) fn jittered(&self, time: Duration) -> Duration {
        time * self.request_ids.random_between(900, 1100) / 1000
    }

    /// From now on, what is cut off is our doing.
    pub(crate) fn begin_abort(&self) {
        self.aborting.set(true);
    }

    /// Whether the gateway is ending, so that what is cut off now is our doing.
    pub(crate) fn is_aborting(&self) -> bool {
        self.aborting.get()
    }
}

/// Answers that one worker compresses at once: each has some 300 KiB of state.
pub(crate) const GZIP_STREAMS_MAX: usize = 64;

/// Copies that one worker holds at once, those included whose body is still coming.
pub(crate) const SHADOW_REQUESTS_MAX: usize = 64;
