//! The state of one traffic thread: its meter, its connection pools, its request ids, its view of the configuration.
//!
//! Guarantees: no other thread shares this state, so no access to it takes a lock.

pub(crate) mod config_view;
pub(crate) mod peer;
mod peer_revalidator;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::CapacitySettings;
use crate::identity::SubsystemTls;
use crate::ledger::Meter;
use crate::lifecycle::Departure;
use crate::limit::LimiterRegistry;
use crate::model::{CommandTrace, Name};
use crate::policy::{MirrorFraction, PolicySnapshot};
use crate::proxy::message::rate_limit_headers::RateLimitHeaders;
use crate::telemetry::{AccessLog, AccessRecord, AccessRecorder, SpanRecorder, Telemetry, TraceExport, WorkerRecorder};

use self::config_view::WorkerConfig;
use self::peer_revalidator::PeerRevalidator;
use super::capacity::connections::ConnectionLimits;
use super::capacity::handshakes::HandshakeLimiter;
use super::capacity::load_shedding::InFlightLimiter;
use super::io::tick_timer::TickTimers;
use super::message::request_id::{RequestId, RequestIdGenerator, TRACEPARENT};
use super::upstream::{PoolSettings, UpstreamHealth, WorkerPools, WorkerShare};
use super::usage_page::UsagePages;

/// The maximum number of responses that one worker compresses at once: a gzip stream has about 300 KiB of state.
pub(crate) const GZIP_STREAMS_MAX: usize = 64;

/// The maximum number of shadow requests (mirrored copies) of one worker, including those whose body is still arriving.
pub(crate) const SHADOW_REQUESTS_MAX: usize = 64;

/// The components that all workers of a gateway share.
#[derive(Clone)]
pub struct TrafficComponents {
    /// The published policy snapshot.
    pub published: Arc<ArcSwap<PolicySnapshot>>,
    /// TLS settings for connections to subsystems, by subsystem.
    pub subsystem_tls: Arc<ArcSwap<HashMap<Name, SubsystemTls>>>,
    /// All rate limits and quotas.
    pub limiters: Arc<LimiterRegistry>,
    /// The health of upstream servers: health checks and outlier ejection.
    pub health: Arc<UpstreamHealth>,
    /// The receiver of metrics.
    pub telemetry: Arc<Telemetry>,
    /// The access log, on or off.
    pub access_log: Arc<AccessLog>,
    /// The export of traces; `None` without `tracing`.
    pub trace_export: Option<Arc<TraceExport>>,
    /// The open connections per listener, department and address.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The thread that makes usage pages.
    pub usage_pages: UsagePages,
    /// Whether the gateway will stop.
    pub departure: Departure,
    /// The source of time.
    pub clock: Clock,
}

/// The settings of one worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// The configured limits of connections, bytes and times (section `capacity`).
    pub capacity: CapacitySettings,
    /// How long the open commands of a deauthorized caller may go on (`shutdown.grace`).
    pub grace: Duration,
    /// The number of workers.
    pub workers: usize,
    /// The index of this worker, from 0.
    pub index: usize,
}

/// The state of one traffic thread.
pub(crate) struct TrafficWorker {
    pub(crate) components: TrafficComponents,
    pub(crate) meter: Meter,
    pub(crate) recorder: WorkerRecorder,
    access_recorder: AccessRecorder,
    span_recorder: SpanRecorder,
    pub(crate) handshakes: HandshakeLimiter,
    pub(crate) in_flight: Rc<InFlightLimiter>,
    pub(crate) capacity: CapacitySettings,
    pub(crate) grace: Duration,
    pub(crate) tick_timers: TickTimers,
    pub(crate) revalidator: PeerRevalidator,
    pub(crate) shadow_permits: Arc<Semaphore>,
    pub(crate) gzip_permits: Arc<Semaphore>,
    pub(crate) rate_limit_headers: RateLimitHeaders,
    current_config: RefCell<Rc<WorkerConfig>>,
    pools: WorkerPools,
    request_ids: RequestIdGenerator,
    aborting: Cell<bool>,
}

impl TrafficWorker {
    pub(crate) fn new(components: TrafficComponents, settings: WorkerSettings, meter: Meter) -> Self {
        let WorkerSettings { capacity, grace, workers, index } = settings;
        let in_flight = Rc::new(InFlightLimiter::new(capacity.in_flight.div_ceil(workers.max(1))));
        let pools = WorkerPools::new(PoolSettings {
            idle_max: capacity.upstream_idle,
            idle_time: capacity.upstream_idle_time,
            health: Arc::clone(&components.health),
            tls: Arc::clone(&components.subsystem_tls),
            in_flight: Rc::clone(&in_flight),
            worker_share: WorkerShare { index, workers },
            kept_pools: Rc::default(),
        });
        let access_log = components.access_log.settings();
        let config = WorkerConfig::new((components.published.load_full(), access_log), &pools, None);
        Self {
            meter,
            recorder: components.telemetry.recorder(),
            access_recorder: AccessRecorder::new(Arc::clone(&components.access_log)),
            span_recorder: SpanRecorder::new(components.trace_export.clone()),
            components,
            handshakes: HandshakeLimiter::new(capacity.handshakes.div_ceil(workers.max(1))),
            in_flight,
            capacity,
            grace,
            tick_timers: TickTimers::new(),
            revalidator: PeerRevalidator::default(),
            shadow_permits: Arc::new(Semaphore::new(SHADOW_REQUESTS_MAX)),
            gzip_permits: Arc::new(Semaphore::new(GZIP_STREAMS_MAX)),
            rate_limit_headers: RateLimitHeaders::default(),
            current_config: RefCell::new(Rc::new(config)),
            pools,
            request_ids: RequestIdGenerator::default(),
            aborting: Cell::new(false),
        }
    }

    /// Runs the periodic work on timers, meter, peers and connection pools. Called every
    /// [`super::io::tick_timer::TICK_INTERVAL`].
    pub(crate) fn tick(&self) {
        self.tick_timers.tick();
        self.meter.tick();
        self.access_recorder.flush();
        self.span_recorder.flush();
        // A worker without commands must also release the configuration that a reload has replaced.
        let config = self.config();
        self.revalidator.tick(&config.snapshot, self.components.clock.wall());
        self.pools.sweep();
    }

    /// This worker's view of the published configuration. Builds a new view after each publication.
    pub(crate) fn config(&self) -> Rc<WorkerConfig> {
        let published = self.components.published.load();
        let config = self.current_config.borrow();
        if Arc::ptr_eq(&published, &config.snapshot) {
            return Rc::clone(&config);
        }
        let view = (Arc::clone(&published), self.components.access_log.settings());
        let renewed = Rc::new(WorkerConfig::new(view, &self.pools, Some(&config)));
        drop(config);
        self.current_config.replace(Rc::clone(&renewed));
        renewed
    }

    /// Takes the record of a command that has ended, for the access log and for traces. If the access log was switched
    /// off meanwhile, it gets none.
    pub(crate) fn log_command(&self, record: Box<AccessRecord>) {
        let config = self.current_config.borrow();
        if record.trace.is_none() {
            if let Some(settings) = &config.access_log {
                self.access_recorder.record(settings, record);
            }
            return;
        }
        if let Some(settings) = &config.access_log {
            self.access_recorder.record(settings, record.clone());
        }
        self.span_recorder.record(record);
    }

    /// The place of a command in its trace; `None` while traces are off. `headers` are those of the request.
    pub(crate) fn begin_trace(&self, request_id: RequestId, headers: Option<&HeaderMap>) -> Option<CommandTrace> {
        let export = self.components.trace_export.as_ref()?;
        let context = request_id.trace_context(headers.and_then(|headers| headers.get(TRACEPARENT)));
        Some(CommandTrace { context, is_sampled: export.samples(&context) })
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        self.request_ids.next_id()
    }

    /// Whether to mirror this request, at random: true for the fraction of requests, on average.
    pub(crate) fn is_sampled(&self, fraction: MirrorFraction) -> bool {
        fraction.contains_random(|least, most| self.request_ids.random_between(least, most))
    }

    /// `time` with a random jitter of ±10 %, so that waits that began together do not end together.
    pub(crate) fn jittered(&self, time: Duration) -> Duration {
        time * self.request_ids.random_between(900, 1100) / 1000
    }

    /// Marks every command that is cut off from now on as aborted by the gateway.
    pub(crate) fn begin_abort(&self) {
        self.aborting.set(true);
    }

    /// Whether the gateway is stopping, so that the gateway is the cause of every cut-off.
    pub(crate) fn is_aborting(&self) -> bool {
        self.aborting.get()
    }
}
